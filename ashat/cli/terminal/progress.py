"""Show on the terminal how a flow in this process gets on: its steps, its bytes, its checks, its turn in a queue."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ashat.cli.terminal import output
from ashat.cli.terminal.output import CHECK_MARKS
from ashat.protocol.messages import Lease

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.status import Status

    from tasks.checks.kit.base import CheckResult

_STEPS = 4
_QUARTER = 25


@contextmanager
def waiting_for(what: str, *, silence: float = 3.0, pause: float = 10.0) -> Iterator[None]:
    """Say on stderr that `what` is being waited for, where the `with` block takes longer than `silence` seconds, and
    again after each `pause`. Nothing may be asked or shown within the block."""
    began, ended = time.monotonic(), threading.Event()

    def speak() -> None:
        wait = silence
        while not ended.wait(wait):
            output.note(f"  … {what}: {time.monotonic() - began:.0f} s so far")
            wait = pause

    watch = threading.Thread(target=speak, name="waiting", daemon=True)
    watch.start()
    try:
        yield
    finally:
        ended.set()
        watch.join()


class TerminalReporter:
    """Shows a flow's progress on a terminal with a progress bar, or on anything else with plain lines.

    Where nothing was shown for `silence` seconds, it says what is being done, and for how long: on a terminal in a line
    that goes with the next one, elsewhere again after `pause` seconds. Close it at the end.
    """

    def __init__(self, *, silence: float = 3.0, pause: float = 10.0) -> None:
        self._lock = threading.RLock()
        self._animated = sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", None)
        self._bar: tuple[Progress, TaskID] | None = None
        self._quarter = -1
        self._waiting_for = ""
        self._silence, self._pause = silence, pause
        self._doing: list[tuple[str, float]] = []
        self._speak_at = 0.0
        self._status: Status | None = None
        self._ended = threading.Event()
        self._watch: threading.Thread | None = None

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Say `what` is being done as long as the `with` block runs, whenever nothing else was shown for a while."""
        entry = (what, time.monotonic())
        with self._lock:
            self._doing.append(entry)
            self._heard()
            if self._watch is None:
                self._watch = threading.Thread(target=self._break_silence, name="progress", daemon=True)
                self._watch.start()
        try:
            yield
        finally:
            with self._lock:
                self._doing.remove(entry)
                self._quieten()

    def step(self, number: int, title: str) -> None:
        """Show that the plan's step `number` begins."""
        self.say(f"▶ Step {number}/{_STEPS}: {title}")

    def say(self, line: str) -> None:
        """Show a line."""
        with self._lock:
            self._quieten()
            self._drop_bar()
            output.say(line)

    def moved(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes have arrived."""
        with self._lock:
            if self._animated:
                self._quieten()
                self._move_bar(done, total)
                return
            quarter = done * 100 // total // _QUARTER if total else 4
            if quarter > self._quarter:
                self._quarter = quarter
                self._quieten()
                output.say(f"  {output.size(done)} of {output.size(total)}")

    def check(self, result: CheckResult) -> None:
        """Show how a check ended."""
        self.say(f"{CHECK_MARKS[result.outcome]} {result.title}: {result.seen}")

    def waiting(self, lease: Lease) -> None:
        """Show that this update waits for its turn, once for each update that has the server's `lease`."""
        if lease.holder != self._waiting_for:
            self._waiting_for = lease.holder
            self.say(f"⏳ Waiting for {lease.holder} ({lease.who}: {lease.why}, since {lease.since:%H:%M:%S} UTC)")

    def close(self) -> None:
        """Leave the progress bar as it is, begin a new line, and say nothing more by itself."""
        self._ended.set()
        with self._lock:
            self._quieten()
            self._drop_bar()

    def _drop_bar(self) -> None:
        bar, self._bar, self._quarter = self._bar, None, -1
        if bar is not None:
            bar[0].stop()

    def _heard(self) -> None:
        self._speak_at = time.monotonic() + self._silence

    def _quieten(self) -> None:
        """Take the line away that says what is being done, since something else is shown."""
        self._heard()
        status, self._status = self._status, None
        if status is not None:
            status.stop()

    def _break_silence(self) -> None:
        while not self._ended.wait(min(self._silence, 1.0)):
            with self._lock:
                if self._doing and time.monotonic() >= self._speak_at and not self._ended.is_set():
                    self._tell(*self._doing[-1])

    def _tell(self, what: str, since: float) -> None:
        told = f"{what}: {time.monotonic() - since:.0f} s so far"
        if not self._animated:
            self._speak_at = time.monotonic() + self._pause
            output.say(f"  … {told}")
        elif self._bar is None:  # which shows by itself that it goes on
            from rich.text import Text

            self._status = self._status or _new_status()
            self._status.update(Text(output.clean(told)))

    def _move_bar(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = _new_bar(total)
        bar, task = self._bar
        bar.update(task, completed=done, total=total)
        if done >= total:
            self._drop_bar()


def _new_bar(total: int) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(highlight=False))
    task = bar.add_task("", total=total)
    bar.start()
    return bar, task


def _new_status() -> Status:
    from rich.console import Console
    from rich.status import Status

    status = Status("", console=Console(highlight=False))
    status.start()
    return status
