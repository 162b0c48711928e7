"""Implement `deploy cancel` and `deploy rollback`: start the flow in the control pool, and follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.terminal import output
from ashat.cli.terminal.interrupts import when_interrupted
from ashat.errors import SessionError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.deployment.events import AnyEvent
    from ashat.deployment.state_machine import State

    Show = Callable[[AnyEvent, State], None]
    Done = Callable[[State], bool]

By = Annotated[str, typer.Option(help="Who you are; recorded as you type it.", show_default="user@host")]


def cancel(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update to call off.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")] = "",
    by: By = "",
) -> None:
    """Call an update off before it is approved; Public runs again what it ran before."""
    from ashat.deployment import state_machine
    from ashat.deployment.events import Cancelled, PublicRestored
    from ashat.deployment.state_machine import Stage

    with open_ledger() as ledger:
        state = ledger.load(update_id)
    state_machine.apply(state, Cancelled(at=output.now(), reason=reason))

    def show(event: AnyEvent, state: State) -> None:
        if isinstance(event, PublicRestored):
            output.say(_back(state.public, event.to_bundle, event.kept))

    def done(state: State) -> bool:
        return state.ended and not state.owes_public

    state = _run("cancel/cancel", state, reason, by, show, done)
    if state.stage is not Stage.CANCELLED:
        raise SessionError(f"Deployment '{update_id}' is {state.stage.value} by now: it was not cancelled.")
    output.say(f"🚫 Deployment '{update_id}' cancelled.")


def rollback(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update to take back.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")] = "",
    by: By = "",
) -> None:
    """Let every server that the update reached run again what it ran before, unless another runs there by now."""
    from ashat.deployment.state_machine import Stage, refuse_rollback

    with open_ledger() as ledger:
        state = ledger.load(update_id)
    refuse_rollback(state)

    def show(event: AnyEvent, state: State) -> None:
        if event.kind == "asked":
            raise SessionError(_people_asked(state))
        tell_rollback(event, state)

    def already_asked() -> None:
        from tasks.approval.gate import is_alive

        request = state.undecided("rollback")
        if request is not None and request.waits(output.now()) and is_alive(request.run):
            raise SessionError(_people_asked(state))

    _run("rollback/rollback", state, reason, by, show, lambda state: state.stage is Stage.ROLLED_BACK, already_asked)
    output.say(f"⏪ Deployment '{update_id}' rolled back successfully.")


def tell_rollback(event: AnyEvent, state: State) -> None:
    """Say what an event of a rollback did."""
    if event.kind == "rollback_started":
        output.say(f"⏪ Rolling back '{state.update_id}'")
    elif event.kind == "server_rolled_back":
        places = {"public": state.public, "omega": state.target, "mainframes": "each Mainframe"}
        output.say(_back(places[event.server], event.to_bundle, event.kept))


def _people_asked(state: State) -> str:
    request = state.approvals["rollback"]
    key = " --key FILE.pem" if request.proposal else ""
    return (
        f"The rollback of '{state.update_id}' waits for people ({request.why}): "
        f"deploy approve {state.update_id}{key}. Until then {state.target} keeps running it; nothing was changed."
    )


def _run(
    deployment: str,
    state: State,
    reason: str,
    by: str,
    show: Show,
    done: Done,
    before: Callable[[], None] = lambda: None,
) -> State:
    from ashat.cli.control_plane.connect import ensure_control_plane
    from ashat.settings import Settings

    ensure_control_plane(Settings(), output.note)

    from ashat.cli.control_plane.follow import follow
    from ashat.cli.control_plane.runs import start_run, warn_if_nobody_works
    from tasks.runtime.run import whoami

    warn_if_nobody_works("control")
    before()
    parameters = {
        "update_id": state.update_id,
        "attempt": state.attempt,
        "reason": reason,
        "by": by or whoami(),
    }
    with when_interrupted(f"It goes on without you: deploy status {state.update_id} shows how far it is."):
        return follow(state, start_run(deployment, parameters), show=show, done=done)


def _back(place: str, bundle: str | None, kept: str) -> str:
    if kept:
        return f"  ⚠️ {place} was left alone: {kept}"
    return f"  ✅ {place} runs again {bundle[:12] if bundle else 'what it ran before: nothing'}"
