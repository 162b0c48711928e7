"""What people see, and can do, where a server's store is gone: the gate says so, no run runs in vain, it heals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ashat.deployment.state_machine import Stage, State
from tests.support.builders.deployments import open_ledger
from tests.support.processes.node import NodeProcess
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.stack import Stack, eventually

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]


def lose(node: NodeProcess) -> None:
    """Take the node's store and its release directories, as a disk that is restored from a backup."""
    node.stop()
    for name in ("store", "releases"):
        shutil.rmtree(node.data / name)
    node.start()


def asked(stack: Stack, update_id: str) -> State:
    stack.change(update_id)
    stack.deploy("push", update_id, f"For {update_id}", "--allow-dirty")
    stack.deploy("verify", update_id)
    return stack.wait_asked(update_id)


def page(stack: Stack, state: State) -> str:
    assert state.gate is not None
    assert state.gate.shown is not None
    with open_ledger(stack.home) as ledger:
        return str(ledger.document(state.gate.shown)["markdown"])


def tail(state: State) -> str:
    assert state.evidence is not None
    return state.evidence[-8:]


def flow(stack: Stack, name: str, **parameters: Any) -> str:
    """Run a flow to its end; its last message."""
    path = f"/deployments/{stack.deployment(name)}/create_flow_run"
    run = stack.api("POST", path, {"parameters": parameters})["id"]
    ended = eventually(lambda: [found for found in [stack.run(run)] if found["end_time"]], f"the end of {name}")
    return str(ended[0]["state"]["message"])


def test_a_gate_is_answered_and_a_run_that_dies_in_vain_waits(stack: Stack) -> None:
    first = asked(stack, "LOST-1")
    stack.deploy("approve", "LOST-1", "--evidence", tail(first), "--by", "kim", "--comment", "for the test")
    lose(stack.omega)
    told = eventually(lambda: [t for t in [stack.deploy("servers").stdout] if "deploy heal omega" in t], "what is lost")
    assert "its store lost what it needs" in told[0]

    second = asked(stack, "LOST-2")
    assert "What changes cannot be shown" in page(stack, second)
    assert "There is no bundle" in page(stack, second)

    assert "✅ omega holds what it needs again." in stack.deploy("heal", "omega").stdout
    eventually(lambda: "deploy heal" not in stack.deploy("servers").stdout, "a store that is whole")
    assert "nothing was lost" in stack.deploy("heal", "omega").stdout

    lose(stack.public)
    done = stack.deploy(
        "approve", "LOST-2", "--evidence", tail(second), "--by", "kim", "--comment", "seen by hand", check=False
    )
    assert done.returncode == 1
    assert "There is no bundle" in done.stderr
    assert "goes on by itself" in done.stderr
    assert "deploy rollback LOST-2 stops it" in done.stderr
    for _ in range(3):
        stack.settle("approve/approve")
        said = flow(stack, "reconcile/reconcile")
    assert " 1 not," in said
    state = stack.state("LOST-2")
    assert (state.stage, state.same_deaths) == (Stage.DEPLOYING, 2)
    assert "There is no bundle" in state.stuck
    assert state.stuck in " ".join(stack.deploy("status", "LOST-2").stdout.split())
    assert "There is no bundle" in stack.deploy("approve", "LOST-2", check=False).stderr

    refused = stack.deploy("heal", "public", check=False)
    assert refused.returncode == 1
    assert "Push the same tree again" in refused.stderr
    stack.deploy("push", "LOST-3", "The same tree again", "--allow-dirty")
    flow(stack, "approve/approve", update_id="LOST-2")
    assert stack.state("LOST-2").stage is Stage.COMPLETED
    stack.deploy("cancel", "LOST-3")


def test_a_rollback_that_could_not_be_done_says_that_it_goes_on_and_is_called_off(stack: Stack) -> None:
    stack.change("CALL-1")
    stack.ship("CALL-1")
    lose(stack.omega)
    done = stack.deploy("rollback", "CALL-1", "--reason", "it is slow", check=False)
    assert done.returncode == 1
    assert "the rollback is tried again by itself within a minute" in done.stderr
    assert "deploy cancel CALL-1 calls it off" in done.stderr
    assert stack.state("CALL-1").rolling_back
    assert "The rollback of 'CALL-1' is called off" in stack.deploy("cancel", "CALL-1", "--reason", "heal it").stdout
    state = stack.state("CALL-1")
    assert (state.stage, state.rolling_back) == (Stage.COMPLETED, False)
    events = len(json.loads(stack.deploy("history", "CALL-1", "--json").stdout)["events"])
    flow(stack, "reconcile/reconcile")
    stack.settle("rollback/rollback")
    assert len(json.loads(stack.deploy("history", "CALL-1", "--json").stdout)["events"]) == events
    assert stack.bundles()["production"] == state.bundle
    stack.deploy("heal", "omega")


def test_who_approves_is_told_why_a_gate_does_not_open_and_opens_it_at_once(stack: Stack) -> None:
    state = asked(stack, "STUCK-1")
    assert state.gate is not None
    stack.public.stop()
    given_up = {"state": {"type": "FAILED", "message": "somebody gave it up"}, "force": True}
    stack.api("POST", f"/flow_runs/{state.gate.run}/set_state", given_up)
    for _ in range(2):
        flow(stack, "reconcile/reconcile")
        stack.settle("approve/approve")
    flow(stack, "reconcile/reconcile")
    state = stack.state("STUCK-1")
    assert [len(state.deaths), state.same_deaths] == [3, 2]
    assert "is the node running" in state.stuck
    assert state.next_run is not None
    assert state.next_run > state.deaths[-1].at

    words = ("approve", "STUCK-1", "--reject", "--reason", "a test", "--by", "kim")
    told = stack.deploy(*words, check=False)
    assert told.returncode == 1
    assert "The gate did not open: 2 runs died of it" in told.stderr
    assert "The gate of 'STUCK-1' does not open:" in told.stderr
    assert "is the node running" in told.stderr.splitlines()[-1]
    stack.public.start()
    assert "rejected" in stack.deploy(*words).stdout


def test_a_release_is_exported_imported_and_its_report_given_back(stack: Stack, tmp_path: Path) -> None:
    """As deploy and the one-person mode have it: with a log that the approval stands in, and provenance."""
    with stack.omega.client() as omega:
        offered = omega.state().offer
    assert offered is not None
    install, file, report = stack.mainframes[0], tmp_path / "carried", tmp_path / "report"
    said = stack.deploy("export", offered.update_id, str(file), "--for", "mainframe-1").stdout
    assert "mainframe-1" in said
    told = ashat_node("import", file, "--config", install.config, "--report", report)
    assert f"{offered.update_id}/{offered.attempt} runs here." in told.stdout, told.stderr
    assert "carried by hand" in stack.deploy("import-report", str(report), "--omega", "omega").stdout
