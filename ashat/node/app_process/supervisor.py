"""Runs the operator's `[app] command`, or the release's, in the current release, and runs it again when it crashes.

The program is below a keeper, a process of its own which ends all that came of it (`keeper.py`), and writes its log
into a file rather than a pipe, so that it outlives the node. Its pid and the time it was created are recorded; the next
process of the node takes it over if it runs the current release, and ends it otherwise, recorded or not: it finds the
keeper by its arguments. Where the program has a control group, that ends what a killed keeper left.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import psutil

from ashat.common.processes import ProcessRef, end, free_port
from ashat.common.rotation import rotate_in_place
from ashat.common.shortage import reason
from ashat.node.app_process.cgroup import end_group, make_group, program_group
from ashat.node.app_process.commands import program_command
from ashat.node.app_process.inspection import client_ports, inspect
from ashat.node.app_process.kept import KeptProgram, Start
from ashat.node.app_process.output import ProgramOutput
from ashat.node.app_process.place import Place, former_slots
from ashat.node.app_process.process import Program, ProgramError, launch
from ashat.node.app_process.user import ProgramUser
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database, from_text, now, to_text
from ashat.node.store.releases import Release
from ashat.protocol.messages import App
from ashat.protocol.probes import ProcessProbe

log = logging.getLogger("ashat.node")

_CALM = 60.0


@dataclass
class _Run:
    """One start of one release, with its restarts after crashes.

    `began` is `started_at` on the monotonic clock, None where an earlier process of the node started it;
    `healthy_after` counts seconds from there; `written` is how many bytes its log had then.
    """

    release: Release
    port: int
    process: KeptProgram
    started_at: datetime
    began: float | None
    written: int = 0
    healthy_after: float | None = None
    status: Literal["running", "backing-off"] = "running"
    restarts: int = 0
    delay: float = 0.0
    failure: str | None = None


class SupervisedProgram(Program):
    """The program, below a keeper that is a child of this process of the node or of an earlier one.

    `_turn` is held for as long as a change takes; `_lock` only for a moment, so that `state` never waits for a
    program that takes its time to end.
    """

    def __init__(
        self,
        config: NodeConfig,
        db: Database,
        user: ProgramUser | None,
        place: Place = Place(),  # noqa: B008
    ) -> None:
        self._config = config
        self._db = db
        self._user = user
        self._place = place
        self._mark = place.mark(config.data)
        self._restarts = f"app_restarts{place.suffix}"
        self._turn = threading.Lock()
        self._lock = threading.RLock()
        self._replaced = threading.Condition(self._lock)
        self._run: _Run | None = None
        self._output = ProgramOutput(config, place.log_name)
        self._log = self._output.path
        mark = db.get_meta("instance") or uuid.uuid4().hex
        db.set_meta("instance", mark)
        self._group_name = f"ashat-program-{mark[:12]}{place.suffix}"
        config.app_data.mkdir(mode=0o700, exist_ok=True)

    @property
    def _group(self) -> Path | None:
        return program_group(self._group_name)

    @property
    def url(self) -> str | None:
        """Where the program answers: as configured, or on loopback at its port; None while nothing runs."""
        with self._lock:
            if self._run is None:
                return None
            port = str(self._run.port)
        return self._config.app.url.replace("{port}", port) or f"http://127.0.0.1:{port}"

    def restart(self, release: Release | None, previous: str | None, *, patient: bool = False) -> None:
        """End what runs and run `release` (None: nothing). What cannot be ended goes on, if it is that very release.

        Raises:
            ProgramError: the command cannot be run, or what runs cannot be ended.
        """
        with self._turn:
            try:
                self._end_all()
            except ProgramError as error:
                if self._run is None or self._run.release != release:
                    raise
                log.warning("%s", error)
                return
            if release is not None:
                self._begin(release, patient)

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

    def output(self, bundle: str | None) -> tuple[str, ...]:
        """Return the last lines that it wrote since it was last started on purpose as `bundle`."""
        with self._lock:
            run = self._run
        return self._output.last(run.written) if run is not None and run.release.bundle == bundle else ()

    def log_begins(self) -> int | None:
        """Return how many bytes its log had when it was last started on purpose; None while nothing runs."""
        with self._lock:
            return None if self._run is None else self._run.written

    def log_name(self) -> str:
        """Return the name of its log; "" for the usual one."""
        return self._place.log_name

    def release(self) -> Release | None:
        """Return the release that it was started as; None while nothing runs."""
        with self._lock:
            return self._run.release if self._run else None

    def adopt_recorded(self, releases: Path) -> bool:
        """Take over what an earlier process of this node started, whichever of the `releases` that is; tell whether
        something runs."""
        row = self._place.row(self._db)
        name = row["release"] if row else ""
        return bool(name) and self.adopt(Release(name.partition(".")[0], releases / name))

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
                user=self._user.name if self._user else "",
            )

    def inspect(self) -> ProcessProbe:
        """Look at the program's processes now, which are those that came of its latest start."""
        with self._lock:
            run, url = self._run, self.url
            if run is None or run.status != "running":
                return ProcessProbe(detail=run.failure or "it starts again" if run else "no program runs")
            process, bundle, started_at = run.process, run.release.bundle, run.started_at
        return inspect(process.processes(), url).model_copy(update={"bundle": bundle, "started_at": started_at})

    def client_ports(self) -> frozenset[int]:
        """Return the ports from which its processes have connections to others now."""
        with self._lock:
            run = self._run
        return client_ports(run.process.processes()) if run is not None and run.status == "running" else frozenset()

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
        try:
            self.restart(None, None)
        except ProgramError as error:
            log.warning("%s", error)

    def _begin(self, release: Release, patient: bool) -> None:
        port = self._choose_port(patient)
        with self._lock:
            at, began = now(), time.monotonic()
            with self._recording():
                self._db.set_meta(self._restarts, "0")
            rotate_in_place(self._log)
            written = self._output.size()
            self._run = _Run(release, port, self._spawn(release, port, at), at, began, written)
            self._watch_in_background(self._run)

    def _spawn(self, release: Release, port: int, at: datetime) -> KeptProgram:
        named = program_command(self._config, release.path)
        command, environment = launch(self._config, self._user, release, named, port)
        if self._place.name:
            environment["ASHAT_SLOT"] = self._place.name
        group, seconds = make_group(self._group), self._config.app.stop_timeout
        rotate_in_place(self._log)
        try:
            what = Start(command, environment, release.path, self._user, group, seconds)
            process = KeptProgram.start(what, self._log, self._mark)
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
            self._place.write(connection, pid, process.created, release.path.name, port, to_text(at))

    def _take_over(self, release: Release) -> bool:
        row = self._place.row(self._db)
        if row is None or row["release"] != release.path.name or self._place.port not in (0, row["port"]):
            return False
        if ProcessRef(row["pid"], row["created"]).process() is None:
            return False
        found = KeptProgram.find(self._mark, row["pid"])
        if not found:
            return False
        process = found[0]
        with self._lock:
            restarts = int(self._db.get_meta(self._restarts) or 0)
            started_at = from_text(row["started_at"])
            self._run = _Run(release, row["port"], process, started_at, None, restarts=restarts)
            self._watch_in_background(self._run)
        log.info("took over the running program, pid %d", process.pid)
        return True

    def _watch_in_background(self, run: _Run) -> None:
        threading.Thread(target=self._watch, args=(run,), name="program", daemon=True).start()

    def _watch(self, run: _Run) -> None:
        """Start the program again, later each time, whenever it ends by itself."""
        began = time.monotonic()
        while True:
            how = self._wait(run.process)
            with self._lock:
                if self._run is not run:
                    return
                end_group(self._group)
                run.failure = f"the program {how} after {time.monotonic() - began:.1f} s"
                if not self._back_off(run, calm=time.monotonic() - began > _CALM):
                    return
                began = time.monotonic()

    def _wait(self, process: KeptProgram) -> str:
        """Wait until it has ended; how. Nothing that the machine lacks ends the waiting."""
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
                self._db.set_meta(self._restarts, str(run.restarts))
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
            self._end(run)
        self._end_strays()
        with self._recording(), self._db.transaction() as connection:
            self._place.forget(connection)
            if not self._place.name:
                connection.execute("DELETE FROM slots")
                connection.execute("DELETE FROM traffic")

    def _end(self, run: _Run) -> None:
        """End it, or leave it as what runs.

        Raises:
            ProgramError: it could not be ended.
        """
        try:
            run.process.end(self._config.app.stop_timeout)
        except (ProgramError, OSError):
            with self._lock:
                if run.process.ended():
                    return
                self._run = run
            raise

    def _end_strays(self) -> None:
        """End what an earlier process of this node started, recorded or not yet, and what a killed keeper left."""
        for place in [self._place, *([] if self._place.name else former_slots(self._db))]:
            end_left(self._config, self._db, place)
        end_group(self._group)

    def _choose_port(self, patient: bool) -> int:
        if self._place.port:
            if not patient and free_port(self._place.port) != self._place.port:
                slot = f"the port {self._place.port} of the slot {self._place.name}"
                raise ProgramError(f"{slot} is taken by something else on this machine")
            return self._place.port
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


def end_left(config: NodeConfig, db: Database, place: Place) -> None:
    """End what an earlier process of the node started at `place`, recorded or not yet.

    Raises:
        ProgramError: it cannot be ended.
    """
    seconds = config.app.stop_timeout
    for stray in KeptProgram.find(place.mark(config.data)):
        log.warning("ending what an earlier process of this node started")
        stray.end(seconds)
    row = place.row(db)
    process = ProcessRef(row["pid"], row["created"]).process() if row else None
    if process is not None:
        log.warning("ending pid %d, which an earlier process of this node started", process.pid)
        end([process], seconds)
