"""Bring the ledger's database to this version's schema, by Alembic, or say in a line why that cannot be.

`alembic_version` has the schema, and `ashat_meta` the same as a number, by which a version from before Alembic sees
that the ledger is newer than itself. Both change in one transaction with the tables, one process at a time. SQLite's
file is one machine's, and is migrated by whoever opens it. PostgreSQL's is a team's, in which an upgrade of one machine
must not lock out the others: `deploy team upgrade` or `deploy up` says when.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from ashat.errors import LedgerError, LedgerTooNewError
from ashat.ledger.tables import events, log, meta, metadata
from ashat.transparency.append_only_log import AppendOnlyLog

SCHEMA_VERSION = 2
MIGRATIONS = Path(__file__).parent / "migrations"
_FIRST: Final = 2
_VERSION_TABLE: Final = "alembic_version"
_LOCK: Final = 4_127_303
# Alembic keeps what it works on in globals.
_migrating = threading.Lock()


def prepare(engine: sa.Engine, what: str, before_making: Callable[[], None], *, migrate: bool) -> None:
    """Make the tables where there are none, unless `before_making` raises, or bring them to this version's schema.

    `what` names the ledger in a message. `migrate` says that PostgreSQL may be changed, too.

    Raises:
        LedgerTooNewError: a newer version wrote it.
        LedgerError: it is half migrated, of an older version and must not be changed here, or of an unreleased one.
    """
    with engine.connect() as connection:
        found = _found(connection, what)
    if found == SCHEMA_VERSION:
        return
    if found is None:
        before_making()
    elif found < SCHEMA_VERSION:
        _require_migratable(found, what, may=migrate or engine.dialect.name == "sqlite")
    with _migrating, engine.connect() as connection:
        _begin_alone(connection)
        found = _found(connection, what)  # another may have done it meanwhile
        if found is None:
            _make(connection)
        elif found < SCHEMA_VERSION:
            _upgrade(connection, found)
        connection.commit()


def _require_migratable(found: int, what: str, *, may: bool) -> None:
    if found < _FIRST:
        raise LedgerError(
            f"{what} was written before 0.1.0 was released (schema {found}; this one reads {SCHEMA_VERSION}). Give "
            "ASHAT_LEDGER_URL another address, to begin a new one; nothing was changed."
        )
    if not may:
        raise LedgerError(
            f"{what} has schema {found}, and this version of ASHAT Deploy needs {SCHEMA_VERSION}: deploy up, or for a "
            "team deploy team upgrade, brings it there. Nothing was changed."
        )


def _found(connection: sa.Connection, what: str) -> int | None:
    """Read which schema the database has; None where it has none of the ledger's tables.

    Raises:
        LedgerTooNewError: one that this version does not know.
        LedgerError: what says so contradicts itself, or is missing.
    """
    there = set(sa.inspect(connection).get_table_names())
    if meta.name not in there:
        if there & {events.name, log.name}:
            raise LedgerError(_half(what, "the table that names its schema is missing"))
        return None
    value = connection.execute(sa.select(meta.c.value).where(meta.c.key == "schema")).scalar()
    if value is None or not (value.isascii() and value.isdecimal() and len(value) < 5):
        raise LedgerError(_half(what, "nothing names its schema"))
    found = int(value)
    if found > SCHEMA_VERSION:
        raise LedgerTooNewError(
            f"{what} was written by a newer version of ASHAT Deploy (schema {found}; this one reads {SCHEMA_VERSION}). "
            "Upgrade this install; nothing was changed."
        )
    if _VERSION_TABLE in there and found >= _FIRST:
        stamped = list(connection.exec_driver_sql(f"SELECT version_num FROM {_VERSION_TABLE}").scalars())  # noqa: S608
        if stamped != [_revision(found)]:
            raise LedgerError(_half(what, f"it names schema {found} and {' and '.join(stamped) or 'none'}"))
    if missing := sorted(set(metadata.tables) - there) if found == SCHEMA_VERSION else []:
        raise LedgerError(_half(what, f"it has no table {missing[0]}"))
    return found


def _half(what: str, why: str) -> str:
    return f"{what} is half migrated: {why}. Restore it from a backup; nothing was changed."


def _revision(number: int) -> str:
    return f"{number:04}"


def _begin_alone(connection: sa.Connection) -> None:
    """Begin a transaction in which no other process makes or changes the tables; wait for one that does."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # Python's sqlite3 would begin none before DDL
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def _make(connection: sa.Connection) -> None:
    """Make this version's tables as the migrations would, without Alembic, which takes long to import."""
    metadata.create_all(connection)
    connection.execute(meta.insert().values(key="schema", value=str(SCHEMA_VERSION)))
    begun = AppendOnlyLog.begin("ledger")
    connection.execute(log.insert().values(id=1, origin=begun.origin, size=0, frontier=begun.frontier))
    connection.exec_driver_sql(
        f"CREATE TABLE {_VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, "
        f"CONSTRAINT {_VERSION_TABLE}_pkc PRIMARY KEY (version_num))"
    )
    _stamp(connection, SCHEMA_VERSION)


def _stamp(connection: sa.Connection, number: int) -> None:
    connection.exec_driver_sql(f"INSERT INTO {_VERSION_TABLE} VALUES ('{_revision(number)}')")  # noqa: S608


def _upgrade(connection: sa.Connection, found: int) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    head = _revision(SCHEMA_VERSION)

    def steps(at: tuple[str, ...], _: object) -> object:
        # A ledger from before Alembic kept it has the first schema, and nothing that says so to Alembic.
        return scripts._upgrade_revs(head, at or (_revision(found),))  # type: ignore[arg-type]

    with EnvironmentContext(config, scripts, fn=steps) as environment:
        environment.configure(connection=connection, target_metadata=metadata)
        environment.run_migrations()
    connection.execute(meta.update().where(meta.c.key == "schema").values(value=str(SCHEMA_VERSION)))
