"""`deploy up`: the process that runs Prefect's server and a worker for each pool, and starts again what dies."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import IO

from filelock import FileLock, Timeout

from ashat.cli.control_plane.connect import READY_TIMEOUT, Say, child_environment, this_process
from ashat.cli.control_plane.state import LOCK_FILE, ControlState, ProcessRef, end_processes, read_state, write_state
from ashat.errors import ControlPlaneError
from ashat.settings import Settings

POOLS = ("alpha", "control")
# A person waits for what the control pool does; alpha's runs are schedules and UI pushes.
_QUERY_SECONDS = {"alpha": "2", "control": "1"}
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 30.0
_STEADY = 60.0
_HOPELESS = 3
_TICK = 0.2
_TRIM_SECONDS = 60.0
_LOG_LIMIT = 10 * 1024 * 1024
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


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
    delay: float = field(default=_FIRST_DELAY)

    def start(self) -> ProcessRef:
        """Start it now, its output appended to its log."""
        with _open_log(self.log) as log:
            self.popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.log.parent,
                umask=0o077,
                start_new_session=True,
            )
        self.started = time.monotonic()
        self.starts += 1
        reference = ProcessRef.of(self.popen.pid)
        return reference or ProcessRef(self.popen.pid, time.time())

    def died(self) -> bool:
        """Whether it ran and has ended since it was last looked at; then the time of its next start is set."""
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
    """Runs the control plane of one home until it is told to stop."""

    def __init__(self, settings: Settings, say: Say, prefect_file: Path | None = None) -> None:
        self._settings = settings
        self._say = say
        self._prefect_file = prefect_file
        self._home = settings.ensure_home().resolve()
        self._stop = threading.Event()
        self._children: dict[str, Child] = {}
        self._first = False

    def run(self) -> None:
        """Start everything, keep it running, and stop it all on SIGTERM, SIGINT or SIGHUP.

        Raises:
            AlreadyRunningError: this home has a control plane.
            ControlPlaneError: it could not be started; the message says why and where the log is.
        """
        with self._only_one(), self._until_signalled():
            left = end_processes(self._home, read_state(self._home))
            if left:
                self._say(f"Ended {left} processes that an earlier control plane left behind.")
            self._first = not (self._home / "prefect" / "prefect.db").exists()
            self._state = ControlState(port=self._choose_port(), supervisor=this_process())
            write_state(self._home, self._state)
            try:
                self._bring_up()
                self._watch()
            finally:
                end_processes(self._home, self._state)
                write_state(self._home, ControlState(port=self._state.port))

    def _bring_up(self) -> None:
        environment = child_environment(self._settings, self._state)
        self._start(Child("server", _server_command(self._state.port), environment, self._log("server")))
        provision = self._provision(environment)
        for pool in POOLS:
            command = [sys.executable, "-m", "ashat.cli.control_plane.worker", pool]
            worker = environment | {"PREFECT_WORKER_QUERY_SECONDS": _QUERY_SECONDS[pool]}
            self._start(Child(f"worker-{pool}", command, worker, self._log(f"worker-{pool}")))
        deadline = time.monotonic() + READY_TIMEOUT
        while (code := provision.poll()) is None and not self._stop.wait(_TICK / 4):
            self._restart_the_dead()
            if self._children["server"].starts > _HOPELESS:
                raise ControlPlaneError(f"Prefect's server does not start: {_last_words(self._log('server'))}")
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"It was not ready within {READY_TIMEOUT:.0f} s; see {self._log('server')}.")
        if code:
            raise ControlPlaneError(_last_words(self._log("provision")))
        if not self._stop.is_set():
            self._state = replace(self._state, ready=True)
            write_state(self._home, self._state)
            self._say(f"Control plane ready: {self._state.ui_url}")

    def _watch(self) -> None:
        trim_due = 0.0
        while not self._stop.wait(_TICK):
            self._restart_the_dead()
            if time.monotonic() >= trim_due:
                trim_due = time.monotonic() + _TRIM_SECONDS
                for child in self._children.values():
                    _trim(child.log)

    def _restart_the_dead(self) -> None:
        for child in self._children.values():
            if child.died():
                self._say(f"{child.name} ended; starting it again (its log: {child.log}).")
            if child.popen is None and time.monotonic() >= child.due:
                self._start(child)

    def _start(self, child: Child) -> None:
        self._children[child.name] = child
        started = child.start()
        self._state = replace(self._state, processes=self._state.processes | {child.name: started})
        write_state(self._home, self._state)

    def _provision(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "ashat.cli.control_plane.provision", *POOLS]
        if self._first:
            command.append("--first")
        if self._prefect_file is not None:
            command += ["--prefect-file", str(self._prefect_file.resolve())]
        self._log("provision").unlink(missing_ok=True)
        with _open_log(self._log("provision")) as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self._home,
                start_new_session=True,
            )

    def _choose_port(self) -> int:
        state = read_state(self._home)
        for port in (state.port if state else 0, 0):
            with contextlib.suppress(OSError), socket.socket() as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(("127.0.0.1", port))
                return int(listener.getsockname()[1])
        raise ControlPlaneError("No port is free on 127.0.0.1.")

    def _log(self, name: str) -> Path:
        directory = self._home / "logs"
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory / f"{name}.log"

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[None]:
        lock = FileLock(self._home / LOCK_FILE, mode=0o600)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise AlreadyRunningError("The control plane of this home runs already; deploy down stops it.") from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def _until_signalled(self) -> Iterator[None]:
        def told(number: int, frame: FrameType | None) -> None:
            self._stop.set()

        before = {number: signal.signal(number, told) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _server_command(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


def _open_log(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def _trim(log: Path) -> None:
    """Keep a log that is over the limit as `.1`. Whoever still writes to it appends, so it may be cut under them."""
    if log.stat().st_size > _LOG_LIMIT:
        shutil.copy2(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"Preparing Prefect failed; see {log}."
