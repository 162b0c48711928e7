"""Prepares a Prefect server for us: pools, block types, deployments. Run as a module with the names of the pools.

It is a process of its own, so that the supervisor stays small and Prefect is imported while the server starts. It
ends when each pool has a worker.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import hashlib
import importlib
import importlib.util
import pkgutil
import shlex
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from prefect.blocks.core import Block
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import ConcurrencyLimitConfig, StateType, VersionInfo
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Schedule
from prefect.settings import get_current_settings
from prefect.states import Crashed
from prefect.workers.process import ProcessWorker

import ashat
from ashat.cli.control_plane.connect import READY_TIMEOUT, wait_for
from ashat.errors import AshatError, ControlPlaneError

QUEUE_LIMITS = {("control", "omega"): 1}
_WORKER_TIMEOUT = 200.0
_KEYS = frozenset(
    {
        "name",
        "version",
        "tags",
        "description",
        "entrypoint",
        "parameters",
        "schedules",
        "work_pool",
        "concurrency_limit",
        "paused",
        "enforce_parameter_schema",
        "pull",
    }
)
_SCHEDULE_KEYS = frozenset(field.name for field in dataclasses.fields(Schedule))
_UNFINISHED = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
_PACKAGES = ("flows", "blocks")


async def provision(pools: list[str], prefect_file: Path, *, embedded: bool) -> None:
    """Make the pools and queues, register every block of `blocks`, and apply the deployments of `prefect_file`.

    An embedded server is ours alone: runs that it still believes in were ended with the control plane, and its
    workers are waited for.

    Raises:
        ControlPlaneError: the file is wrong, or the workers do not appear.
    """
    began = datetime.now(UTC)
    async with get_client() as client:
        if embedded:
            await _end_lost_runs(client)
        for pool in pools:
            await _make_pool(client, pool, embedded=embedded)
        for (pool, queue), limit in QUEUE_LIMITS.items():
            if pool in pools:
                await _make_queue(client, pool, queue, limit)
        await apply(client, prefect_file)
        if embedded:
            await _await_workers(client, pools, began)


async def apply(client: PrefectClient, prefect_file: Path) -> None:
    """Register the blocks and apply the deployments, unless they are as they were when that was last done.

    What a person set in the UI since, such as a schedule switched on, stays until a newer version is installed.
    """
    entries = read_prefect_file(prefect_file)
    version = source_version(prefect_file)
    there = {(d.name, d.entrypoint, d.version) for d in await client.read_deployments()}
    changed = [entry for entry in entries if (entry.get("name"), entry["entrypoint"], version) not in there]
    if not changed:
        return
    for block in block_types():
        await block.aregister_type_and_schema()
    for entry in changed:
        deployment = _deployment(entry, version)
        await deployment.aapply(version_info=VersionInfo(type="prefect:simple", version=version))


def read_prefect_file(path: Path) -> list[dict[str, Any]]:
    """The deployments that a prefect.yaml describes.

    Raises:
        ControlPlaneError: it cannot be read, or says something that is not applied here.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ControlPlaneError(f"{path} cannot be used: {error}") from None
    for entry in entries:
        unknown = sorted(set(entry) - _KEYS)
        if unknown or not entry.get("entrypoint"):
            told = f"cannot have {', '.join(unknown)}" if unknown else "lacks its entrypoint"
            raise ControlPlaneError(f"{path}: the deployment {entry.get('name', '?')!r} {told}.")
    return list(entries)


def source_version(prefect_file: Path) -> str:
    """The version of all deployments: that of the package, and a digest of what they are made of."""
    digest = hashlib.sha256(prefect_file.read_bytes())
    for package in _PACKAGES:
        for path in sorted(_directory(package).rglob("*.py")):
            digest.update(path.read_bytes())
    return f"{ashat.__version__}+{digest.hexdigest()[:12]}"


def find_prefect_file() -> Path:
    """The project's `prefect.yaml`: beside the packages in a checkout, within `flows` in a wheel.

    Raises:
        ControlPlaneError: it is in neither place.
    """
    flows = _directory("flows")
    for candidate in (flows / "prefect.yaml", flows.parent / "prefect.yaml"):
        if candidate.is_file():
            return candidate
    raise ControlPlaneError("prefect.yaml is not part of this install; install ashat-deploy again.")


