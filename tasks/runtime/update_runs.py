"""Start flow runs for an update, and call each by it, and tag it with it, so that people find it."""

from __future__ import annotations

from typing import Any, Final

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from ashat.common.identifiers import check_update_id
from ashat.errors import ControlPlaneError, UsageError

# How the key of a run begins that begins something of its own, and goes on with nothing.
BEGINS: Final = "begins:"


def update_tag(update_id: str) -> str:
    """Return the tag of each run that works on an update."""
    return f"update:{update_id}"


def start_update_run(deployment: str, parameters: dict[str, Any], *, key: str = "") -> str:
    """Start a run of `deployment` (`flow/name`) for the update among `parameters`, or find the one that was started
    under that key; returns its id.

    Raises:
        ControlPlaneError: Prefect has no such deployment, or does not answer.
    """
    update_id = str(parameters["update_id"])
    try:
        run = run_deployment(
            deployment,
            parameters=parameters,
            timeout=0,
            as_subflow=False,
            idempotency_key=key or None,
            flow_run_name=_run_name(deployment.partition("/")[0], update_id),
            tags=[update_tag(update_id)],
        )
    except ObjectNotFound:
        raise ControlPlaneError(
            f"Prefect has no deployment {deployment}: run deploy up, or prefect deploy --all, once."
        ) from None
    if not isinstance(run, FlowRun):
        raise ControlPlaneError("Prefect did not say which run it started.")
    return str(run.id)


def goes_on_for_another() -> bool:
    """Say whether this run was started under a key by the control plane, to go on with what another left; one whose
    key says that it begins something does not."""
    context = FlowRunContext.get()
    key = context.flow_run.idempotency_key if context is not None and context.flow_run is not None else None
    return bool(key) and not str(key).startswith(BEGINS)


def label_run(update_id: str) -> None:
    """Call the current flow run by its flow and by its update, and tag it so; outside a run, or where `update_id` can
    be no update's, do nothing."""
    context = FlowRunContext.get()
    if context is None or context.flow is None or context.flow_run is None or not _is_update_id(update_id):
        return
    run, name, tag = context.flow_run, _run_name(context.flow.name, update_id), update_tag(update_id)
    if run.name == name and tag in run.tags:
        return
    run.name, run.tags = name, [*run.tags, *({tag} - set(run.tags))]
    with get_client(sync_client=True) as client:
        client.update_flow_run(run.id, name=name, tags=run.tags)


def _run_name(flow: str, update_id: str) -> str:
    return f"{flow} {update_id}"


def _is_update_id(text: str) -> bool:
    try:
        check_update_id(text)
    except UsageError:
        return False
    return True
