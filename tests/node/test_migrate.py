"""A release's migrate step runs before the switch while what ran goes on, within its limit, and again after a crash."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ashat.client.node import NodeClient
from ashat.errors import NodeConflictError, NodeUnreachableError
from ashat.protocol.messages import Operation, OperationRequest, Role
from tests.support.processes.node import QUICK, NodeProcess, below, push, switch, tiny_app, tiny_bundle

# Adds a line to what stands for the database, then does what the file `then` beside it says.
STEP = """
import os, pathlib, sys, time
here = pathlib.Path(__file__).parent
with open(pathlib.Path(os.environ["RAOS_DATA"], "done"), "a") as file:
    file.write((here / "name").read_text() + chr(10))
print("migrating", (here / "name").read_text(), os.environ["ASHAT_BUNDLE"][:4], flush=True)
exec((here / "then").read_text())
"""


def release(directory: Path, name: str, then: str = "", *, more: str = "", behaviour: str = "") -> Path:
    """A source whose migrate step notes `name`, and then does as told."""
    command = f"['{sys.executable}', '-I', 'migrate.py']"
    raos = f"[raos]\nname = 'tiny'\nversion = '1.0'\n[migrate]\ncommand = {command}\n{more}\n"
    files = {"raos.toml": raos, "migrate.py": STEP, "name": name, "then": then}
    return tiny_bundle(directory / name, behaviour, **files)


def migrated(node: NodeProcess) -> list[str]:
    done = node.data / "app-data" / "done"
    return done.read_text().split() if done.exists() else []


def runs(client: NodeClient) -> str | None:
    current = client.state().current
    return current.bundle if current else None


def steps(operation: Operation) -> list[str]:
    return [step.name for step in operation.steps]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("migrate") / "public"
    with NodeProcess(directory, app={**tiny_app(), "start_timeout": 3, "stop_timeout": 1}) as started:
        yield started


@pytest.fixture(scope="module")
def client(node: NodeProcess) -> Iterator[NodeClient]:
    with node.client() as opened:
        yield opened


@pytest.fixture
def old(node: NodeProcess, client: NodeClient, tmp_path: Path) -> str:
    """A release without a migrate step that runs now, and nothing migrated yet."""
    bundle = push(client, tiny_bundle(tmp_path / "old"))
    operation = switch(client, bundle, expected=runs(client))
    assert (operation.status, operation.migration) == ("succeeded", None)
    (node.data / "app-data" / "done").unlink(missing_ok=True)
    return bundle


def test_it_runs_before_the_switch_and_its_time_is_not_the_start_s(
    node: NodeProcess, client: NodeClient, old: str, tmp_path: Path
) -> None:
    pid = client.state().app.pid
    slow = "time.sleep(4); os.mkdir(here / 'left')"
    new = push(client, release(tmp_path, "new", slow, more="reversible = false"))
    wanted = OperationRequest(action="switch", bundle=new, expected_current=old, update_id="UPD-1", attempt=1)
    client.start_operation("op:slow", wanted)
    deadline = time.monotonic() + 30
    while not migrated(node):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    state = client.state()
    assert state.operation is not None
    assert state.operation.migration is not None
    assert (state.operation.migration.status, state.app.pid, runs(client)) == ("running", pid, old)
    assert client.probe_health().bundle == old

    operation = client.wait_operation("op:slow")
    assert (operation.status, steps(operation)) == ("succeeded", ["materialise", "migrate", "link", "start", "settle"])
    made = operation.migration
    assert made is not None
    assert (made.status, made.reversible, made.limit, made.command[1:]) == ("done", False, 600, ["-I", "migrate.py"])
    assert made.ended_at is not None
    assert (made.ended_at - made.began_at).total_seconds() > 4
    assert (client.state().app.healthy_after_ms or 0) < 4000
    told = client.program_log(migrate=True)
    assert (told.log, told.lines) == ("migrate.log", [f"migrating new {new[:4]}"])
    assert not (node.data / "current" / "left").exists(), "the program starts in a directory that is the bundle's"
    assert client.probe_health().bundle == new


@pytest.mark.parametrize(
    ("then", "more", "status", "reason"),
    [
        ("print('no such column: colour'); sys.exit(3)", "", "failed", "it ended by itself with exit code 3"),
        ("os.kill(os.getpid(), 11)", "", "failed", "it ended by itself on signal 11"),
        ("time.sleep(60)", "seconds = 0.5", "timed-out", "it took longer than 0.5 s and was ended"),
    ],
)
def test_a_step_that_fails_switches_nothing_and_says_why(
    node: NodeProcess, client: NodeClient, old: str, tmp_path: Path, then: str, more: str, status: str, reason: str
) -> None:
    pid = client.state().app.pid
    bad = push(client, release(tmp_path, f"bad{len(then)}", then, more=more))
    operation = switch(client, bad, expected=old)

    assert (operation.status, operation.switched_back, steps(operation)) == ("failed", False, ["materialise"])
    assert operation.reason == f"its migrate step failed: {reason}; nothing was switched, and what ran goes on"
    assert operation.migration is not None
    assert (operation.migration.status, operation.migration.detail) == (status, reason)
    assert operation.output[0].startswith("migrating bad")
    assert (client.state().app.pid, runs(client)) == (pid, old)
    assert client.operation(operation.id) == operation
    assert [process.pid for process in below(node.data / "releases")] == [pid]


def test_a_command_that_is_not_there_is_a_failed_step(client: NodeClient, old: str, tmp_path: Path) -> None:
    source = release(tmp_path, "absent")
    (source / "raos.toml").write_text("[migrate]\ncommand = ['./no-such-program']\n")
    operation = switch(client, push(client, source), expected=old)
    assert operation.status == "failed"
    assert "'./no-such-program' cannot be run: No such file or directory" in operation.reason


def test_a_way_back_is_not_migrated_and_the_way_forward_is_again(
    node: NodeProcess, client: NodeClient, old: str, tmp_path: Path
) -> None:
    first, second = (push(client, release(tmp_path, name)) for name in ("first", "second"))
    ran = old
    for bundle in (first, second, first, second):
        operation = switch(client, bundle, expected=ran)
        assert operation.status == "succeeded"
        ran = bundle
        assert operation.migration is not None
        if bundle == first and len(migrated(node)) == 2:
            assert operation.migration.status == "skipped"
            assert "a later one" in operation.migration.detail
    assert migrated(node) == ["first", "second", "second"]


def test_a_release_that_does_not_start_is_switched_back_after_its_step(
    node: NodeProcess, client: NodeClient, old: str, tmp_path: Path
) -> None:
    bad = push(client, release(tmp_path, "crashes", behaviour="crash"))
    operation = switch(client, bad, expected=old)
    assert (operation.status, operation.switched_back) == ("failed", True)
    assert operation.migration is not None
    assert operation.migration.status == "done"
    assert runs(client) == old
    again = switch(client, bad, expected=old)
    assert again.migration is not None
    assert (again.migration.status, migrated(node)) == ("done", ["crashes", "crashes"])


def test_what_a_step_leaves_behind_is_ended(node: NodeProcess, client: NodeClient, old: str, tmp_path: Path) -> None:
    fork = "\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(600)\n    os._exit(0)"
    operation = switch(client, push(client, release(tmp_path, "forks", fork)), expected=old)
    assert operation.status == "succeeded"
    assert [process.pid for process in below(node.data / "releases")] == [client.state().app.pid]


@pytest.mark.parametrize("fault", ["", "switch.migrating", "switch.migrated"])
def test_killed_within_a_migration(tmp_path: Path, fault: str) -> None:
    """It is ended and run again, and what ran before runs until that is done."""
    node = NodeProcess(tmp_path / "public", app=tiny_app(), start=False)
    with node, node.client() as client:
        node.start({"ASHAT_FAULT": fault})
        old = push(client, tiny_bundle(tmp_path / "old"))
        once = (
            "" if fault else "time.sleep(600 if len(open(os.environ['RAOS_DATA'] + '/done').readlines()) == 1 else 1)"
        )
        new = push(client, release(tmp_path, "new", once))
        assert switch(client, old, expected=None).status == "succeeded"
        pid = client.state().app.pid
        wanted = OperationRequest(action="switch", bundle=new, expected_current=old, update_id="UPD-1", attempt=1)
        try:
            client.start_operation("op", wanted)
        except NodeUnreachableError:
            assert fault
        if fault:
            assert node.wait_until_dead() == -9
        else:
            deadline = time.monotonic() + 30
            while not migrated(node):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            node.kill9()
        left = {process.pid for process in below(node.data / "releases")} - {pid}
        assert bool(left) == (not fault)

        node.start()
        if not fault:
            deadline = time.monotonic() + 30
            while len(migrated(node)) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert client.state().app.pid == pid, "what ran is taken over and looked after"
        operation = client.wait_operation("op", timeout=90)
        assert operation.status == "succeeded"
        assert operation.migration is not None
        assert operation.migration.status == "done"
        assert migrated(node) == ["new"] * (1 if fault else 2)
        assert not any(psutil.pid_exists(each) for each in left)
        assert [process.pid for process in below(node.data / "releases")] == [client.state().app.pid]


def test_a_node_that_is_stopped_ends_the_step_and_runs_it_again(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", app=tiny_app()) as node, node.client() as client:
        once = "time.sleep(600 if len(open(os.environ['RAOS_DATA'] + '/done').readlines()) == 1 else 0)"
        new = push(client, release(tmp_path, "new", once))
        wanted = OperationRequest(action="switch", bundle=new, expected_current=None, update_id="UPD-1", attempt=1)
        client.start_operation("op", wanted)
        deadline = time.monotonic() + 30
        while not migrated(node):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert node.stop() == 0
        assert below(node.data) == []
        node.start()
        assert client.wait_operation("op", timeout=90).status == "succeeded"
        assert migrated(node) == ["new", "new"]


def test_who_runs_no_program_migrates_nothing_and_a_hook_is_asked_first(tmp_path: Path) -> None:
    new = release(tmp_path, "new")
    with NodeProcess(tmp_path / "idle", role=Role.PUBLIC, app=QUICK) as node, node.client() as client:
        operation = switch(client, push(client, new), expected=None)
        assert operation.status == "succeeded"
        assert operation.migration is not None
        assert (operation.migration.status, operation.migration.detail) == ("skipped", "no program runs here")

    hook = {**QUICK, "hook": ["/bin/true"], "url": "http://127.0.0.1:1", "start_timeout": 0.3}
    with NodeProcess(tmp_path / "hooked", app=hook) as node, node.client() as client:
        bundle = push(client, new)
        with pytest.raises(
            NodeConflictError, match=r"has a migrate step, which this node does not run: set app\.migrate"
        ):
            switch(client, bundle, expected=None)
        assert client.state().operation is None
    with NodeProcess(tmp_path / "allowed", app={**hook, "migrate": "run"}) as node, node.client() as client:
        operation = switch(client, push(client, new), expected=None)
        assert operation.migration is not None
        assert (operation.migration.status, migrated(node)) == ("done", ["new"])


def test_a_release_whose_file_cannot_be_read_changes_nothing(client: NodeClient, old: str, tmp_path: Path) -> None:
    for text, wrong in (
        ("[migrate", "not TOML"),
        ("[migrate]\nsecnds = 3\ncommand = ['a']", "did you mean 'seconds'"),
        ("[migrate]\ncommand = []", "at least 1"),
        ("[migrate]\ncommand = 'a b'", "list"),
        (f"[migrate]\ncommand = ['a']\nx = '{'x' * 300_000}'", "at most 262144 are read"),
    ):
        source = tiny_bundle(tmp_path / str(len(text)), **{"raos.toml": text})
        with pytest.raises(Exception, match=r"is not run here: raos\.toml") as refused:
            switch(client, push(client, source), expected=old)
        assert wrong in str(refused.value)
        assert "\n" not in str(refused.value)
    assert runs(client) == old
