"""See whether a run that a schedule made is needed: after an absence, one run stands for all slots that passed."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterStartTime,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from tasks.runtime.run import run_id

MISSED = "Missed"
"""How the state of a run is called for whose slot another run stands."""
_MOST = 200
_DID_NOTHING = [StateType.CANCELLED, StateType.CANCELLING, StateType.CRASHED]


def stood_for() -> datetime | None:
    """Find the run of the same schedule that stands for this one's slot, since it began after that and before this run
    did; when it began. None where there is none, where no schedule made this run, or where somebody retried it.

    A worker that comes back finds a run for each slot that passed, and starts all of them at once. The first that
    begins goes on.
    """
    if not run_id():
        return None
    with get_client(sync_client=True) as client:
        mine = client.read_flow_run(UUID(run_id()))
        made_by_schedule = mine.auto_scheduled and mine.deployment_id is not None
        if not made_by_schedule or mine.run_count > 1 or mine.expected_start_time is None or mine.start_time is None:
            return None
        found = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId.model_validate({"any_": [mine.deployment_id]}),
                start_time=FlowRunFilterStartTime.model_validate(
                    {"after_": mine.expected_start_time, "before_": mine.start_time}
                ),
                state=FlowRunFilterState(
                    type=FlowRunFilterStateType(not_any_=_DID_NOTHING), name=FlowRunFilterStateName(not_any_=[MISSED])
                ),
            ),
            sort=FlowRunSort.START_TIME_ASC,
            limit=_MOST,
        )
    return next((run.start_time for run in found if _is_before(run, mine)), None)


def _is_before(run: FlowRun, mine: FlowRun) -> bool:
    """Say whether another run was made by the same schedule and began before this one; one that has other parameters
    is another schedule's."""
    same = run.auto_scheduled and run.parameters == mine.parameters
    began = run.start_time is not None and mine.start_time is not None
    return same and began and (run.start_time, str(run.id)) < (mine.start_time, str(mine.id))
