"""Implement `deploy cancel` and `deploy rollback`: start the flow in the control pool, and follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.commands.aftermath import told_what_goes_on
from ashat.cli.commands.dry_runs import plan_cancel, plan_rollback
from ashat.cli.commands.wait import NOT_EVERYWHERE
from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun
from ashat.common.identifiers import name_of_release
from ashat.errors import SessionError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.deployment.events import AnyEvent, PublicRestored, ServerRolledBack
    from ashat.deployment.state_machine import State

    Show = Callable[[AnyEvent, State], None]
    Done = Callable[[State], bool]

By = Annotated[str, typer.Option(help="Who you are; recorded as you type it.", show_default="user@host")]


def cancel(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update to call off.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")] = "",
    by: By = "",
    dry_run: DryRun = False,
) -> None:
    """Call an update off before it is approved, or its rollback before a server has gone back."""
    from ashat.deployment import state_machine
    from ashat.deployment.events import Cancelled
    from ashat.deployment.state_machine import Stage

    with open_ledger() as ledger:
        state = ledger.load(update_id)
    if state.rolling_back:
        _call_off_rollback(state, reason, by, dry_run=dry_run)
        return
    then = state_machine.apply(state, Cancelled(at=output.now(), reason=reason))
    if dry_run:
        plan_cancel(state, then)
        return

    def show(event: AnyEvent, state: State) -> None:
        if event.kind == "public_restored":
            output.say(_back(state.the_public, event))

    def done(state: State) -> bool:
        return state.ended and not state.owes_public

    state = _run("cancel/cancel", state, reason, by, show, done)
    if state.stage is not Stage.CANCELLED:
        raise SessionError(f"Deployment '{update_id}' is {state.stage.value} by now: it was not cancelled.")
    output.say(f"🚫 Deployment '{update_id}' cancelled.")


def _call_off_rollback(state: State, reason: str, by: str, *, dry_run: bool) -> None:
    from ashat.deployment import state_machine
    from ashat.deployment.events import RollbackStopped

    then = state_machine.apply(state, RollbackStopped(at=output.now(), reason=reason))
    if dry_run:
        plan_cancel(state, then)
        return
    _run("cancel/cancel", state, reason, by, lambda *_: None, lambda newest: not newest.rolling_back)
    output.say(f"🚫 The rollback of '{state.update_id}' is called off: no server was changed.")


def rollback(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update to take back.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")] = "",
    by: By = "",
    dry_run: DryRun = False,
) -> None:
    """Let every server that the update reached run again what it ran before, unless another runs there by now."""
    from ashat.deployment.stages import NO_WAY_BACK
    from ashat.deployment.state_machine import Stage, refuse_rollback

    with open_ledger() as ledger:
        state = ledger.load(update_id)
    refuse_rollback(state)
    if state.irreversible:
        output.warn(f"{state.update_id}: {NO_WAY_BACK}. What ran before may not work with it.")
    if dry_run:
        plan_rollback(update_id, reason)
        return

    def show(event: AnyEvent, state: State) -> None:
        if event.kind == "asked":
            raise SessionError(_people_asked(state))
        tell_rollback(event, state)

    def already_asked() -> None:
        from tasks.approval.gate import is_alive

        request = state.undecided("rollback")
        if request is not None and request.waits(output.now()) and is_alive(request.run):
            raise SessionError(_people_asked(state))

    done = _run("rollback/rollback", state, reason, by, show, lambda now: now.stage is Stage.ROLLED_BACK, already_asked)
    say_rolled_back(done)


def say_rolled_back(state: State) -> None:
    """Say that the deployment was rolled back, and where not.

    Raises:
        typer.Exit: not every active Mainframe has gone back; the exit code says so, too.
    """
    left = state.rolled_back.get("mainframes")
    if left is not None and left.kept:
        output.say(f"⚠️ Deployment '{state.update_id}' is rolled back, and not on every Mainframe: {left.kept}.")
        output.say("  OMEGA goes on offering to them what it runs now; deploy servers shows who took it since.")
        raise typer.Exit(NOT_EVERYWHERE)
    if any(back.kept for back in state.rolled_back.values()):
        output.say(f"⏪ Deployment '{state.update_id}' rolled back, but for what was left alone.")
        return
    output.say(f"⏪ Deployment '{state.update_id}' rolled back successfully.")


def tell_rollback(event: AnyEvent, state: State) -> None:
    """Say what an event of a rollback did."""
    if event.kind == "rollback_started":
        output.say(f"⏪ Rolling back '{state.update_id}'")
    elif event.kind == "server_rolled_back":
        places = {"public": state.the_public, "omega": state.the_target, "mainframes": "each Mainframe"}
        output.say(_back(places[event.server], event))


def _people_asked(state: State) -> str:
    request = state.approvals["rollback"]
    key = " --key FILE.pem" if request.proposal else ""
    return (
        f"The rollback of '{state.update_id}' waits for people ({request.why}): "
        f"deploy approve {state.update_id}{key}. Until then {state.the_target} keeps running it; nothing was changed."
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
    ready()

    from ashat.cli.control_plane.follow import follow
    from ashat.cli.control_plane.runs import warn_if_nobody_works
    from tasks.runtime.run import whoami
    from tasks.runtime.update_runs import start_update_run

    warn_if_nobody_works("control")
    before()
    started: list[str] = []
    parameters = {
        "update_id": state.update_id,
        "attempt": state.attempt,
        "reason": reason,
        "by": by or whoami(),
    }
    with told_what_goes_on(state.update_id, lambda newest: _if_interrupted(state, newest, started)):
        started.append(start_update_run(deployment, parameters))
        return follow(state, started[0], show=show, done=done)


def _if_interrupted(before: State, newest: State | None, started: list[str]) -> str:
    """Advise whoever interrupts a command that has a flow run `started`."""
    from ashat.deployment.aftermath import goes_on

    name = before.update_id
    if not started:
        return f"It was not begun: look at deploy status {name}."
    if newest is None or newest.version == before.version:
        return f"It is begun, and goes on without you: deploy status {name} shows how far it is."
    return goes_on(newest, output.now()) or f"'{name}' is {newest.stage.value}: deploy status {name}."


def _back(place: str, event: PublicRestored | ServerRolledBack) -> str:
    if event.kept:
        return f"  ⚠️ {place} was left alone: {event.kept}"
    return f"  ✅ {place} runs again {name_of_release(event.to_bundle, event.to_update)}"
