"""Opens the fleet's database, brings it to this version's schema, and writes to it, one change or many at a time.

It is a SQLite file beside the node's record, or a PostgreSQL database that several OMEGAs share. Alembic keeps the
schema: `migrations/versions/` has one file a version.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError

from ashat.common.shortage import reason, shortage
from ashat.errors import AshatError, FleetDatabaseError
from ashat.node.omega.fleet.tables import facts, metadata

FILE: Final = "fleet.db"
HEAD: Final = "0003"
GROUP_LIMIT: Final = 500
GATHER_SECONDS: Final = 0.01
_BUSY_SECONDS: Final = 0.05
_AT_ONCE: Final = 5000
LAG_SECONDS: Final = 0.2
_WRITES: Final = "writes"
_MIGRATION_LOCK: Final = 4_127_301
_VERSION_TABLE: Final = "alembic_version"
# Alembic keeps what it works on in globals.
_migrating = threading.Lock()
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
T = TypeVar("T")
Item = TypeVar("Item")
Change = Callable[[sa.Connection], T]
Batch = Callable[[sa.Connection, Sequence[Item]], Sequence[T]]
"""Makes a change for each of many, and returns what came of each, in order; it raises where one of them cannot be made,
and is then asked for each of them alone."""


class _Waiting(NamedTuple):
    """One that waits for the writer, of those that `batch` makes together."""

    batch: Batch[Any, Any]
    item: Any
    future: Future[Any]


class FleetDatabase:
    """The fleet's database, safe to use from many threads, and from several processes at once.

    Raises (from every method):
        FleetDatabaseError: it does not answer, or is full.
    """

    def __init__(self, url: str | Path) -> None:
        """Open the SQLite file `url`, or the database at that URL.

        Raises:
            AshatError: a newer version of ASHAT Deploy wrote it, or the URL is none.
        """
        self._engine = _engine(url)
        self.name = str(url) if isinstance(url, Path) else self._engine.url.render_as_string(hide_password=True)
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._writes = self._engine.execution_options(**{_WRITES: True})
        with self._said():
            _migrate(self._writes, self.name)
        self._looking = threading.Lock()
        self._look = _plain(url) if isinstance(url, Path) else None
        self._touched: object = None
        self._looked = -LAG_SECONDS

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def close(self) -> None:
        """Write what waits, and close; nothing may be asked of it afterwards."""
        self.stop()
        if self._look is not None:
            self._look.close()
        self._engine.dispose()

    def read(self, statement: sa.Select[Any], values: Mapping[str, object] | None = None) -> list[sa.Row[Any]]:
        """Read every row of what is committed; `values` are those of the statement's parameters."""
        with self._said(), self._engine.connect() as connection:
            return list(connection.execute(statement, values).all())

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open one connection for several reads, all of one state of the database."""
        with self._said(), self._engine.connect() as connection:
            yield connection

    def is_empty(self) -> bool:
        """Tell whether no licence was ever kept here."""
        return self.number("licences_version") == 0

    def copy_to(self, other: FleetDatabase) -> None:
        """Copy everything into the empty database `other`: all of it or, if that fails, nothing."""
        with self.reading() as mine:

            def copy(theirs: sa.Connection) -> None:
                for table in metadata.sorted_tables:
                    theirs.execute(table.delete())
                    for rows in mine.execute(sa.select(table)).mappings().partitions(_AT_ONCE):
                        theirs.execute(table.insert(), [dict(row) for row in rows])
                if theirs.dialect.name == "postgresql":
                    theirs.exec_driver_sql(
                        "SELECT setval(pg_get_serial_sequence('reports', 'seq'), coalesce(max(seq), 0) + 1, false) "
                        "FROM reports"
                    )

            other.change(copy)

    def number(self, key: str) -> int:
        """Read the number that is kept under `key`."""
        return int(self.read(sa.select(facts.c.value).where(facts.c.key == key))[0].value)

    def glance(self, key: str) -> int:
        """Read the number that is kept under `key`; of a SQLite file at a cost of microseconds."""
        if self._look is None:
            return self.number(key)
        with self._looking:
            try:
                return int(self._look.execute("SELECT value FROM fleet WHERE key = ?", (key,)).fetchone()[0])
            except sqlite3.Error as error:
                raise self._error(error) from error

    def touched(self) -> object:
        """Return what is another thing whenever anybody has written since, at a cost of microseconds; on PostgreSQL it
        may lag by `LAG_SECONDS`."""
        with self._looking:
            if self._look is not None:
                try:
                    return self._look.execute("PRAGMA data_version").fetchone()[0]
                except sqlite3.Error as error:
                    raise self._error(error) from error
            if time.monotonic() >= self._looked + LAG_SECONDS:
                self._touched, self._looked = self.read(sa.select(facts).order_by("key")), time.monotonic()
            return self._touched

    def change(self, change: Change[T]) -> T:
        """Make a change in a transaction of its own; on return it is durable."""
        with self._said(), self._lock, self._writes.begin() as connection:
            return change(connection)

    def submit(self, change: Change[T]) -> Future[T]:
        """Make a change together with others that come meanwhile; its future ends when it is durable.

        One that raises undoes itself only. Where the writer does not run, it is made at once.
        """
        return self.submit_to(lambda connection, _: [change(connection)], None)

    def submit_to(self, batch: Batch[Item, T], item: Item) -> Future[T]:
        """Do `submit` for a change that `batch` makes of `item`, together with all others that are for it."""
        future: Future[T] = Future()
        if self._writer is None:
            _settle(future, lambda: self.change(lambda connection: batch(connection, [item])[0]))
        else:
            self._queue.put(_Waiting(batch, item, future))
        return future

    @property
    def thread(self) -> threading.Thread | None:
        """The thread that writes in groups, None before the start."""
        return self._writer

    def start(self) -> None:
        """Begin to write in groups."""
        self._writer = threading.Thread(target=self._write_groups, name="fleet-writer", daemon=True)
        self._writer.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join(30)
            self._writer = None

    def _write_groups(self) -> None:
        wrote = 0.0
        while (first := self._queue.get()) is not None:
            if time.monotonic() - wrote < _BUSY_SECONDS:
                time.sleep(GATHER_SECONDS)  # where many come, a transaction for each costs more than this wait
            group, last = [first], False
            while len(group) < GROUP_LIMIT and not last:
                try:
                    further = self._queue.get_nowait()
                except queue.Empty:
                    break
                if further is None:
                    last = True
                else:
                    group.append(further)
            self._write_group(group)
            wrote = time.monotonic()
            if last:
                return

    def _write_group(self, group: list[_Waiting]) -> None:
        made: list[tuple[Future[Any], Any]] = []
        batches: dict[Batch[Any, Any], list[_Waiting]] = {}
        try:
            with self._said(), self._lock, self._writes.begin() as connection:
                for each in group:
                    if each.future.set_running_or_notify_cancel():  # from here on nobody can cancel it
                        batches.setdefault(each.batch, []).append(each)
                for several in batches.values():
                    made += _make(connection, several)
        except FleetDatabaseError as error:
            for each in group:
                if not each.future.done():
                    each.future.set_exception(error)
            return
        for future, found in made:
            future.set_result(found)

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Put what the database's library says into a line."""
        try:
            yield
        except (sa.exc.SQLAlchemyError, sqlite3.Error) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> FleetDatabaseError:
        return FleetDatabaseError(f"The fleet's database {self.name} does not answer: {_words(error)}.")


