"""Two slots behind nginx: a release starts beside what runs, gets the traffic, goes back; nobody who asks notices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from ashat.client.node import NodeClient
from ashat.node.core.db import Database
from ashat.node.logs.change_log_audit import audit
from ashat.protocol.messages import AppSlot, Operation
from tests.node.test_crash import ask
from tests.support.drivers.load import Load
from tests.support.needs import requires_nginx
from tests.support.processes.front import Front
from tests.support.processes.node import NodeProcess, below, push, switch, tiny_app, tiny_bundle
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import eventually

pytestmark = [requires_nginx, pytest.mark.timeout(300)]

# A node takes a switch up three times.
POINTS = [
    ("switch.intended", "switch.materialised", "switch.app-started"),
    ("switch.traffic-recorded", "switch.snippet-written", "switch.proxy-reloaded"),
    ("switch.traffic-switched", "switch.linked", "switch.recorded"),
]


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with Front(tmp_path / "nginx") as started:
        yield started


@pytest.fixture
def node(front: Front, tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "public", app=tiny_app(), settings={"slots": front.slots()}) as started:
        front.start()
        yield started


@pytest.fixture
def client(node: NodeProcess) -> Iterator[NodeClient]:
    with node.client() as opened:
        yield opened


@pytest.fixture
def old(client: NodeClient, tmp_path: Path) -> str:
    """A release that runs and has the traffic."""
    bundle = push(client, tiny_bundle(tmp_path / "old", note="old"))
    assert succeeded(switch(client, bundle, expected=None))
    return bundle


@pytest.fixture
def new(client: NodeClient, tmp_path: Path) -> str:
    return push(client, tiny_bundle(tmp_path / "new", note="new"))


def succeeded(operation: Operation) -> Operation:
    assert operation.status == "succeeded", operation.reason
    return operation


def slots(client: NodeClient) -> tuple[AppSlot, AppSlot]:
    """The slot with the traffic, and the other."""
    first, second = client.state().app.slots
    return (first, second) if first.traffic else (second, first)


def check_whole(node: NodeProcess, client: NodeClient, bundle: str) -> None:
    """Record, link, snippet, traffic and processes all say `bundle`; nothing runs twice, or that no slot has."""
    eventually(lambda: slots(client)[0].bundle == bundle, "the release, with the traffic", node)
    with closing(Database(node.data / "node.db")) as database:
        assert audit(database).size > 1
    state = client.state()
    assert state.current is not None
    assert state.current.bundle == bundle
    assert (node.data / "current").resolve().name.partition(".")[0] == bundle
    active, idle = slots(client)
    assert (active.traffic, active.bundle, idle.traffic) == (True, bundle, False)
    running = {slot.pid for slot in (active, idle) if slot.pid}
    assert {process.pid for process in below(node.data / "releases")} == running


def test_no_request_fails_while_the_traffic_goes_there_and_back(
    node: NodeProcess, front: Front, client: NodeClient, old: str, new: str
) -> None:
    before = slots(client)[0]
    with Load(front.url) as load:
        load.wait_for(100)
        there = succeeded(switch(client, new, expected=old))
        load.wait_for(300)
        active, idle = slots(client)
        assert (active.bundle, idle.bundle, idle.pid) == (new, old, before.pid)
        assert 0 < (idle.kept_seconds or 0) <= 60
        said = ashat_node("status", "--data", str(node.data)).stdout
        assert f"slot {active.name}, port {active.port}: {new[:12]}, pid {active.pid}, has the traffic" in said
        assert f"slot {idle.name}, port {idle.port}: {old[:12]}, pid {idle.pid}, is kept for another " in said
        succeeded(switch(client, old, expected=new))
        load.wait_for(300)
    assert load.counted.failed == 0, load.counted.reasons
    assert min(load.counted.answered[old], load.counted.answered[new]) > 0
    assert [step.name for step in there.steps] == ["materialise", "start", "settle", "traffic", "link"]
    assert slots(client)[0].pid == before.pid, "the way back starts nothing"
    check_whole(node, client, old)


def test_what_is_asked_of_a_slot_is_answered_by_that_one(front: Front, client: NodeClient, old: str, new: str) -> None:
    succeeded(switch(client, new, expected=old))
    active, idle = slots(client)
    assert client.state().app.pid == active.pid
    assert client.state().app.url == front.url
    for slot, bundle in ((active, new), (idle, old)):
        health, process = client.probe_health(slot.name), client.probe_process(slot.name)
        assert (health.healthy, health.bundle, process.bundle) == (True, bundle, bundle)
        assert slot.port in {listening.port for listening in process.listening}
        assert client.probe_modules(slot.name).ok
        assert psutil.Process(slot.pid).environ()["ASHAT_SLOT"] == slot.name
        assert psutil.Process(slot.pid).environ()["RAOS_PORT"] == str(slot.port)
    assert client.probe_health().bundle == client.probe_process().bundle == new


def test_a_release_that_is_not_well_never_has_the_traffic(
    node: NodeProcess, front: Front, client: NodeClient, old: str, tmp_path: Path
) -> None:
    bad = push(client, tiny_bundle(tmp_path / "bad", "dies", says="the last words\n"))
    with Load(front.url) as load:
        load.wait_for(50)
        failed = switch(client, bad, expected=old)
        load.wait_for(50)
    assert (failed.status, failed.switched_back) == ("failed", False)
    assert "ended by itself with exit code 3" in failed.reason
    assert "the last words" in failed.output
    assert (load.counted.failed, set(load.counted.answered)) == (0, {old}), load.counted.reasons
    assert slots(client)[1].status == "stopped"
    check_whole(node, client, old)


def test_a_release_starts_in_a_slot_once_it_is_drained(front: Front, tmp_path: Path) -> None:
    settings = {"slots": front.slots(drain=3)}
    with NodeProcess(tmp_path / "public", app=tiny_app(), settings=settings) as node, node.client() as client:
        front.start()
        first, second, third = (push(client, tiny_bundle(tmp_path / name, note=name)) for name in ("a", "b", "c"))
        succeeded(switch(client, first, expected=None))
        with Load(front.url) as load:
            succeeded(switch(client, second, expected=first))
            succeeded(switch(client, third, expected=second))
            load.wait_for(50)
        assert (load.counted.failed, load.counted.answered[third] > 0) == (0, True), load.counted.reasons
        assert "the free slot is left alone for another" in node.log()
        check_whole(node, client, third)


@pytest.mark.parametrize("points", POINTS, ids=lambda points: points[-1])
def test_a_node_that_is_killed_on_the_way_goes_on_and_no_request_fails(
    node: NodeProcess, front: Front, client: NodeClient, old: str, new: str, points: tuple[str, ...], tmp_path: Path
) -> None:
    armed = tmp_path / "armed"
    armed.mkdir()
    for point in points:
        (armed / point).touch()
    node.restart_leaving({"ASHAT_FAULT_DIR": str(armed)})
    pid = eventually(lambda: slots(client)[0].pid, "the old release, with the traffic", node)
    with Load(front.url) as load:
        load.wait_for(20)
        ask(client, new, old)
        for point in points:
            assert node.wait_until_dead() == -9
            assert not (armed / point).exists(), "killed there, and nowhere before"
            load.wait_for(20)
            node.start({"ASHAT_FAULT_DIR": str(armed)}, wait=False)
        node.wait_until_up()
        operation = client.wait_operation("op", timeout=90)
        load.wait_for(20)
    assert succeeded(operation).to == new
    assert load.counted.failed == 0, load.counted.reasons
    check_whole(node, client, new)
    idle = slots(client)[1]
    assert (idle.bundle, idle.pid) == (old, pid), "what had the traffic ran on"
    assert list(armed.iterdir()) == []


def test_what_dies_at_each_start_is_given_up_and_the_traffic_stays(
    node: NodeProcess, front: Front, client: NodeClient, old: str, new: str
) -> None:
    pid = slots(client)[0].pid
    with Load(front.url) as load:
        node.restart_leaving({"ASHAT_FAULT": "switch.traffic-switched"})
        ask(client, new, old)
        for _ in range(4):
            assert node.wait_until_dead() == -9
            node.start({"ASHAT_FAULT": "switch.linked"}, wait=False)
        operation = client.wait_operation("op", timeout=90)
        load.wait_for(20)
    assert (operation.status, operation.switched_back, operation.interrupted) == ("failed", True, True)
    assert load.counted.failed == 0, load.counted.reasons
    assert slots(client)[0].pid == pid
    check_whole(node, client, old)


def test_a_node_that_restarts_while_both_run_takes_both_over(
    node: NodeProcess, front: Front, client: NodeClient, old: str, new: str
) -> None:
    succeeded(switch(client, new, expected=old))
    pids = [slot.pid for slot in slots(client)]
    with Load(front.url) as load:
        node.restart_leaving()
        eventually(lambda: [slot.pid for slot in slots(client)] == pids, "both programs, taken over", node)
        succeeded(switch(client, old, expected=new))
        node.kill9()
        node.start()
        eventually(lambda: [slot.pid for slot in slots(client)] == pids[::-1], "both programs, taken over", node)
        load.wait_for(20)
    assert load.counted.failed == 0, load.counted.reasons
    check_whole(node, client, old)
    assert node.stop() == 0
    assert below(node.data) == []


def test_what_was_kept_long_enough_is_ended(front: Front, tmp_path: Path) -> None:
    settings = {"slots": front.slots(drain=0.5, warm=1.5)}
    with NodeProcess(tmp_path / "public", app=tiny_app(), settings=settings) as node, node.client() as client:
        front.start()
        old, new = (push(client, tiny_bundle(tmp_path / name, note=name)) for name in ("old", "new"))
        succeeded(switch(client, old, expected=None))
        before = slots(client)[0].pid
        succeeded(switch(client, new, expected=old))
        node.kill9()
        node.start()
        eventually(lambda: slots(client)[0].bundle == new, "both taken over", node)
        eventually(lambda: slots(client)[1].status == "stopped", "the old release, ended", node)
        with Load(front.url) as load:
            succeeded(switch(client, old, expected=new))
            load.wait_for(20)
        assert load.counted.failed == 0, load.counted.reasons
        assert slots(client)[0].pid != before
        check_whole(node, client, old)
