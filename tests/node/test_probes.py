"""What a node finds when it looks at its program, its database and its files."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from ashat.client.node import NodeClient
from ashat.node.api.probes import read_report
from ashat.node.core.config import DatabaseConfig
from ashat.node.database.throttle import DatabaseLook
from ashat.protocol.messages import Scope
from ashat.protocol.probes import DatabaseProbe, DatabaseProbeRequest
from tests.support.needs import requires_postgresql
from tests.support.processes.node import (
    EXAMPLE,
    NodeProcess,
    example_app,
    example_database,
    push,
    switch,
    tiny_app,
    tiny_bundle,
)


@pytest.fixture(scope="module")
def raos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node that runs the sample program."""
    directory = tmp_path_factory.mktemp("probes") / "public"
    with NodeProcess(directory, app=example_app(), database=example_database()) as node, node.client() as client:
        operation = switch(client, push(client, EXAMPLE), expected=None)
        assert operation.status == "succeeded", operation.reason
        yield node


@pytest.fixture
def client(raos: NodeProcess) -> Iterator[NodeClient]:
    with raos.client(Scope.READ) as opened:
        yield opened


def test_the_sample_is_well(client: NodeClient) -> None:
    current = client.state().current
    assert current is not None
    health = client.probe_health()
    assert (health.healthy, health.status, health.bundle, health.restarts) == (True, 200, current.bundle, 0)
    assert health.version
    app = client.state().app
    assert app.started_at is not None
    assert app.healthy_after_ms is not None
    assert (app.healthy_after_ms > 0, app.failure) == (True, "")
    modules = client.probe_modules()
    assert modules.ok, modules.detail
    assert {"Core", "Auth", "Chat"} <= {module.name for module in modules.modules}
    database = client.probe_database(DatabaseProbeRequest(tables=["accounts", "orders"], migration="0003"))
    assert database.ok, database.detail
    assert (database.dialect, database.writable, database.migration) == ("sqlite", True, "0003")
    assert (database.migrations, database.migrations_in) == (["0001", "0002", "0003"], "schema_migrations")
    assert database.connect_ms is not None
    assert len(database.round_trips_us) == 9
    assert (database.connections, database.uncounted) == (None, "sqlite does not limit them")


def test_the_tree_is_the_source(client: NodeClient, raos: NodeProcess) -> None:
    tree = client.tree()
    manifest = client.manifest(tree.bundle or "")
    assert {path: (file.sha256, file.mode, file.size) for path, file in tree.files.items()} == {
        file.path: (file.sha256, file.mode, file.size) for file in manifest.files
    }
    assert tree.extra == []
    release = (raos.data / "current").resolve()
    (release / "left.txt").write_text("left here")
    (release / "raos.toml").chmod(0o755)
    (release / "Modules" / "link").symlink_to(release / "kernel")
    try:
        changed = client.tree()
        assert changed.extra == ["Modules/link", "left.txt"]
        assert changed.files["raos.toml"].mode == 0o755
    finally:
        (release / "left.txt").unlink()
        (release / "raos.toml").chmod(0o644)
        (release / "Modules" / "link").unlink()


def test_what_the_database_lacks_is_named(client: NodeClient) -> None:
    found = client.probe_database(DatabaseProbeRequest(tables=["accounts", "ghosts"], migration="0009"))
    assert (found.ok, found.writable, found.missing_tables) == (False, True, ["ghosts"])
    assert found.detail == "missing tables: ghosts; the newest migration is 0003, not 0009"


def test_a_program_that_answers_badly_costs_bounded_time(tmp_path: Path) -> None:
    app = {**tiny_app(), "health_timeout": 0.5}
    with NodeProcess(tmp_path / "public", app=app) as node, node.client() as opened:
        bundle = push(opened, tiny_bundle(tmp_path / "good"))
        assert switch(opened, bundle, expected=None).status == "succeeded"
        for behaviour, health, modules in [
            ("huge", "answered more than 65536 bytes", "/modules: answered more than 1048576 bytes"),
            ("drip", "no complete answer within 0.5 s", "/modules: no complete answer within 0.5 s"),
            ("mute", "no complete answer within 0.5 s", "/modules: no complete answer within 0.5 s"),
            ("sick", "answers 500 at /health", "/modules answers 500"),
        ]:
            (node.data / "app-data" / "behaviour").write_text(behaviour)
            began = time.monotonic()
            assert (opened.probe_health().healthy, opened.probe_health().detail) == (False, health)
            report = opened.probe_modules()
            assert (report.ok, report.detail) == (False, modules)
            assert time.monotonic() - began < 20
        deadline = time.monotonic() + 30
        while opened.state().app.healthy:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert opened.state().app.status == "running"


