"""Two people, or two processes, at once: one of them counts, the other is told, and nothing is half of each."""

from __future__ import annotations

import pytest

from ashat.deployment.events import ApprovalAnswered, DecisionVoid
from ashat.deployment.state_machine import Stage, State
from ashat.protocol.messages import LeaseRequest
from tests.support.processes.deploy_forks import Job
from tests.support.processes.fragile_stack import FragileStack, eventually
from tests.support.processes.node import NodeProcess

pytestmark = [pytest.mark.xdist_group("fragile"), pytest.mark.timeout(1200)]

APPROVE = "approve/approve"
RACES = ("RACE-1", "RACE-2", "RACE-3", "RACE-4")


def test_two_pushes_of_one_id(fragile: FragileStack) -> None:
    if fragile.standing(fragile.omega).current is None:
        fragile.ship("RACE-0", "What runs before")
    fragile.change("RACE-1")
    push = ("push", "RACE-1", "Pushed twice at once", "--allow-dirty")
    one, other = fragile.warm.deploy(*push), fragile.warm.deploy(*push)
    loser = told_no(one, other)
    assert "Deployment session 'RACE-1' already exists" in loser.output
    assert [len(fragile.events("RACE-1", kind)) for kind in ("created", "packaged", "pushed")] == [1, 1, 1]
    fragile.check_runs("RACE-1", fragile.public)


def test_verifications_of_different_updates_take_turns(fragile: FragileStack) -> None:
    for update_id in RACES[1:]:
        fragile.change(update_id)
        fragile.deploy("push", update_id, "Verified while others are", "--allow-dirty")
    with fragile.public.client() as public:
        public.acquire_lease(LeaseRequest(holder="maintenance", who="kim", why="a new disk", ttl=300))
        jobs = [fragile.warm.deploy("verify", update_id) for update_id in RACES]
        eventually(lambda: all("maintenance" in job.output for job in jobs), "each to say whom it waits for")
        assert [fragile.state(update_id).stage for update_id in RACES] == [Stage.PUSHED] * len(RACES)
        public.release_lease("maintenance")
    assert [job.wait() for job in jobs] == [0] * len(RACES), "".join(job.output for job in jobs)
    waited = [job for job in jobs if any(f"{other}/1" in job.output for other in RACES)]
    assert len(waited) >= len(RACES) - 1, "all but the first saw whom they waited for"
    for update_id in RACES:
        assert fragile.state(update_id).outcome == "passed"
        fragile.wait_asked(update_id)


def test_an_approval_and_a_rejection(fragile: FragileStack) -> None:
    before = fragile.bundles()
    state = fragile.state("RACE-1")
    approve = fragile.warm.deploy("approve", "RACE-1", "--evidence", tail(state), "--by", "kim")
    reject = fragile.warm.deploy("approve", "RACE-1", "--reject", "--reason", "not today", "--by", "sam")
    told_no(approve, reject)
    state = fragile.state("RACE-1")
    (answer,) = fragile.events("RACE-1", "answered")
    assert isinstance(answer, ApprovalAnswered)
    assert answer.accepted
    if approve.wait() == 0:
        assert (answer.decision, state.stage) == ("approve", Stage.COMPLETED)
        fragile.check_runs("RACE-1", *beyond(fragile))
        fragile.flow("rollback", update_id="RACE-1")
    else:
        assert (answer.decision, state.stage) == ("reject", Stage.REJECTED)
    assert fragile.bundles()["production"] == before["production"]


