"""Open the ledger's database (SQLite or PostgreSQL), append to its log, and put its failures into words.

Every event has its place in one order over all updates (`seq`, from 0, without a gap) and the root of the Merkle tree
that ends with it. `log` is one row: the tree's name, size and frontier. Whoever appends updates it first, which makes
others wait until the transaction ends, so that places are given out in the order of the commits.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, MultipleResultsFound, NoResultFound
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from ashat.common.shortage import shortage
from ashat.errors import LedgerError
from ashat.ledger import schema
from ashat.ledger.remembered import sqlite_address
from ashat.ledger.tables import log
from ashat.transparency.append_only_log import AppendOnlyLog
from ashat.transparency.merkle import CompactRange, leaf_hash

_CREATION_SECONDS = 5
_CREATION_PAUSE = 0.05
_CONNECT_SECONDS = 10


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


def open_engine(url: str, before_making: Callable[[], None] = lambda: None, *, migrate: bool = False) -> sa.Engine:
    """Open the database at `url`; its tables are made if there are none, unless `before_making` raises.

    An older schema is brought to this version's: in SQLite, or where it is told to `migrate`.

    Raises:
        LedgerTooNewError: a newer version of this program wrote it.
        LedgerError: the address is wrong, the database does not answer, or has a schema that cannot be used.
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
        schema.prepare(engine, f"The ledger ({_where(url)})", before_making, migrate=migrate)
    except (DBAPIError, ValueError) as error:
        engine.dispose()
        raise LedgerError(f"The ledger does not open ({_where(url)}): {first_line(error, engine.url)}") from None
    except BaseException:
        engine.dispose()
        raise
    return engine


class _NoLedgerError(Exception):
    """There is no ledger at that address."""


def migrate_shared_ledger(url: str) -> None:
    """Bring a ledger on PostgreSQL to this version's schema, if there is one; SQLite's is brought there when opened.

    Raises:
        LedgerError: as `open_engine`.
    """

    def none_there() -> None:
        raise _NoLedgerError

    if not url.startswith("sqlite"):
        with suppress(_NoLedgerError):
            open_engine(url, none_there, migrate=True).dispose()


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


def _where(url: str) -> str:
    try:
        return sa.make_url(url).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "ASHAT_LEDGER_URL"
