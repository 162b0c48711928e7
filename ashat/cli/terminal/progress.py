"""Show on the terminal how a flow in this process gets on: its steps, its bytes, its checks, its turn in a queue."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from ashat.cli.terminal import output
from ashat.cli.terminal.output import CHECK_MARKS
from ashat.protocol.messages import Lease

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from tasks.checks.kit.base import CheckResult

_STEPS = 4
_QUARTER = 25


class TerminalReporter:
    """Shows a flow's progress on a terminal with a progress bar, or on anything else with plain lines."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._animated = sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", None)
        self._bar: tuple[Progress, TaskID] | None = None
        self._quarter = -1
        self._waiting_for = ""

    def step(self, number: int, title: str) -> None:
        """Show that the plan's step `number` begins."""
        self.say(f"▶ Step {number}/{_STEPS}: {title}")

    def say(self, line: str) -> None:
        """Show a line."""
        with self._lock:
            self.close()
            output.say(line)

    def moved(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes have arrived."""
        with self._lock:
            if self._animated:
                self._move_bar(done, total)
                return
            quarter = done * 100 // total // _QUARTER if total else 4
            if quarter > self._quarter:
                self._quarter = quarter
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
        """Leave the progress bar as it is, and begin a new line."""
        with self._lock:
            bar, self._bar, self._quarter = self._bar, None, -1
            if bar is not None:
                bar[0].stop()

    def _move_bar(self, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = _new_bar(total)
        bar, task = self._bar
        bar.update(task, completed=done, total=total)
        if done >= total:
            self.close()


def _new_bar(total: int) -> tuple[Progress, TaskID]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(highlight=False))
    task = bar.add_task("", total=total)
    bar.start()
    return bar, task