def test_a_cancellation_and_an_approval(fragile: FragileStack) -> None:
    before = fragile.bundles()["production"]
    state = fragile.state("RACE-2")
    approve = fragile.warm.deploy("approve", "RACE-2", "--evidence", tail(state))
    cancel = fragile.begin_flow("cancel", update_id="RACE-2")
    codes = approve.wait(), cancel.wait()
    state = fragile.state("RACE-2")
    accepted = [
        event
        for event in fragile.events("RACE-2", "answered")
        if isinstance(event, ApprovalAnswered) and event.accepted
    ]
    if state.stage is Stage.COMPLETED:
        assert (len(accepted), fragile.events("RACE-2", "cancelled")) == (1, [])
        assert codes == (0, 1)
        assert "only what awaits approval can be cancelled" in cancel.output
        fragile.check_runs("RACE-2", *beyond(fragile))
        fragile.flow("rollback", update_id="RACE-2")
    else:
        assert (state.stage, accepted) == (Stage.CANCELLED, [])
        assert len(fragile.events("RACE-2", "cancelled")) == 1
        assert codes == (1, 0), approve.output
    assert fragile.bundles()["production"] == before


def test_two_approvals(fragile: FragileStack) -> None:
    seq = fragile.standing(fragile.omega).release_seq
    state = fragile.state("RACE-3")
    jobs = [fragile.warm.deploy("approve", "RACE-3", "--evidence", tail(state), "--by", who) for who in ("kim", "sam")]
    loser = told_no(*jobs)
    assert "RACE-3" in loser.output
    state = fragile.state("RACE-3")
    assert (state.stage, state.release_seq) == (Stage.COMPLETED, seq + 1)
    for kind in ("answered", "promoting", "promoted", "distributed"):
        assert len(fragile.events("RACE-3", kind)) == 1, kind
    assert state.decision is not None
    assert state.decision.approver == ("sam" if loser is jobs[0] else "kim")
    fragile.check_runs("RACE-3", *beyond(fragile))


def test_a_rollback_and_the_approval_of_another(fragile: FragileStack) -> None:
    base = fragile.state("RACE-3").omega_before
    state = fragile.state("RACE-4")
    told = fragile.deploy("approve", "RACE-4", "--evidence", tail(state), check=False).stderr
    assert "production runs something else than when this was verified: deploy verify RACE-4" in told
    fragile.wait_asked("RACE-4", 2)
    fragile.deploy("verify", "RACE-4")
    state = fragile.wait_asked("RACE-4", 3)
    fragile.arm("approval.judged")
    assert fragile.answer(state, "approve")["status"] == "ACCEPT"
    fragile.wait_killed("approval.judged")
    fragile.settle(APPROVE)

    rollback = fragile.begin_flow("rollback", update_id="RACE-3")
    approve = fragile.begin_flow("approve", update_id="RACE-4")
    rollback.wait()
    approve.wait()
    three, four = fragile.state("RACE-3"), fragile.state("RACE-4")
    if four.stage is Stage.COMPLETED:
        assert fragile.events("RACE-4", "decision_void") == []
        fragile.check_runs("RACE-4", *beyond(fragile))
        back = three.rolled_back.get("omega")
        assert back is None or back.kept, "OMEGA was left to the other"
        return
    assert (three.stage, four.stage) == (Stage.ROLLED_BACK, Stage.AWAITING_APPROVAL)
    assert four.decision is None
    assert fragile.bundles()["production"] == base
    (void,) = fragile.events("RACE-4", "decision_void")
    assert isinstance(void, DecisionVoid)
    # The run of `approve` above asks, and cannot suspend outside a deployment: another takes its place, and asks again.
    fragile.flow("reconcile")
    fragile.wait_asked("RACE-4", 5)
    fragile.flow("cancel", update_id="RACE-4")


def beyond(fragile: FragileStack) -> list[NodeProcess]:
    """The servers behind the gate; Public is lent to others meanwhile."""
    return [fragile.omega, *fragile.mainframes]


def told_no(one: Job, other: Job) -> Job:
    """Whichever of the two was refused, with exit code 1 and a line; the other came through."""
    codes = one.wait(), other.wait()
    assert sorted(codes) == [0, 1], one.output + other.output
    loser = one if codes[0] else other
    assert "❌" in loser.output
    assert "Unexpected" not in loser.output
    return loser


def tail(state: State) -> str:
    """What a person types of the evidence."""
    assert state.evidence is not None
    return state.evidence[-8:]
