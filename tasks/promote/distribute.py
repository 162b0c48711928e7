"""Offer a release to the Licensed Mainframes, and wait for their reports."""

from __future__ import annotations

import time

from ashat.common.failpoints import fault_point
from ashat.deployment.events import Distributed, MainframeOutcome, MainframeServed
from ashat.deployment.state_machine import Stage, State
from ashat.errors import SessionError
from ashat.protocol.messages import Mainframe, Offer
from ashat.settings import Settings
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, whoami
from tasks.runtime.step import step

_POLL_SECONDS = 0.5


@step("offer", description="Let OMEGA offer to every Licensed Mainframe what it runs now.")
def offer(d: Deployment) -> None:
    """Let the target offer this update to its Mainframes; do nothing if it does already."""
    state = d.state
    if state.bundle is None or state.release_seq is None:
        raise SessionError(f"Deployment '{d.update_id}' has not been promoted.")
    d.target.put_offer(
        Offer(release_seq=state.release_seq, bundle=state.bundle, update_id=d.update_id, attempt=d.attempt)
    )
    fault_point("distribute.offered")


@step("await-mainframes", description="Wait until every active Mainframe has reported, or its time is over.")
def await_mainframes(d: Deployment, release_seq: int) -> list[MainframeOutcome]:
    """Wait until each active Mainframe has reported on the offer, or `ASHAT_MAINFRAME_TIMEOUT` is over; what became of
    it on each."""
    deadline = time.monotonic() + Settings().mainframe_timeout
    reported: set[str] = set()
    while True:
        outcomes = outcomes_of(d.target.mainframes(), release_seq)
        for outcome in outcomes:
            if outcome.result != "missing" and outcome.id not in reported:
                reported.add(outcome.id)
                reporter().say(f"{outcome.name}: {outcome.result}" + (f": {outcome.reason}" if outcome.reason else ""))
        if all(outcome.result != "missing" for outcome in outcomes) or time.monotonic() > deadline:
            return outcomes
        time.sleep(_POLL_SECONDS)


@step("record-distribution", description="Write down what became of the release on each Mainframe.")
def record_distribution(d: Deployment, outcomes: list[MainframeOutcome]) -> State:
    """Record that the deployment is complete, with what became of it on each Mainframe."""
    state = d.advance(
        lambda newest: (
            Distributed(at=now(), by=whoami(), mainframes=tuple(outcomes))
            if newest.stage is Stage.DISTRIBUTING
            else None
        )
    )
    fault_point("distribute.recorded")
    return state


def serve_late(d: Deployment) -> list[MainframeOutcome]:
    """Record which Mainframes have reported since the deployment completed without them; returns those."""
    state = d.state
    if state.stage is not Stage.COMPLETED or state.release_seq is None:
        return []
    behind = {m.id for m in state.mainframes if m.result != "running"}
    if not behind:
        return []
    found = outcomes_of(d.target.mainframes(), state.release_seq)
    served = [outcome for outcome in found if outcome.id in behind and outcome.result == "running"]
    for outcome in served:
        state = d.ledger.append(state, MainframeServed(at=now(), by=whoami(), mainframe=outcome))
    return served


def outcomes_of(mainframes: list[Mainframe], release_seq: int) -> list[MainframeOutcome]:
    """Say what each active Mainframe made of the offer `release_seq`; whoever took a later offer has taken this one."""
    return [_outcome(mainframe, release_seq) for mainframe in mainframes if mainframe.status == "active"]


def _outcome(mainframe: Mainframe, release_seq: int) -> MainframeOutcome:
    reported = mainframe.release_seq is not None and mainframe.release_seq >= release_seq
    if not reported or mainframe.result == "none":
        return MainframeOutcome(id=mainframe.id, name=mainframe.name, result="missing", reason="not heard of yet")
    return MainframeOutcome(
        id=mainframe.id, name=mainframe.name, result=mainframe.result, reason=mainframe.reason[:500]
    )