def next_number(connection: sa.Connection, key: str) -> int:
    """Raise the number under `key` and return it; whoever asks for the same waits until this transaction ends."""
    raised = facts.update().where(facts.c.key == key).values(value=facts.c.value + 1).returning(facts.c.value)
    return int(connection.execute(raised).scalar_one())


def _make(connection: sa.Connection, several: list[_Waiting]) -> list[tuple[Future[Any], Any]]:
    """Make what waits for the same batch; where that fails, each alone, and those that fail alone are told so."""
    try:
        with connection.begin_nested():
            found = several[0].batch(connection, [each.item for each in several])
            return [(each.future, result) for each, result in zip(several, found, strict=True)]
    except Exception as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        if len(several) > 1:
            return [made for each in several for made in _make(connection, [each])]
        if isinstance(error, DBAPIError):
            refused = FleetDatabaseError(f"The fleet's database took no change: {_words(error)}.")
            refused.__cause__ = error
            several[0].future.set_exception(refused)
        else:
            several[0].future.set_exception(error)
        return []


def _settle(future: Future[T], work: Callable[[], T]) -> None:
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001  it is the caller's, who gets it
        future.set_exception(error)


def _engine(url: str | Path) -> sa.Engine:
    if isinstance(url, Path):
        try:
            url.touch(mode=0o600)
        except OSError as error:
            raise AshatError(f"The fleet's database {url} cannot be opened: {reason(error, url.parent)}.") from error
        engine = sa.create_engine(sa.URL.create("sqlite", database=str(url)), connect_args={"timeout": 30})
        sa.event.listen(engine, "connect", _durable)
        sa.event.listen(engine, "begin", _begin)
        return engine
    try:
        parsed = sa.make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.drivername != "postgresql+psycopg":
            raise AshatError("fleet_dsn_file holds a URL such as postgresql://user@host/database.")
        return sa.create_engine(parsed, pool_pre_ping=True, pool_size=8, connect_args={"connect_timeout": 10})
    except (ArgumentError, ValueError):
        raise AshatError("fleet_dsn_file holds no URL such as postgresql://user@host/database.") from None
    except ImportError:
        raise AshatError("PostgreSQL needs the extra 'postgres': pip install 'ashat-deploy[postgres]'.") from None


def _plain(path: Path) -> sqlite3.Connection:
    """Open a connection that only looks whether others wrote."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # until then it has seen nothing
    return connection


def _durable(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # so that `_begin` begins, before DDL too
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")


def _migrate(engine: sa.Engine, name: str) -> None:
    """Bring the schema to this version; of several that do so at once, one does it."""
    with engine.connect() as connection:
        found = _version(connection)
    if found == HEAD:
        return
    with _migrating, engine.begin() as connection:
        if connection.dialect.name != "sqlite":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        found = _version(connection)
        if found != HEAD:
            _upgrade(connection, found, name)


def _upgrade(connection: sa.Connection, found: str | None, name: str) -> None:
    # Here, since it takes a while to load and is needed once a version.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        raise AshatError(
            f"A newer version of ASHAT Deploy wrote the fleet's database {name} (schema {found}, this one reads "
            f"{HEAD}); upgrade this OMEGA. Nothing was changed."
        )
    with EnvironmentContext(config, scripts, fn=lambda at, _: scripts._upgrade_revs(HEAD, at)) as environment:
        environment.configure(connection=connection, target_metadata=metadata)
        environment.run_migrations()


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION_TABLE):
        return None
    return connection.exec_driver_sql(f"SELECT version_num FROM {_VERSION_TABLE}").scalar()  # noqa: S608


def _words(error: BaseException) -> str:
    if lack := shortage(error, None):
        return lack.words
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return (str(origin).strip().splitlines() or [type(origin).__name__])[0]
