"""Flow runs in Prefect, as the commands need them: start one, watch how it ends, see whether anybody works."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import WorkerStatus
from prefect.exceptions import ObjectNotFound

from ashat.cli.terminal import output


@dataclass(frozen=True)
class RunEnd:
    """The end of a flow run: the name of its final state, its message, and whether the run did what it was for."""

    name: str
    message: str
    completed: bool


def ended(client: SyncPrefectClient, flow_run: str) -> RunEnd | None:
    """Read how a flow run ended; None while it goes on or waits."""
    try:
        state = client.read_flow_run(UUID(flow_run)).state
    except ObjectNotFound:
        return RunEnd("Deleted", "the flow run was deleted in Prefect", completed=False)
    if state is None or not state.is_final():
        return None
    return RunEnd(state.name or state.type.value, state.message or "", completed=state.is_completed())


def warn_if_nobody_works(*pools: str) -> None:
    """Warn of each pool that no worker polls: what is started there waits until one does."""
    with get_client(sync_client=True) as client:
        for pool in pools:
            try:
                workers = client.read_workers_for_work_pool(pool)
            except ObjectNotFound:
                workers = []
            if not any(worker.status is WorkerStatus.ONLINE for worker in workers):
                output.warn(
                    f"No worker polls the pool {pool}: this waits until one does (deploy worker --pool {pool})."
                )
