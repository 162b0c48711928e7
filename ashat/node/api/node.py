"""The calls of `docs/node-api.md` that every node has, but "Moving bytes": who it is, the lease, what runs."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from ashat import __version__
from ashat.node.access.tokens import Token
from ashat.node.api.auth import require, require_change
from ashat.node.api.declared import answered, refused
from ashat.node.context import Context, NodeContext
from ashat.node.core.db import now
from ashat.node.core.errors import ApiError
from ashat.node.operations import lease, records
from ashat.protocol.messages import (
    Identity,
    Lease,
    LeaseRequest,
    NodeState,
    Operation,
    OperationRequest,
    Role,
    Scope,
    TokenInfo,
)

WAIT_LIMIT = 60.0
_LOOK_EVERY = 0.05

OperationId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:~-]{0,127}$")]

router = APIRouter()
read = [Depends(require(Scope.READ))]
change = [Depends(require_change)]


def node_state(context: NodeContext) -> NodeState:
    """Everything the node says about itself."""
    standing = records.standing(context.db)
    seen = context.health.latest
    app = context.program.state()
    return NodeState(
        role=context.config.role,
        name=context.config.name,
        node_version=__version__,
        time=now(),
        current=standing.current,
        previous=standing.previous,
        release_seq=standing.release_seq,
        lease=lease.held(context.db),
        operation=context.operations.latest(),
        app=app.model_copy(update={"healthy": app.url is not None and seen is not None and seen.healthy}),
        offer=context.offer(),
        agent=context.agent(),
        store=context.inventory.state(),
    )


@router.get("/healthz", tags=["Who is it"])
async def healthz(context: Context) -> dict[str, str]:
    """The agent serves, and all that works in its background does."""
    if ended := context.ended_threads():
        detail = f"What works in the background has ended ({', '.join(ended)}); see the log, and restart the node."
        raise ApiError(503, "internal", detail)
    return {"status": "ok"}


@router.get("/v1/identity", tags=["Who is it"])
def identity(context: Context) -> Identity:
    """Who the node is, and what it runs."""
    operation = context.operations.latest()
    busy = operation is not None and operation.status == "running"
    return Identity(
        role=context.config.role,
        name=context.config.name,
        node_version=__version__,
        current=records.standing(context.db).current,
        status="switching" if busy else context.program.state().status,
        lost=len(context.inventory.lost),
        time=now(),
    )


@router.get("/v1/token", tags=["Who is it"])
def token_info(token: Annotated[Token, Depends(require(Scope.READ))]) -> TokenInfo:
    """The token that asks: its id, and what it opens. Never the token."""
    opens = tuple(scope for scope in Scope if token.allows(scope))
    return TokenInfo(id=token.id, name=token.name, opens=opens, created=token.created, expires=token.expires)


@router.get("/v1/state", tags=["Who is it"], dependencies=read)
def state(context: Context) -> NodeState:
    """Everything the node says about itself."""
    return node_state(context)


@router.get(
    "/metrics", tags=["Who is it"], dependencies=read, response_class=Response, responses=answered("text/plain")
)
def metrics(context: Context) -> Response:
    """The node's figures, for Prometheus."""
    return Response(context.metrics.render(node_state(context)), media_type=context.metrics.content_type)


@router.put("/v1/lease", tags=["The lease"], dependencies=change, responses=refused(423))
def acquire_lease(request: LeaseRequest, context: Context) -> Lease:
    """Have the server, or have it for longer."""
    return lease.acquire(context.db, request)


@router.delete("/v1/lease", tags=["The lease"], status_code=204, dependencies=change)
def release_lease(holder: Annotated[str, Query(min_length=1, max_length=128)], context: Context) -> None:
    """Give the server back."""
    lease.release(context.db, holder)


@router.put(
    "/v1/operations/{operation_id}",
    tags=["Changing what runs"],
    status_code=202,
    dependencies=change,
    responses=refused(404, 409, 423),
)
def start_operation(operation_id: OperationId, request: OperationRequest, context: Context) -> Operation:
    """Begin a change of what runs."""
    if context.config.role is Role.MAINFRAME:
        raise ApiError(403, "forbidden", "A Mainframe runs what OMEGA offers; roll OMEGA back, or promote there.")
    return context.operations.submit(operation_id, request)


@router.get("/v1/operations/{operation_id}", tags=["Changing what runs"], dependencies=read, responses=refused(404))
async def operation(
    operation_id: OperationId, context: Context, wait: Annotated[float, Query(ge=0, le=WAIT_LIMIT)] = 0
) -> Operation:
    """The operation, once it has ended or `wait` seconds have passed."""
    deadline = time.monotonic() + wait
    operations = context.operations
    found = await asyncio.to_thread(operations.get, operation_id)
    while found.status == "running" and time.monotonic() < deadline and not context.stopping.is_set():
        await asyncio.sleep(_LOOK_EVERY)
        if operations.under_way != operation_id:
            found = await asyncio.to_thread(operations.get, operation_id)
    return found
