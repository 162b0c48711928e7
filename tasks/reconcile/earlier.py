"""Keep the runs of `reconcile` to those that tell something, and note when it looked last."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound

from ashat.common.files import replace_file
from ashat.common.home import LOOKED_FILE
from tasks.runtime.run import run_id

_AT_ONCE = 20
_SCHEDULED = "auto-scheduled"  # which Prefect tags so


def drop_same(name: str, message: str) -> None:
    """Delete the runs of `reconcile` just before this one that ended as this one does, with that name and that message,
    unless a person started them: a run a minute that finds nothing new would hide all others in Prefect's list."""
    ended = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED, StateType.FAILED]))
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["reconcile"])),
            flow_run_filter=ended,
            sort=FlowRunSort.END_TIME_DESC,
            limit=_AT_ONCE,
        )
        for run in found:
            if str(run.id) == run_id() or run.state is None or not _by_the_clock(run):
                continue
            if (run.state.name, run.state.message) != (name, message):
                return
            try:
                client.delete_flow_run(run.id)
            except ObjectNotFound:
                continue  # another reconciliation was faster


def _by_the_clock(run: FlowRun) -> bool:
    """Say whether the service or a schedule started a run; what a person started stays."""
    return run.deployment_id is None or _SCHEDULED in run.tags


def note_looked(home: Path, at: datetime) -> None:
    """Note that `reconcile` looked at everything at that time, for `deploy status`."""
    document = json.dumps({"at": at.isoformat(timespec="seconds")})
    replace_file(home / LOOKED_FILE, document.encode(), mode=0o600, durable=False)
