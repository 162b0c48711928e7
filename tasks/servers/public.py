"""Lease Public, switch it to an update, and put it back."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from ashat.client.node import NodeClient
from ashat.common.failpoints import fault_point
from ashat.deployment.events import PublicRestored, PublicSwitching
from ashat.deployment.restore import restore_target
from ashat.deployment.state import PreviousRelease
from ashat.deployment.state_machine import State
from ashat.errors import (
    NodeBusyError,
    NodeConflictError,
    NodeError,
    NodeRefusedError,
    SessionError,
    SwitchFailedError,
)
from ashat.protocol.messages import NOT_ALLOWED, Lease, LeaseRequest, NodeState, Operation, OperationRequest
from ashat.settings import Settings
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, run_id, whoami
from tasks.runtime.step import step
from tasks.servers.baseline import note_baseline

_POLL_SECONDS = 1.0
STUCK = "Push a fix, or have Public run what was approved last: deploy public restore."


@contextmanager
def public_lease(d: Deployment, why: str) -> Iterator[str]:
    """Lease Public for this update while the `with` block runs; yields the name of the lease's holder.

    Waits its turn, visibly, for up to `ASHAT_LEASE_WAIT` seconds.

    Raises:
        SessionError: another update still has it after that time.
        NodeError: Public does not answer.
    """
    public, holder = d.public, f"{d.update_id}/{d.attempt}:{(run_id() or uuid.uuid4().hex)[:8]}"
    wish = LeaseRequest(holder=holder, who=whoami(), why=why, ttl=Settings().lease_seconds)
    await_turn(public, wish)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(public, wish, done), name="lease", daemon=True)
    renewing.start()
    try:
        yield holder
    finally:
        done.set()
        renewing.join()
        try:
            public.release_lease(holder)
        except NodeError as error:
            reporter().say(f"The lease of {public.name} was not given back and ends by itself: {error}")


@step("switch-public", description="Let the Public Server run the update, recording first what it runs until then.")
def switch_public(d: Deployment, holder: str) -> None:
    """Let Public run the update's bundle; do nothing if it does already.

    Raises:
        SwitchFailedError: the program did not become healthy, and Public runs again what it ran before; or Public does
            not allow what the release names, and nothing was changed.
        NodeConflictError: something else took Public meanwhile.
    """
    bundle = d.state.bundle
    if bundle is None:
        raise SessionError(f"Deployment '{d.update_id}' has not been packed yet: deploy push.")
    current = settled(d.public).current
    noted = note_baseline(d, current.bundle) if current is not None and current.bundle != bundle else None

    def intend(newest: State) -> PublicSwitching | None:
        if newest.switching and current is not None and current.bundle == newest.bundle:
            return None
        return PublicSwitching(
            at=now(),
            by=whoami(),
            from_bundle=current.bundle if current else None,
            from_update=current.update_id if current else "",
            from_attempt=current.attempt if current else 0,
            baseline=noted,
        )

    d.advance(intend)
    fault_point("push.switch-recorded")
    if current is not None and current.bundle == bundle:
        return
    request = OperationRequest(
        action="switch",
        bundle=bundle,
        expected_current=current.bundle if current else None,
        update_id=d.update_id,
        attempt=d.attempt,
        holder=holder,
        reason="push",
    )
    try:
        change(d.public, request)
    except NodeConflictError as error:
        if error.body.get("error") != NOT_ALLOWED:
            raise
        raise SwitchFailedError(str(error)) from None
    fault_point("push.switched")


@step("put-public-back", description="Let the Public Server run again what it ran before this update.")
def put_public_back(d: Deployment) -> None:
    """Restore Public to the release that ran before an update that failed or was called off, unless another update runs
    there by now.

    Raises:
        SwitchFailedError: what ran before no longer becomes healthy.
    """
    state = d.state
    if not state.owes_public:
        return
    before = restore_target(state, d.ledger.find)
    with public_lease(d, "put back") as holder:
        try:
            kept = switch_back(d.public, state, before, holder, reason=state.stage.value)
        except SwitchFailedError as error:
            raise SwitchFailedError(f"{error} {STUCK}", error.output) from None
        fault_point("cancel.switched-back")
    d.advance(
        lambda newest: (
            PublicRestored(at=now(), by=whoami(), to_bundle=before.bundle, to_update=before.update_id, kept=kept)
            if newest.owes_public
            else None
        )
    )


def switch_back(public: NodeClient, state: State, before: PreviousRelease, holder: str, *, reason: str) -> str:
    """Restore Public from `state`'s update to `before`; returns why Public was left alone, "" if it runs `before`."""
    current = settled(public).current
    runs = PreviousRelease(current.bundle, current.update_id, current.attempt) if current else PreviousRelease(None)
    if runs == before or runs.bundle is before.bundle is None:
        return ""
    if (runs.update_id, runs.attempt) != (state.update_id, state.attempt):
        return f"{runs.update_id or 'nothing'} runs there by now"
    if before.bundle == state.bundle:
        return "it ran the same bundle before"
    request = OperationRequest(
        action="switch",
        bundle=before.bundle,
        expected_current=state.bundle,
        update_id=before.update_id or state.update_id,
        attempt=before.attempt or state.attempt,
        holder=holder,
        reason=reason,
    )
    change(public, request)
    return ""