def test_a_report_is_read_or_refused() -> None:
    good = read_report("/m", b'[{"name": "Core", "version": "1", "load_ms": 3, "other": true}]')
    assert (good.ok, good.modules[0].name, good.modules[0].load_ms) == (True, "Core", 3)
    assert read_report("/m", b'{"modules": []}').ok
    wordy = read_report("/m", b'[{"name": "Core", "error": "%s"}]' % (b"x" * 500_000))
    assert (wordy.ok, wordy.modules[0].error) == (True, "x" * 2000)
    for body, detail in [
        (b"", "/m answers no module report: it is not JSON (Expecting value: line 1 column 1 (char 0))"),
        (b"{}", "/m answers no module report: it holds no list of modules"),
        (b'[{"name": "Core"}, {"version": "1"}]', "/m answers no module report (1.name: Field required)"),
        (b"[" + b"{}," * 9_000 + b"{}]", "/m answers no module report (0.name: Field required)"),
        (b"[" + b'{"name":"Core"},' * 10_000 + b"1]", "/m lists 10001 modules; at most 10000 are read"),
        (
            b"[" * 100_000,
            "/m answers no module report: it is not JSON (it is nested too deeply; at most 100 levels are read)",
        ),
        (b"1" * 5_000, "/m answers no module report: it is not JSON (a number has 5000 digits; at most 300 are read)"),
        (b"\xff", "/m answers no module report: it is not JSON (it is not UTF-8 at byte 0)"),
    ]:
        found = read_report("/m", body)
        assert (found.ok, found.modules, found.detail) == (False, [], detail)


def look(dsn: str | None, tmp_path: Path, timeout: float = 5, **wanted: object) -> DatabaseProbe:
    config = DatabaseConfig(dsn=SecretStr(dsn) if dsn else None, timeout=timeout)
    return DatabaseLook(config)(DatabaseProbeRequest.model_validate(wanted), tmp_path)


def test_without_a_database_the_look_says_what_to_do(tmp_path: Path) -> None:
    assert "no [database] dsn" in look(None, tmp_path).detail
    assert look("sqlite:///{data}/none.db", tmp_path).detail == "there is no database file at the path of the DSN"
    assert not (tmp_path / "none.db").exists()
    assert not look("nonsense://kim:hunter2@host/db", tmp_path).ok
    for dsn in ("nonsense://kim:hunter2@host/db", "kim:hunter2", "postgresql+psycopg://kim:hunter2@127.0.0.1:1/db"):
        found = look(dsn, tmp_path)
        assert not found.ok
        assert found.detail
        assert "hunter2" not in found.detail


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    path = tmp_path / "some.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('9a'), ('10b')")
    return path


def test_a_look_at_sqlite_leaves_nothing_behind(tmp_path: Path, sqlite_file: Path) -> None:
    before = sqlite_file.read_bytes()
    found = look(f"sqlite:///{sqlite_file}", tmp_path)
    assert (found.ok, found.writable, found.migration) == (True, True, "10b")
    assert sqlite_file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["some.db"]


def test_a_database_that_is_locked_is_not_writable(tmp_path: Path, sqlite_file: Path) -> None:
    with closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        found = look(f"sqlite:///{sqlite_file}", tmp_path, timeout=0.5)
        assert time.monotonic() - began < 15
        assert (found.ok, found.writable) == (False, False)
        other.execute("ROLLBACK")


def test_a_read_only_database_is_not_writable(tmp_path: Path, sqlite_file: Path) -> None:
    found = look(f"sqlite:///file:{sqlite_file}?mode=ro&uri=true", tmp_path)
    assert (found.ok, found.writable, found.dialect) == (False, False, "sqlite")
    assert "readonly" in found.detail


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database at all" * 100)
    found = look(f"sqlite:///{tmp_path / 'text.db'}", tmp_path)
    assert not found.ok
    assert "not a database" in found.detail


@requires_postgresql
def test_postgresql_and_one_that_may_not_make_tables(tmp_path: Path, postgresql_url: str) -> None:
    url = sa.make_url(postgresql_url)
    role = f"reader_{url.database}"
    admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE schema_migrations (version TEXT); INSERT INTO schema_migrations VALUES ('0002'), ('0010')"
        )
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'")
        connection.exec_driver_sql(
            f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; REVOKE CREATE ON SCHEMA public FROM PUBLIC"
        )
    try:
        found = look(postgresql_url, tmp_path, tables=["schema_migrations"], migration="0010")
        assert (found.ok, found.dialect, found.writable, found.migration) == (True, "postgresql", True, "0010")
        limited = url.set(username=role, password="hunter2").render_as_string(hide_password=False)
        assert look(limited, tmp_path).ok
        read_only = url.update_query_dict({"options": "-c default_transaction_read_only=on"})
        refused = look(read_only.render_as_string(hide_password=False), tmp_path)
        assert (refused.ok, refused.writable) == (False, False)
        assert "read-only" in refused.detail
        with admin.connect() as connection:
            tables = sa.inspect(connection).get_table_names()
        assert tables == ["schema_migrations"]
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")
        admin.dispose()
