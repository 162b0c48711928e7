"""People are asked anew when what a question tells of has changed, and nobody is asked what cannot be answered."""

from __future__ import annotations

import pytest

from ashat.deployment.state_machine import Stage, State
from tests.support.processes.stack import Stack, eventually

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]


def put(stack: Stack, update_id: str) -> State:
    stack.change(update_id)
    stack.deploy("push", update_id, "A release", "--allow-dirty")
    stack.deploy("verify", update_id)
    return stack.wait_asked(update_id)


def told(stack: Stack, update_id: str, *words: str) -> tuple[int, str]:
    state = stack.state(update_id)
    done = stack.deploy("approve", update_id, "--evidence", (state.evidence or "")[-8:], *words, check=False)
    return done.returncode, done.stdout + done.stderr


def page(stack: Stack, state: State) -> str:
    """What is asked, as the form of the suspended run shows it."""
    keys = stack.run(state.approvals["release"].run)["state"]["state_details"]["run_input_keyset"]
    found = stack.api("GET", f"/flow_runs/{state.approvals['release'].run}/input/{keys['description']}")
    return str(found)


def test_what_was_asked_while_omega_was_down_is_asked_anew_and_the_first_approval_counts(stack: Stack) -> None:
    stack.omega.kill9()
    try:
        state = put(stack, "WORLD-1")
        gate = state.approvals["release"]
        assert " does not answer: " in gate.obstacle
        assert "It cannot be approved yet" in page(stack, state)
        form = {"decision": "approve", "evidence": gate.evidence[-8:]}
        assert stack.api("POST", f"/flow_runs/{gate.run}/resume", {"run_input": form})["status"] == "REJECT"
        code, said = told(stack, "WORLD-1")
        assert (code, "'WORLD-1' cannot be approved yet: " in said) == (1, True), said
        assert "cannot be approved yet" in stack.deploy("status").stdout
        again = stack.wait_asked("WORLD-1", 2)
        stack.reconcile()
        assert stack.state("WORLD-1").version == again.version, "nothing has changed, so nobody is asked anew"
    finally:
        stack.omega.start()
    stack.reconcile()
    state = stack.wait_asked("WORLD-1", 3)
    assert (state.approvals["release"].obstacle, state.approvals["release"].run) == ("", gate.run)
    assert "what stood in the way is over" in page(stack, state)
    assert "Asked again" in page(stack, state)

    # Another waits meanwhile, and what it says of OMEGA is over once the first is there.
    stack.wait_asked(put(stack, "WORLD-2").update_id)
    code, said = told(stack, "WORLD-1", "--comment", "however noisy")
    assert (code, stack.state("WORLD-1").stage) == (0, Stage.COMPLETED), said
    stack.reconcile()
    state = stack.wait_asked("WORLD-2", 2)
    stale = " runs something else than when this was verified: deploy verify WORLD-2"
    assert state.approvals["release"].obstacle.endswith(stale)
    code, said = told(stack, "WORLD-2")
    assert (code, "deploy verify WORLD-2. Once that is over" in said) == (1, True), said
    history = stack.deploy("history", "WORLD-2").stdout
    assert "runs something else than when this was verified" in " ".join(history.split())
    code, said = told(stack, "WORLD-2", "--reject", "--reason", "it is old by now")
    assert (code, stack.state("WORLD-2").stage) == (0, Stage.REJECTED), said


def test_who_looks_again_after_a_repair_need_not_wait_for_reconcile(stack: Stack) -> None:
    put(stack, "WORLD-3")
    stack.configure_policy(rehearses=False, evidence_max_age=77)
    try:
        stack.reconcile()
        state = stack.wait_asked("WORLD-3", 2)
        assert "the verification policy is another one by now" in state.approvals["release"].obstacle
    finally:
        stack.configure_policy(rehearses=False)
    code, said = told(stack, "WORLD-3", "--comment", "however noisy")
    assert (code, stack.state("WORLD-3").stage) == (0, Stage.COMPLETED), said
    assert "It is asked again now" in said


def test_an_answer_that_is_on_its_way_when_the_world_changes_is_judged_and_not_lost(stack: Stack) -> None:
    gate = put(stack, "WORLD-4").approvals["release"]
    stack.omega.kill9()
    try:
        form = {"decision": "reject", "evidence": gate.evidence[-8:], "approver": "kim", "comment": "not this one"}
        assert stack.api("POST", f"/flow_runs/{gate.run}/resume", {"run_input": form})["status"] == "ACCEPT"
        stack.reconcile()
        state = stack.wait("WORLD-4", lambda state: state.ended)
    finally:
        stack.omega.start()
    assert (state.stage, state.approvals["release"].ordinal) == (Stage.REJECTED, gate.ordinal)
    assert "not this one" in stack.deploy("history", "WORLD-4").stdout
    eventually(lambda: len(set(stack.bundles().values())) == 1, "Public to be put back")
