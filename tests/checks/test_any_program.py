"""Programs that know nothing of us: which release of theirs answers is seen by their node, or said not to be known."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ashat.client.node import NodeClient
from ashat.protocol.probes import DatabaseProbeRequest
from ashat.raos_toml.load import load_raos_toml
from ashat.verification.policy import Policy
from tasks.checks import Check, CheckContext, CheckResult, run_check
from tasks.checks.database import DatabaseCheck
from tasks.checks.health import HealthCheck
from tasks.checks.modules import ModulesCheck
from tasks.checks.runtime import RuntimeCheck
from tests.support.needs import requires_postgresql
from tests.support.processes.node import QUICK, NodeProcess, free_port, push, switch

PROMISES = """
[raos]
name = "A page"
version = "1.0"

[health]
path = "/index.html"
expect = "status"
settle_seconds = 0.2

[modules]
none = "static files have no modules"

[database]
none = "static files need no database"
"""
BRIEF = Policy(soak_seconds=1)
SERVE = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]


@contextmanager
def running(
    directory: Path, app: dict[str, Any], database: dict[str, Any] | None = None, **files: str
) -> Iterator[NodeClient]:
    """A node that runs a page so."""
    tree = directory / "page"
    for name, content in {"raos.toml": PROMISES, "index.html": "<h1>Welcome</h1>", **files}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    settings = {**QUICK, "health_path": "/index.html", **app}
    with NodeProcess(directory / "public", app=settings, database=database) as node, node.client() as client:
        operation = switch(client, push(client, tree), expected=None)
        assert operation.status == "succeeded", operation.reason
        yield client


def checked(check: Check, client: NodeClient, promises: str = PROMISES, url: str = "") -> CheckResult:
    state = client.state()
    assert state.current
    bundle, raos = state.current.bundle, load_raos_toml(promises.encode())
    asked = url or state.app.url or ""
    return run_check(
        check, CheckContext(client, asked, bundle, client.manifest(bundle), raos, source=lambda path: b"", policy=BRIEF)
    )


def test_a_node_vouches_for_a_program_that_says_nothing(tmp_path: Path) -> None:
    with running(tmp_path, {"command": SERVE}) as client:
        health = checked(HealthCheck(), client)
        assert health.outcome == "pass", health.seen
        assert "the release that its node started" in health.seen
        assert (health.figures["processes"], health.figures["addresses"]) == (1, 1)
        assert min(health.series["memory_bytes"]) > 1_000_000
        for check in (ModulesCheck(), DatabaseCheck()):
            result = checked(check, client)
            assert (result.outcome, result.seen.startswith("none: static files ")) == ("pass", True), result.seen
        probe, state = client.probe_process(), client.state()
        assert state.current
        assert (probe.bundle, probe.started_at) == (state.current.bundle, state.app.started_at)
        assert probe.answers
        assert [(each.host, f":{each.port}" in str(state.app.url)) for each in probe.listening] == [("127.0.0.1", True)]
        told = checked(HealthCheck(), client, PROMISES.replace('expect = "status"\n', ""))
        assert (told.outcome, "the answer is no valid JSON" in told.seen) == ("fail", True)


def test_what_answers_in_the_place_of_a_program_is_not_taken_for_it(tmp_path: Path) -> None:
    with running(tmp_path / "impostor", {"command": SERVE}) as impostor:
        url = impostor.state().app.url
        asleep = {"command": [sys.executable, "-c", "import time; time.sleep(600)"], "url": url}
        with running(tmp_path / "honest", {**asleep, "port": free_port()}) as client:
            result = checked(HealthCheck(), client)
    assert result.outcome == "fail"
    assert result.seen.startswith("something else answers: no process that the node started takes connections")


def test_where_nobody_sees_what_runs_that_is_said(tmp_path: Path) -> None:
    with running(tmp_path / "page", {"command": SERVE}) as other:
        hook = {"hook": ["true"], "url": other.state().app.url}
        with running(tmp_path / "hooked", hook) as client:
            result = checked(HealthCheck(), client)
    assert result.outcome == "warn"
    assert "nobody vouches for the release that answers: /index.html reports no bundle" in result.seen
    assert "the node does not run the program itself" in result.seen


@pytest.mark.parametrize(
    ("reported", "outcome", "said"),
    [
        ('{"version": "1.0"}', "pass", "version 1.0"),
        ('{"version": "0.9"}', "fail", "reports version 0.9, but raos.toml says 1.0"),
        ('{"bundle": "0000"}', "fail", "reports bundle 0000, but"),
        ("[1, 2]", "pass", "the release that its node started"),
        ("no JSON", "pass", "the release that its node started"),
        ("", "pass", "the release that its node started"),
    ],
)
def test_what_a_program_does_report_must_be_true(page: NodeClient, reported: str, outcome: str, said: str) -> None:
    state = page.state()
    assert state.current
    promises = PROMISES.replace("/index.html", f"/{ANSWERS.index(reported)}.html")
    result = checked(HealthCheck(), page, promises)
    assert (result.outcome, said in result.seen) == (outcome, True), result.seen


ANSWERS = ('{"version": "1.0"}', '{"version": "0.9"}', '{"bundle": "0000"}', "[1, 2]", "no JSON", "")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeClient]:
    files = {f"{number}.html": answer for number, answer in enumerate(ANSWERS)}
    with running(tmp_path_factory.mktemp("page"), {"command": SERVE}, **files) as client:
        yield client


def test_a_release_that_denies_what_is_there_is_told(tmp_path: Path) -> None:
    files = {"Modules/Chat/module.json": "{}"}
    sqlite3.connect(tmp_path / "rows.db").execute("CREATE TABLE rows (id)").connection.close()
    given = {"dsn": f"sqlite:///{tmp_path}/rows.db"}
    with running(tmp_path, {"command": SERVE}, database=given, **files) as client:
        modules, database = checked(ModulesCheck(), client), checked(DatabaseCheck(), client)
    assert (modules.outcome, modules.seen) == (
        "fail", "raos.toml says that there are no modules, but the bundle brings 1: Chat",
    )  # fmt: skip
    assert database.outcome == "warn"
    assert "raos.toml says that there is no database, but the server's node is given one" in database.seen


CONNECTED = """
import http.server, sys
import psycopg
held = [psycopg.connect(sys.argv[2]) for _ in range(3)]
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""


