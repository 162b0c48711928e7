"""Prepares a Prefect server: pools, block types, deployments. Run as a module; see `children.provision_command`.

It is a process of its own, so that the supervisor stays small and Prefect is imported while the server starts. It
ends when each pool has a worker.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from prefect.cli import app
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import get_current_settings
from prefect.states import Crashed
from prefect.variables import Variable
from prefect.workers.process import ProcessWorker

import ashat
import flows
from ashat.cli.control_plane.children import POOLS
from ashat.cli.control_plane.connect import READY_TIMEOUT, wait_for
from ashat.common.processes import python_module
from ashat.common.text import last_line
from ashat.errors import AshatError, ControlPlaneError

QUEUE, QUEUE_POOL, QUEUE_LIMIT = "omega", "control", 1
# The Prefect variable that holds the version whose deployments were applied last.
APPLIED = "ashat_deployments"
_FLOWS = Path(flows.__file__).parent
_WORKER_TIMEOUT = 200.0
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
        apply(client, prefect_file, entries)
        if embedded:
            _await_workers(client, began)


def apply(client: SyncPrefectClient, prefect_file: Path, entries: list[dict[str, Any]]) -> None:
    """Register the blocks and apply the deployments, unless they are as they were when that was last done.

    What a person set in the UI since, such as a schedule switched on, stays until a newer version is installed.

    Raises:
        ControlPlaneError: a deployment cannot be applied.
    """
    version = source_version(prefect_file)
    missing = {entry.get("name") for entry in entries} - {found.name for found in client.read_deployments()}
    if Variable.get(APPLIED) == version and not missing:
        return
    import blocks

    for name in blocks.__all__:
        getattr(blocks, name).register_type_and_schema()
    load_flows(prefect_file, entries)
    _run_prefect("deploy", "--all", "--prefect-file", str(prefect_file))
    Variable.set(APPLIED, version, overwrite=True)


def _run_prefect(*words: str) -> None:
    """Run a command of Prefect in this process, which has imported it already: a process of its own takes 3 s."""
    sys.argv = ["prefect", *words]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            app()
        except SystemExit as ended:
            if ended.code:
                raise ControlPlaneError(f"prefect {' '.join(words)}: {last_line(output.getvalue())}") from None


def read_prefect_file(path: Path) -> list[dict[str, Any]]:
    """Read the deployments that a prefect.yaml describes.

    Raises:
        ControlPlaneError: it cannot be read, or a deployment has no entrypoint.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
        return [entry for entry in entries if entry["entrypoint"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ControlPlaneError(f"{path} cannot be used: {error}") from None


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
    for package in (_FLOWS, _FLOWS.with_name("blocks")):
        for path in sorted(package.rglob("*.py")):
            digest.update(path.read_bytes())
    return f"{ashat.__version__}+{digest.hexdigest()[:12]}"


def find_prefect_file() -> Path:
    """Find the project's `prefect.yaml`: beside the packages in a checkout, within `flows` in a wheel.

    Raises:
        ControlPlaneError: it is in neither place.
    """
    for directory in (_FLOWS, _FLOWS.parent):
        if (directory / "prefect.yaml").is_file():
            return directory / "prefect.yaml"
    raise ControlPlaneError("prefect.yaml is not part of this install; install ashat-deploy again.")


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
        provision(prefect_file, entries, embedded=not options.external)
    except AshatError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