def block_types() -> list[type[Block]]:
    """Every block that the package `blocks` defines."""
    found: list[type[Block]] = []
    for module in pkgutil.iter_modules([str(_directory("blocks"))], "blocks."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Block) and value.__module__ == module.name:
                found.append(value)
    return found


async def _end_lost_runs(client: PrefectClient) -> None:
    lost = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_UNFINISHED)),
        deployment_id=FlowRunFilterDeploymentId(is_null_=False),
    )
    for run in await client.read_flow_runs(flow_run_filter=lost):
        await client.set_flow_run_state(run.id, Crashed(message="It ended with the control plane."), force=True)


async def _make_pool(client: PrefectClient, name: str, *, embedded: bool) -> None:
    """The pool, of type process. On this machine runs start with this very Python, which spares a process for each."""
    template = ProcessWorker.get_default_base_job_template()
    if embedded:
        template["variables"]["properties"]["command"]["default"] = shlex.join([sys.executable, "-m", "prefect.engine"])
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
        return
    if embedded and pool.base_job_template != template:
        await client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


async def _make_queue(client: PrefectClient, pool: str, name: str, limit: int) -> None:
    try:
        queue = await client.read_work_queue_by_name(name, work_pool_name=pool)
    except ObjectNotFound:
        await client.create_work_queue(name, work_pool_name=pool, concurrency_limit=limit)
        return
    if queue.concurrency_limit is None:
        await client.update_work_queue(queue.id, concurrency_limit=limit)


async def _await_workers(client: PrefectClient, pools: list[str], since: datetime) -> None:
    deadline = time.monotonic() + _WORKER_TIMEOUT
    missing = set(pools)
    while missing:
        for pool in sorted(missing):
            workers = await client.read_workers_for_work_pool(pool)
            if any(worker.last_heartbeat_time and worker.last_heartbeat_time >= since for worker in workers):
                missing.discard(pool)
        if time.monotonic() > deadline:
            raise ControlPlaneError(f"No worker appeared for the pool {', '.join(sorted(missing))}; see the logs.")
        await asyncio.sleep(0.1)


def _deployment(entry: dict[str, Any], version: str) -> RunnerDeployment:
    name = entry.get("name", "?")
    pool = entry.get("work_pool") or {}
    limit = entry.get("concurrency_limit")
    try:
        return RunnerDeployment.from_entrypoint(
            entry["entrypoint"],
            name=name,
            description=entry.get("description"),
            tags=entry.get("tags") or [],
            parameters=entry.get("parameters") or {},
            schedules=[_schedule(schedule) for schedule in entry.get("schedules") or []],
            paused=entry.get("paused"),
            concurrency_limit=ConcurrencyLimitConfig(**limit) if isinstance(limit, dict) else limit,
            enforce_parameter_schema=entry.get("enforce_parameter_schema", True),
            work_pool_name=pool.get("name"),
            work_queue_name=pool.get("work_queue_name"),
            job_variables=pool.get("job_variables") or {},
            version=version,
        )
    except (ValueError, TypeError, ImportError, AttributeError) as error:
        raise ControlPlaneError(f"prefect.yaml: the deployment {name!r} cannot be applied: {error}") from error


def _schedule(entry: dict[str, Any]) -> Schedule:
    unknown = sorted(set(entry) - _SCHEDULE_KEYS)
    if unknown:
        raise ValueError(f"a schedule cannot have {unknown}")
    interval = entry.get("interval")
    return Schedule(**{**entry, "interval": timedelta(seconds=interval) if interval else None})


def _directory(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ControlPlaneError(f"The package {package} is not part of this install; install ashat-deploy again.")
    return Path(next(iter(spec.submodule_search_locations)))


def main() -> int:
    """Wait for the server that `PREFECT_API_URL` names, and prepare it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pools", nargs="+")
    parser.add_argument("--prefect-file", type=Path)
    parser.add_argument("--external", action="store_true")
    parser.add_argument("--first", action="store_true", help="everything will be applied: import it while waiting")
    options = parser.parse_args()
    try:
        prefect_file = options.prefect_file or find_prefect_file()
        entries = read_prefect_file(prefect_file)
        if options.first:
            block_types()
            for entry in entries:
                _deployment(entry, "")
        if not options.external and not wait_for(f"{get_current_settings().api.url}/health", READY_TIMEOUT):
            raise ControlPlaneError("Prefect's server does not answer.")
        asyncio.run(provision(options.pools, prefect_file, embedded=not options.external))
    except AshatError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
