"""Prefect's process worker, held to the flows of this installation.

Prefect's own runs what the server says of a deployment: its pull steps, which may be a shell, the command and variables
of its job, the code in a directory. So whoever reached the server's API would run what they like on each worker.
"""

from __future__ import annotations

import os
import shlex
from typing import Any

import anyio.abc
import prefect.workers.process
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker, ProcessWorkerResult

from ashat.common.processes import python_module
from ashat.errors import ControlPlaneError

_ENGINE = "ashat.cli.control_plane.engine"
_entrypoints: dict[str, str] = {}


def pin(entrypoints: dict[str, str]) -> None:
    """Let workers of this process run the flows that `entrypoints` names, by their deployments' names."""
    _entrypoints.update(entrypoints)
    # By which Prefect's worker finds a flow's hooks, in this process: after the deployment's pull steps.
    prefect.workers.process.load_flow_from_flow_run = _load_own_flow  # type: ignore[attr-defined,assignment]


class PinnedWorker(ProcessWorker):
    """A worker of the type `process` that takes from the server which deployment runs, and with what parameters."""

    type = "process"

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Run the flow of that deployment's name, as it is installed here, in an empty directory.

        Raises:
            ControlPlaneError: there is none.
        """
        configuration.command = os.environ.get("ASHAT_FLOW_COMMAND") or shlex.join(python_module(_ENGINE))
        configuration._command_configured = True
        configuration.working_dir = None
        configuration.env = {**os.environ, "PREFECT__FLOW_ENTRYPOINT": await _own_entrypoint(flow_run)}
        return await super().run(flow_run, configuration, task_status)


async def _own_entrypoint(flow_run: FlowRun) -> str:
    name = ""
    if flow_run.deployment_id is not None:
        async with get_client() as client:
            name = (await client.read_deployment(flow_run.deployment_id)).name
    if name not in _entrypoints:
        raise ControlPlaneError(f"This installation has no deployment {name!r}, so its worker runs none.")
    return _entrypoints[name]


async def _load_own_flow(flow_run: FlowRun, **_: Any) -> Flow[..., Any]:
    return load_flow_from_entrypoint(await _own_entrypoint(flow_run), use_placeholder_flow=False)
