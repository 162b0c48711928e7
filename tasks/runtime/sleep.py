"""Let a flow run sleep in Prefect's database until a time, without a process, and wake one that sleeps."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound, Pause
from prefect.states import Scheduled

from ashat.errors import SessionError
from tasks.runtime.run import now, run_id

SLEEPS = "AwaitingWindow"


def sleep_until(at: datetime, why: str) -> NoReturn:
    """End this process, and let a worker run the flow again from its first line at that time; the run shows `why`.

    Raises:
        SessionError: this is no flow run.
    """
    if not run_id():
        raise SessionError(f"Nothing is there that would go on by itself: {why}")
    state: State[Any] = Scheduled(name=SLEEPS, message=why, scheduled_time=at)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run_id()), state, force=True)
    raise Pause(state=state)


def wake(flow_run: str) -> bool:
    """Let a run that sleeps go on now; whether it slept."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
            if state is None or state.type is not StateType.SCHEDULED or state.name != SLEEPS:
                return False
            due = state.state_details.scheduled_time
            if due is None or due > now():
                client.set_flow_run_state(UUID(flow_run), Scheduled(name="WindowOpen"), force=True)
    except (ObjectNotFound, ValueError):
        return False
    return True
