"""Copy a ledger row by row into lines of JSON, and lines into an empty ledger, of SQLite or PostgreSQL alike.

All of it is read in one transaction that sees one moment, while others append. The numbers that a database gives its
rows by itself (`events.id`) are left out: nothing goes by them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from ashat.common.documents import load_json
from ashat.errors import BackupError, LedgerTooNewError
from ashat.ledger.database import first_line, open_engine
from ashat.ledger.schema import SCHEMA_VERSION
from ashat.ledger.tables import documents, events, log, meta, sessions

LINE_LIMIT: Final = 64 * 1024**2
_BATCH = 500
# In this order, so that the rows that others are said to follow come first.
_TABLES: Final = (meta, log, documents, events, sessions)
_ORDER: Final[dict[str, Any]] = {events.name: (events.c.seq,)}


def dump_ledger(url: str, target: Path, *, where_none_is: Callable[[], None] = lambda: None) -> int | None:
    """Write the ledger at `url` as it is at one moment into the new file `target`, mode 0600; how many events it has,
    None where there is no ledger, and none is made.

    `where_none_is` is called where there is none, and may refuse.

    Raises:
        LedgerError: it does not open.
        BackupError: its events are not as many as its log says.
    """

    def refuse() -> None:
        where_none_is()
        raise _NoLedgerError

    try:
        engine = open_engine(url, refuse)
    except _NoLedgerError:
        return None
    try:
        with _one_moment(engine) as connection, target.open("x", encoding="utf-8") as file:
            target.chmod(0o600)
            written = {table.name: _dump(connection, table, file) for table in _TABLES}
            size = connection.execute(sa.select(log.c.size)).scalar_one()
    except DBAPIError as error:
        raise BackupError(f"The ledger cannot be read: {first_line(error, engine.url)}.") from None
    finally:
        engine.dispose()
    if written[events.name] != size:
        raise BackupError(
            f"The ledger has {written[events.name]} events and its log counts {size}: deploy audit verify says what is "
            "wrong. Nothing was written."
        )
    return int(size)


class _NoLedgerError(Exception):
    """There is no ledger at that address."""


def _one_moment(engine: sa.Engine) -> sa.Connection:
    """Begin a transaction in which every statement sees the same rows."""
    if engine.dialect.name == "postgresql":
        return engine.connect().execution_options(isolation_level="REPEATABLE READ")
    connection = engine.connect()
    # Python's sqlite3 begins a transaction at the first write only; the first statement then fixes the moment.
    connection.exec_driver_sql("BEGIN")
    return connection


def _dump(connection: sa.Connection, table: sa.Table, file: TextIO) -> int:
    columns = [column for column in table.columns if not (table is events and column.name == "id")]
    # An order, so that two backups of one record are the same bytes.
    found = connection.execute(sa.select(*columns).order_by(*_ORDER.get(table.name, table.primary_key.columns)))
    count = 0
    for row in found:
        line = {"table": table.name, "row": dict(row._mapping)}
        file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n")
        count += 1
    return count


@dataclass(frozen=True)
class LoadedLedger:
    """The events of a ledger that was put back, or that was there, and was `kept`: the same, and no shorter."""

    events: int
    kept: bool = False


def load_ledger(url: str, source: Path, before_commit: Callable[[], None] = lambda: None) -> LoadedLedger:
    """Put what `dump_ledger` wrote into the ledger at `url`, all or nothing, unless that very ledger is there.

    `before_commit` is called once all of it is there, and undoes it by raising.

    Raises:
        LedgerTooNewError: a newer version wrote it.
        LedgerError: the database does not open.
        BackupError: there is another ledger, or a shorter one, or a line is none of a ledger's.
    """
    engine = open_engine(url)
    try:
        with engine.begin() as connection, source.open("rb") as file:
            if there := _same_ledger(connection, source):
                before_commit()
                return LoadedLedger(there, kept=True)
            for table in _TABLES:
                connection.execute(table.delete())
            for table, rows in _batches(_lines(file)):
                connection.execute(table.insert(), rows)
            _require_whole(connection)
            size = int(connection.execute(sa.select(log.c.size)).scalar_one())
            before_commit()
            return LoadedLedger(size)
    except DBAPIError as error:
        raise BackupError(
            f"The ledger cannot be written: {first_line(error, engine.url)}. Nothing was changed."
        ) from None
    finally:
        engine.dispose()


def _same_ledger(connection: sa.Connection, source: Path) -> int:
    """How many events the ledger has that is there, if it is the one of the backup, and has them all; 0 for none.

    Raises:
        BackupError: it is another one, or lacks events.
    """
    origin, size = connection.execute(sa.select(log.c.origin, log.c.size)).one()
    if not size:
        return 0
    with source.open("rb") as file:
        found = next((row for table, row in _lines(file) if table is log), {})
    if origin != found.get("origin") or size < found.get("size", 0):
        which = "the backup's, and shorter" if origin == found.get("origin") else "another one"
        raise BackupError(
            f"There is a ledger at that address, {which} ({size} events); nothing is overwritten. Restore into an "
            "empty database."
        )
    return int(size)


def _require_whole(connection: sa.Connection) -> None:
    schema = connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema")).scalar()
    if schema is not None and schema.isdecimal() and int(schema) > SCHEMA_VERSION:
        raise LedgerTooNewError(
            f"The ledger in the backup was written by a newer version of ASHAT Deploy (schema {schema}; this one reads "
            f"{SCHEMA_VERSION}). Upgrade this install; nothing was changed."
        )
    count = connection.execute(sa.select(sa.func.count()).select_from(events)).scalar_one()
    sizes = list(connection.execute(sa.select(log.c.size)).scalars())
    if schema != str(SCHEMA_VERSION) or sizes != [count]:
        raise BackupError("The ledger in the backup is not whole; nothing was changed.")


def _lines(file: Any) -> Iterator[tuple[sa.Table, dict[str, Any]]]:
    """Read each line as a table and a row of it.

    Raises:
        BackupError: it is none.
    """
    tables = {table.name: table for table in _TABLES}
    for number, raw in enumerate(iter(lambda: file.readline(LINE_LIMIT + 1), b""), 1):
        try:
            line = load_json(raw, limit=LINE_LIMIT)
            table, row = tables[line["table"]], line["row"]
            if not set(row) <= set(table.columns.keys()):
                raise ValueError("it has columns that this version does not know")
        except (ValueError, KeyError, TypeError) as error:
            raise BackupError(f"Line {number} of the ledger in the backup cannot be read: {error}.") from None
        yield table, row


def _batches(rows: Iterator[tuple[sa.Table, dict[str, Any]]]) -> Iterator[tuple[sa.Table, list[dict[str, Any]]]]:
    while some := list(islice(rows, _BATCH)):
        for table in _TABLES:
            if mine := [row for each, row in some if each is table]:
                yield table, mine
