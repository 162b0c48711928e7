"""Let a release that is approved wait until its target may be changed, and look at its evidence again by then."""

from __future__ import annotations

from datetime import timedelta

from ashat.common.calendar import Closed
from ashat.deployment.events import DecisionVoid
from ashat.deployment.state_machine import Stage
from ashat.settings import Settings
from tasks.approval.page import running
from tasks.approval.release import Release
from tasks.approval.request import see_target
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, whoami
from tasks.servers.windows import closed_now, hold


def await_target(d: Deployment) -> Closed | None:
    """Hold the approved release back while its target is closed; why, None where it goes on.

    Where it waited and the evidence counts no more, the approval is void, and people are asked again.

    Raises:
        NodeError: it waited, and the target does not answer.
    """
    state = d.state
    if state.reached_omega or state.gate is None or state.stage not in (Stage.DEPLOYING, Stage.AWAITING_WINDOW):
        return None
    if state.stage is Stage.AWAITING_WINDOW and closed_now(d, "omega") is None and _void(d):
        return None
    return hold(d, "omega", state.gate.override_freeze, by=", ".join(state.deciders))


def _void(d: Deployment) -> bool:
    """Void the approval of a release that waited, where the evidence does not count any more; whether it was."""
    stale = Release().stale_reason(d, d.state, running(see_target(d)))
    if not stale:
        return False
    reporter().say(f"The approval is void: {stale}")
    expires = now() + timedelta(seconds=Settings().gate_timeout)
    void = DecisionVoid(at=now(), by=whoami(), reason=stale, expires=expires)
    d.advance(lambda newest: void if newest.stage is Stage.AWAITING_WINDOW else None)
    return True
