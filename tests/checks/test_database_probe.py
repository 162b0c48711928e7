"""How deep the checks of health, modules and database look, and that nothing they meet costs more than their limits."""

from __future__ import annotations

import contextlib
import logging
import socket
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from ashat.node.core.config import DatabaseConfig
from ashat.node.database.throttle import DatabaseLook
from ashat.protocol.messages import App
from ashat.protocol.probes import DatabaseProbe, DatabaseProbeRequest, ModuleReport
from ashat.raos_toml.schema import DatabaseSection
from tasks.checks.database import database_findings
from tasks.checks.health import start_findings
from tasks.checks.modules import load_times, module_findings
from tests.support import needs
from tests.support.needs import requires_mariadb, requires_postgresql
from tests.support.processes.node import NodeProcess, free_port

PASSWORD = "hunter2-hunter2"
SCHEMA = (
    "CREATE TABLE schema_migrations (version VARCHAR(20), applied_by VARCHAR(20) NOT NULL)",
    "INSERT INTO schema_migrations VALUES ('0002', 'kim'), ('0010', 'kim')",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, item VARCHAR(20))",
    "INSERT INTO orders VALUES (1, 'banner')",
)


def look(dsn: str, tmp_path: Path, timeout: float = 5, **wanted: object) -> DatabaseProbe:
    config = DatabaseConfig(dsn=SecretStr(dsn), timeout=timeout)
    return DatabaseLook(config)(DatabaseProbeRequest.model_validate(wanted), tmp_path)


BROUGHT = ("migrations/0002_talk.sql", "migrations/0010_orders.sql")


def texts(wanted: Mapping[str, Any], probe: DatabaseProbe) -> list[tuple[str, str]]:
    findings = database_findings(DatabaseSection.model_validate(wanted), probe, BROUGHT, 3)
    return [(finding.severity, finding.text) for finding in findings]


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[sa.Engine]:
    """An administrator's engine to a database with `SCHEMA`; the roles that a test makes are named after it."""
    engine = sa.create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    run(engine, *SCHEMA)
    try:
        yield engine
    finally:
        with engine.connect() as connection:
            pattern = {"pattern": f"{engine.url.database}_%"}
            roles = connection.scalars(sa.text("SELECT rolname FROM pg_roles WHERE rolname LIKE :pattern"), pattern)
            for role in roles.all():
                connection.exec_driver_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")
        engine.dispose()


@pytest.fixture
def mariadb() -> Iterator[sa.Engine]:
    """The same on MariaDB; the users that a test makes are named after the database."""
    name = f"ashat_test_{uuid.uuid4().hex[:12]}"
    admin = sa.create_engine(needs.MARIADB_ADMIN, isolation_level="AUTOCOMMIT")
    run(admin, f"CREATE DATABASE {name}")
    engine = sa.create_engine(admin.url.set(database=name), isolation_level="AUTOCOMMIT")
    try:
        run(engine, *SCHEMA)
        yield engine
    finally:
        engine.dispose()
        with admin.connect() as connection:
            users = connection.scalars(
                sa.text("SELECT DISTINCT user FROM mysql.user WHERE user LIKE :it"), {"it": f"{name}_%"}
            )
            for user in users.all():
                connection.exec_driver_sql(f"DROP USER {user}@'127.0.0.1', {user}@localhost")
            connection.exec_driver_sql(f"DROP DATABASE {name}")
        admin.dispose()


def run(engine: sa.Engine, *statements: str) -> None:
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def rows(engine: sa.Engine, statement: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


def role(postgresql: sa.Engine, *grants: str, options: str = "") -> str:
    """The DSN of a new role that may do what `grants` say, and make no tables."""
    name = f"{postgresql.url.database}_app"
    run(
        postgresql,
        f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}' {options}",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        *(f"GRANT {grant} TO {name}" for grant in grants),
    )
    return dsn(postgresql.url.set(username=name, password=PASSWORD))


def user(mariadb: sa.Engine, *grants: str, options: str = "") -> str:
    """The DSN of a new user that may do what `grants` say."""
    name = f"{mariadb.url.database}_app"
    for host in ("127.0.0.1", "localhost"):
        made = f"CREATE USER {name}@'{host}' IDENTIFIED BY '{PASSWORD}' {options}"
        run(mariadb, made, *(f"GRANT {grant} TO {name}@'{host}'" for grant in grants))
    return dsn(mariadb.url.set(username=name, password=PASSWORD))


