"""From OMEGA to the Licensed Mainframes: the offer, and the wait for their reports."""

from __future__ import annotations

import time

from ashat.common.failpoints import fault_point
from ashat.deployment.events import Distributed, MainframeOutcome, MainframeServed
from ashat.deployment.state_machine import Stage, State
from ashat.errors import SessionError
from ashat.protocol.messages import Mainframe, Offer
from ashat.settings import Settings
from blocks.server import load_server
from tasks.runtime.ledger import ledger, now, whoami
from tasks.runtime.reporting import reporter
from tasks.runtime.step import step

_POLL_SECONDS = 0.5


@step("offer", description="Let OMEGA offer to every Licensed Mainframe what it runs now.")
def offer(update_id: str, attempt: int) -> None:
    """Let the target offer this update to its Mainframes; where it does already, nothing."""
    with ledger() as record:
        state = record.load(update_id, attempt)
    if state.bundle is None or state.release_seq is None:
        raise SessionError(f"Deployment '{update_id}' has not been promoted.")
    wanted = Offer(release_seq=state.release_seq, bundle=state.bundle, update_id=state.update_id, attempt=state.attempt)
    with load_server(state.target).client() as target:
        target.put_offer(wanted)
    fault_point("distribute.offered")


@step("await-mainframes", description="Wait until every active Mainframe has reported, or its time is over.")
def await_mainframes(target_name: str, release_seq: int) -> list[MainframeOutcome]:
    """What became of the offer on each active Mainframe, once all reported or `ASHAT_MAINFRAME_TIMEOUT` is over."""
    deadline = time.monotonic() + Settings().mainframe_timeout
    told: set[str] = set()
    with load_server(target_name).client() as target:
        while True:
            outcomes = outcomes_of(target.mainframes(), release_seq)
            for outcome in outcomes:
                if outcome.result != "missing" and outcome.id not in told:
                    told.add(outcome.id)
                    reporter().say(
                        f"{outcome.name}: {outcome.result}" + (f": {outcome.reason}" if outcome.reason else "")
                    )
            if all(outcome.result != "missing" for outcome in outcomes) or time.monotonic() > deadline:
                return outcomes
            time.sleep(_POLL_SECONDS)


@step("record-distribution", description="Write down what became of the release on each Mainframe.")
def record_distribution(update_id: str, attempt: int, outcomes: list[MainframeOutcome]) -> State:
    """Complete the deployment: the target runs it, and every Mainframe reported or is named as missing."""
    with ledger() as record:
        state = record.advance(
            update_id,
            attempt,
            lambda newest: (
                Distributed(at=now(), by=whoami(), mainframes=tuple(outcomes))
                if newest.stage is Stage.DISTRIBUTING
                else None
            ),
        )
    fault_point("distribute.recorded")
    return state


def serve_late(state: State) -> list[MainframeOutcome]:
    """Record the Mainframes that have reported since the deployment completed without them; returns those."""
    if state.stage is not Stage.COMPLETED or state.release_seq is None:
        return []
    behind = {m.id for m in state.mainframes if m.result != "running"}
    if not behind:
        return []
    with load_server(state.target).client() as target:
        found = outcomes_of(target.mainframes(), state.release_seq)
    served = [outcome for outcome in found if outcome.id in behind and outcome.result == "running"]
    with ledger() as record:
        for outcome in served:
            event = MainframeServed(at=now(), by=whoami(), mainframe=outcome)
            state = record.append(state, event)
    return served


def outcomes_of(mainframes: list[Mainframe], release_seq: int) -> list[MainframeOutcome]:
    """What each active Mainframe made of the offer `release_seq`; one that took a later offer has taken this one."""
    return [_outcome(mainframe, release_seq) for mainframe in mainframes if mainframe.status == "active"]


def _outcome(mainframe: Mainframe, release_seq: int) -> MainframeOutcome:
    reported = mainframe.release_seq is not None and mainframe.release_seq >= release_seq
    if not reported or mainframe.result == "none":
        return MainframeOutcome(id=mainframe.id, name=mainframe.name, result="missing", reason="not heard of yet")
    return MainframeOutcome(
        id=mainframe.id, name=mainframe.name, result=mainframe.result, reason=mainframe.reason[:500]
    )
