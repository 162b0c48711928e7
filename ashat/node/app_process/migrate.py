"""Runs the `[migrate] command` of a release, in its directory, as its program would run, with a limit and a log.

It is below a keeper of its own (`keeper.py`), which ends it and all that came of it when its time is over, also where
the node has ended meanwhile. What an earlier process of the node left is found by the log's path, and ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ashat.common.rotation import rotate_in_place
from ashat.common.shortage import reason
from ashat.node.app_process.cgroup import end_group, make_group, program_group
from ashat.node.app_process.kept import KeptProgram, Start
from ashat.node.app_process.output import ProgramOutput
from ashat.node.app_process.place import SLOTS
from ashat.node.app_process.process import launch
from ashat.node.app_process.traffic import direction
from ashat.node.app_process.user import ProgramUser
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database
from ashat.node.store.releases import Release

log = logging.getLogger("ashat.node")

LOG = "migrate.log"
_LOOK_EVERY = 0.2
_ROTATE_EVERY = 2.0


@dataclass(frozen=True)
class MigrationEnd:
    """How a run ended: `detail` says why it is not `done`, `output` are the last lines that it wrote."""

    status: Literal["done", "failed", "timed-out", "interrupted"]
    detail: str = ""
    output: tuple[str, ...] = ()


class MigrationProcess:
    """The migrate step of one node, of which one runs at a time; `stopping` ends it."""

    def __init__(self, config: NodeConfig, db: Database, user: ProgramUser | None, stopping: threading.Event) -> None:
        self._config = config
        self._db = db
        self._user = user
        self.stopping = stopping
        self._output = ProgramOutput(config, LOG)

    def run(self, release: Release, command: Sequence[str], seconds: float) -> MigrationEnd:
        """Run `command` for at most `seconds`, and wait until it has ended with all that came of it."""
        port = self._port()
        words, environment = launch(self._config, self._user, release, command, port)
        self._config.app_data.mkdir(mode=0o700, exist_ok=True)
        rotate_in_place(self._output.path)
        began = self._output.size()
        group, patience = make_group(self._group), self._config.app.stop_timeout
        what = Start(words, environment, release.path, self._user, group, patience, seconds)
        try:
            process = KeptProgram.start(what, self._output.path, self._output.path)
        except OSError as error:
            return MigrationEnd("failed", f"{words[0]!r} cannot be run: {reason(error)}")
        stopped = self._wait(process)
        how = process.wait()
        end_group(self._group)
        output = self._output.last(began)
        if stopped and process.code != 0:
            return MigrationEnd("interrupted", "the node was stopped while it ran", output)
        if process.late:
            return MigrationEnd("timed-out", f"it took longer than {seconds:g} s and was ended", output)
        if process.code != 0:
            return MigrationEnd("failed", f"it {how}", output)
        return MigrationEnd("done", "", output)

    def end_left(self) -> None:
        """End what an earlier process of this node left running.

        Raises:
            ProgramError: it cannot be ended.
        """
        for left in KeptProgram.find(self._output.path):
            log.warning("ending the migrate step that an earlier process of this node started")
            left.end(self._config.app.stop_timeout)
        end_group(self._group)

    def _port(self) -> int:
        """Return the port of what runs."""
        traffic = direction(self._db)
        if self._config.slots.ports and traffic is not None:
            return self._config.slots.ports[SLOTS.index(traffic.slot)]
        return self._config.app.port or int(self._db.get_meta("app_port") or 0)

    @property
    def _group(self) -> Path | None:
        mark = self._db.get_meta("instance")
        return program_group(f"ashat-migrate-{mark[:12]}") if mark else None

    def _wait(self, process: KeptProgram) -> bool:
        """Wait until it has ended, keeping its log short; tell whether it was ended because the node stops."""
        look = time.monotonic()
        while not process.ended(_LOOK_EVERY):
            if self.stopping.is_set():
                process.end(self._config.app.stop_timeout)
                return True
            if time.monotonic() - look > _ROTATE_EVERY:
                rotate_in_place(self._output.path)
                look = time.monotonic()
        return False
