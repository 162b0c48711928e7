"""Implement `deploy wait`: let a script go on once an update is where it waits for. It reads the ledger alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.terminal import output
from ashat.deployment.aftermath import what_it_waits_for
from ashat.deployment.stages import ENDED, Stage
from ashat.errors import SessionError, UsageError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.deployment.state_machine import State

NOT_EVERYWHERE = 3
TIMED_OUT = 4
_LOOK_EVERY = 0.5
_LONGEST = 365 * 86400


class Goal(StrEnum):
    """What `--for` may name besides a stage."""

    APPROVAL = "approval"
    DECISION = "decision"
    END = "end"


def wait(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update to wait for.")],
    goal: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="STATE",
            help="approval: it awaits one; decision: it was approved, or ended; end: nothing more happens by itself; "
            "or a stage, such as Distributing.",
        ),
    ] = Goal.END,
    timeout: Annotated[
        float | None, typer.Option(min=0, max=_LONGEST, help="Seconds after which to give up.", show_default="none")
    ] = None,
) -> None:
    """Wait until an update awaits approval, is decided, or ended. Exit codes: 0 it is so; 1 it ended otherwise; 3 it is
    completed, and not every active Mainframe runs it; 4 the time ran out, which stops nothing."""
    reached = _reached(goal)
    deadline = None if timeout is None else time.monotonic() + timeout
    with open_ledger() as ledger:
        state, shown = ledger.load(update_id), ""
        while not (there := reached(state, output.now())) and not _is_over(state, output.now()):
            if state.stage.value != shown:
                shown = state.stage.value
                output.note(f"{update_id} is {shown} …")
            if deadline is not None and time.monotonic() >= deadline:
                waits = what_it_waits_for(state, output.now())
                output.note(f"⏳ {update_id} is still {shown} after {timeout:g} s. {waits}")
                raise typer.Exit(TIMED_OUT)
            time.sleep(_LOOK_EVERY if deadline is None else min(_LOOK_EVERY, max(deadline - time.monotonic(), 0.0)))
            state = ledger.load(update_id, state.attempt)
    _tell(state, goal, there=there)


def _reached(goal: str) -> Callable[[State, datetime], bool]:
    """Make what tells whether the update is where it is waited for.

    Raises:
        UsageError: there is no such state.
    """
    name = goal.casefold()
    if name == Goal.APPROVAL:
        return lambda state, at: state.awaited(at) is not None
    if name == Goal.DECISION:
        return lambda state, at: state.stage_at(at) in ENDED or state.decision is not None
    if name == Goal.END:
        return _is_over
    stage = next((stage for stage in Stage if stage.value.casefold() == name), None)
    if stage is None:
        raise UsageError(
            f"Nothing can be waited for as {goal!r}: use {', '.join(Goal)}, or one of "
            f"{', '.join(stage.value for stage in Stage)}."
        )
    return lambda state, at: state.stage_at(at) is stage


def _is_over(state: State, at: datetime) -> bool:
    return state.stage_at(at) in ENDED and not state.rolling_back and state.awaited(at) is None


def _tell(state: State, goal: str, *, there: bool) -> None:
    """Say where it is, and end with the code for that.

    Raises:
        SessionError: it ended otherwise than was waited for.
        typer.Exit: it is completed, but not everywhere.
    """
    stage, name = state.stage_at(output.now()), f"Deployment '{state.update_id}'"
    why = f": {state.reason}" if state.reason else ""
    if not there:
        raise SessionError(f"{name} is {stage.value}{why}. What was waited for ({goal}) does not come any more.")
    approved = state.decision is not None and state.decision.decision == "approve"
    if goal.casefold() == Goal.DECISION and approved:
        output.say(f"{name} is approved, and {stage.value} by now{why}")
        return
    if goal.casefold() not in (Goal.END, Goal.DECISION):
        how = f": deploy approve {state.update_id}" if state.awaited(output.now()) else ""
        output.say(f"{name} is {stage.value}{how}")
        return
    if stage is Stage.COMPLETED and not state.reach.whole:
        output.say(f"{name} is {stage.value}, and {state.reach.words}.")
        raise typer.Exit(NOT_EVERYWHERE)
    if stage in ENDED and stage is not Stage.COMPLETED:
        raise SessionError(f"{name} is {stage.value}{why}.")
    output.say(f"{name} is {stage.value}{f', {state.reach.words}' if stage is Stage.COMPLETED else ''}")
