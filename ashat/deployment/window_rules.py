"""Wait for a server that is closed: the rules of windows and freezes in the state machine (`state_machine`). Pure."""

from __future__ import annotations

from dataclasses import replace

from ashat.deployment import events as e
from ashat.deployment.stages import Stage
from ashat.deployment.state import State
from ashat.errors import SessionError


def awaited(state: State, event: e.WindowAwaited) -> State:
    """Note that it waits. What Public or the target was told to run already waits for nothing."""
    _refuse(state, event.server)
    stage = state.stage if event.server == "public" else Stage.AWAITING_WINDOW
    return replace(state, stage=stage, window=event, held=state.held or event.server == "public")


def opened(state: State, event: e.WindowOpened) -> State:
    """Note that it waits no more."""
    if state.window is None or state.window.server != event.server:
        raise SessionError(f"Deployment '{state.update_id}' waits for no window of {event.server}.")
    return _goes_on(state)


def overridden(state: State, event: e.FreezeOverridden) -> State:
    """Note that it goes on although the server is closed, and goes on if it waited for that."""
    _refuse(state, event.server)
    found = replace(state, overridden={**state.overridden, event.server: event})
    return _goes_on(found) if found.window is not None and found.window.server == event.server else found


def _goes_on(state: State) -> State:
    stage = Stage.DEPLOYING if state.stage is Stage.AWAITING_WINDOW else state.stage
    return replace(state, stage=stage, window=None)


def _refuse(state: State, server: str) -> None:
    if server == "mainframes":
        if state.stage not in (Stage.DISTRIBUTING, Stage.COMPLETED):
            raise SessionError(f"Deployment '{state.update_id}' is {state.stage.value}: no Mainframe is offered it.")
        return
    before = (
        state.stage is Stage.PLANNING and state.bundle is not None and not state.switching
        if server == "public"
        else state.stage in (Stage.DEPLOYING, Stage.AWAITING_WINDOW) and not state.reached_omega
    )
    if not before:
        raise SessionError(
            f"Deployment '{state.update_id}' is {state.stage.value}: it waits for no window, and no freeze holds it."
        )