@requires_postgresql
def test_the_programs_own_sessions_are_known_by_their_sockets(tmp_path: Path, postgresql_url: str) -> None:
    promises = PROMISES.replace('none = "static files need no database"', "tables = []")
    own = postgresql_url.replace("postgresql+psycopg", "postgresql")
    elsewhere = own.rpartition("/")[0] + "/postgres"
    for dsn, same, outcome in ((own, True, "pass"), (elsewhere, False, "warn")):
        command = [sys.executable, "app.py", "{port}", dsn]
        directory = tmp_path / str(same)
        directory.mkdir()
        files: dict[str, Any] = {"app.py": CONNECTED}
        with running(directory, {"command": command}, {"dsn": postgresql_url}, **files) as client:
            probe = client.probe_database(DatabaseProbeRequest(sessions=True))
            assert [(each.count, each.same_database) for each in probe.sessions or []] == [(3, same)]
            result = checked(RuntimeCheck(), client, promises)
            told = [each.text for each in result.findings if each.rule == "session"]
            assert (result.outcome, result.figures["sessions"]) == (outcome, 3), result.seen
            assert len(told) == 1
            assert ("which is not the one that its node looks at" in told[0]) == (not same)


def test_what_a_program_does_to_its_release_and_its_host_is_seen(tmp_path: Path) -> None:
    with running(tmp_path, {"command": SERVE}) as client:
        before = checked(RuntimeCheck(), client)
        assert (before.outcome, before.figures["files_compared"], before.figures["restarts"]) == ("pass", 2, 0), before
        release = next(tmp_path.rglob("current")).resolve()
        (release / "index.html").write_text("<h1>Another</h1>")
        (release / "left.txt").write_text("left")
        found = checked(RuntimeCheck(), client)
        assert found.outcome == "fail"
        assert {each.rule: each.path for each in found.findings if each.severity != "low"} == {
            "file-changed": "index.html",
            "file-extra": "left.txt",
        }
