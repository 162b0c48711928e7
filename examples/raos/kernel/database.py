"""RaOS's SQLite database: numbered migrations that only ever add, so that the release before still runs on it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from kernel.faults import Faults

BUSY_SECONDS = 2.0


def now() -> str:
    """This moment as RFC 3339 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Database:
    """`raos.db` under the data directory. A connection lives for one `session`."""

    def __init__(self, data: Path, migrations: Path, faults: Faults) -> None:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = data / "raos.db"
        self._migrations = migrations
        self._faults = faults

    @contextmanager
    def session(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction, committed at the end, rolled back on an error."""
        with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            with connection:
                yield connection

    def migrate(self) -> None:
        """Apply, each in one transaction, the migrations that `schema_migrations` does not name."""
        with closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations (version TEXT PRIMARY KEY, applied_at TEXT NOT NULL)"
            )
            applied = {row[0] for row in connection.execute("SELECT version FROM schema_migrations")}
            for file in sorted(self._migrations.glob("*.sql")):
                version = file.name.partition("_")[0]
                if version not in applied and version != self._faults.text("skip-migration"):
                    self._apply(connection, version, file.read_text(encoding="utf-8"))

    def _apply(self, connection: sqlite3.Connection, version: str, script: str) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute("INSERT INTO schema_migrations VALUES (?, ?)", (version, now()))
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def trouble(self) -> str | None:
        """Why the database cannot be read, or None."""
        if not self.path.exists():
            return "the database file is gone"
        try:
            with self.session() as connection:
                connection.execute("SELECT count(*) FROM schema_migrations").fetchone()
        except sqlite3.Error as error:
            return f"database: {error}"
        return None


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
