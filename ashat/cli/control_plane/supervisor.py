"""`deploy up`: the process that runs Prefect's server and a worker for each pool, and starts again what dies.

Prefect has no such process: `prefect server start --background` is not watched, and there is no such thing for workers.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from ashat.cli.control_plane.children import child_environment, children, provision_command
from ashat.cli.control_plane.connect import READY_TIMEOUT, Say
from ashat.cli.control_plane.prefect_schema import note_version, require_readable
from ashat.cli.control_plane.state import (
    LOCK_FILE,
    LOG_FILE,
    ControlState,
    end_processes,
    ensure_password,
    read_state,
    write_state,
)
from ashat.cli.terminal.interrupts import on_ending_signals
from ashat.common.processes import ProcessRef, free_port, last_words, start
from ashat.common.rotation import rotate_in_place
from ashat.errors import ControlPlaneError
from ashat.settings import Settings

_FIRST_DELAY, _LONGEST_DELAY = 1.0, 30.0
_STEADY = 60.0
_HOPELESS = 3
_TICK = 0.2
_TRIM_SECONDS = 60.0


class AlreadyRunningError(ControlPlaneError):
    """Another supervisor has this home's control plane."""


@dataclass
class Child:
    """A process that is kept running. `delay` is how many seconds to wait before it is started again."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    popen: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    starts: int = 0
    due: float = 0.0
    delay: float = _FIRST_DELAY

    def start(self) -> None:
        """Start it now, its output appended to its log."""
        self.popen = start(self.command, self.log, env=self.environment, cwd=self.log.parent, umask=0o077)
        self.started = time.monotonic()
        self.starts += 1

    def died(self) -> bool:
        """Tell whether it ran and has ended since this was last asked; then set the time of its next start."""
        if self.popen is None or self.popen.poll() is None:
            return False
        self.popen = None
        now = time.monotonic()
        if now - self.started > _STEADY:
            self.delay = _FIRST_DELAY
        self.due = now + self.delay
        self.delay = min(self.delay * 2, _LONGEST_DELAY)
        return True


class Supervisor:
    """Runs the control plane of one home until a signal stops it."""

    def __init__(self, settings: Settings, say: Say, prefect_file: Path | None = None) -> None:
        self._settings = settings
        self._say = say
        self._prefect_file = prefect_file
        self._home = settings.ensure_home().resolve()
        self._logs = self._home / "logs"
        self._logs.mkdir(mode=0o700, exist_ok=True)
        self._stop = threading.Event()
        self._children: list[Child] = []

    def run(self) -> None:
        """Start everything, keep it running, and stop it all on SIGTERM, SIGINT or SIGHUP.

        Raises:
            AlreadyRunningError: this home has a control plane.
            ControlPlaneError: it could not be started; the message says why and where the log is.
        """
        with self._only_one(), on_ending_signals(lambda _: self._stop.set()):
            left = end_processes(self._home)
            if left:
                self._say(f"Ended {left} processes that an earlier control plane left behind.")
            before = read_state(self._home)
            state = ControlState(port=free_port(before.port if before else 0), supervisor=ProcessRef.of(os.getpid()))
            require_readable(self._home)
            ensure_password(self._home)
            write_state(self._home, state)
            try:
                self._bring_up(state)
                self._watch()
            finally:
                end_processes(self._home)
                write_state(self._home, ControlState(port=state.port))

    def _bring_up(self, state: ControlState) -> None:
        provision = self._provision(state)
        for name, (command, environment) in children(self._settings, state, self._prefect_file).items():
            self._children.append(Child(name, command, environment, self._log(name)))
        deadline = time.monotonic() + READY_TIMEOUT
        while (code := provision.poll()) is None and not self._stop.wait(_TICK / 4):
            self._restart_the_dead()
            server = self._children[0]
            if server.starts > _HOPELESS:
                raise ControlPlaneError(f"Prefect's server does not start: {self._why(server.name)}")
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"It was not ready within {READY_TIMEOUT:.0f} s; see {server.log}.")
        if code:
            raise ControlPlaneError(self._why("provision"))
        if not self._stop.is_set():
            note_version(self._home)
            write_state(self._home, replace(state, ready=True))
            self._say(f"Control plane ready: {state.ui_url}")

    def _watch(self) -> None:
        trim_due = 0.0
        while not self._stop.wait(_TICK):
            self._restart_the_dead()
            if time.monotonic() >= trim_due:
                trim_due = time.monotonic() + _TRIM_SECONDS
                for log in (self._home / LOG_FILE, *(child.log for child in self._children)):
                    rotate_in_place(log)

    def _restart_the_dead(self) -> None:
        for child in self._children:
            if child.died():
                self._say(f"{child.name} ended; starting it again (its log: {child.log}).")
            if child.popen is None and time.monotonic() >= child.due:
                child.start()

    def _provision(self, state: ControlState) -> subprocess.Popen[bytes]:
        first = [] if (self._home / "prefect" / "prefect.db").exists() else ["--first"]
        log = self._log("provision")
        log.unlink(missing_ok=True)
        environment = child_environment(self._settings, state)
        return start(provision_command(self._prefect_file, *first), log, env=environment, cwd=self._home)

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _why(self, name: str) -> str:
        return last_words(self._log(name)) or f"it ended without a word; see {self._log(name)}."

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        try:
            with FileLock(self._home / LOCK_FILE, timeout=0, mode=0o600):
                yield
        except Timeout:
            raise AlreadyRunningError("The control plane of this home runs already; deploy down stops it.") from None
