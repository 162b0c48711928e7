"""Begin the rollback of a release where its rollout policy says so: the approval covers the way back."""

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
    state = d.state
    assert state.rollout is not None
    key = f"rollback:{state.update_id}:{state.attempt}:policy:{state.rollout.id}"
    run = start_run(ROLLBACK_DEPLOYMENT, state, key, reason=why, by="the rollout policy")
    reporter().say(f"{d.update_id}: its rollout policy rolls it back, in run {run}: {why}")
    deadline = time.monotonic() + BEGINS_WITHIN
    while time.monotonic() < deadline:
        state = d.state
        if state.rolling_back or state.ended:
            return True
        if state.undecided("rollback") is not None:
            return False
        time.sleep(_LOOK_EVERY)
    return False
