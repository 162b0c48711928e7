"""Bring the record and the servers together, every minute while the control plane is up.

When Prefect cancels, expires or loses a waiting gate, no code of a flow runs; this is what notices.
"""

from dataclasses import dataclass, field
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState
from prefect.states import Completed, Failed

from ashat.deployment.state_machine import Stage
from ashat.errors import AshatError
from flows._runs import report_refusals
from flows.verify import begin_approval
from tasks.promote.distribute import serve_late
from tasks.reconcile.repair import (
    close_gate,
    end_lost_gate,
    end_lost_rollback,
    expire_overdue,
    go_on_with_rollback,
    mark_dead_runs,
    needs_gate,
    needs_rollback_run,
    restart_approve,
    restart_rollback,
)
from tasks.runtime.artifacts import publish_table
from tasks.runtime.connections import this_run
from tasks.runtime.deployment import Deployment, deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now
from tasks.servers.drift import drift, note_troubles
from tasks.servers.public import put_public_back


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
    report = Report()
    for line in mark_dead_runs():
        report.done.append(line)
    for summary in this_run().ledger.summaries():
        d = deployment(summary["update_id"], summary["attempt"])
        for owed in (repair_gate, repair_rollback, repair_public):
            try:
                report.done += owed(d)
            except AshatError as error:
                report.failed.append(f"{d.update_id}: {error}")
    troubles = drift()
    note_troubles(troubles)
    if troubles:
        publish_table("drift", [trouble._asdict() for trouble in troubles], "What is wrong with the servers")
    for line in (*report.done, *report.failed, *(trouble.what for trouble in troubles)):
        reporter().say(line)
    unreachable = [trouble for trouble in troubles if trouble.kind == "unreachable"]
    count = f"{len(report.done)} mended, {len(report.failed)} not, {len(troubles) - len(unreachable)} drifted"
    message = "; ".join([count, *(trouble.what for trouble in troubles)])
    if not troubles:
        return Completed(name="Reconciled", message=message)
    return Failed(name="Unreachable" if unreachable else "Drift", message=message)


def repair_gate(d: Deployment) -> list[str]:
    """See that the gate of one deployment is open, or closed, as the record has it; a line for each thing done."""
    state = d.state
    if state.rolling_back:
        return []
    if state.stage is Stage.TESTING and needs_gate(state):
        begin_approval(d)
        return [f"{state.update_id}: its gate was opened"]
    if state.stage not in (Stage.AWAITING_APPROVAL, Stage.DEPLOYING, Stage.DISTRIBUTING):
        return []
    if state.overdue(now()):
        expire_overdue(d, state)
        return [f"{state.update_id}: nobody answered in time, it is Expired"]
    if ended := end_lost_gate(d):
        return [f"{state.update_id}: {ended}"]
    run = restart_approve(d)
    return [f"{state.update_id}: its gate goes on in run {run}"] if run else []


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


def repair_public(d: Deployment) -> list[str]:
    """Put Public back where one deployment owes that, and serve the Mainframes that are late; a line for each thing
    done."""
    lines, state = [], d.state
    if state.owes_public:
        close_gate(state)
        put_public_back(d)
        lines.append(f"{state.update_id}: {state.public} was put back")
    return lines + [f"{state.update_id}: {late.name} was served late" for late in serve_late(d)]
