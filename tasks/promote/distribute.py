"""Roll a release out to the Licensed Mainframes: begin, open wave after wave, stop where it must, and record the end.

OMEGA knows which Mainframe is in which wave, and counts. Here its counters are looked at, `ashat.rollouts.decide` says
what follows, and that is done: the work grows with the waves, never with the Mainframes.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from ashat.client.node import NodeClient
from ashat.common.failpoints import fault_point
from ashat.deployment.events import (
    Distributed,
    MainframeOutcome,
    MainframeServed,
    RolloutAnswered,
    RolloutBegan,
    RolloutStopped,
    WaveOpened,
)
from ashat.deployment.state_machine import Stage, State
from ashat.errors import NodeRefusedError, SessionError
from ashat.protocol.fleet import RolloutAction, RolloutMember, RolloutState
from ashat.protocol.messages import Offer
from ashat.rollouts.decide import Ask, Complete, OpenNext, Pause, RollBack, Wait, decide, too_many_failed
from ashat.rollouts.policy import RolloutPolicy
from ashat.settings import Settings
from blocks.rollout_policy import load_rollout_policy
from tasks.approval.rollout_policy import approved_policy
from tasks.promote.rollout_page import RolloutPage
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, run_id, whoami
from tasks.runtime.step import step

NAMED: Final = 1000
_POLL_SECONDS: Final = 0.5
_WHY_LENGTH: Final = 500


@step("begin-rollout", description="Let OMEGA put each Mainframe into its wave, and offer the release to none yet.")
def begin_rollout(d: Deployment) -> None:
    """Begin to roll the update out by the rollout policy that was approved; where an earlier version asked, which bound
    none, by the one that holds here. A rollout that has begun keeps its own."""
    state = d.state
    if state.rollout is not None:
        return
    if state.bundle is None or state.release_seq is None:
        raise SessionError(f"Deployment '{d.update_id}' has not been promoted.")
    settings = Settings()
    policy = approved_policy(d.ledger, state) or load_rollout_policy(
        settings.rollout_policy, settings.mainframe_timeout
    )
    offer = Offer(release_seq=state.release_seq, bundle=state.bundle, update_id=d.update_id, attempt=d.attempt)
    begun = begin(d.target, offer, policy)
    fault_point("distribute.offered")
    waves = tuple((wave.name, wave.counts.size) for wave in begun.waves)
    event = RolloutBegan(at=now(), by=whoami(), rollout=begun.id, policy=begun.policy.digest, waves=waves)
    d.advance(lambda newest: event if newest.rollout is None else None)


def begin(target: NodeClient, offer: Offer, policy: RolloutPolicy, override: str = "") -> RolloutState:
    """Begin the rollout of that offer on `target`, or find the one that has begun, whatever its policy; `override` says
    why no freeze holds it back.

    Raises:
        SessionError: the target is of a version that knows no rollouts.
        NodeConflictError: a wave would be empty, or the target runs something else.
    """
    identity = f"{offer.update_id}.{offer.attempt}.{offer.release_seq}"
    try:
        policy = target.rollout(identity).policy
    except NodeRefusedError as error:
        if error.status != 404:
            raise
    try:
        # Once more where it has begun: OMEGA may have died before it offered the release.
        return target.begin_rollout(identity, offer, policy, override)
    except NodeRefusedError as error:
        if error.status in (404, 405):
            raise SessionError(
                f"{target.name} is of an earlier version, which cannot roll out in waves: upgrade its ashat-node."
            ) from None
        raise


class Stopped(NamedTuple):
    """Why a rollout stopped, and whether its policy says that all of it is rolled back."""

    why: str
    roll_back: bool = False


@step("open-waves", description="Open wave after wave, as the rollout policy says, until all had it or it stops.")
def open_waves(d: Deployment) -> Stopped | None:
    """Bring the rollout on; None when it is over, else why a person has to say whether it goes on."""
    page = RolloutPage(d.update_id)
    while True:
        state = d.state
        if state.rollout is None or state.stage is not Stage.DISTRIBUTING or state.rolling_back:
            return None
        seen = d.target.rollout(state.rollout.id)
        page.show(seen)
        if seen.status in ("completed", "aborted", "superseded"):
            return None
        if seen.status in ("paused", "asked"):
            return Stopped(seen.why or "it was paused", _rolls_back(seen))
        _follow(d, state, seen)
        _act(d, seen)


def _rolls_back(seen: RolloutState) -> bool:
    """Say whether its policy has it rolled back for the failures that stopped it, unless a person resumed it before."""
    failures = bool(seen.opened) and too_many_failed(seen.policy, seen.as_rollout()) is not None
    return failures and seen.policy.on_failure == "roll-back-all" and seen.stops == 1


def _act(d: Deployment, seen: RolloutState) -> None:
    """Do what follows for a rollout that runs, or wait a moment."""
    if not seen.opened:
        return _open(d, seen, 0, "it begins")
    match decide(seen.policy, seen.as_rollout(), seen.at):
        case OpenNext(through, why):
            _open(d, seen, through, why)
        case Pause(why) | RollBack(why=why):
            d.target.decide_rollout(seen.id, "pause", why[:_WHY_LENGTH])
        case Ask(why):
            d.target.decide_rollout(seen.id, "ask", why[:_WHY_LENGTH])
        case Complete(why):
            d.target.decide_rollout(seen.id, "complete", why[:_WHY_LENGTH])
        case Wait():
            time.sleep(_POLL_SECONDS)
    return None


def _open(d: Deployment, seen: RolloutState, through: int, why: str) -> None:
    d.target.open_waves(seen.id, through, why[:_WHY_LENGTH])
    fault_point("distribute.wave-opened")
    names = ", ".join(wave.name for wave in seen.waves[len(seen.opened) : through + 1])
    if len(seen.waves) > 1:
        reporter().say(f"{seen.offer.update_id}: the wave {names} has it now: {why}")


def _follow(d: Deployment, state: State, seen: RolloutState) -> None:
    """Record which waves are open, where the run that opened them died before it did."""
    assert state.rollout is not None
    through = len(seen.opened) - 1
    if through >= state.rollout.opened:
        event = WaveOpened(at=now(), by=whoami(), through=through, why=seen.waves[through].why)
        d.advance(lambda newest: event if newest.rollout and through >= newest.rollout.opened else None)


@step("record-stop", description="Write down that the rollout stopped, and why.")
def record_stop(d: Deployment, seen: RolloutState, why: str, *, again: bool) -> State:
    """Record that the rollout stopped, and that this run asks a person; `again`: although it was recorded before."""

    def stop(newest: State) -> RolloutStopped | None:
        found = newest.rollout
        if newest.rolling_back or found is None or (found.waits and not again):
            return None
        return RolloutStopped(at=now(), by=whoami(), ordinal=found.ordinal + 1, why=why, run=run_id(), stops=seen.stops)

    return d.advance(stop)


@step("carry-out-answer", description="Let the rollout go on, or end, as a person said.")
def carry_out_answer(d: Deployment) -> None:
    """Do on the target what was answered of a rollout that stopped; do nothing if nothing was."""
    found = d.state.rollout
    if found is None or not found.answer:
        return
    seen = d.target.rollout(found.id)
    if seen.status not in ("paused", "asked") or seen.stops != found.stops or found.answer == "roll-back":
        return
    action: RolloutAction = "resume" if found.answer == "resume" else "abort"
    d.target.decide_rollout(found.id, action, found.comment[:_WHY_LENGTH], found.answered_by[:_WHY_LENGTH])


def record_answer(d: Deployment, decision: str, approver: str, comment: str) -> State:
    """Record what a person answered; the first answer counts."""

    def given(newest: State) -> RolloutAnswered | None:
        found = newest.rollout
        if found is None or not found.waits:
            return None
        return RolloutAnswered.model_validate(
            {
                "at": now(),
                "by": whoami(),
                "ordinal": found.ordinal,
                "decision": decision,
                "approver": approver,
                "comment": comment,
            }
        )

    return d.advance(given)


@step("record-distribution", description="Write down what became of the release on each Mainframe.")
def record_distribution(d: Deployment) -> State:
    """Record that the deployment is complete, with what became of it on the Mainframes."""
    found = d.state.rollout
    assert found is not None
    seen = d.target.rollout(found.id)
    counts, early = seen.counts, seen.why or "nobody said why" if seen.status == "aborted" else ""
    event = Distributed(
        at=now(),
        by=whoami(),
        mainframes=tuple(outcomes_of(d.target, seen)),
        running=counts.succeeded,
        total=counts.size,
        ended_early=early,
    )
    state = d.advance(lambda newest: event if newest.stage is Stage.DISTRIBUTING else None)
    reporter().say(f"{state.update_id}: {state.reach.words}")
    fault_point("distribute.recorded")
    return state


def outcomes_of(target: NodeClient, seen: RolloutState) -> list[MainframeOutcome]:
    """Say what each Mainframe made of a rollout; of more than `NAMED`, the first of those that do not run it."""
    behind = ("failed", "unreachable", "accepted", "under_way", "waiting")
    states = () if seen.counts.size <= NAMED else behind
    found = target.rollout_members(seen.id, states, limit=NAMED)  # type: ignore[arg-type]
    return sorted((_outcome(member) for member in found), key=lambda outcome: outcome.name)


def serve_late(d: Deployment) -> list[MainframeOutcome]:
    """Record which Mainframes have begun to run it since the deployment completed without them; returns those."""
    state = d.state
    behind = {m.id for m in state.mainframes if m.result != "running"}
    if state.stage is not Stage.COMPLETED or state.rollout is None or not behind:
        return []
    seen = d.target.rollout(state.rollout.id)
    if seen.counts.succeeded <= state.reach.running:
        return []
    late = [
        _outcome(member)
        for member in d.target.rollout_members(seen.id, ("succeeded",), limit=NAMED)
        if member.id in behind
    ]
    for outcome in late:
        state = d.ledger.append(state, MainframeServed(at=now(), by=whoami(), mainframe=outcome))
    return late


def await_mainframes(target: NodeClient, offer: Offer, seconds: float) -> list[MainframeOutcome]:
    """Offer what `target` went back to, to every Mainframe at once, and wait until each has answered or so many seconds
    are over; what became of it on each."""
    seen = begin(target, offer, RolloutPolicy.all_at_once(round(seconds)), "it is taken back")
    deadline = time.monotonic() + seconds
    while seen.status == "running":
        if not seen.opened:
            seen = target.open_waves(seen.id, 0, "it is taken back")
        elif seen.counts.open and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            seen = target.rollout(seen.id)
        else:
            seen = target.decide_rollout(seen.id, "complete", "all have answered, or had their time")
    return outcomes_of(target, seen)


def _outcome(member: RolloutMember) -> MainframeOutcome:
    if member.state == "succeeded":
        result, reason = "running", member.reason
    elif member.state in ("failed", "accepted") and member.reason:
        result, reason = "failed", member.reason
    else:
        result, reason = "missing", member.reason or "not heard of yet"
    return MainframeOutcome.model_validate(
        {"id": member.id, "name": member.name, "result": result, "reason": reason[:_WHY_LENGTH]}
    )
