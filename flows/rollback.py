"""Roll an update back on every server that it reached.

Where the target demands signatures and no signed rollback counts, the run suspends until people have signed it.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState
from prefect.states import Cancelled, Completed

from flows._forms import LAST, Attempt, By, Reason, UpdateId
from flows._runs import await_approval, ending, report_refusals
from tasks.approval.gate import run_url
from tasks.approval.request import other_run
from tasks.reconcile.repair import close_gate
from tasks.rollback.rollback import (
    end_rollback,
    follow_mainframes,
    look_back,
    roll_back_omega,
    roll_back_public,
    start_rollback,
    was_stopped,
)
from tasks.rollback.signed_rollback import rollback_to_sign
from tasks.runtime.deployment import deployment
from tasks.runtime.notify import notify
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now
from tasks.runtime.update_runs import goes_on_for_another


@flow(
    name="rollback",
    flow_run_name="rollback {update_id}",
    description="Let each server that an update reached run again what it ran before.",
)
@report_refusals
def rollback(
    update_id: UpdateId,
    attempt: Attempt = LAST,
    reason: Reason = "",
    by: By = "",
) -> PrefectState[Any]:
    """Roll an update back on OMEGA, the Mainframes and Public, refusing where something else runs by now.

    Args:
        update_id: The update, such as UPD-2026-11.
        attempt: Which attempt of it; 0: the last one.
        reason: Why; it is recorded.
        by: Who you are; recorded as you type it.
    """
    d = deployment(update_id, attempt)
    if goes_on_for_another() and was_stopped(d.state):
        return Cancelled(name="CalledOff", message=f"The rollback of '{update_id}' was called off.")
    plan, state = look_back(d), d.state
    if "omega" in plan.servers and not state.rolling_back and (wanted := rollback_to_sign(d, reason)) is not None:
        waiting = state.undecided(wanted.name)
        if waiting and waiting.waits(now()) and (holder := other_run(waiting)):
            return Completed(name="AlreadyWaiting", message=f"Another run asks about it: {run_url(holder)}")
        decided = await_approval(d, wanted).approvals[wanted.name]
        if decided.decision == "reject":
            who = decided.decided_by or "somebody"
            message = f"The rollback of '{update_id}' was rejected by {who}: nothing was changed."
            return Cancelled(name="Rejected", message=message)
        plan = look_back(d)
    start_rollback(d, reason, by)
    close_gate(d.state)  # a run of approve may wait there, since its rollout has stopped
    for place, why in plan.kept.items():
        reporter().say(f"{place} is left alone: {why}")
    if "omega" in plan.servers:
        sequence = roll_back_omega(d)
        if sequence is not None:
            follow_mainframes(d, sequence)
    if "public" in plan.servers:
        roll_back_public(d)
    state = end_rollback(d)
    notify(f"{update_id} was rolled back", state.rollback_reason or "no reason was given")
    return ending(state)
