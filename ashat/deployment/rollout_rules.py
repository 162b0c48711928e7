"""Roll a release out in waves: the rules of that in the state machine (`state_machine`). Pure, no I/O.

Which Mainframes run it is OMEGA's to know; the record says which waves were opened, why it stopped, and who let it go
on.
"""

from __future__ import annotations

from dataclasses import replace

from ashat.deployment import events as e
from ashat.deployment.rollout_record import RolloutRecord
from ashat.deployment.stages import Stage
from ashat.deployment.state import State
from ashat.errors import SessionError


def began(state: State, event: e.RolloutBegan) -> State:
    """Note which waves there are."""
    _distributing(state, "beginning its rollout")
    if state.rollout is not None:
        raise SessionError(f"The rollout of '{state.update_id}' has begun already.")
    request = state.approvals.get("release")
    if request is not None and request.rollout_policy not in (None, "", event.policy):
        raise SessionError(
            f"{state.the_target} rolls '{state.update_id}' out by another policy than the one that was approved: "
            f"somebody else began that. Take it back: deploy rollback {state.update_id}"
        )
    return replace(state, rollout=RolloutRecord(event.rollout, event.policy, event.waves))


def opened(state: State, event: e.WaveOpened) -> State:
    """Note that waves are open."""
    found = of(state, "opening a wave")
    if not found.opened <= event.through < len(found.waves):
        raise SessionError(f"The rollout of '{state.update_id}' has no wave {event.through} that is not open yet.")
    return replace(state, rollout=replace(found, opened=event.through + 1))


def stopped(state: State, event: e.RolloutStopped) -> State:
    """Note that it stopped, and that a person is asked."""
    found = of(state, "stopping its rollout")
    if event.ordinal != found.ordinal + 1:
        raise SessionError(f"The rollout of '{state.update_id}' was stopped by somebody else in the same moment.")
    asked = replace(found, ordinal=event.ordinal, stopped=event.why, run=event.run, stops=event.stops)
    return replace(state, rollout=replace(asked, answer="", answered_by="", comment=""))


def answered(state: State, event: e.RolloutAnswered) -> State:
    """Note what a person answered."""
    found = of(state, "answering")
    if not found.waits or event.ordinal != found.ordinal:
        raise SessionError(f"The rollout of '{state.update_id}' does not wait for that answer any more.")
    by = event.approver or event.by
    return replace(state, rollout=replace(found, answer=event.decision, answered_by=by, comment=event.comment))


def of(state: State, what: str) -> RolloutRecord:
    """Return the rollout of a release that is being distributed.

    Raises:
        SessionError: there is none.
    """
    _distributing(state, what)
    if state.rollout is None:
        raise SessionError(f"The rollout of '{state.update_id}' has not begun.")
    return state.rollout


def _distributing(state: State, what: str) -> None:
    if state.stage is not Stage.DISTRIBUTING:
        raise SessionError(
            f"Deployment '{state.update_id}' is {state.stage.value}: {what} needs it to be Distributing."
        )
