"""Begin the rollback of a release where its rollout policy, or a person, says so: the approval covers the way back."""

from __future__ import annotations

import time
from typing import Final

from tasks.approval.gate import ROLLBACK_DEPLOYMENT, start_run
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter

BEGINS_WITHIN: Final = 60.0
_LOOK_EVERY: Final = 0.5


def roll_back_by_policy(d: Deployment, why: str) -> bool:
    """Start a run of `rollback` and wait until that has begun; False where it has not, as where people must sign it."""
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
    assert state.rollout is not None
    key = f"rollback:{state.update_id}:{state.attempt}:{which}:{state.rollout.id}"
    run = start_run(ROLLBACK_DEPLOYMENT, state, key, reason=why, by=by)
    reporter().say(f"{d.update_id}: {by} has it rolled back, in run {run}: {why}")
    deadline = time.monotonic() + BEGINS_WITHIN
    while time.monotonic() < deadline:
        state = d.state
        if state.rolling_back or state.ended:
            return True
        if state.undecided("rollback") is not None:
            return False
        time.sleep(_LOOK_EVERY)
    return False
