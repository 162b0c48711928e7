"""Prepares a Prefect server: pools, block types, deployments. Run as a module; see `children.provision_command`.

It is a process of its own, so that the supervisor stays small and Prefect is imported while the server starts. It
ends when each pool has a worker.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.cli import app
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import get_current_settings
from prefect.states import Crashed
from prefect.variables import Variable
from prefect.workers.process import ProcessWorker

import ashat
from ashat.cli.control_plane.children import POOLS
from ashat.cli.control_plane.connect import READY_TIMEOUT, wait_for
from ashat.cli.control_plane.prefect_file import FLOWS, find_prefect_file, read_prefect_file
from ashat.cli.control_plane.versions import APPLIED
from ashat.common.processes import python_module
from ashat.common.text import last_line
from ashat.errors import AshatError, ControlPlaneError
from ashat.ledger.database import migrate_shared_ledger
from ashat.settings import Settings

QUEUE, QUEUE_POOL, QUEUE_LIMIT = "omega", "control", 1
_APPLIED_FIELDS = {
    *("name", "version", "description", "tags", "parameters", "parameter_openapi_schema", "enforce_parameter_schema"),
    *("entrypoint", "path", "pull_steps", "job_variables", "storage_document_id", "work_pool_name", "work_queue_name"),
    *("concurrency_limit", "concurrency_options"),
}
_BLANK = DeploymentUpdate(
    path=None,
    storage_document_id=None,
    infrastructure_document_id=None,
    pull_steps=[],
    job_variables={},
    parameters={},
    concurrency_limit=None,
    concurrency_options=None,
)
_WORKER_TIMEOUT = 200.0
_WITHOUT_SERVICE = "where-no-service-is"
_UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]


def provision(prefect_file: Path, entries: list[dict[str, Any]], *, embedded: bool) -> None:
    """Make the pools and the queue, register every block, and apply the deployments of `prefect_file`.

    An embedded server is ours alone: runs that it still believes in were ended with the control plane, and its
    workers are waited for.

    Raises:
        ControlPlaneError: the file is wrong, or the workers do not appear.
    """
    began = datetime.now(UTC)
    with get_client(sync_client=True) as client:
        if embedded:
            _end_lost_runs(client)
        for pool in POOLS:
            _make_pool(client, pool, embedded=embedded)
        _make_queue(client)
        apply(client, prefect_file, entries, embedded=embedded)
        if embedded:
            _await_workers(client, began)


def apply(client: SyncPrefectClient, prefect_file: Path, entries: list[dict[str, Any]], *, embedded: bool) -> None:
    """Register the blocks and apply the deployments, unless both are as they were when that was last done.

    The schedules that a person switched, or added, since then stay as they are. A server that is not ours runs no
    service, so that `reconcile` is scheduled there.

    Raises:
        ControlPlaneError: a deployment cannot be applied.
    """
    version = source_version(prefect_file)
    names = {entry.get("name") for entry in entries}
    if Variable.get(APPLIED) == f"{version}+{_digest(client, names)}":
        return
    import blocks

    for name in blocks.__all__:
        getattr(blocks, name).register_type_and_schema()
    load_flows(prefect_file, entries)
    before = _deployments(client, names)
    for deployment in before.values():  # what a prefect.yaml does not mention, `prefect deploy` leaves as it is
        client.update_deployment(deployment.id, _BLANK)
    _run_prefect("deploy", "--all", "--prefect-file", str(prefect_file))
    after = _deployments(client, names)
    _keep_schedules(client, before, after)
    if not embedded:
        _switch_on(client, before, after)
    Variable.set(APPLIED, f"{version}+{_digest(client, names)}", overwrite=True)


def _digest(client: SyncPrefectClient, names: set[Any]) -> str:
    """Compute a digest of the deployments of these names as the server has them, but for people's schedules."""
    found = {
        name: deployment.model_dump(mode="json", include=_APPLIED_FIELDS)
        for name, deployment in _deployments(client, names).items()
    }
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:12]


def _deployments(client: SyncPrefectClient, names: set[Any]) -> dict[str, DeploymentResponse]:
    wanted = DeploymentFilter(name=DeploymentFilterName(any_=sorted(names)))
    return {deployment.name: deployment for deployment in client.read_deployments(deployment_filter=wanted)}


def _keep_schedules(
    client: SyncPrefectClient, before: dict[str, DeploymentResponse], after: dict[str, DeploymentResponse]
) -> None:
    """Give each deployment again the schedules that people added, with their names and parameters, and the switches
    that they set."""
    for name in before.keys() & after.keys():
        ours = {schedule.slug: schedule for schedule in after[name].schedules if schedule.slug}
        for schedule in before[name].schedules:
            if schedule.slug is None or schedule.slug not in ours:
                kept = schedule.model_dump(include=set(DeploymentScheduleCreate.model_fields))
                client.create_deployment_schedules(after[name].id, [DeploymentScheduleCreate.model_validate(kept)])
            elif (found := ours[schedule.slug]).active != schedule.active:
                client.update_deployment_schedule(after[name].id, found.id, active=schedule.active)


