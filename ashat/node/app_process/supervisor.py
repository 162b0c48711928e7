"""Runs the operator's `[app] command` in the current release, and runs it again when it crashes.

The program is a process group of its own, and writes its log into a file rather than a pipe, so that it outlives a
killed node. Its pid and the time it was created are recorded; the next process of the node takes it over if it runs
the current release, and ends it otherwise. What was started but not yet recorded is found by a mark in its environment.
"""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import psutil

from ashat.common.processes import (
    ProcessRef,
    end,
    free_port,
    has_variable,
    kill_group,
    start,
    wait_ended,
    with_variable,
)
from ashat.common.rotation import rotate_in_place
from ashat.common.shortage import reason
from ashat.node.app_process.process import Program, ProgramError, program_environment
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database, from_text, now, to_text
from ashat.node.store.releases import Release
from ashat.protocol.messages import App

log = logging.getLogger("ashat.node")

_MARK = "ASHAT_NODE_INSTANCE"
_RESTARTS = "app_restarts"
_CALM = 60.0


class _Foreign:
    """A process that is no child of ours; how it ends is not ours to know, only that it does."""

    def __init__(self, process: psutil.Process) -> None:
        self.pid = process.pid
        self._process = process

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within `timeout` seconds.
        """
        if not wait_ended(self._process, timeout):
            raise subprocess.TimeoutExpired("the program", timeout or 0)


_Process: TypeAlias = subprocess.Popen[bytes] | _Foreign


@dataclass
class _Run:
    """One start of one release, with its restarts after crashes.

    `began` is `started_at` on the monotonic clock, None where an earlier process of the node started it;
    `healthy_after` counts seconds from there.
    """

    release: Release
    port: int
    process: _Process
    started_at: datetime
    began: float | None
    healthy_after: float | None = None
    status: Literal["running", "backing-off"] = "running"
    restarts: int = 0
    delay: float = 0.0
    failure: str | None = None


class SupervisedProgram(Program):
    """The program as a child of this node.

    `_turn` is held for as long as a change takes; `_lock` only for a moment, so that `state` never waits for a
    program that takes its time to end.
    """

    def __init__(self, config: NodeConfig, db: Database) -> None:
        self._config = config
        self._db = db
        self._turn = threading.Lock()
        self._lock = threading.RLock()
        self._replaced = threading.Condition(self._lock)
        self._run: _Run | None = None
        self._log = config.data / "app.log"
        self._mark = db.get_meta("instance") or uuid.uuid4().hex
        db.set_meta("instance", self._mark)
        config.app_data.mkdir(mode=0o700, exist_ok=True)

    @property
    def url(self) -> str | None:
        """Where the program answers: as configured, or on loopback at its port; None while nothing runs."""
        with self._lock:
            if self._run is None:
                return None
            port = str(self._run.port)
        return self._config.app.url.replace("{port}", port) or f"http://127.0.0.1:{port}"

    def restart(self, release: Release | None, previous: str | None) -> None:
        """End what runs and run `release` (None: nothing).

        Raises:
            ProgramError: the command cannot be run.
        """
        with self._turn:
            self._end_all()
            if release is not None:
                self._begin(release)

    def adopt(self, release: Release | None) -> bool:
        """Tell whether an earlier process of this node started what runs, from this directory; then take it over."""
        if release is None:
            return False
        with self._turn:
            if self._run is not None:
                return self._run.release == release
            return self._take_over(release)

    def failure(self) -> str | None:
        """Say how the program ended since it was last started on purpose; None while it did not."""
        with self._lock:
            return self._run.failure if self._run else None

    def state(self) -> App:
        """Return what is known of the program without asking it."""
        with self._lock:
            run = self._run
            if run is None:
                return App(status="stopped", healthy=False)
            return App(
                status=run.status,
                healthy=False,
                pid=run.process.pid if run.status == "running" else None,
                restarts=run.restarts,
                started_at=run.started_at,
                url=self.url,
                healthy_after_ms=None if run.healthy_after is None else round(run.healthy_after * 1000),
                failure=run.failure or "",
            )

    def note_healthy(self, started_at: datetime | None) -> None:
        """Keep how long the latest start took, if that is the one that was seen healthy."""
        with self._lock:
            run = self._run
            if run and run.began is not None and run.healthy_after is None and run.started_at == started_at:
                run.healthy_after = time.monotonic() - run.began

    def upkeep(self) -> None:
        """Keep the log from growing without end."""
        rotate_in_place(self._log)

    def close(self) -> None:
        """End the program."""
        self.restart(None, None)

    def _begin(self, release: Release) -> None:
        port = self._choose_port()
        with self._lock:
            at, began = now(), time.monotonic()
            with self._recording():
                self._db.set_meta(_RESTARTS, "0")
            self._run = _Run(release, port, self._spawn(release, port, at), at, began)
            self._watch_in_background(self._run)

    def _spawn(self, release: Release, port: int, at: datetime) -> subprocess.Popen[bytes]:
        values = {"{port}": str(port), "{release}": str(release.path), "{data}": str(self._config.app_data)}
        command = [_fill(word, values) for word in self._config.app.command]
        own = {
            _MARK: self._mark,
            "ASHAT_BUNDLE": release.bundle,
            "ASHAT_RELEASE": str(release.path),
            "RAOS_PORT": str(port),
            "RAOS_DATA": str(self._config.app_data),
        }
        environment = {key: _fill(word, values) for key, word in program_environment(self._config, own).items()}
        rotate_in_place(self._log)
        try:
            process = start(command, self._log, env=environment, cwd=release.path)
        except OSError as error:
            raise ProgramError(f"{command[0]!r} cannot be run: {reason(error)}") from error
        with self._recording():
            self._record(process.pid, release, port, at)
        return process

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Go on where what runs cannot be recorded: the node's next process ends what it does not know, and starts it
        anew."""
        try:
            yield
        except (sqlite3.Error, OSError, psutil.Error) as error:
            log.warning("what runs is not recorded: %s", reason(error, self._config.data))

    def _record(self, pid: int, release: Release, port: int, at: datetime) -> None:
        process = ProcessRef.of(pid)
        if process is None:
            return
        with self._db.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO program (only, pid, created, release, port, started_at)"
                " VALUES (1, ?, ?, ?, ?, ?)",
                (pid, process.created, release.path.name, port, to_text(at)),
            )

    def _take_over(self, release: Release) -> bool:
        row = self._db.one("SELECT * FROM program")
        if row is None or row["release"] != release.path.name:
            return False
        process = ProcessRef(row["pid"], row["created"]).process()
        if process is None or not has_variable(process, _MARK, self._mark):
            return False
        with self._lock:
            restarts = int(self._db.get_meta(_RESTARTS) or 0)
            started_at = from_text(row["started_at"])
            self._run = _Run(release, row["port"], _Foreign(process), started_at, None, restarts=restarts)
            self._watch_in_background(self._run)
        log.info("took over the running program, pid %d", process.pid)
        return True

    def _watch_in_background(self, run: _Run) -> None:
        threading.Thread(target=self._watch, args=(run,), name="program", daemon=True).start()

    def _watch(self, run: _Run) -> None:
        """Start the program again, later each time, whenever it ends by itself."""
        began = time.monotonic()
        while True:
            code = self._wait(run.process)
            with self._lock:
                if self._run is not run:
                    return
                with suppress(OSError):
                    kill_group(run.process.pid)
                run.failure = f"the program ended by itself{_how(code)} after {time.monotonic() - began:.1f} s"
                if not self._back_off(run, calm=time.monotonic() - began > _CALM):
                    return
                began = time.monotonic()

    def _wait(self, process: _Process) -> int | None:
        """Wait until it has ended; its exit code. Nothing that the machine lacks ends the waiting."""
        while True:
            try:
                return process.wait()
            except (OSError, psutil.Error) as error:
                log.warning("the program cannot be watched: %s", reason(error))
                time.sleep(self._config.app.restart_delay)

    def _back_off(self, run: _Run, *, calm: bool) -> bool:
        """Wait and start `run` again, as often as it takes; False when it was replaced meanwhile."""
        app = self._config.app
        if calm:
            run.delay = 0.0
        run.status = "backing-off"
        while True:
            run.delay = min(run.delay * 2 or app.restart_delay, app.restart_delay_limit)
            log.warning("%s; it starts again in %g s", run.failure, run.delay)
            if self._replaced.wait_for(lambda: self._run is not run, timeout=run.delay):
                return False
            run.restarts += 1
            with self._recording():
                self._db.set_meta(_RESTARTS, str(run.restarts))
            run.started_at, run.began, run.healthy_after = now(), time.monotonic(), None
            try:
                run.process = self._spawn(run.release, run.port, run.started_at)
            except Exception as error:  # noqa: BLE001  # whatever it is, the next try may do better
                run.failure = reason(error)
                continue
            run.status = "running"
            return True

    def _end_all(self) -> None:
        with self._lock:
            run, self._run = self._run, None
            self._replaced.notify_all()
        if run is not None and run.status == "running":
            self._end(run.process)
        self._end_strays()
        with self._recording(), self._db.transaction() as connection:
            connection.execute("DELETE FROM program")

    def _end(self, process: _Process) -> None:
        try:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(self._config.app.stop_timeout)
        except ProcessLookupError:
            pass  # it ended by itself
        except subprocess.TimeoutExpired:
            log.warning("the program did not end within %g s of SIGTERM; it is killed", self._config.app.stop_timeout)
        kill_group(process.pid)
        process.wait()

    def _end_strays(self) -> None:
        """End what the program left behind, or an earlier process of this node started and could not record."""
        strays = with_variable(_MARK, self._mark)
        for process in strays:
            log.warning("ending pid %d, left behind by the program", process.pid)
        end(strays, self._config.app.stop_timeout)

    def _choose_port(self) -> int:
        if self._config.app.port:
            return self._config.app.port
        kept = int(self._db.get_meta("app_port") or 0)
        try:
            port = free_port(kept)
        except OSError:
            raise ProgramError("there is no free port for the program") from None
        if port != kept:
            with self._recording():
                self._db.set_meta("app_port", str(port))
        return port


def _fill(word: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def _how(code: int | None) -> str:
    if code is None:
        return ""
    return f" on signal {-code}" if code < 0 else f" with exit code {code}"
