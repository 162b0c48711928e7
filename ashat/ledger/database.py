"""Open the ledger's database (SQLite or PostgreSQL), make its tables, and put its failures into words.

Every event has its place in one order over all updates (`seq`, from 0, without a gap) and the root of the Merkle tree
that ends with it. `log` is one row: the tree's name, size and frontier. Whoever appends updates it first, which makes
others wait until the transaction ends, so that places are given out in the order of the commits.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, MultipleResultsFound, NoResultFound
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from ashat.common.shortage import shortage
from ashat.errors import LedgerError, LedgerTooNewError
from ashat.ledger.remembered import sqlite_address
from ashat.transparency.append_only_log import AppendOnlyLog
from ashat.transparency.merkle import HASH_BYTES, CompactRange, leaf_hash

SCHEMA_VERSION = 2
_CREATION_SECONDS = 5
_CREATION_PAUSE = 0.05
_CONNECT_SECONDS = 10

metadata = sa.MetaData()
meta = sa.Table(
    "ashat_meta",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.String(255), nullable=False),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("update_id", sa.String(64), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("at", sa.String(40), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("root", sa.String(2 * HASH_BYTES), nullable=False),
    sa.UniqueConstraint("update_id", "attempt", "version", name="uq_events_version"),
    sa.UniqueConstraint("seq", name="uq_events_seq"),
)
log = sa.Table(
    "log",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("origin", sa.String(64), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("frontier", sa.Text, nullable=False),
)
documents = sa.Table(
    "documents",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("update_id", sa.String(64), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("stage", sa.String(32), nullable=False, index=True),
    sa.Column("target", sa.String(64), nullable=False),
    sa.Column("pushed_by", sa.String(255), nullable=False),
    sa.Column("release_seq", sa.Integer),
    sa.Column("rollback_seq", sa.Integer),
    sa.Column("created_at", sa.String(40), nullable=False),
    sa.Column("updated_at", sa.String(40), nullable=False, index=True),
    sa.Column("summary", sa.Text, nullable=False),
    sa.UniqueConstraint("target", "release_seq", name="uq_sessions_release_seq"),
)


def address_of(url: str, home: Path) -> str:
    """Name the database at `url`, without a password, as `ashat.ledger.remembered` does; empty where it is in memory,
    or no address."""
    try:
        parsed = sa.make_url(url)
    except (ArgumentError, ValueError):
        return ""
    if parsed.get_backend_name() != "sqlite":
        return parsed.set(query={}, password=None).render_as_string()
    return sqlite_address(home, Path(parsed.database)) if parsed.database not in (None, "", ":memory:") else ""


def open_engine(url: str, before_making: Callable[[], None] = lambda: None) -> sa.Engine:
    """Open the database at `url`; its tables are made if there are none, unless `before_making` raises.

    Raises:
        LedgerTooNewError: a newer version of this program wrote it.
        LedgerError: the address is wrong, the database does not answer, or an unreleased version wrote it.
    """
    try:
        engine = _engine_for(url, before_making)
    except ImportError as error:
        raise LedgerError(
            f"PostgreSQL needs the extra 'postgres', as in pip install 'ashat-deploy[postgres]': {first_line(error)}."
        ) from None
    except ArgumentError as error:
        raise LedgerError(
            f"ASHAT_LEDGER_URL is not a database this install can open: {first_line(error)}. "
            "Use sqlite:////path/to/ledger.db or postgresql://user@host/database."
        ) from None
    except OSError as error:
        raise LedgerError(f"The ledger does not open ({_where(url)}): {error}") from None
    try:
        found = _prepare(engine, before_making)
    except LedgerError:
        engine.dispose()
        raise
    except (DBAPIError, ValueError) as error:
        engine.dispose()
        raise LedgerError(f"The ledger does not open ({_where(url)}): {first_line(error, engine.url)}") from None
    if found > SCHEMA_VERSION:
        engine.dispose()
        raise LedgerTooNewError(
            f"The ledger ({_where(url)}) was written by a newer version of ASHAT Deploy (schema {found}; this one "
            f"reads {SCHEMA_VERSION}). Upgrade this install; nothing was changed."
        )
    if found < SCHEMA_VERSION:
        engine.dispose()
        raise LedgerError(
            f"The ledger ({_where(url)}) was written before 0.1.0 was released (schema {found}; this one reads "
            f"{SCHEMA_VERSION}). Give ASHAT_LEDGER_URL another address, to begin a new one; nothing was changed."
        )
    return engine


def append_leaf(connection: sa.Connection, leaf: bytes) -> tuple[int, str]:
    """Give `leaf` the next place in the log; returns that place, and the hex root of the tree that ends with `leaf`.

    It has to be the first statement of a transaction: from here to its end nobody else appends.

    Raises:
        LedgerError: the log's row is gone, or its frontier fits no tree.
    """
    connection.execute(log.update().values(size=log.c.size + 1))
    try:
        origin, size, frontier = connection.execute(sa.select(log.c.origin, log.c.size, log.c.frontier)).one()
        kept = AppendOnlyLog(origin, CompactRange.parse(size - 1, frontier))
    except (NoResultFound, MultipleResultsFound, ValueError):
        raise LedgerError(
            "The ledger's log was altered: deploy audit verify says where. Nothing was written."
        ) from None
    place = kept.append(leaf_hash(leaf))
    connection.execute(log.update().values(frontier=kept.frontier))
    return place


def first_line(error: BaseException, url: sa.URL | None = None) -> str:
    """Return what the machine lacks, or what the library of the database at `url` says, in a line; it repeats no
    password."""
    file = url.database if url is not None and url.get_backend_name() == "sqlite" else None
    if lack := shortage(error, Path(file).parent if file else None):
        return lack.words
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return str(origin).strip().splitlines()[0] if str(origin).strip() else type(origin).__name__


def _engine_for(url: str, before_making: Callable[[], None]) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
    except ValueError:
        raise ArgumentError("its port is not a number") from None
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "postgresql+psycopg":
        timeout = {} if "connect_timeout" in parsed.query else {"connect_timeout": _CONNECT_SECONDS}
        return sa.create_engine(parsed, pool_pre_ping=True, connect_args=timeout)
    if parsed.get_backend_name() != "sqlite":
        raise ArgumentError(f"{parsed.drivername} is neither sqlite nor postgresql")
    if parsed.database:
        if not Path(parsed.database).exists():
            before_making()
        Path(parsed.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if parsed.database != ":memory:":
            Path(parsed.database).touch(mode=0o600)
    engine = sa.create_engine(parsed, connect_args={"timeout": 30})

    @sa.event.listens_for(engine, "connect")
    def durable(connection: Any, _record: object) -> None:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous=FULL")

    return engine


def _use_wal(connection: Any) -> None:
    """Use a log beside the file; the connection's own time limit does not hold while another changes to that."""
    for attempt in Retrying(
        retry=retry_if_exception_type(sqlite3.OperationalError),
        stop=stop_after_delay(_CREATION_SECONDS),
        wait=wait_fixed(_CREATION_PAUSE),
        reraise=True,
    ):
        with attempt:
            connection.execute("PRAGMA journal_mode=WAL")


def _prepare(engine: sa.Engine, before_making: Callable[[], None]) -> int:
    """Make the tables if there are none; the schema's version."""
    found = _schema_version(engine)
    if found is not None:
        return found
    before_making()
    try:
        with engine.begin() as connection:
            metadata.create_all(connection)
            connection.execute(meta.insert().values(key="schema", value=str(SCHEMA_VERSION)))
            begun = AppendOnlyLog.begin("ledger")
            connection.execute(log.insert().values(id=1, origin=begun.origin, size=0, frontier=begun.frontier))
    except DBAPIError as error:
        return _made_by_another(engine, error)
    return SCHEMA_VERSION


def _made_by_another(engine: sa.Engine, failure: DBAPIError) -> int:
    """Wait for the process that makes the tables in this moment; the schema's version."""
    deadline = time.monotonic() + _CREATION_SECONDS
    while sa.inspect(engine).has_table(meta.name):
        found = _schema_version(engine)
        if found is not None:
            return found
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    raise failure


def _schema_version(engine: sa.Engine) -> int | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table(meta.name):
            return None
        value = connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema")).scalar()
        return int(value) if value else None


def _where(url: str) -> str:
    try:
        return sa.make_url(url).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "ASHAT_LEDGER_URL"