def _switch_on(
    client: SyncPrefectClient, before: dict[str, DeploymentResponse], after: dict[str, DeploymentResponse]
) -> None:
    """Switch each schedule on that is for a server without our service, unless it was there `before`."""
    for name, deployment in after.items():
        known = {schedule.slug for schedule in before[name].schedules} if name in before else set()
        for schedule in deployment.schedules:
            if schedule.slug == _WITHOUT_SERVICE and _WITHOUT_SERVICE not in known:
                client.update_deployment_schedule(deployment.id, schedule.id, active=True)


def _run_prefect(*words: str) -> None:
    """Run a command of Prefect in this process, which has imported it already: a process of its own takes 3 s."""
    sys.argv = ["prefect", *words]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            app()
        except SystemExit as ended:
            if ended.code:
                raise ControlPlaneError(f"prefect {' '.join(words)}: {last_line(output.getvalue())}") from None


def load_flows(prefect_file: Path, entries: list[dict[str, Any]]) -> None:
    """Import the flow of each deployment, as `prefect deploy` will, whose own message would not name the deployment.

    Raises:
        ControlPlaneError: one cannot be imported.
    """
    for entry in entries:
        try:
            load_flow_from_entrypoint(entry["entrypoint"])
        except Exception as error:
            text = f"{prefect_file}: the deployment {entry.get('name')!r} cannot be loaded: {error}"
            raise ControlPlaneError(text) from error


def source_version(prefect_file: Path) -> str:
    """Compute the version of all deployments: that of the package, and a digest of what they are made of."""
    digest = hashlib.sha256(prefect_file.read_bytes())
    for package in (FLOWS, FLOWS.with_name("blocks")):
        for path in sorted(package.rglob("*.py")):
            digest.update(path.read_bytes())
    return f"{ashat.__version__}+{digest.hexdigest()[:12]}"


def _end_lost_runs(client: SyncPrefectClient) -> None:
    lost = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED)),
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
    )
    for run in client.read_flow_runs(flow_run_filter=lost):
        client.set_flow_run_state(run.id, Crashed(message="It ended with the control plane."), force=True)


def _make_pool(client: SyncPrefectClient, name: str, *, embedded: bool) -> None:
    """Make a pool of type process. On this machine runs start with this very Python, which spares a process for each.

    `prefect work-pool create --overwrite` would go on with a pool that a person has paused.
    """
    template = ProcessWorker.get_default_base_job_template()
    if embedded:
        template["variables"]["properties"]["command"]["default"] = shlex.join(python_module("prefect.engine"))
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    except ObjectAlreadyExists:
        if embedded:
            client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


def _make_queue(client: SyncPrefectClient) -> None:
    """Make the queue of the flows that write to OMEGA; `prefect work-queue create` would refuse one that is there."""
    try:
        queue = client.read_work_queue_by_name(QUEUE, work_pool_name=QUEUE_POOL)
    except ObjectNotFound:
        client.create_work_queue(QUEUE, work_pool_name=QUEUE_POOL, concurrency_limit=QUEUE_LIMIT)
        return
    if queue.concurrency_limit is None:
        client.update_work_queue(queue.id, concurrency_limit=QUEUE_LIMIT)


def _await_workers(client: SyncPrefectClient, since: datetime) -> None:
    deadline = time.monotonic() + _WORKER_TIMEOUT
    for pool in POOLS:
        while not any(
            worker.last_heartbeat_time and worker.last_heartbeat_time >= since
            for worker in client.read_workers_for_work_pool(pool)
        ):
            if time.monotonic() > deadline:
                raise ControlPlaneError(f"No worker appeared for the pool {pool}; see the logs.")
            time.sleep(0.1)


def main() -> int:
    """Wait for the server that `PREFECT_API_URL` names, and prepare it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prefect-file", type=Path)
    parser.add_argument("--external", action="store_true")
    parser.add_argument("--first", action="store_true", help="everything will be applied: import it while waiting")
    options = parser.parse_args()
    try:
        prefect_file = options.prefect_file or find_prefect_file()
        entries = read_prefect_file(prefect_file)
        if options.first:
            load_flows(prefect_file, entries)
        if not options.external and not wait_for(f"{get_current_settings().api.url}/health", READY_TIMEOUT):
            raise ControlPlaneError("Prefect's server does not answer.")
        migrate_shared_ledger(Settings().effective_ledger_url)
        provision(prefect_file, entries, embedded=not options.external)
    except AshatError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
