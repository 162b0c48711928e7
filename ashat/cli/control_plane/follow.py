"""Follow a deployment that a flow run works on: show its events as they come, until the work is done."""

from __future__ import annotations

import time
from collections.abc import Callable

from prefect.client.orchestration import SyncPrefectClient, get_client

from ashat.cli.control_plane.runs import RunEnd, ended
from ashat.cli.terminal import output
from ashat.deployment.events import AnyEvent
from ashat.deployment.state_machine import Stage, State, apply
from ashat.errors import ControlPlaneError, SessionError
from ashat.ledger.opening import open_ledger

_LEDGER_SECONDS = 0.25
_RUN_SECONDS = 1.0
_SILENCE_SECONDS = 30.0
REFUSED = "NotDone"
_GOES_ON = (Stage.DEPLOYING, Stage.DISTRIBUTING)


def follow(state: State, run: str, *, show: Callable[[AnyEvent, State], None], done: Callable[[State], bool]) -> State:
    """Show each event after `state` as it is recorded, until `done`; `run` is the flow run that does the work.

    Raises:
        SessionError: the run was refused what it should do; the message is its own.
        ControlPlaneError: the run ended, and what it was for is not done.
    """
    last_news = time.monotonic()
    next_look = time.monotonic() + _RUN_SECONDS
    with open_ledger() as ledger, get_client(sync_client=True) as client:
        while True:
            end = None
            if time.monotonic() >= next_look:
                end = ended(client, run)
                next_look = time.monotonic() + _RUN_SECONDS
            for event in ledger.events(state.update_id, state.attempt, after=state.version):
                state = apply(state, event)
                show(event, state)
                last_news = time.monotonic()
            if done(state):
                return state
            if end is not None:
                raise _not_done(state, end)
            if time.monotonic() - last_news > _SILENCE_SECONDS:
                last_news = time.monotonic()
                output.note(_waiting(client, run))
            time.sleep(_LEDGER_SECONDS)


def _waiting(client: SyncPrefectClient, run: str) -> str:
    from uuid import UUID

    state = client.read_flow_run(UUID(run)).state
    return f"Still waiting (the flow run is {state.name if state else 'unknown'}) …"


def _not_done(state: State, end: RunEnd) -> SessionError | ControlPlaneError:
    why = end.message.splitlines()[0] if end.message else "no reason was given"
    cause = why if end.name == REFUSED else f"The flow run ended as {end.name} ({why})."
    if state.stage in _GOES_ON:
        return SessionError(
            f"{cause} '{state.update_id}' is {state.stage.value}, which is tried again every minute: see to the cause, "
            f"and look at deploy status {state.update_id}."
        )
    if end.name == REFUSED:
        return SessionError(cause)
    return ControlPlaneError(
        f"{cause} '{state.update_id}' is {state.stage.value}: see deploy history {state.update_id}, then try again."
    )
