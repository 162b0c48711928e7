"""The node's own record: one SQLite file, durable at each commit.

Writers take turns under one lock and `BEGIN IMMEDIATE`, so what a transaction read still holds when it writes.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ashat.common.shortage import reason
from ashat.errors import AshatError

RECORD_FILE = "node.db"
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS operations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    request TEXT NOT NULL,
    action TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('running', 'succeeded', 'failed')),
    undoing INTEGER NOT NULL DEFAULT 0,
    resumed INTEGER NOT NULL DEFAULT 0,
    from_bundle TEXT,
    to_bundle TEXT,
    update_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    release_seq INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    steps TEXT NOT NULL DEFAULT '[]',
    started_at TEXT NOT NULL,
    ended_at TEXT,
    switched_back INTEGER NOT NULL DEFAULT 0,
    interrupted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS one_operation_at_a_time ON operations (status) WHERE status = 'running';
CREATE TABLE IF NOT EXISTS outputs (operation TEXT PRIMARY KEY REFERENCES operations (id), lines TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS migrations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    operation TEXT NOT NULL UNIQUE REFERENCES operations (id),
    bundle TEXT NOT NULL,
    command TEXT NOT NULL,
    reversible INTEGER NOT NULL,
    limit_seconds REAL NOT NULL,
    status TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT '',
    began_at TEXT NOT NULL,
    ended_at TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS releases (
    slot TEXT PRIMARY KEY CHECK (slot IN ('current', 'previous')),
    bundle TEXT NOT NULL,
    update_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    release_seq INTEGER,
    operation TEXT NOT NULL,
    since TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS lease (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    holder TEXT NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL,
    since TEXT NOT NULL,
    expires TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS program (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    pid INTEGER NOT NULL,
    created REAL NOT NULL,
    release TEXT NOT NULL,
    port INTEGER NOT NULL,
    started_at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS slots (
    slot TEXT PRIMARY KEY CHECK (slot IN ('blue', 'green')),
    pid INTEGER NOT NULL,
    created REAL NOT NULL,
    release TEXT NOT NULL,
    port INTEGER NOT NULL,
    started_at TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS traffic (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    slot TEXT NOT NULL CHECK (slot IN ('blue', 'green')),
    bundle TEXT NOT NULL,
    applied INTEGER NOT NULL,
    since REAL NOT NULL,
    idle_until REAL,
    ports TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS changes (seq INTEGER PRIMARY KEY, entry TEXT NOT NULL, root TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS changes_log (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    origin TEXT NOT NULL,
    size INTEGER NOT NULL,
    frontier TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS followed (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    facts TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;
CREATE TRIGGER IF NOT EXISTS changes_stay BEFORE UPDATE ON changes
BEGIN SELECT RAISE(ABORT, 'the journal of changes only grows'); END;
CREATE TRIGGER IF NOT EXISTS changes_are_kept BEFORE DELETE ON changes
BEGIN SELECT RAISE(ABORT, 'the journal of changes only grows'); END;
"""


class Database:
    """The record of one node, safe to use from many threads.

    Raises (from every method):
        AshatError: the file cannot be opened, or a newer version of ASHAT Deploy wrote it.
    """

    def __init__(self, path: Path, *, spend: Callable[[Callable[[], None]], None] = lambda work: work()) -> None:
        """Open the record in the file `path`; `spend` does a work that takes a little room, on a full disk too."""
        self.path = path
        self._spend = spend
        self._lock = threading.RLock()
        self._reading = threading.RLock()
        self._looking = threading.Lock()
        try:
            self._connection = _connect(path)
            path.chmod(0o600)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("PRAGMA foreign_keys=ON")
            found = self._connection.execute("PRAGMA user_version").fetchone()[0]
            self._reader = _connect(path)
            self._reader.execute("PRAGMA query_only=ON")
            self._look = _connect(path)
            self._look.execute("SELECT count(*) FROM sqlite_master").fetchone()  # until then it has seen nothing
            if found <= SCHEMA_VERSION:
                self.ensure(_SCHEMA)
            if found < SCHEMA_VERSION:
                self._connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise AshatError(f"The node's record {path} cannot be opened: {reason(error, path.parent)}.") from error
        if found > SCHEMA_VERSION:
            self.close()
            raise AshatError(
                f"A newer version of ASHAT Deploy wrote {path} (schema {found}, this one reads {SCHEMA_VERSION}); "
                "upgrade this node."
            )

    def ensure(self, schema: str) -> None:
        """Run a part's `CREATE ... IF NOT EXISTS` statements."""
        with self._lock:
            self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction that is durable when the block ends and undone when it raises. Does not nest."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Open one state of the record, to read only; it waits for no writer, nor for the disk."""
        with self._reading:
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("ROLLBACK")

    def touched(self) -> int:
        """Return another number whenever anybody has written since, at a cost of microseconds; it waits for nobody."""
        with self._looking:
            return int(self._look.execute("PRAGMA data_version").fetchone()[0])

    def one(self, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Row | None:
        """Read the first row of what is committed, None where there is none."""
        with self._reading:
            row: sqlite3.Row | None = self._reader.execute(sql, parameters).fetchone()
            return row

    def all(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Read every row of what is committed."""
        with self._reading:
            return self._reader.execute(sql, parameters).fetchall()

    def get_meta(self, key: str) -> str | None:
        """Read a kept value, None where there is none."""
        row = self.one("SELECT value FROM meta WHERE key = ?", (key,))
        return str(row["value"]) if row else None

    def set_meta(self, key: str, value: str) -> None:
        """Keep `value` under `key`, durably; what is kept already takes no room."""
        if self.get_meta(key) == value:
            return

        def keep() -> None:
            with self.transaction() as connection:
                connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))

        self._spend(keep)

    def close(self) -> None:
        """Close the file. Nothing may be asked of it afterwards."""
        with self._lock, self._reading, self._looking:
            self._look.close()
            self._reader.close()
            self._connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.row_factory = sqlite3.Row
    return connection


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def to_text(time: datetime) -> str:
    """Write `time` as the record keeps it: RFC 3339 in UTC, microseconds always, so that text sorts as time does."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def from_text(text: str) -> datetime:
    """Read the time that `to_text` wrote."""
    return datetime.fromisoformat(text)
