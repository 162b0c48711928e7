"""Bring the record and the servers together, every minute while the control plane is up.

When Prefect cancels, expires or loses a waiting gate, no code of a flow runs; this is what notices. A run that finds
what the one before found, and does nothing, takes its place in Prefect's list.
"""

from dataclasses import dataclass, field
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState
from prefect.states import Completed, Failed

from ashat.common.text import cut
from ashat.deployment.state import ApprovalRequest
from ashat.deployment.state_machine import Stage
from ashat.errors import AshatError
from ashat.settings import Settings
from flows._runs import report_refusals
from flows.verify import begin_approval
from tasks.approval.release import Release
from tasks.approval.subject import Subject
from tasks.promote.distribute import serve_late
from tasks.reconcile.earlier import drop_same, note_looked
from tasks.reconcile.reminders import remind
from tasks.reconcile.repair import (
    close_gate,
    end_lost_gate,
    end_lost_rollback,
    expire_overdue,
    go_on_once_open,
    go_on_with_rollback,
    mark_dead_runs,
    needs_gate,
    needs_rollback_run,
    put_questions_anew,
    restart_approve,
    restart_rollback,
)
from tasks.reconcile.trackers import tell_trackers
from tasks.rollback.approval import Rollback
from tasks.runtime.artifacts import publish_table
from tasks.runtime.connections import this_run
from tasks.runtime.deployment import Deployment, deployment
from tasks.runtime.inbox_page import publish_inbox
from tasks.runtime.notify import look_at_channels, notify_end
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now
from tasks.runtime.slots import MISSED, stood_for
from tasks.servers.drift import Trouble, drift, note_troubles
from tasks.servers.public import put_public_back

_LONGEST = 2000


@dataclass
class Report:
    """What one reconciliation did, and what it could not do."""

    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


@flow(
    name="reconcile",
    flow_run_name="reconcile",
    description="Record lost gates, put Public back, go on after a crash, and report drift.",
)
@report_refusals
def reconcile() -> PrefectState[Any]:
    """Repair what flows could not record themselves, and report where a server differs from the record."""
    if began := stood_for():
        return Completed(name=MISSED, message=f"The run of {began:%Y-%m-%d %H:%M:%S} UTC looked, for all that passed.")
    report = Report()
    for line in mark_dead_runs():
        report.done.append(line)
    summaries = this_run().ledger.summaries()
    asked = (one for one in summaries if one["release_seq"] or one["stage"] == Stage.AWAITING_APPROVAL)
    for target in sorted({one["target"] for one in asked}):
        this_run().knock(target)
    for summary in summaries:
        d = deployment(summary["update_id"], summary["attempt"])
        for owed in (repair_gate, repair_window, repair_rollback, repair_questions, repair_public, remind):
            try:
                report.done += owed(d)
            except AshatError as error:
                report.failed.append(f"{d.update_id}: {error}")
    troubles = drift()
    note_troubles(troubles)
    look_at_channels()
    tell_trackers()
    if troubles:
        publish_table("drift", [trouble._asdict() for trouble in troubles], "What is wrong with the servers")
    for line in (*report.done, *report.failed, *(trouble.what for trouble in troubles)):
        reporter().say(line)
    publish_inbox()
    note_looked(Settings().ensure_home(), now())
    ended = _end(report, [trouble for trouble in troubles if trouble.wrong_now])
    if not report.done:
        drop_same(ended.name or "", ended.message or "")
    return ended


def _end(report: Report, troubles: list[Trouble]) -> PrefectState[Any]:
    unreachable = [trouble for trouble in troubles if trouble.kind == "unreachable"]
    count = f"{len(report.done)} mended, {len(report.failed)} not, {len(troubles) - len(unreachable)} drifted"
    message = cut("; ".join([count, *report.failed, *(trouble.what for trouble in troubles)]), _LONGEST)
    if troubles:
        return Failed(name="Unreachable" if unreachable else "Drift", message=message)
    if report.failed:
        return Failed(name="NotMended", message=message)
    if report.done:
        return Completed(name="Reconciled", message=message)
    return Completed(name="NothingToDo", message=message)


def repair_gate(d: Deployment) -> list[str]:
    """See that the gate of one deployment is open, or closed, as the record has it; a line for each thing done."""
    state = d.state
    if state.rolling_back:
        return []
    if state.stage is Stage.TESTING and needs_gate(state):
        begin_approval(d)
        return [f"{state.update_id}: its gate was opened"]
    if state.stage not in (Stage.AWAITING_APPROVAL, Stage.AWAITING_WINDOW, Stage.DEPLOYING, Stage.DISTRIBUTING):
        return []
    gate_run = state.gate.run if state.gate else ""
    if state.overdue(now()):
        notify_end(expire_overdue(d, state), run=gate_run)
        return [f"{state.update_id}: nobody answered in time, it is Expired"]
    if ended := end_lost_gate(d):
        notify_end(d.state, run=gate_run)
        return [f"{state.update_id}: {ended}"]
    run = restart_approve(d)
    return [f"{state.update_id}: its gate goes on in run {run}"] if run else []


def repair_window(d: Deployment) -> list[str]:
    """See that one deployment goes on that waited for a server, once that is open; a line for each thing done."""
    run = go_on_once_open(d)
    return [f"{d.update_id}: its server is open, and it goes on in run {run}"] if run else []


def repair_rollback(d: Deployment) -> list[str]:
    """See that the rollback of one deployment goes on, or has ended, as the record has it; a line for each thing
    done."""
    lines = []
    if needs_rollback_run(d.state) and (run := restart_rollback(d)):
        lines.append(f"{d.update_id}: its rollback goes on in run {run}")
    if lost := end_lost_rollback(d):
        lines.append(f"{d.update_id}: {lost}")
    if run := go_on_with_rollback(d):
        lines.append(f"{d.update_id}: the rollback that was approved goes on in run {run}")
    return lines


def repair_questions(d: Deployment) -> list[str]:
    """Have people asked anew about one deployment where what they are shown has changed; a line for each question."""

    def subject_of(request: ApprovalRequest) -> Subject:
        if request.subject == "release":
            return Release()
        return Rollback(d.ledger.load(request.update_id, request.attempt), request.why)

    return [f"{d.update_id}: {line}" for line in put_questions_anew(d, subject_of)]


def repair_public(d: Deployment) -> list[str]:
    """Put Public back where one deployment owes that, and serve the Mainframes that are late; a line for each thing
    done."""
    lines, state = [], d.state
    if state.owes_public:
        close_gate(state)
        put_public_back(d)
        lines.append(f"{state.update_id}: {state.the_public} was put back")
    return lines + [f"{state.update_id}: {late.name} was served late" for late in serve_late(d)]
