"""Which process a flow run lives in: written down by the run itself, so that others can see that it was killed.

Prefect's process worker leaves a bare pid, and a run of the command line nothing at all; neither tells a run that lost
its process from one that goes on elsewhere.
"""

from __future__ import annotations

import os
import socket
from datetime import datetime
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from tasks.runtime.ledger import run_id

_CLOCK_TOLERANCE = 2.0


def note_process() -> None:
    """Write down with the flow run that it lives in this process; outside any run, nothing."""
    if run := run_id():
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(run), infrastructure_pid=f"{socket.gethostname()}:{os.getpid()}")


def process_is_gone(run: FlowRun) -> bool:
    """Whether a run that Prefect shows as Running lost its process on this machine; False where that cannot be told."""
    host, _, pid = (run.infrastructure_pid or "").rpartition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    since = run.state.timestamp if run.state else None
    return not _lives(int(pid), since)


def _lives(pid: int, since: datetime | None) -> bool:
    """Whether the process with that pid is there and, as pids are given out again, was there when the run began."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return since is None or process.create_time() <= since.timestamp() + _CLOCK_TOLERANCE
    except psutil.NoSuchProcess:
        return False
