"""Repair gates and rollbacks whose flow runs are gone."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from ashat.deployment.events import ApprovalAnswered, Cancelled, Expired, RunDied
from ashat.deployment.state import ApprovalRequest
from ashat.deployment.state_machine import Stage, State
from ashat.errors import SessionError
from tasks.approval.gate import (
    ROLLBACK_DEPLOYMENT,
    SWITCH_DEPLOYMENT,
    close_gate_run,
    follow_dead_run,
    how_it_ended,
    is_alive,
    put_anew,
    start_approve_run,
    start_run,
    waits_for_answer,
)
from tasks.approval.request import withdraw_if_outdated
from tasks.approval.subject import Subject
from tasks.runtime.deployment import Deployment
from tasks.runtime.flow_processes import process_is_gone
from tasks.runtime.notify import notify
from tasks.runtime.run import now, run_id
from tasks.runtime.sleep import wake
from tasks.servers.windows import closed_to

_WORDS = 2000
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


def expire_overdue(d: Deployment, state: State) -> State:
    """Record that nobody answered the gate in time, and end the run that waited for an answer; the new state."""
    expired = d.ledger.append(state, Expired(at=now(), by="reconcile"))
    if state.gate is not None and state.gate.run:
        close_gate_run(state.gate.run, "Nobody answered in time.", Stage.EXPIRED)
    return expired


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


def restart_approve(d: Deployment) -> str:
    """Start another run of `approve` if the one that had the gate is dead; its id, "" if the old one lives.

    Raises:
        SessionError: too many died of the same reason; the message says which, and when the next is started.
    """
    state = d.state
    holder = (state.gate.run if state.gate else "") or start_approve_run(state)
    return _follow(d, holder, lambda dead: start_approve_run(state, again=dead))


def put_questions_anew(d: Deployment, subject_of: Callable[[ApprovalRequest], Subject]) -> list[str]:
    """Let people be asked anew where what a question tells of has changed; a line for each, with the reason.

    `subject_of` says what a request is about. Where somebody has answered by now, the run that was resumed with the
    answer judges that, by what holds then.
    """
    state, lines = d.state, []
    for request in state.approvals.values():
        if state.undecided(request.subject) is None or not waits_for_answer(request.run):
            continue
        if why := withdraw_if_outdated(d, d.state, subject_of(request)):
            notify(f"{d.update_id}: people are asked anew", why, run=request.run)
            lines.append(f"people are asked anew, since {why}")
        elif not _withdrawn(d, request):
            continue
        put_anew(request.run)
    return lines


def _withdrawn(d: Deployment, request: ApprovalRequest) -> bool:
    """Say whether the question was taken back of a run that still waits: whoever did so died before the run was told.

    A run that asks records that before it waits, so the caller asks Prefect first.
    """
    found = d.state.undecided(request.subject)
    return found is not None and found.run == request.run and found.answered and found.shown is None


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


def restart_rollback(d: Deployment) -> str:
    """Start another run of `rollback` for a rollback that was begun; its id, or "". Raises as `restart_approve`."""
    state = d.state
    return _follow(d, state.rollback_run, lambda dead: _start_rollback(state, dead))


def go_on_with_rollback(d: Deployment) -> str:
    """Start a run of `rollback` if the one that people answered died before the rollback began; its id, or "". Raises
    as `restart_approve`."""
    state = d.state
    request = state.approvals.get("rollback")
    if request is None or request.decision != "approve" or state.rolling_back or state.stage is Stage.ROLLED_BACK:
        return ""
    if _state_type(request.run) is not StateType.CRASHED:
        return ""
    return _follow(d, request.run, lambda dead: _start_rollback(state, dead))


def go_on_once_open(d: Deployment) -> str:
    """Let go on what waited for a server that is open by now, or for which somebody overrides that: the run that sleeps
    until then, or for a push a run of `switch`; its id, or "". Raises as `restart_approve`."""
    state = d.state
    if state.stage in (Stage.AWAITING_WINDOW, Stage.DEPLOYING) and not state.reached_omega and state.gate is not None:
        if closed_to(d, "omega") is not None or state.too_early(now()):
            return ""
        run = follow_dead_run(state, state.deaths[-1].run) if state.deaths else state.gate.run
        return run if run and wake(run) else ""
    if not state.sent or closed_to(d, "public") is not None:
        return ""
    if state.run and is_alive(state.run):
        return state.run if wake(state.run) else ""
    key = f"switch:{state.update_id}:{state.attempt}"
    first = start_run(SWITCH_DEPLOYMENT, state, key)
    if not state.deaths and is_alive(first):
        return ""
    return _follow(d, first, lambda dead: start_run(SWITCH_DEPLOYMENT, state, f"{key}:{dead}"))


def _start_rollback(state: State, dead: str) -> str:
    return start_run(ROLLBACK_DEPLOYMENT, state, f"rollback:{state.update_id}:{state.attempt}:{dead}")


def _follow(d: Deployment, run: str, start: Callable[[str], str]) -> str:
    """Record that `run` died, and start the one that follows it, or those that followed and died as well; the id of the
    one that was started, "" where one lives.

    Raises:
        SessionError: it is too early to start another.
    """
    state, followed = d.state, False
    if run in {death.run for death in state.deaths}:
        run = state.deaths[-1].run
    while not (run and is_alive(run)):
        if run not in {death.run for death in state.deaths}:
            why, crashed = how_it_ended(run)
            died = RunDied(at=now(), by="reconcile", run=run, reason=why[:_WORDS], crashed=crashed)
            state = d.ledger.append(state, died)
        if state.too_early(now()):
            raise SessionError(f"{state.stuck}. The next is started at {state.next_run:%Y-%m-%d %H:%M} UTC")
        before, run = run, start(run)
        if run == before:
            return ""
        followed = True
    return run if followed else ""


def _state_type(flow_run: str) -> StateType | None:
    try:
        with get_client(sync_client=True) as client:
            found = client.read_flow_run(UUID(flow_run)).state
    except (ObjectNotFound, ValueError):
        return None
    return found.type if found else None
