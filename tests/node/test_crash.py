"""A node killed at any instant leaves the old release or the new one, and its next start goes on from there."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from ashat.client.node import NodeClient
from ashat.errors import NodeUnreachableError
from ashat.node.core.db import Database
from ashat.node.logs.change_log_audit import audit
from ashat.node.operations.records import Unfinished
from ashat.node.operations.recovery import RESUMES, Hold, Resume, Undo, plan
from ashat.node.store.trees import read_tree
from ashat.protocol.messages import Operation, OperationRequest
from tests.support.processes.node import NodeProcess, below, push, switch, tiny_app, tiny_bundle

FAULTS = ["switch.intended", "switch.materialised", "switch.linked", "switch.app-started", "switch.recorded"]
WENT = (NodeUnreachableError,)


def ask(client: NodeClient, bundle: str | None, expected: str | None, name: str = "op") -> None:
    """Ask for a change of a node that is about to die of it."""
    wanted = OperationRequest(action="switch", bundle=bundle, expected_current=expected, update_id="UPD-1", attempt=1)
    try:
        client.start_operation(name, wanted)
    except WENT:
        return


def check_consistent(node: NodeProcess, client: NodeClient, bundle: str | None) -> None:
    """Record, journal, link, files and program all say `bundle`, and there is one program."""
    with closing(Database(node.data / "node.db")) as database:
        assert audit(database).size > 1
    state = client.state()
    assert (state.current.bundle if state.current else None) == bundle
    if bundle is None:
        assert not (node.data / "current").is_symlink()
        assert below(node.data / "releases") == []
        return
    directory = (node.data / "current").resolve()
    assert directory.name.partition(".")[0] == bundle
    assert read_tree(directory, client.manifest(bundle)).matches(client.manifest(bundle))
    deadline = time.monotonic() + 30
    while not (probe := client.probe_health()).healthy:
        assert time.monotonic() < deadline, probe.detail
        time.sleep(0.1)
    assert probe.bundle == bundle
    assert [process.pid for process in below(node.data / "releases")] == [client.state().app.pid]


@pytest.mark.parametrize("fault", FAULTS)
def test_killed_within_a_switch(tmp_path: Path, fault: str) -> None:
    visits = tmp_path / "visits"
    node = NodeProcess(tmp_path / "public", app=tiny_app(), start=False)
    with node, node.client() as client:
        node.start({"ASHAT_FAULT": f"{fault}:2", "ASHAT_FAULT_LOG": str(visits)})
        old, new = (push(client, tiny_bundle(tmp_path / name, name=name)) for name in ("old", "new"))
        assert switch(client, old, expected=None).status == "succeeded"
        ask(client, new, old)
        assert node.wait_until_dead() == -9
        assert visits.read_text().split()[-1] == fault
        survivors = {process.pid for process in below(node.data / "releases")}

        node.start()
        operation = client.wait_operation("op", timeout=90)
        assert (operation.status, operation.to, operation.from_) == ("succeeded", new, old)
        check_consistent(node, client, new)
        previous = client.state().previous
        assert previous is not None
        assert previous.bundle == old
        if fault in ("switch.app-started", "switch.recorded"):
            assert {client.state().app.pid} == survivors, "the new program ran on and was taken over"


def test_killed_while_it_switches_back(tmp_path: Path) -> None:
    app = tiny_app()
    with NodeProcess(tmp_path / "public", app=app) as node, node.client() as client:
        old, bad = push(client, tiny_bundle(tmp_path / "old")), push(client, tiny_bundle(tmp_path / "bad", "crash"))
        assert switch(client, old, expected=None).status == "succeeded"
        text = node.config.read_text()
        node.config.write_text(text.replace("settle = 0.2", "settle = 20"))
        node.restart()
        ask(client, bad, old)
        deadline = time.monotonic() + 30
        while "failed: " not in node.log():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        node.kill9()
        node.config.write_text(text)
        node.start()
        operation = client.wait_operation("op", timeout=90)
        assert (operation.status, operation.switched_back, operation.interrupted) == ("failed", True, False)
        assert "ended by itself with exit code 1" in operation.reason
        check_consistent(node, client, old)


def test_a_node_that_does_not_survive_a_release_gives_it_up(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "public", app=tiny_app(), start=False)
    with node, node.client() as client:
        node.start({"ASHAT_FAULT": "switch.app-started:2"})
        old, new = (push(client, tiny_bundle(tmp_path / name, name=name)) for name in ("old", "new"))
        assert switch(client, old, expected=None).status == "succeeded"
        ask(client, new, old)
        assert node.wait_until_dead() == -9
        node.start({"ASHAT_FAULT": "switch.app-started"}, wait=False)
        assert node.wait_until_dead() == -9
        with closing(sqlite3.connect(node.data / "node.db")) as database, database:
            assert database.execute("SELECT resumed FROM operations WHERE id = 'op'").fetchone() == (1,)
            database.execute("UPDATE operations SET resumed = ?", (RESUMES,))
        node.start({"ASHAT_FAULT": "switch.app-started"})
        operation = client.wait_operation("op", timeout=90)
        assert (operation.status, operation.switched_back, operation.interrupted) == ("failed", True, True)
        assert operation.reason == f"the node was stopped {RESUMES + 1} times while it switched"
        check_consistent(node, client, old)


def test_a_running_program_is_taken_over_and_looked_after(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", app=tiny_app()) as node, node.client() as client:
        bundle = push(client, tiny_bundle(tmp_path / "source"))
        switch(client, bundle, expected=None)
        before = client.state().app
        node.kill9()
        assert psutil.pid_exists(before.pid or 0)
        node.start()
        deadline = time.monotonic() + 30
        while (after := client.state().app).status != "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (after.pid, after.started_at, after.url) == (before.pid, before.started_at, before.url)

        psutil.Process(before.pid).kill()
        while (app := client.state().app).restarts == 0 or app.status != "running":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        check_consistent(node, client, bundle)
        assert node.stop() == 0
        assert below(node.data) == []


def test_a_program_that_is_not_the_current_one_is_ended(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", app=tiny_app()) as node, node.client() as client:
        old, new = (push(client, tiny_bundle(tmp_path / name, name=name)) for name in ("old", "new"))
        switch(client, old, expected=None)
        switch(client, new, expected=old)
        pid = client.state().app.pid
        node.kill9()
        link = node.data / "current"
        link.unlink()
        link.symlink_to(f"releases/{old}")
        node.start()
        deadline = time.monotonic() + 30
        while (app := client.state().app).status != "running" or app.pid == pid:
            assert time.monotonic() < deadline, app
            time.sleep(0.05)
        check_consistent(node, client, new)
        assert client.state().app.pid != pid


def test_a_stopped_node_takes_its_switch_up_again(tmp_path: Path) -> None:
    app = {**tiny_app(), "settle": 1}
    with NodeProcess(tmp_path / "public", app=app) as node, node.client() as client:
        bundle = push(client, tiny_bundle(tmp_path / "source"))
        ask(client, bundle, None)
        began = time.monotonic()
        assert node.stop() == 0
        assert time.monotonic() - began < 20
        assert below(node.data) == []
        node.start()
        assert client.wait_operation("op", timeout=90).status == "succeeded"
        check_consistent(node, client, bundle)


def test_one_node_for_each_data_directory(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public") as node:
        second = subprocess.run(
            [sys.executable, "-m", "ashat.node", "serve", "--config", str(node.config), "--port", "0"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 2
        assert second.stderr.count("\n") == 1
        assert "Another node runs on" in second.stderr


def an_operation(**fields: object) -> Operation:
    content = {"id": "op", "action": "switch", "status": "running", "from": None, "to": "a" * 64}
    return Operation.model_validate(
        {**content, "update_id": "UPD-1", "attempt": 1, "started_at": "2026-11-24T00:00:00Z", **fields}
    )


def test_the_plan_for_what_is_found_at_the_start() -> None:
    operation = an_operation()
    assert plan(None) == Hold()
    for resumed in range(RESUMES):
        assert plan(Unfinished(operation, undoing=False, resumed=resumed)) == Resume(operation)
    given_up = plan(Unfinished(operation, undoing=False, resumed=RESUMES))
    assert given_up == Undo(operation, f"the node was stopped {RESUMES + 1} times while it switched", interrupted=True)
    failed = an_operation(reason="not healthy")
    for resumed in (0, RESUMES):
        assert plan(Unfinished(failed, undoing=True, resumed=resumed)) == Undo(failed, "not healthy", interrupted=False)
