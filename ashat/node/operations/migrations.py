"""The migrate step of a release: whether it is due, run with an intent recorded before, and what came of it.

It runs before the switch, while what ran goes on: so what it does must suit both releases, and a step that fails
changes nothing that runs. It is run again wherever its end was not seen. A release that was migrated here before a
later one was is not migrated again: that is a way back, and the later one's changes stay.
"""

from __future__ import annotations

import json
import sqlite3

from ashat.common.failpoints import fault_point
from ashat.errors import AshatError, BundleError
from ashat.node.app_process.commands import commands_in
from ashat.node.app_process.migrate import MigrationEnd, MigrationProcess
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database, now, to_text
from ashat.node.logs import change_log
from ashat.node.store.releases import Release
from ashat.protocol.messages import MIGRATED_BEFORE, Operation
from ashat.raos_toml.schema import MigrateSection

_LATER = """
SELECT EXISTS (
    SELECT 1 FROM migrations AS later
    WHERE later.bundle <> :bundle AND later.status <> 'skipped' AND later.seq > (
        SELECT max(seq) FROM migrations WHERE bundle = :bundle AND status = 'done'
    )
)
"""


class MigrationError(AshatError):
    """The migrate step failed, so that nothing was switched; `output` are the last lines that it wrote."""

    def __init__(self, message: str, output: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.output = output


class Migrations:
    """The migrate steps of one node."""

    def __init__(self, config: NodeConfig, db: Database, process: MigrationProcess) -> None:
        self._config = config
        self._db = db
        self._process = process
        self.stopping = process.stopping

    def due(self, operation: Operation, release: Release | None) -> MigrateSection | None:
        """Read the step that `release` has to be migrated by for `operation`; None where it has none, or none is due.

        Raises:
            BundleError: its raos.toml cannot be read.
            OSError: likewise.
        """
        if release is None or operation.to == operation.from_ or self._status(operation) == "done":
            return None
        try:
            step = commands_in(release.path).migrate
        except BundleError:
            if self._config.app.runs:
                raise
            return None  # nothing of it is run here
        if step is None:
            return None
        if self._config.app.migrates == "skip":
            why = "app.migrate of this node leaves it out" if self._config.app.migrate else "no program runs here"
            self._begin(operation, step, status="skipped", detail=why)
            return None
        if self._goes_back(release.bundle):
            self._begin(operation, step, status="skipped", detail=MIGRATED_BEFORE)
            return None
        return step

    def run(self, operation: Operation, release: Release, step: MigrateSection) -> MigrationEnd:
        """Run it to its end, recorded before and after.

        Raises:
            MigrationError: it failed or took too long.
            sqlite3.Error: it cannot be recorded, before or after.
        """
        self._begin(operation, step)
        fault_point("switch.migrating")
        ended = self._process.run(release, step.command, self._limit(step))
        self._end(operation.id, ended.status, ended.detail)
        if ended.status in ("failed", "timed-out"):
            raise MigrationError(
                f"its migrate step failed: {ended.detail}; nothing was switched, and what ran goes on", ended.output
            )
        return ended

    def end_left(self) -> None:
        """End what an earlier process of the node left, and record that.

        Raises:
            ProgramError: it cannot be ended.
        """
        self._process.end_left()
        for row in self._db.all("SELECT operation FROM migrations WHERE status = 'running'"):
            self._end(row["operation"], "interrupted", "the node ended while it ran")

    def _limit(self, step: MigrateSection) -> float:
        return min(step.seconds, self._config.app.migrate_timeout)

    def _status(self, operation: Operation) -> str | None:
        row = self._db.one("SELECT status FROM migrations WHERE operation = ?", (operation.id,))
        return str(row["status"]) if row else None

    def _goes_back(self, bundle: str) -> bool:
        with self._db.snapshot() as connection:
            return bool(connection.execute(_LATER, {"bundle": bundle}).fetchone()[0])

    def _begin(self, operation: Operation, step: MigrateSection, *, status: str = "running", detail: str = "") -> None:
        at = to_text(now())
        words = json.dumps(step.command, ensure_ascii=False)
        row = (operation.id, operation.to, words, int(step.reversible), self._limit(step), status, detail, at)
        with self._db.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO migrations (operation, bundle, command, reversible, limit_seconds, status,"
                " detail, began_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            self._log(connection, operation.id, status, command=step.command)

    def _end(self, operation_id: str, status: str, detail: str) -> None:
        with self._db.transaction() as connection:
            connection.execute(
                "UPDATE migrations SET status = ?, detail = ?, ended_at = ? WHERE operation = ?",
                (status, detail, to_text(now()), operation_id),
            )
            self._log(connection, operation_id, status, reason=detail)

    @staticmethod
    def _log(connection: sqlite3.Connection, operation_id: str, status: str, **facts: object) -> None:
        change_log.append(connection, "migration", operation=operation_id, status=status, **facts)