def settled(node: NodeClient) -> NodeState:
    """Wait until no operation is under way on the node; its state then.

    Raises:
        NodeError: it does not answer, or is not done within `ASHAT_SWITCH_TIMEOUT` seconds.
    """
    seen = node.state()
    if seen.operation is not None and seen.operation.status == "running":
        node.wait_operation(seen.operation.id, timeout=Settings().switch_timeout)
        seen = node.state()
    return seen


def change(node: NodeClient, request: OperationRequest, operation_id: str | None = None) -> Operation:
    """Have the node carry out `request`, and wait for its end.

    One that a killed node undid is asked for again, under a new id, as often as a step is retried.

    Raises:
        SwitchFailedError: it ended badly; the message carries the node's reason.
        NodeConflictError: the node runs something else than expected, or refuses the decision.
    """
    timeout = Settings().switch_timeout
    for attempt in range(Settings().retries + 1):
        identity = operation_id or uuid.uuid4().hex
        if attempt:
            identity = f"{identity}.{attempt + 1}"
        _start(node, identity, request)
        operation = node.wait_operation(identity, timeout=timeout)
        if not operation.interrupted:
            break
    if operation.status != "succeeded":
        for line in operation.output:
            reporter().say(f"  {node.name} │ {line}")
        raise SwitchFailedError(f"{node.name} did not take it: {operation.reason}", operation.output)
    return operation


def _start(node: NodeClient, identity: str, request: OperationRequest) -> None:
    try:
        node.start_operation(identity, request)
    except NodeConflictError as error:
        if error.body.get("error") == "busy":
            raise NodeBusyError(str(error), server=node.name, status=error.status) from None
        raise


@step("await-turn", description="Wait until no other update has the Public Server.")
def await_turn(public: NodeClient, wish: LeaseRequest) -> None:
    """Take the server's lease once nobody else holds it, or hold it for longer.

    Raises:
        SessionError: another update still has it after `ASHAT_LEASE_WAIT` seconds.
        WrongRoleError: it is another kind of server; its lease was not asked for.
    """
    public.check_role()
    deadline = time.monotonic() + Settings().lease_wait
    shown = ""
    while True:
        try:
            public.acquire_lease(wish)
            return
        except NodeRefusedError as error:
            if error.status != 423:
                raise
            lease = Lease.model_validate(error.body["lease"])
        if lease.holder != shown:
            reporter().waiting(lease)
            shown = lease.holder
        if time.monotonic() > deadline:
            raise SessionError(
                f"{lease.holder} still has {public.name} ({lease.who}: {lease.why}). Nothing was changed; try again "
                "later."
            )
        time.sleep(_POLL_SECONDS)


def _renew(public: NodeClient, wish: LeaseRequest, done: threading.Event) -> None:
    while not done.wait(wish.ttl / 4):
        try:
            public.acquire_lease(wish)
        except NodeError as error:
            reporter().say(f"The lease of {public.name} could not be renewed, trying again: {error}")
