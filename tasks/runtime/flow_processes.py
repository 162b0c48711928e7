"""Records with a flow run which process it lives in, so that `reconcile` can see that the process was killed.

Prefect's process worker leaves a bare pid, and a run of the command line nothing at all; neither tells a run that lost
its process from one that goes on elsewhere.
"""

from __future__ import annotations

import os
import socket
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from ashat.common.numbers import read_count
from ashat.common.processes import CLOCK_TOLERANCE, ProcessRef
from tasks.runtime.run import run_id


def note_process() -> None:
    """Record with the current flow run that it lives in this process; outside a run, do nothing."""
    if run := run_id():
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(run), infrastructure_pid=f"{socket.gethostname()}:{os.getpid()}")


def process_is_gone(run: FlowRun) -> bool:
    """Tell whether a run that Prefect shows as Running lost its process here; False where that cannot be told."""
    host, _, pid = (run.infrastructure_pid or "").rpartition(":")
    if host != socket.gethostname() or (number := read_count(pid)) is None:
        return False
    if ProcessRef.of(number) is None:
        return True
    try:
        created = psutil.Process(number).create_time()
    except psutil.NoSuchProcess:
        return True
    since = run.state.timestamp.timestamp() if run.state else created
    return created > since + CLOCK_TOLERANCE  # the pid was given out again since
