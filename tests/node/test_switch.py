"""What runs changes as a whole or not at all, on a real node with a real program."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from ashat.client.node import NodeClient
from ashat.errors import NodeConflictError, NodeRefusedError
from ashat.protocol.messages import OperationRequest, Role
from tests.support.processes.node import NodeProcess, below, push, switch, tiny_app, tiny_bundle


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("switch") / "public"
    app = {**tiny_app(), "start_timeout": 3, "stop_timeout": 1, "env": {"GREETING": "{port}"}}
    with NodeProcess(directory, app=app, settings={"keep_releases": 2}) as started:
        yield started


@pytest.fixture(scope="module")
def client(node: NodeProcess) -> Iterator[NodeClient]:
    with node.client() as opened:
        yield opened


@pytest.fixture
def good(client: NodeClient, tmp_path: Path) -> str:
    """A healthy release that runs now."""
    bundle = push(client, tiny_bundle(tmp_path / "good"))
    operation = switch(client, bundle, expected=runs(client))
    assert operation.status == "succeeded", operation.reason
    return bundle


def runs(client: NodeClient) -> str | None:
    current = client.state().current
    return current.bundle if current else None


def release_directory(node: NodeProcess) -> Path:
    return (node.data / "current").resolve()


def test_a_switch_runs_the_release_from_its_own_directory(
    node: NodeProcess, client: NodeClient, tmp_path: Path
) -> None:
    before = client.state().current
    bundle = push(client, tiny_bundle(tmp_path / "source", note="new"))
    operation = switch(client, bundle, expected=runs(client), update_id="UPD-7")

    assert (operation.status, operation.to) == ("succeeded", bundle)
    assert [step.name for step in operation.steps] == ["materialise", "link", "start", "settle"]
    state = client.state()
    assert state.current is not None
    assert (state.current.bundle, state.current.update_id) == (bundle, "UPD-7")
    assert state.previous == before
    assert state.operation == operation
    assert state.app.healthy
    assert state.app.status == "running"
    process = psutil.Process(state.app.pid)
    assert Path(process.cwd()) == release_directory(node)
    assert (release_directory(node) / "note").read_text() == "new"
    health = json.load(urlopen(f"{state.app.url}/health"))
    assert (health["bundle"], health["pid"]) == (bundle, state.app.pid)


def test_the_program_gets_its_own_environment_and_none_of_ours(
    client: NodeClient, node: NodeProcess, good: str
) -> None:
    state = client.state()
    environment = psutil.Process(state.app.pid).environ()
    port = (state.app.url or "").rpartition(":")[2]
    assert environment["RAOS_PORT"] == environment["GREETING"] == port
    assert environment["RAOS_DATA"] == str(node.data / "app-data")
    assert environment["ASHAT_RELEASE"] == str(release_directory(node))
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"
    assert {name for name in environment if name.startswith("ASHAT_")} == {
        "ASHAT_BUNDLE",
        "ASHAT_RELEASE",
    }


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("crash", "ended by itself with exit code 1"),
        ("sick", "not healthy within 3 s: answers 500 at /health"),
        ("liar", "another release answers there: 000000000000"),
        ("dies", "ended by itself with exit code 3"),
        ("huge", "answered more than 65536 bytes"),
    ],
)
def test_an_unwell_release_is_switched_back_and_says_why(
    client: NodeClient, good: str, tmp_path: Path, behaviour: str, reason: str
) -> None:
    before = client.state().current
    bad = push(client, tiny_bundle(tmp_path / "bad", behaviour))
    operation = switch(client, bad, expected=good)

    assert (operation.status, operation.switched_back, operation.interrupted) == ("failed", True, False)
    assert reason in operation.reason
    assert client.state().current == before
    probe = client.probe_health()
    assert probe.healthy, probe.detail
    assert probe.bundle == good


def test_another_release_than_expected_is_left_alone(client: NodeClient, good: str, tmp_path: Path) -> None:
    other = push(client, tiny_bundle(tmp_path / "other", x="other"))
    pid = client.state().app.pid
    for expected in (other, None):
        with pytest.raises(NodeConflictError, match="look again") as refused:
            switch(client, other, expected=expected)
        assert refused.value.body["error"] == "expected_current"
        current = refused.value.body["current"]
        assert isinstance(current, dict)
        assert current["bundle"] == good
    assert client.state().app.pid == pid


def test_nothing_can_run_too(node: NodeProcess, client: NodeClient, good: str, tmp_path: Path) -> None:
    pid = client.state().app.pid
    operation = switch(client, None, expected=good)
    assert operation.status == "succeeded"
    state = client.state()
    assert state.current is None
    assert state.previous is not None
    assert (state.app.status, state.app.healthy, state.app.url) == ("stopped", False, None)
    assert not (node.data / "current").exists()
    assert not psutil.pid_exists(pid or 0)
    assert client.probe_health().detail == "no program runs"

    bad = push(client, tiny_bundle(tmp_path / "bad", "crash"))
    operation = switch(client, bad, expected=None)
    assert (operation.status, operation.switched_back) == ("failed", True)
    assert client.state().current is None
    assert not (node.data / "current").is_symlink()


def test_asking_again_is_safe_and_asking_for_something_else_is_refused(
    client: NodeClient, good: str, tmp_path: Path
) -> None:
    other = push(client, tiny_bundle(tmp_path / "other", y="again"))
    wanted = OperationRequest(action="switch", bundle=other, expected_current=good, update_id="UPD-1", attempt=1)
    first = client.start_operation("op:twice", wanted)
    again = client.start_operation("op:twice", wanted)
    assert (first.id, first.started_at) == (again.id, again.started_at)
    ended = client.wait_operation("op:twice")
    assert ended.status == "succeeded"
    assert client.start_operation("op:twice", wanted) == ended

    with pytest.raises(NodeConflictError) as refused:
        client.start_operation("op:twice", wanted.model_copy(update={"attempt": 2}))
    assert refused.value.body["error"] == "operation_differs"
    assert client.operation("op:twice") == ended


def test_one_change_at_a_time(client: NodeClient, good: str, tmp_path: Path) -> None:
    slow = push(client, tiny_bundle(tmp_path / "slow", "sick"))
    wanted = OperationRequest(action="switch", bundle=slow, expected_current=good, update_id="UPD-1", attempt=1)
    client.start_operation("op:slow", wanted)
    with pytest.raises(NodeConflictError) as refused:
        client.start_operation("op:other", wanted)
    assert refused.value.body["error"] == "busy"
    operation = refused.value.body["operation"]
    assert isinstance(operation, dict)
    assert (operation["id"], operation["from"]) == ("op:slow", good)
    assert client.identity().status == "switching"
    began = time.monotonic()
    assert client.operation("op:slow", wait=0.3).status == "running"
    assert 0.25 < time.monotonic() - began < 10
    assert client.wait_operation("op:slow").status == "failed"


def test_what_a_public_server_does_not_do(client: NodeClient, good: str) -> None:
    wanted = OperationRequest(action="promote", bundle=good, expected_current=good, update_id="UPD-1", attempt=1)
    with pytest.raises(NodeRefusedError, match="does not promote"):
        client.start_operation("op:promote", wanted)
    with pytest.raises(NodeRefusedError, match="push it first") as refused:
        switch(client, "f" * 64, expected=good)
    assert refused.value.status == 404
    with pytest.raises(NodeRefusedError, match="no operation 'unknown'"):
        client.operation("unknown")
    with pytest.raises(NodeRefusedError) as malformed:
        client.operation("../etc")
    assert malformed.value.status in (400, 404)


def test_a_program_that_writes_into_its_release_reaches_neither_the_store_nor_the_next_run(
    node: NodeProcess, client: NodeClient, good: str, tmp_path: Path
) -> None:
    source = tiny_bundle(tmp_path / "scribbler", "scribble")
    bundle = push(client, source)
    assert switch(client, bundle, expected=good).status == "succeeded"
    tree = client.tree()
    manifest = client.manifest(bundle)
    assert tree.extra == ["extra.txt"]
    assert tree.files["app.py"].sha256 != manifest.by_path["app.py"].sha256
    assert client.file_bytes(manifest, "app.py") == (source / "app.py").read_bytes()

    assert switch(client, good, expected=bundle).status == "succeeded"
    before = {path.name for path in (node.data / "releases").iterdir()}
    assert switch(client, bundle, expected=good).status == "succeeded"
    built = release_directory(node)
    assert built.name not in before
    assert built.name.startswith(bundle)


def test_the_same_release_again_is_built_anew_when_it_was_changed(
    node: NodeProcess, client: NodeClient, good: str
) -> None:
    (release_directory(node) / "app.py").write_text("broken")
    pid = client.state().app.pid
    assert switch(client, good, expected=good, update_id="UPD-2").status == "succeeded"
    tree = client.tree()
    assert tree.extra == []
    assert tree.files["app.py"].sha256 == client.manifest(good).by_path["app.py"].sha256
    assert client.state().app.pid != pid


def test_old_releases_go_and_the_last_two_stay(
    node: NodeProcess, client: NodeClient, good: str, tmp_path: Path
) -> None:
    bundles = [push(client, tiny_bundle(tmp_path / str(number), n=str(number))) for number in range(3)]
    for before, bundle in zip([good, *bundles], bundles, strict=False):
        assert switch(client, bundle, expected=before).status == "succeeded"
    deadline = time.monotonic() + 30
    wanted = set(bundles[1:])
    while (found := {path.name.partition(".")[0] for path in (node.data / "releases").iterdir()}) != wanted:
        assert time.monotonic() < deadline, (found, wanted)
        time.sleep(0.05)


def test_a_crashed_program_starts_again_later_each_time(client: NodeClient, good: str) -> None:
    for restarts in (1, 2):
        state = client.state()
        psutil.Process(state.app.pid).kill()
        deadline = time.monotonic() + 30
        while True:
            after = client.state().app
            if after.status == "running" and after.pid != state.app.pid:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert after.restarts == restarts
    deadline = time.monotonic() + 30
    while not (probe := client.probe_health()).healthy:
        assert time.monotonic() < deadline, probe.detail
        time.sleep(0.1)
    assert (probe.restarts, probe.bundle) == (2, good)


def test_a_stubborn_program_and_what_it_left_behind_are_ended(
    node: NodeProcess, client: NodeClient, good: str, tmp_path: Path
) -> None:
    stubborn = push(client, tiny_bundle(tmp_path / "stubborn", "stubborn child"))
    assert switch(client, stubborn, expected=good).status == "succeeded"
    assert len(below(release_directory(node))) == 2
    assert switch(client, None, expected=stubborn).status == "succeeded"
    assert below(node.data / "releases") == []


def test_a_node_without_a_program_only_keeps_the_link(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "files", app={}) as node, node.client(expect_role=Role.PUBLIC) as client:
        bundle = push(client, tiny_bundle(tmp_path / "source", "sick"))
        assert switch(client, bundle, expected=None).status == "succeeded"
        assert release_directory(node).name == bundle
        assert (client.state().app.status, client.state().app.healthy) == ("stopped", False)
