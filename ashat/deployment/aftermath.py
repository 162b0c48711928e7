"""Say what happens to a deployment by itself once a command has ended, and which command stops that. Pure, no I/O."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from ashat.deployment.stages import Stage

if TYPE_CHECKING:
    from ashat.deployment.state import State

# Stands between why a flow run was refused and what goes on without it, in the message of its final state.
AND_THEN = "\n\n"
_APPROVED = (Stage.DEPLOYING, Stage.DISTRIBUTING)


def goes_on(state: State, at: datetime) -> str:
    """Say in a sentence or two what the control plane does by itself, when, and how to stop that; "" where it does
    nothing."""
    name, when = state.update_id, _when(state, at)
    if state.rolling_back and state.rolled_back:
        return f"While the control plane is up, the rollback is finished by itself {when}; it cannot be called off now."
    if state.rolling_back:
        return (
            f"While the control plane is up, the rollback is tried again by itself {when}; deploy cancel {name} calls "
            "it off, as long as no server has gone back."
        )
    if state.stage is Stage.DISTRIBUTING and state.rollout is not None and state.rollout.waits:
        return (
            f"The rollout of '{name}' has stopped, and waits for a person: deploy rollout resume {name}, or abort "
            f"{name}; deploy rollback {name} takes it back from where it runs."
        )
    if state.window is not None and not state.ended:
        return (
            f"'{name}' {state.window_line}, while the control plane is up; deploy cancel {name} calls it off, and "
            f'{_how_to_override(state)} --override-freeze "REASON" lets it go at once.'
        )
    if state.stage in _APPROVED:
        return (
            f"'{name}' is approved and {state.stage.value}: while the control plane is up, that goes on by itself "
            f"{when}; deploy rollback {name} stops it, and takes it back from where it runs."
        )
    if state.stage is Stage.TESTING and state.evidence is not None and state.outcome != "failed":
        return (
            f"The checks have passed: while the control plane is up, the gate of '{name}' is opened by itself {when}; "
            f"deploy cancel {name} stops that."
        )
    if state.owes_public:
        return f"While the control plane is up, {state.the_public} is put back by itself {when}."
    return ""


def what_it_waits_for(state: State, at: datetime) -> str:
    """Say to a person who gives up waiting what the update needs: a decision, time, or somebody's command."""
    name = state.update_id
    if state.awaited(at) is not None:
        return f"It waits for a person: deploy approve {name} decides."
    return goes_on(state, at) or (
        f"A push, a verification or a run that works on it goes on, and nothing else does: deploy status {name}."
    )


def after_an_interrupt(state: State | None, at: datetime) -> str:
    """Say to a person who interrupted a push or a verification how far it is, and what to do."""
    if state is None or (state.ended and not state.owes_public):
        return "Nothing of it is recorded yet, and nothing runs of it: run it again."
    if on := goes_on(state, at):
        return on
    name = state.update_id
    calls_off = f"deploy cancel {name} calls it off"
    if state.stage is Stage.PLANNING:
        switching = f"{state.the_public} may be switching to it. " if state.switching else ""
        return f"{switching}deploy push {name} … --resume goes on with it; {calls_off}."
    if state.stage is Stage.AWAITING_APPROVAL:
        return f"'{name}' waits at the gate: deploy approve {name} decides; {calls_off}."
    checks = "The checks were stopped. " if state.stage is Stage.TESTING else ""
    return f"{checks}{state.the_public} was switched to '{name}': deploy verify {name} checks it; {calls_off}."


def _how_to_override(state: State) -> str:
    """Name the command that takes the reason."""
    name = state.update_id
    return f"deploy push {name} … --resume" if state.stage is Stage.PLANNING else f"deploy approve {name}"


def _when(state: State, at: datetime) -> str:
    if state.next_run is not None and state.too_early(at):
        return f"at {state.next_run:%H:%M} UTC"
    return "within a minute"
