"""The dialects of the databases that a node can look at: SQLite, PostgreSQL and MariaDB (or MySQL).

Connections commit each statement by itself; `rolled_back` is the one place where a transaction begins, and none is
ever committed. PostgreSQL's limits on time are set there as well, so that they hold for that transaction only: a pool
in between (PgBouncer) hands the session to the program afterwards.
"""

from __future__ import annotations

import importlib.util
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ashat.errors import AshatError

SESSIONS = 5_000
_BUSY = 0.6  # of the time for the look, so that "locked" comes before the look as a whole is given up
_TRIED = 5
_STEPS = 10_000  # of SQLite's machine between two looks at the clock: some 0.1 ms
_PREFERRED = {"postgresql": "psycopg", "mariadb": "pymysql", "mysql": "pymysql"}


class NotWritableError(AshatError):
    """The database refuses to be written to, for a reason that is no error of a statement."""


class Dialect(ABC):
    """One kind of database. `seconds` is the time for the whole look."""

    round_trip = "SELECT 1"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @abstractmethod
    def options(self, url: sa.URL) -> dict[str, Any]:
        """Return what the driver is to be told besides the DSN.

        Raises:
            AshatError: the DSN cannot be used.
        """

    def prepare(self, connection: sa.Connection) -> None:
        """Have the session heed the limits on time that no transaction can set."""
        return

    @abstractmethod
    def write(self, connection: sa.Connection, tables: Sequence[str]) -> None:
        """Write, and leave nothing behind. `tables` are those of the program that are there, quoted for SQL.

        Raises:
            NotWritableError, sqlalchemy.exc.SQLAlchemyError: it was refused.
        """

    @abstractmethod
    def connections(self, connection: sa.Connection) -> tuple[int, int] | None:
        """Count the connections taken, and those that the DSN's user may have at most; None where nothing limits them.

        Where several limits hold, the one with the fewest left counts.
        """

    def sessions(self, connection: sa.Connection) -> list[tuple[str, str, int]]:
        """List the sessions that came over TCP: database, user, and the client's port; `SESSIONS` at most."""
        return []

    @abstractmethod
    def denied(self, error: SQLAlchemyError) -> bool:
        """Tell whether the DSN's user lacks a right, rather than the database something."""

    @contextmanager
    def rolled_back(self, connection: sa.Connection, *, writes: bool = False) -> Iterator[None]:
        """Open a transaction that comes to nothing, whatever is done in it."""
        connection.exec_driver_sql(self._opening(writes=writes))
        try:
            yield
        except BaseException:
            with suppress(SQLAlchemyError):  # the first error tells more, and some undo the transaction by themselves
                connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("ROLLBACK")

    @contextmanager
    def counting(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """Open a transaction that comes to nothing, in which a statement is ended after `seconds`, where the database
        can do so."""
        with self.rolled_back(connection):
            yield

    @abstractmethod
    def _opening(self, *, writes: bool) -> str:
        """What begins a transaction."""


class Sqlite(Dialect):
    """A file. To make a table is part of a transaction there, so the whole of a write is tried and undone."""

    round_trip = "SELECT count(*) FROM sqlite_master"  # reads the file, under its lock; SELECT 1 would not

    def options(self, url: sa.URL) -> dict[str, Any]:
        """Return how long to wait for locks.

        Raises:
            AshatError: no file is named, or it is not there; SQLite would make an empty one.
        """
        if not url.database or url.database == ":memory:":
            raise AshatError("a SQLite DSN must name a file")
        if not Path(url.database.removeprefix("file:").partition("?")[0]).is_file():
            raise AshatError("there is no database file at the path of the DSN")
        return {"timeout": self.seconds * _BUSY}

    def write(self, connection: sa.Connection, tables: Sequence[str]) -> None:
        """Make a table, write a row, roll both back."""
        with self.rolled_back(connection, writes=True):
            _make_and_write(connection, "TABLE")

    def connections(self, connection: sa.Connection) -> None:
        """Return None: nothing limits them."""
        return

    @contextmanager
    def counting(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """End what runs longer as if it were interrupted: SQLite has no limit on time of its own."""
        ends, sqlite = time.monotonic() + seconds, connection.connection.driver_connection
        assert sqlite is not None
        with self.rolled_back(connection):
            sqlite.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
            try:
                yield
            finally:
                sqlite.set_progress_handler(None, 0)

    def denied(self, error: SQLAlchemyError) -> bool:
        """Return False: SQLite knows no rights."""
        return False

    def _opening(self, *, writes: bool) -> str:
        return "BEGIN IMMEDIATE" if writes else "BEGIN"


class Postgresql(Dialect):
    """To make a table is part of a transaction there, too; only who may make none has to be tried otherwise."""

    _no_right = frozenset({"42501", "3F000"})  # insufficient privilege; no schema to make it in (appendix A)
    _counted = """
        WITH open AS (
            SELECT usename, datname FROM pg_stat_activity
            WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
        )
        SELECT (SELECT count(*) FROM open),
            current_setting('max_connections')::int - CASE WHEN rolsuper THEN 0 ELSE
                current_setting('superuser_reserved_connections')::int
                + coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int END,
            (SELECT count(*) FROM open WHERE usename = session_user),
            CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END,
            (SELECT count(*) FROM open WHERE datname = current_database()),
            (SELECT CASE WHEN rolsuper THEN -1 ELSE datconnlimit END FROM pg_database
                WHERE datname = current_database())
        FROM pg_roles WHERE rolname = session_user
        """

    def options(self, url: sa.URL) -> dict[str, Any]:
        """Return when to give up connecting; and no prepared statements, which a pool in between may not know."""
        options: dict[str, Any] = {"connect_timeout": max(round(self.seconds), 2)}
        if url.get_driver_name() == "psycopg":
            options["prepare_threshold"] = None
        return options

    def write(self, connection: sa.Connection, tables: Sequence[str]) -> None:
        """Make a table, write a row, roll both back.

        Who may make no table there makes a temporary one, which a read-only server refuses as well, and must have the
        right to write to one of `tables` at least.
        """
        try:
            with self.rolled_back(connection, writes=True):
                _make_and_write(connection, "TABLE")
            return
        except DBAPIError as error:
            if not self.denied(error):
                raise
        with self.rolled_back(connection, writes=True):
            _make_and_write(connection, "TEMPORARY TABLE")
        may_write = sa.text("SELECT has_table_privilege(to_regclass(:name), 'INSERT, UPDATE, DELETE')")
        if tables and not any(connection.scalar(may_write, {"name": name}) for name in tables):
            raise NotWritableError("the DSN's user may write to none of the tables that raos.toml names")

    def connections(self, connection: sa.Connection) -> tuple[int, int]:
        """Count clients against what the server leaves to ordinary users; the user's and the database's limits, too.

        Who may not see others' activity still sees that they are there.
        """
        with self.rolled_back(connection):
            row = connection.exec_driver_sql(self._counted).one()
        pairs = [(int(row[at]), int(row[at + 1])) for at in (0, 2, 4) if row[at + 1] >= 0]
        return min(pairs, key=lambda pair: pair[1] - pair[0])

    def sessions(self, connection: sa.Connection) -> list[tuple[str, str, int]]:
        """List what the DSN's user may see of others: without the role pg_read_all_stats, no port."""
        with self.rolled_back(connection):
            rows = connection.exec_driver_sql(
                "SELECT datname, usename, client_port FROM pg_stat_activity"
                " WHERE datid IS NOT NULL AND usename IS NOT NULL AND client_port > 0"
            ).fetchmany(SESSIONS)
        return [(str(row[0]), str(row[1]), int(row[2])) for row in rows]

    @contextmanager
    def counting(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """Set a limit on time for this transaction alone."""
        with self.rolled_back(connection):
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {max(round(seconds * 1000), 1)}")
            yield

    def denied(self, error: SQLAlchemyError) -> bool:
        """Tell it by the SQLSTATE."""
        original = getattr(error, "orig", None)
        return (getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)) in self._no_right

    def _opening(self, *, writes: bool) -> str:
        limit = max(round(self.seconds * _BUSY * 1000), 1)
        return f"BEGIN; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}"


class MariaDb(Dialect):
    """MariaDB and MySQL, which commit when a table is made, so that none can be made on trial.

    A temporary table belongs to the session alone and commits nothing, but a read-only server lets anybody write to
    one. So both are done: a row goes into a temporary table and is rolled back, which needs the storage engine to
    work; and `INSERT INTO t SELECT * FROM t WHERE 1 = 0` names a table of the program, so that the server judges as
    for any insert (read-only server or transaction, locked tables, the user's rights), while no row is there to be
    written: nothing to undo even where an engine knows no transactions, and no AUTO_INCREMENT used up.
    """

    _decisive = frozenset({1036, 1205, 1223, 1290, 1792, 1836, 1969, 3024})  # read-only, locked, or out of time
    _no_right = frozenset({1044, 1142, 1143, 1227})

    def options(self, url: sa.URL) -> dict[str, Any]:
        """Return when to give up connecting, reading and writing."""
        if url.get_driver_name() not in ("pymysql", "mysqldb"):
            return {}
        whole = max(round(self.seconds), 1)
        return {"connect_timeout": whole, "read_timeout": whole, "write_timeout": whole}

    def prepare(self, connection: sa.Connection) -> None:
        """Wait for locks, and let MariaDB work on a statement, no longer than the look may take."""
        whole = max(int(self.seconds * _BUSY), 1)
        limits = f"SET SESSION lock_wait_timeout = {whole}, innodb_lock_wait_timeout = {whole}"
        connection.exec_driver_sql(f"{limits} /*M!100100 , max_statement_time = {whole + 1} */")

    def write(self, connection: sa.Connection, tables: Sequence[str]) -> None:
        """Write a row into a temporary table, and none into a table of the program."""
        self._write_to_a_temporary_table(connection)
        refusal: DBAPIError | None = None
        for table in tables or self._some_tables(connection):
            try:
                with self.rolled_back(connection, writes=True):
                    nothing = f"INSERT INTO {table} SELECT * FROM {table} WHERE 1 = 0"  # noqa: S608 - quoted names
                    connection.exec_driver_sql(nothing)
                return
            except DBAPIError as error:
                if _code(error) in self._decisive:
                    raise
                refusal = refusal or error
        if refusal is not None:
            if self.denied(refusal):
                raise NotWritableError("the DSN's user may write to none of its tables")
            raise refusal
        if connection.exec_driver_sql("SELECT @@global.read_only").scalar():
            raise NotWritableError("the server is read-only")

    def connections(self, connection: sa.Connection) -> tuple[int, int]:
        """Count all threads against the server's limit; the user's own against theirs, where they have one."""
        with self.rolled_back(connection):
            taken = connection.exec_driver_sql("SHOW GLOBAL STATUS WHERE Variable_name = 'Threads_connected'").one()[1]
            row = connection.exec_driver_sql(
                "SELECT @@global.max_connections, @@session.max_user_connections,"
                " (SELECT count(*) FROM information_schema.processlist"
                " WHERE user = substring_index(user(), '@', 1))"
            ).one()
        pairs = [(int(taken), int(row[0]))]
        if int(row[1]) > 0:
            pairs.append((int(row[2]), int(row[1])))
        return min(pairs, key=lambda pair: pair[1] - pair[0])

    def sessions(self, connection: sa.Connection) -> list[tuple[str, str, int]]:
        """List what the DSN's user may see of others: without the right PROCESS, only its own."""
        with self.rolled_back(connection):
            rows = connection.exec_driver_sql(
                "SELECT coalesce(db, ''), user, host FROM information_schema.processlist"
            ).fetchmany(SESSIONS)
        ports = [(str(row[0]), str(row[1]), str(row[2]).rpartition(":")[2]) for row in rows]
        return [(database, user, int(port)) for database, user, port in ports if port.isdecimal()]

    @contextmanager
    def counting(self, connection: sa.Connection, seconds: float) -> Iterator[None]:
        """Set a limit on time for what the session does from now on; the session ends with the look."""
        milliseconds = max(round(seconds * 1000), 1)
        connection.exec_driver_sql(
            f"SET @ashat_limit = {milliseconds} /*M!100100 , SESSION max_statement_time = {milliseconds / 1000} */"
        )
        with self.rolled_back(connection):
            yield

    def denied(self, error: SQLAlchemyError) -> bool:
        """Tell it by the error's number."""
        return _code(error) in self._no_right

    def _opening(self, *, writes: bool) -> str:
        return "START TRANSACTION"

    def _write_to_a_temporary_table(self, connection: sa.Connection) -> None:
        table = _name()
        try:
            connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {table} (value INTEGER) ENGINE = InnoDB")
        except DBAPIError as error:
            if not self.denied(error):
                raise
            return
        try:
            with self.rolled_back(connection, writes=True):
                _write_a_row(connection, table)
        finally:
            with suppress(SQLAlchemyError):  # it goes with the session, and what came before tells more
                connection.exec_driver_sql(f"DROP TEMPORARY TABLE {table}")

    def _some_tables(self, connection: sa.Connection) -> list[str]:
        quote = connection.dialect.identifier_preparer.quote
        return [quote(name) for name in sa.inspect(connection).get_table_names()[:_TRIED]]


_KINDS: dict[str, type[Dialect]] = {
    "sqlite": Sqlite,
    "postgresql": Postgresql,
    "mariadb": MariaDb,
    "mysql": MariaDb,
}


def dialect_of(url: sa.URL, seconds: float) -> Dialect:
    """Find the dialect of the database that `url` names.

    Raises:
        AshatError: it is none that a node can look at.
    """
    kind = _KINDS.get(url.get_backend_name())
    if kind is None:
        raise AshatError("a node can look at SQLite, PostgreSQL and MariaDB, and the DSN names another kind")
    return kind(seconds)


def with_driver(url: sa.URL) -> sa.URL:
    """Name in `url` the driver that our extras install, where it names none and that one is here."""
    preferred = _PREFERRED.get(url.drivername)
    if preferred is None or importlib.util.find_spec(preferred) is None:
        return url
    return url.set(drivername=f"{url.drivername}+{preferred}")


def _name() -> str:
    return f"ashat_probe_{secrets.token_hex(8)}"


def _make_and_write(connection: sa.Connection, kind: str) -> None:
    table = _name()
    connection.exec_driver_sql(f"CREATE {kind} {table} (value INTEGER)")
    _write_a_row(connection, table)


def _write_a_row(connection: sa.Connection, table: str) -> None:
    connection.execute(sa.table(table, sa.column("value", sa.Integer)).insert().values(value=1))


def _code(error: SQLAlchemyError) -> int | None:
    """MariaDB's error number."""
    arguments = getattr(getattr(error, "orig", None), "args", ())
    return arguments[0] if arguments and isinstance(arguments[0], int) else None