def dsn(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


# What is found


@requires_mariadb
def test_a_look_at_mariadb_leaves_nothing_behind(mariadb: sa.Engine, tmp_path: Path) -> None:
    run(
        mariadb,
        "CREATE TABLE log (id INTEGER PRIMARY KEY AUTO_INCREMENT, line TEXT) ENGINE = MyISAM",
        "INSERT INTO log (line) VALUES ('first')",
        "CREATE TABLE items (id INTEGER PRIMARY KEY AUTO_INCREMENT, a INTEGER, b INTEGER AS (a * 2) STORED)",
        "CREATE TRIGGER seen BEFORE INSERT ON log FOR EACH ROW SET NEW.line = 'seen'",
        "CREATE VIEW shop AS SELECT * FROM items",
    )
    kept = (
        "SELECT table_name, auto_increment, table_rows FROM information_schema.tables WHERE table_schema = database()"
    )
    before = rows(mariadb, kept)
    tables = ["log", "items", "orders", "shop", f"{mariadb.url.database}.log"]
    found = look(dsn(mariadb.url), tmp_path, tables=tables, migration="0010")
    assert found.ok, found.detail
    assert (found.dialect, found.writable, found.migration) == ("mariadb", True, "0010")
    assert len(found.round_trips_us) == 9
    assert found.connections is not None
    assert found.max_connections is not None
    assert 0 < found.connections < found.max_connections
    assert rows(mariadb, kept) == before
    assert rows(mariadb, "SELECT * FROM log") == [(1, "first")]
    assert look(dsn(mariadb.url.set(drivername="mysql")), tmp_path, tables=["orders"]).ok


@requires_mariadb
def test_mariadb_that_cannot_be_written_to(mariadb: sa.Engine, tmp_path: Path) -> None:
    read_only = mariadb.url.update_query_dict({"init_command": "SET SESSION TRANSACTION READ ONLY"})
    refused = look(dsn(read_only), tmp_path, tables=["orders"])
    assert (refused.ok, refused.writable) == (False, False)
    assert "READ ONLY transaction" in refused.detail
    reader = user(mariadb, f"SELECT, CREATE TEMPORARY TABLES ON {mariadb.url.database}.*")
    refused = look(reader, tmp_path, tables=["orders"])
    assert (refused.ok, refused.writable, refused.unreadable_tables) == (False, False, {})
    assert refused.detail == "not writable: the DSN's user may write to none of its tables"


@requires_mariadb
def test_a_table_of_mariadb_that_is_locked_is_not_waited_for(mariadb: sa.Engine, tmp_path: Path) -> None:
    with mariadb.connect() as other:
        other.exec_driver_sql("LOCK TABLES orders READ")
        refused = look(dsn(mariadb.url), tmp_path, timeout=3, tables=["orders"])
        assert (refused.ok, refused.writable) == (False, False)
        assert "Lock wait timeout exceeded" in refused.detail
        other.exec_driver_sql("UNLOCK TABLES")
    assert look(dsn(mariadb.url), tmp_path, tables=["orders"]).ok


@requires_mariadb
def test_a_table_of_mariadb_that_may_not_be_read_is_not_missing(mariadb: sa.Engine, tmp_path: Path) -> None:
    database = mariadb.url.database
    app = user(mariadb, f"SELECT, INSERT ON {database}.orders")
    found = look(app, tmp_path, tables=["orders", "schema_migrations"])
    assert (found.ok, found.writable, list(found.unreadable_tables)) == (False, True, ["schema_migrations"])
    assert "denied to its user" in found.unreadable_tables["schema_migrations"]
    assert database is not None
    assert database not in found.model_dump_json()


@requires_mariadb
def test_a_user_of_mariadb_with_few_connections(mariadb: sa.Engine, tmp_path: Path) -> None:
    app = user(mariadb, f"ALL ON {mariadb.url.database}.*", options="WITH MAX_USER_CONNECTIONS 3")
    found = look(app, tmp_path, tables=["orders"])
    assert (found.ok, found.connections, found.max_connections) == (True, 1, 3)
    taken = "1 of the 3 connections that it may have are taken, 2 are free, 3 must be: close some, or allow more"
    assert ("high", taken) in texts({}, found)
    engine = sa.create_engine(app)
    with engine.connect(), engine.connect(), engine.connect():
        full = look(app, tmp_path)
        assert (full.ok, full.connect_ms, full.detail) == (False, None, "all connections that it allows are taken")
    engine.dispose()


@requires_postgresql
def test_a_look_at_postgresql_leaves_nothing_behind(postgresql: sa.Engine, tmp_path: Path) -> None:
    run(postgresql, "CREATE SCHEMA shop", "CREATE TABLE shop.items (id SERIAL PRIMARY KEY)")
    kept = "SELECT oid, relname, relfilenode FROM pg_class WHERE relkind IN ('r', 'S', 'v') ORDER BY oid"
    before = rows(postgresql, kept)
    url = dsn(postgresql.url.set(drivername="postgresql"))
    found = look(url, tmp_path, tables=["orders", "shop.items"], migration="0010")
    assert found.ok, found.detail
    assert (found.dialect, len(found.round_trips_us)) == ("postgresql", 9)
    assert (found.migration, found.migrations, found.migrations_in) == ("0010", ["0002", "0010"], "schema_migrations")
    assert found.connections is not None
    assert found.max_connections is not None
    assert 0 < found.connections < found.max_connections
    assert rows(postgresql, kept) == before


@requires_postgresql
def test_a_role_of_postgresql_that_may_not_do_enough(postgresql: sa.Engine, tmp_path: Path) -> None:
    app = role(postgresql, "SELECT ON orders")
    found = look(app, tmp_path, tables=["orders", "schema_migrations", "ghosts"], migration="0010")
    assert (found.ok, found.writable, found.missing_tables) == (False, False, ["ghosts"])
    assert found.unreadable_tables == {"schema_migrations": "permission denied for table schema_migrations"}
    assert "the DSN's user may write to none of the tables that raos.toml names" in found.detail
    assert "the migrations cannot be read: permission denied" in found.detail
    run(postgresql, f"GRANT INSERT ON orders TO {sa.make_url(app).username}")
    assert look(app, tmp_path, tables=["orders"]).writable


@requires_postgresql
def test_a_role_of_postgresql_with_few_connections(postgresql: sa.Engine, tmp_path: Path) -> None:
    app = role(postgresql, "ALL ON orders", options="CONNECTION LIMIT 2")
    with postgresql.connect():
        found = look(app, tmp_path, tables=["orders"])
    assert (found.ok, found.connections, found.max_connections) == (True, 1, 2)
    assert any(text.startswith("1 of the 2 connections") for _, text in texts({}, found))
    engine = sa.create_engine(app)
    with engine.connect(), engine.connect():
        full = look(app, tmp_path)
        assert (full.ok, full.connect_ms, full.detail) == (False, None, "all connections that it allows are taken")
    engine.dispose()


# What it costs


class Relay:
    """Stands between a node and a database, and passes each answer on `delay` seconds late.

    Connections from before the latest `freeze` hear nothing more. Without an address to pass anything on to, it
    accepts and says nothing.
    """

    def __init__(self, to: tuple[str, int] | None = None) -> None:
        self.delay = 0.0
        self._frozen = threading.Event()
        self._to = to
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._frozen.set()
        self._frozen = threading.Event()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                self._ends.append(near)
                if self._to is not None:
                    far = socket.create_connection(self._to)
                    self._ends.append(far)
                    threading.Thread(target=self._pass_on, args=(near, far), daemon=True).start()
                    threading.Thread(target=self._pass_on, args=(far, near, self._frozen), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, frozen: threading.Event | None = None) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if frozen is not None:
                    time.sleep(self.delay)
                if frozen is None or not frozen.is_set():
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def address(url: sa.URL) -> tuple[str, int]:
    assert url.host is not None
    assert url.port is not None
    return url.host, url.port


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> sa.URL:
    """Where a database of each kind is, for a test that only asks how it is reached."""
    if reason := needs.missing(request.param):
        pytest.skip(reason)
    return sa.make_url(needs.POSTGRESQL_ADMIN if request.param == "postgresql" else needs.MARIADB_ADMIN)


def test_a_slow_database_is_too_slow(server: sa.URL, tmp_path: Path) -> None:
    with Relay(address(server)) as relay:
        relay.delay = 0.02
        found = look(dsn(server.set(port=relay.port)), tmp_path)
    assert found.ok, found.detail
    assert min(found.round_trips_us) >= 20_000
    assert found.connect_ms is not None
    assert found.connect_ms >= 20
    named = [text for severity, text in texts({"latency_ms": 10}, found) if severity == "high"]
    assert any("connecting took" in text for text in named)
    assert any("in the median of 9, over the 10 ms of raos.toml" in text for text in named)


def test_a_database_that_stops_answering_costs_the_time_limit_once(server: sa.URL, tmp_path: Path) -> None:
    with Relay(address(server)) as relay:
        config = DatabaseConfig(dsn=SecretStr(dsn(server.set(port=relay.port))), timeout=1.5)
        again = DatabaseLook(config)
        relay.delay = 0.3
        began = time.monotonic()
        threading.Timer(0.9, relay.freeze).start()
        found = again(DatabaseProbeRequest(), tmp_path)
        assert time.monotonic() - began < 20
        assert (found.ok, found.detail) == (False, "the database did not answer within 1.5 s")
        relay.delay = 0.0
        assert again(DatabaseProbeRequest(), tmp_path).ok


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mariadb+pymysql"])
def test_a_database_that_accepts_and_says_nothing_costs_the_time_limit(driver: str, tmp_path: Path) -> None:
    with Relay() as relay:
        began = time.monotonic()
        found = look(f"{driver}://kimberly:{PASSWORD}@127.0.0.1:{relay.port}/books", tmp_path, timeout=0.5)
        assert time.monotonic() - began < 15
    assert not found.ok
    assert found.detail in ("the database did not answer within 0.5 s", "it does not answer")


# What does not leave the node


DRIVERS = ("postgresql+psycopg", "mariadb+pymysql")
SECRETS = ("kimberly", PASSWORD, "ledger-books", "db.hidden.invalid")


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("://kimberly:{password}@127.0.0.1:{closed}/ledger-books", "nothing listens at the address of the DSN"),
        ("://kimberly:{password}@db.hidden.invalid/ledger-books", "the host of the DSN is not known here"),
        ("://kimberly:{password}@127.0.0.1:{closed}/ledger-books?nonsense=kimberly", "no connection came about"),
    ],
)
@pytest.mark.parametrize("driver", DRIVERS)
def test_why_there_is_no_connection_is_told_without_the_dsn(
    driver: str, rest: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed = free_port()
    caplog.set_level(logging.DEBUG)
    found = look(driver + rest.format(password=PASSWORD, closed=closed), tmp_path)
    assert (found.ok, found.connect_ms) == (False, None)
    assert words in found.detail
    told = found.model_dump_json()
    assert not [secret for secret in (*SECRETS, str(closed)) if secret in told], told
    assert PASSWORD not in caplog.text
    assert "cannot be connected to" in caplog.text


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("postgresql://kimberly:pencil/case", "the DSN is no SQLAlchemy URL"),
        ("kimberly:pencil", "the DSN is no SQLAlchemy URL"),
        ("", "the DSN is no SQLAlchemy URL"),
        ("kimberly://pencil@host/books", "the DSN names another kind"),
        ("oracle://kimberly:pencil@host/books", "the DSN names another kind"),
        ("postgresql+kimberly://pencil@host/books", "SQLAlchemy knows no such driver as the DSN names"),
        ("postgresql+pg8000://kimberly:pencil@host/books", "the driver pg8000 is not installed here"),
        ("sqlite:////books/kimberly.db", "there is no database file at the path of the DSN"),
        ("sqlite://", "a SQLite DSN must name a file"),
    ],
)
def test_a_bad_dsn_is_not_repeated(bad: str, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    found = look(bad, tmp_path)
    assert (found.ok, found.connect_ms) == (False, None)
    assert words in found.detail
    for secret in ("kimberly", "pencil", "books"):
        assert secret not in found.model_dump_json()
        assert secret not in caplog.text


@requires_mariadb
def test_a_wrong_password_is_told_without_it(mariadb: sa.Engine, tmp_path: Path) -> None:
    app = user(mariadb)
    url = sa.make_url(app).set(password="wrong-" + PASSWORD)
    with NodeProcess(tmp_path / "public", database={"dsn": dsn(url)}) as node, node.client() as client:
        found = client.probe_database(DatabaseProbeRequest(tables=["orders"]))
        assert (found.ok, found.detail) == (False, "it refuses the user or the password of the DSN")
        told, log = found.model_dump_json(), node.log()
    assert url.username is not None
    assert not [secret for secret in (url.username, PASSWORD, "127.0.0.1", "3306") if secret in told], told
    assert "Access denied" in log
    assert PASSWORD not in log


@requires_postgresql
def test_a_role_or_a_database_that_does_not_exist_is_not_named(postgresql: sa.Engine, tmp_path: Path) -> None:
    for url, words in [
        (postgresql.url.set(username="kimberly", password=PASSWORD), "it refuses the user or the password of the DSN"),
        (postgresql.url.set(database="ledger-books"), "it has no such database for us"),
    ]:
        found = look(dsn(url), tmp_path)
        assert (found.ok, found.detail) == (False, words)


# What the checks make of it


def probe(**changes: Any) -> DatabaseProbe:
    fields = {"ok": True, "dialect": "postgresql", "connect_ms": 2, "writable": True, "round_trips_us": [500] * 9}
    fields |= {"migration": "0010", "migrations": ["0002", "0010_orders"], "migrations_in": "schema_migrations"}
    return DatabaseProbe.model_validate({**fields, "connections": 5, "max_connections": 97, **changes})


@pytest.mark.parametrize(
    ("changes", "severity", "words"),
    [
        ({"round_trips_us": [500] * 8 + [2_000_000]}, "medium", "one of 9 round trips took 2000.0 ms"),
        ({"round_trips_us": [500] * 4 + [2_000_000] * 5}, "high", "a round trip to the database takes 2000.0 ms"),
        ({"connections": 95}, "high", "95 of the 97 connections that it may have are taken, 2 are free"),
        ({"connections": 99}, "high", "0 are free"),
        ({"connections": None, "uncounted": "no right"}, "medium", "connections were not counted: no right"),
        ({"dialect": "sqlite", "connections": None, "uncounted": "no limit"}, "low", "were not counted: no limit"),
        ({"round_trips_us": []}, "medium", "the server's node measures no round trips"),
        ({"ok": False, "unreadable_tables": {"orders": "denied"}}, "high", "the table orders cannot be read: denied"),
        (
            {"migration": "0010", "migrations": ["0001", "0010"]},
            "high",
            "1 of 2 migrations were not applied: migrations/0002_talk.sql; migrate it",
        ),
        ({"migrations": []}, "high", "2 of 2 migrations were not applied"),
        ({"migrations": ["", "20", "10"]}, "high", "1 of 2 migrations were not applied: migrations/0002_talk.sql"),
        ({"migrations": ["00020", "0010"]}, "high", "1 of 2 migrations were not applied: migrations/0002_talk.sql"),
        ({"migrations": [], "migrations_in": ""}, "medium", "the server's node tells only of the newest migration"),
        (
            {"migrations": ["1f0c", "9e2a"], "migrations_in": "alembic_version"},
            "high",
            "the database stands at 2 heads, 1f0c, 9e2a: merge them into one",
        ),
        ({"ok": False, "detail": "the tide is out"}, "high", "the node finds the database in disorder: the tide"),
    ],
)
def test_what_a_node_finds_in_a_database_is_judged(changes: dict[str, Any], severity: str, words: str) -> None:
    assert texts({}, probe()) == []
    ((found, text),) = texts({}, probe(**changes))
    assert (found, words in text) == (severity, True), text


def test_a_start_is_judged_where_the_node_saw_it() -> None:
    def told(**fields: Any) -> list[tuple[str, str]]:
        app = App.model_validate({"status": "running", "healthy": True, **fields})
        return [(finding.severity, finding.text) for finding in start_findings(2, app)]

    assert told(healthy_after_ms=2000) == []
    ((severity, text),) = told(healthy_after_ms=2600)
    assert (severity, text.endswith("2.6 s from its start until it was healthy, over the 2 s of raos.toml")) == (
        "high",
        True,
    )
    assert [severity for severity, _ in told()] == ["low"]
    assert "does not run the program itself" in told(status="hook")[0][1]


def module(name: str, **fields: Any) -> ModuleReport:
    return ModuleReport.model_validate({"name": name, "status": "loaded", "digest": "d", "load_ms": 3, **fields})


@pytest.mark.parametrize(
    ("reported", "severity", "words"),
    [
        (module("Core", load_ms=251), "high", "module Core took 251 ms to load, over the 250 ms of raos.toml"),
        (module("Core", load_ms=None), "medium", "module Core reports no load time"),
        (module("Core", load_ms=-1), "medium", "module Core reports no load time"),
        (module("Core", load_ms=10**30), "medium", "module Core reports no load time"),
        (module("Core", digest=None), "high", "module Core reports no digest"),
        (module("Core", status="", error="no licence\nhere"), "high", "module Core is not loaded: no licence here"),
    ],
)
def test_a_module_is_judged(reported: ModuleReport, severity: str, words: str) -> None:
    assert module_findings({"Core": "d"}, [module("Core", load_ms=250)], 250) == []
    assert module_findings({"Core": "d"}, [module("Core", load_ms=None)], None) == []
    (finding,) = module_findings({"Core": "d"}, [reported], 250)
    assert (finding.severity, words in finding.text) == (severity, True), finding.text


def test_a_hundred_thousand_modules_cost_little() -> None:
    reported = [module("Core"), *(module(f"{number % 4000}-{'x' * 5000}", error="y" * 5000) for number in range(8000))]
    began = time.monotonic()
    findings = module_findings({"Core": "d"}, reported, 250)
    assert (len(findings), findings[0].text.endswith(" is reported 2 times")) == (101, True)
    assert findings[-1].text == "11900 more things are wrong with the modules"
    assert max(len(finding.text) for finding in findings) < 120
    assert load_times({"Core": "d"}, reported) == {"Core": 3}
    (finding,) = module_findings({"Core": "d"}, reported * 13, 250)
    assert finding.text == "104013 modules are reported, too many to be held against the manifest"
    assert time.monotonic() - began < 40


COUNTED = (
    "CREATE TABLE people (id INTEGER PRIMARY KEY, name VARCHAR(20), age INTEGER, city VARCHAR(20) NOT NULL)",
    "INSERT INTO people VALUES (1, 'kim', 3, 'x'), (2, '', NULL, 'y'), (3, NULL, 4, '')",
)


def counted(dsn: str, tmp_path: Path) -> None:
    """What `COUNTED` holds is counted; without being asked for, nothing is."""
    assert look(dsn, tmp_path, tables=["people"]).count is None
    found = look(dsn, tmp_path, tables=["people"], count=True).count
    assert found is not None
    people = next(table for table in found.tables if table.name == "people")
    assert (people.rows, people.columns) == (3, {"id": 3, "name": 1, "age": 2, "city": 2})
    assert found.tables[0].name == "people", "what the caller names comes first"
    assert set(found.names) == {table.name for table in found.tables}
    assert (found.uncounted, found.more_uncounted) == ({}, 0)


def test_rows_and_values_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(";".join(COUNTED))
    counted(f"sqlite:///{path}", tmp_path)


@requires_postgresql
def test_rows_and_values_are_counted_on_postgresql(postgresql: sa.Engine, tmp_path: Path) -> None:
    run(postgresql, *COUNTED, "CREATE TYPE mood AS ENUM ('a', 'b')", "CREATE SCHEMA shop")
    run(postgresql, "CREATE TABLE odd (mood mood, doc json, docs jsonb, tags text[], raw bytea, c char(3))")
    run(postgresql, "INSERT INTO odd VALUES ('a', '{}', '[]', '{x}', 'x', 'abc')", "CREATE TABLE shop.items (id int)")
    dsn = postgresql.url.render_as_string(hide_password=False)
    counted(dsn, tmp_path)
    found = look(dsn, tmp_path, tables=["shop.items"], count=True).count
    assert found is not None
    assert found.tables[0].name == "shop.items"
    odd = next(table for table in found.tables if table.name == "odd")
    assert odd.columns == dict.fromkeys(("mood", "doc", "docs", "tags", "raw", "c"), 1)


@requires_mariadb
def test_rows_and_values_are_counted_on_mariadb(mariadb: sa.Engine, tmp_path: Path) -> None:
    run(mariadb, *COUNTED)
    counted(mariadb.url.render_as_string(hide_password=False), tmp_path)


def test_counting_ends_in_time_and_says_what_it_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript("CREATE TABLE a (x); CREATE TABLE b (x); CREATE TABLE big (x)")
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT i FROM n"
        connection.execute(f"INSERT INTO big {numbers}")
    monkeypatch.setattr("ashat.node.database.probe._COUNTING", 0.01)
    found = look(f"sqlite:///{path}", tmp_path, tables=["big"], count=True).count
    assert found is not None
    assert found.uncounted == dict.fromkeys(("big", "a", "b"), "the time for counting was over")
    monkeypatch.undo()
    monkeypatch.setattr("ashat.node.database.count.TABLES_LIMIT", 2)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE {'z' * 300} (x)")
    found = look(f"sqlite:///{path}", tmp_path, tables=["a"], count=True).count
    assert found is not None
    assert ([table.name for table in found.tables], found.uncounted) == (
        ["a", "b"],
        {"big": "only 2 tables are counted"},
    )
    assert (found.names, found.more_uncounted) == (["a", "b", "big"], 1)
