"""A look at the program's database with the operator's DSN, which leaves nothing behind and never leaves the node."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ashat.errors import AshatError
from ashat.node.database.count import TableCount
from ashat.node.database.dialects import Dialect, NotWritableError, dialect_of, with_driver
from ashat.node.database.migrations import Record, find_tool, read_record
from ashat.node.database.redact import why_no_connection, why_refused, without_password
from ashat.protocol.probes import DatabaseCount, DatabaseProbe, DatabaseProbeRequest, DatabaseSessions

log = logging.getLogger("ashat.node")

_ROUND_TRIPS = 9
_COUNTING = 0.6  # of the time for the look: until then rows are counted


class NoConnectionError(AshatError):
    """The database could not be connected to; the message says why, in words that hold nothing of the DSN."""


@dataclass
class Look:
    """One look: one connection, one thread, and another that may give it up. `ports` are those from which the program
    has connections."""

    dsn: str = field(repr=False)
    seconds: float
    ports: frozenset[int] = frozenset()
    _connection: Any = None
    _given_up: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_a_file(self) -> bool:
        """Tell whether it is a SQLite database, which this process opens itself."""
        return self.dsn.lower().startswith("sqlite")

    def run(self, request: DatabaseProbeRequest) -> DatabaseProbe:
        """Connect, and look."""
        try:
            url = _parse(self.dsn)
            kind = dialect_of(url, self.seconds)
            engine = self._engine(url, kind)
        except AshatError as error:
            return DatabaseProbe(ok=False, detail=str(error))
        name = engine.dialect.name
        try:
            began = time.monotonic()
            with engine.connect() as connection:
                return _Examination(connection, kind, url, began, self.ports).run(request)
        except NoConnectionError as error:
            return DatabaseProbe(ok=False, dialect=name, detail=str(error))
        except SQLAlchemyError as error:
            log.warning("the look at the database failed: %s", without_password(error, url))
            return DatabaseProbe(ok=False, dialect=name, detail=why_refused(error, url))
        finally:
            engine.dispose()

    def give_up(self) -> None:
        """End the wait of the thread in `run`, where the driver can be reached."""
        with self._lock:
            self._given_up = True
            self._cut()

    def _engine(self, url: sa.URL, kind: Dialect) -> sa.Engine:
        try:
            engine = sa.create_engine(
                url, poolclass=NullPool, connect_args=kind.options(url), isolation_level="AUTOCOMMIT"
            )
        except NoSuchModuleError:
            raise AshatError("SQLAlchemy knows no such driver as the DSN names") from None
        except ImportError as error:
            raise AshatError(
                f"the driver {error.name or 'of the DSN'} is not installed here; install it, or name psycopg"
                " (extra 'postgres') or pymysql (extra 'mariadb') in the DSN"
            ) from None
        except SQLAlchemyError as error:
            raise AshatError(f"the DSN cannot be used ({type(error).__name__})") from None

        @sa.event.listens_for(engine, "do_connect")
        def connect(dialect: sa.Dialect, record: Any, arguments: Any, options: Any) -> Any:
            try:
                connection = dialect.connect(*arguments, **options)
            except Exception as error:  # noqa: BLE001 - what a driver cannot do with a DSN, each says in its own way
                log.warning("the database cannot be connected to: %s", without_password(error, url))
                raise NoConnectionError(why_no_connection(error)) from None
            with self._lock:
                self._connection = connection
                if self._given_up:
                    self._cut()
            return connection

        return engine

    def _cut(self) -> None:
        connection = self._connection
        if isinstance(connection, sqlite3.Connection):
            connection.interrupt()
            return
        own = connection if hasattr(connection, "fileno") else getattr(connection, "_sock", None)  # PyMySQL's
        if own is None:
            return
        try:
            with socket.socket(fileno=os.dup(own.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)
        except Exception as error:  # noqa: BLE001 - each driver has errors of its own for "it is closed already"
            log.debug("the connection to the database was gone: %s", type(error).__name__)


def _parse(dsn: str) -> sa.URL:
    try:
        return with_driver(sa.make_url(dsn))
    except (ArgumentError, ValueError):
        raise AshatError(
            "the DSN is no SQLAlchemy URL, such as postgresql+psycopg://user:password@host/name; in a password,"
            " write @ as %40"
        ) from None


@dataclass
class _Examination:
    """What is found out over one open connection."""

    connection: sa.Connection
    kind: Dialect
    url: sa.URL
    began: float
    ports: frozenset[int]
    tables: set[str] = field(default_factory=set)
    views: set[str] = field(default_factory=set)

    def run(self, request: DatabaseProbeRequest) -> DatabaseProbe:
        """Everything that the probe tells."""
        self._round_trip()
        connect_ms = round((time.monotonic() - self.began) * 1000)
        round_trips = [self._round_trip() for _ in range(_ROUND_TRIPS)]
        self.kind.prepare(self.connection)
        self._list()
        missing, unreadable = self._read(request.tables)
        written = [name for name in request.tables if name not in {*missing, *unreadable, *self.views}]
        refusal = self._refusal(written)
        record, unknown = self._migrations()
        migration = record.newest
        connections, limit, uncounted = self._connections()
        count = self._count(written) if request.count else None
        sessions = self._sessions() if request.sessions else None
        wrong = [f"not writable: {refusal}"] if refusal else []
        if missing:
            wrong.append(f"missing tables: {', '.join(missing)}")
        wrong += [f"{name} cannot be read: {reason}" for name, reason in unreadable.items()]
        if request.migration is not None and migration != request.migration:
            stands = f"the newest migration is {migration or 'none'}, not {request.migration}"
            wrong.append(f"the migrations cannot be read: {unknown}" if unknown else stands)
        wrong += [f"the migration {version} failed" for version in record.failed]
        return DatabaseProbe(
            ok=not wrong,
            dialect=self.connection.dialect.name,
            connect_ms=connect_ms,
            writable=not refusal,
            migration=migration,
            migrations=list(record.applied),
            migrations_in=record.table,
            migrations_by=record.tool,
            failed_migrations=list(record.failed),
            tables=len(self.tables),
            missing_tables=missing,
            unreadable_tables=unreadable,
            round_trips_us=round_trips,
            connections=connections,
            max_connections=limit,
            uncounted=uncounted,
            count=count,
            sessions=sessions,
            detail="; ".join(wrong),
        )

    def _round_trip(self) -> int:
        began = time.perf_counter_ns()
        self.connection.exec_driver_sql(self.kind.round_trip).scalar_one()
        return (time.perf_counter_ns() - began) // 1000

    def _list(self) -> None:
        with self.kind.rolled_back(self.connection):
            inspector = sa.inspect(self.connection)
            self.tables, self.views = set(inspector.get_table_names()), set(inspector.get_view_names())

    def _read(self, names: Iterable[str]) -> tuple[list[str], dict[str, str]]:
        """Which of the tables are missing, and which are there and cannot be read, with the reason."""
        missing, unreadable = [], {}
        for name in dict.fromkeys(names):
            try:
                with self.kind.rolled_back(self.connection):
                    one: sa.Select[Any] = sa.select(sa.literal_column("1")).select_from(self._table(name)).limit(1)
                    self.connection.execute(one).first()
            except SQLAlchemyError as error:
                if self.kind.denied(error) or self._is_there(name):
                    unreadable[name] = why_refused(error, self.url)
                else:
                    missing.append(name)
        return missing, unreadable

    def _is_there(self, name: str) -> bool:
        if name in self.tables | self.views:
            return True
        schema, _, table = name.rpartition(".")
        try:
            return bool(schema) and sa.inspect(self.connection).has_table(table, schema)
        except SQLAlchemyError:
            return False

    def _refusal(self, tables: list[str]) -> str:
        """Why the database cannot be written to; "" where it can."""
        preparer = self.connection.dialect.identifier_preparer
        try:
            self.kind.write(self.connection, [preparer.format_table(self._table(name)) for name in tables])
        except NotWritableError as error:
            return str(error)
        except SQLAlchemyError as error:
            return why_refused(error, self.url)
        return ""

    def _migrations(self) -> tuple[Record, str]:
        """What the migration tool recorded, and why that cannot be told ("": it can, or no tool is known)."""
        found = find_tool({name.lower(): name for name in sorted(self.tables)}, self._columns)
        if found is None:
            return Record(), ""
        tool, table = found
        try:
            return read_record(self.connection, self.kind.rolled_back, tool, table), ""
        except SQLAlchemyError as error:
            return Record(tool.name, table), why_refused(error, self.url)

    def _columns(self, table: str) -> set[str]:
        try:
            with self.kind.rolled_back(self.connection):
                return {column["name"].lower() for column in sa.inspect(self.connection).get_columns(table)}
        except SQLAlchemyError:
            return set()

    def _connections(self) -> tuple[int | None, int | None, str]:
        try:
            counted = self.kind.connections(self.connection)
        except SQLAlchemyError as error:
            return None, None, why_refused(error, self.url)
        if counted is None:
            return None, None, f"{self.connection.dialect.name} does not limit them"
        return *counted, ""

    def _sessions(self) -> list[DatabaseSessions]:
        """Those of the program, by database and user."""
        if not self.ports:
            return []
        try:
            listed = self.kind.sessions(self.connection)
        except SQLAlchemyError as error:
            log.warning("sessions are not known: %s", without_password(error, self.url))
            return []
        held = Counter((database, user) for database, user, port in listed if port in self.ports)
        return [
            DatabaseSessions(database=name, user=user, count=many, same_database=name == self.url.database)
            for (name, user), many in sorted(held.items())
        ]

    def _count(self, first: list[str]) -> DatabaseCount:
        """What the tables hold: `first` those that the caller named."""
        ends = self.began + self.kind.seconds * _COUNTING
        named = {name: self._table(name) for name in [*first, *sorted(self.tables - set(first))]}
        return TableCount(self.connection, self.kind, ends, self._why).count(named)

    def _why(self, error: SQLAlchemyError) -> str:
        return why_refused(error, self.url)

    def _table(self, name: str) -> Any:
        """The table, which may be named with its schema."""
        if name in self.tables | self.views:
            return sa.table(name)
        schema, _, table = name.rpartition(".")
        return sa.table(table, schema=schema or None)
