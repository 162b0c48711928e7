"""Begin the rollback of a release where its rollout policy, or a person, says so: the approval covers the way back."""

from __future__ import annotations

from ashat.errors import SessionError
from tasks.approval.gate import ROLLBACK_DEPLOYMENT, start_run
from tasks.rollback.rollback import look_back, start_rollback
from tasks.rollback.signed_rollback import rollback_to_sign
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.update_runs import BEGINS


def roll_back_by_policy(d: Deployment, why: str) -> bool:
    """Begin the rollback and start a run that carries it out once this one has ended: runs that write to OMEGA wait for
    each other. False where it did not begin, as where people must sign it: then that run asks them."""
    return _roll_back(d, "policy", "the rollout policy", why)


def roll_back_as_answered(d: Deployment) -> bool:
    """Do the same where a person answered so when the rollout stopped; False where nobody did."""
    found = d.state.rollout
    if found is None or found.answer != "roll-back":
        return False
    by = found.answered_by or "a person"
    return _roll_back(d, str(found.ordinal), by, found.comment or f"its rollout stopped: {found.stopped}")


def _roll_back(d: Deployment, which: str, by: str, why: str) -> bool:
    state = d.state
    if state.rolling_back or state.rollout is None:
        return state.rolling_back
    try:
        plan = look_back(d)
        begins = not ("omega" in plan.servers and rollback_to_sign(d, why) is not None)
    except SessionError as error:
        reporter().say(f"{d.update_id}: {by} has it rolled back, which cannot be: {error}")
        return False
    if begins:
        start_rollback(d, why, by)
    key = f"{BEGINS}{state.update_id}:{state.attempt}:{which}:{state.rollout.id}"
    run = start_run(ROLLBACK_DEPLOYMENT, state, key, reason=why, by=by)
    how = "has it rolled back" if begins else "wants it rolled back, which people must sign"
    reporter().say(f"{d.update_id}: {by} {how}, in run {run}: {why}")
    return begins
