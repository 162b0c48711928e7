"""Repair gates and rollbacks whose flow runs are gone."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from ashat.deployment.events import ApprovalAnswered, Cancelled, Expired
from ashat.deployment.state_machine import Stage, State
from tasks.approval.gate import close_gate_run, is_alive, start_approve_run, start_run
from tasks.runtime.deployment import Deployment
from tasks.runtime.flow_processes import process_is_gone
from tasks.runtime.run import now, run_id

ROLLBACK_DEPLOYMENT = "rollback/rollback"
CANCELLED_IN_PREFECT = "cancelled in Prefect"


def mark_dead_runs() -> list[str]:
    """Mark as Crashed each run that Prefect shows as Running whose process on this machine is gone; a line for each."""
    lines = []
    running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING])))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=running):
            if str(run.id) != run_id() and process_is_gone(run):
                client.set_flow_run_state(run.id, Crashed(message="Its process is gone."), force=True)
                lines.append(f"run {run.name} had lost its process: marked as Crashed")
    return lines


def expire_overdue(d: Deployment, state: State) -> None:
    """Record that nobody answered the gate in time, and end the run that waited for an answer."""
    d.ledger.append(state, Expired(at=now(), by="reconcile"))
    if state.gate is not None and state.gate.run:
        close_gate_run(state.gate.run, "Nobody answered in time.", Stage.EXPIRED)


def close_gate(state: State) -> None:
    """End the run that still waits at the gate of a deployment that has ended."""
    if state.gate is not None and state.gate.run and _state_type(state.gate.run) is StateType.PAUSED:
        close_gate_run(state.gate.run, f"{state.update_id} is {state.stage.value}", state.stage)


def end_lost_gate(d: Deployment) -> str:
    """Record that somebody cancelled the waiting gate in Prefect; "" if nobody did."""
    state = d.state
    if state.stage is not Stage.AWAITING_APPROVAL or state.gate is None:
        return ""
    if _state_type(state.gate.run or start_approve_run(state)) is not StateType.CANCELLED:
        return ""
    d.ledger.append(state, Cancelled(at=now(), by="reconcile", reason=CANCELLED_IN_PREFECT))
    return CANCELLED_IN_PREFECT


def restart_approve(state: State) -> str:
    """Start another run of `approve` if the one that had the gate is dead; its id, "" if the old one lives."""
    holder = state.gate.run if state.gate else ""
    if not holder:
        holder = start_approve_run(state)
    return "" if is_alive(holder) else _living(holder, lambda dead: start_approve_run(state, again=dead))


def needs_gate(state: State) -> bool:
    """Say whether the checks passed and the gate was never opened, because the run of `verify` died in between."""
    return (
        state.evidence is not None
        and state.outcome != "failed"
        and not (state.run_verify and is_alive(state.run_verify))
    )


def end_lost_rollback(d: Deployment) -> str:
    """Record that a rollback is rejected whose run somebody cancelled in Prefect while it waited for an answer; "" if
    nobody did."""
    state = d.state
    request = state.undecided("rollback")
    if request is None or not request.waits(now()) or _state_type(request.run) is not StateType.CANCELLED:
        return ""
    event = ApprovalAnswered(
        at=now(),
        by="reconcile",
        subject="rollback",
        ordinal=request.ordinal,
        decision="reject",
        accepted=True,
        approver="reconcile",
        comment=CANCELLED_IN_PREFECT,
    )
    d.ledger.append(state, event)
    return f"its rollback was {CANCELLED_IN_PREFECT}"


def needs_rollback_run(state: State) -> bool:
    """Say whether a rollback was begun and its flow run is gone."""
    return state.rolling_back and not (state.rollback_run and is_alive(state.rollback_run))


def restart_rollback(state: State) -> str:
    """Start another run of `rollback` for a rollback that was begun; its id."""
    return _living(state.rollback_run, lambda dead: _start_rollback(state, dead))


def go_on_with_rollback(state: State) -> str:
    """Start a run of `rollback` if the one that people answered died before the rollback began; its id, or ""."""
    request = state.approvals.get("rollback")
    if request is None or request.decision != "approve" or state.rolling_back or state.stage is Stage.ROLLED_BACK:
        return ""
    return _start_rollback(state, request.run) if _state_type(request.run) is StateType.CRASHED else ""


def _start_rollback(state: State, dead: str) -> str:
    return start_run(ROLLBACK_DEPLOYMENT, state, f"rollback:{state.update_id}:{state.attempt}:{dead}")


def _living(dead: str, start: Callable[[str], str]) -> str:
    """Start the run that follows a dead one; if that died as well, the next, until one lives."""
    while True:
        started = start(dead)
        if started == dead or is_alive(started):
            return started
        dead = started


def _state_type(flow_run: str) -> StateType | None:
    try:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(UUID(flow_run)).state
    except (ObjectNotFound, ValueError):
        return None
    return found.type if found else None
