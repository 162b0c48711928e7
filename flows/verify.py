"""Run the checks on the Public Server; what passes them waits at the gate."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState

from ashat.deployment.state_machine import Stage, State
from blocks.policy import load_policy
from flows._forms import LAST, Attempt, Fresh, PolicyName, UpdateId
from flows._runs import ending, report_refusals
from tasks.approval.gate import close_gate_run, run_url, start_approve_run
from tasks.runtime.deployment import Deployment, deployment
from tasks.runtime.notify import notify
from tasks.runtime.reporting import reporter
from tasks.runtime.run import run_id
from tasks.servers.public import public_lease, put_public_back, switch_public
from tasks.verify.policies import check_policy
from tasks.verify.verification import (
    open_gate,
    publish_checks,
    publish_latencies,
    record_evidence,
    run_checks,
    start_verification,
)


@flow(name="verify", flow_run_name="verify {update_id}", description="Run every check, and open the gate if they pass.")
@report_refusals
def verify(
    update_id: UpdateId,
    attempt: Attempt = LAST,
    policy: PolicyName = "",
    fresh: Fresh = False,
) -> PrefectState[Any]:
    """Verify an update on Public; on success a run of `approve` waits for a person.

    Args:
        update_id: The update, such as UPD-2026-11.
        attempt: Which attempt of it; 0: the last one.
        policy: The RaOS Verification Policy block; empty: that of its last verification, or the one called default.
        fresh: Run every check again, also those whose earlier answers are still good.
    """
    return ending(verify_update(deployment(update_id, attempt), policy=policy, fresh=fresh))


def verify_update(d: Deployment, *, policy: str = "", fresh: bool = False) -> State:
    """Check the update while it has Public to itself, keep the evidence, and open the gate if nothing failed.

    Where this very run has done so before, nothing: a Retry of it is no second verification.
    """
    state = d.state
    if state.run_verify == run_id() != "" and state.stage is not Stage.TESTING:
        return state
    reporter().step(3, "Verification Tests")
    policy = policy or state.policy
    block = load_policy(policy)
    check_policy(block.policy())
    asked_before = state.gate.run if state.gate else ""
    with public_lease(d, "verify") as holder:
        start_verification(d, policy)
        if asked_before:
            close_gate_run(asked_before, f"{d.update_id} is verified again.")
        switch_public(d, holder)
        report = run_checks(d, holder, block, fresh=fresh)
        state = record_evidence(d, report)
    publish_checks(state)
    publish_latencies(state, report)
    if state.stage is Stage.FAILED:
        put_public_back(d)
        notify(f"{d.update_id} failed verification", state.reason)
        return state
    return begin_approval(d)


def begin_approval(d: Deployment) -> State:
    """Open the gate: record it, and start the run of `approve` that waits for a person."""
    reporter().step(4, "Await Approval")
    state = open_gate(d)
    run = start_approve_run(state)
    reporter().say(f"Waiting for approval: {run_url(run)}")
    return state
