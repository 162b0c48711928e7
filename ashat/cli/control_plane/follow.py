"""Follow a deployment that a flow run works on: show its events as they come, until the work is done."""

from __future__ import annotations

import time
from collections.abc import Callable

from prefect.client.orchestration import SyncPrefectClient, get_client

from ashat.cli.control_plane.runs import RunEnd, ended
from ashat.cli.terminal import output
from ashat.deployment.events import AnyEvent
from ashat.deployment.state_machine import State, apply
from ashat.errors import ControlPlaneError, SessionError
from ashat.ledger.opening import open_ledger

_LEDGER_SECONDS = 0.25
_RUN_SECONDS = 1.0
_SILENCE_SECONDS, _PAUSE_SECONDS = 3.0, 10.0
REFUSED = "NotDone"


def follow(state: State, run: str, *, show: Callable[[AnyEvent, State], None], done: Callable[[State], bool]) -> State:
    """Show each event after `state` as it is recorded, until `done`; `run` is the flow run that does the work.

    Raises:
        SessionError: the run was refused what it should do; the message is its own.
        ControlPlaneError: the run ended, and what it was for is not done.
    """
    speak_at = time.monotonic() + _SILENCE_SECONDS
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
                speak_at = time.monotonic() + _SILENCE_SECONDS
            if done(state):
                return state
            if end is not None:
                raise _not_done(state, end)
            if time.monotonic() > speak_at:
                speak_at = time.monotonic() + _PAUSE_SECONDS
                output.note(_waiting(client, state, run))
            time.sleep(_LEDGER_SECONDS)


def _waiting(client: SyncPrefectClient, state: State, run: str) -> str:
    from uuid import UUID

    found = client.read_flow_run(UUID(run)).state
    stage = "rolling back" if state.rolling_back else state.stage.value
    return f"Still waiting ({state.update_id} is {stage}, its flow run is {found.name if found else 'unknown'}) …"


def _not_done(state: State, end: RunEnd) -> SessionError | ControlPlaneError:
    why = end.message.splitlines()[0] if end.message else "no reason was given"
    cause = why if end.name == REFUSED else f"The flow run ended as {end.name} ({why})."
    if end.name == REFUSED:
        return SessionError(cause)
    return ControlPlaneError(
        f"{cause} '{state.update_id}' is {state.stage.value}: see deploy history {state.update_id}, then try again."
    )
