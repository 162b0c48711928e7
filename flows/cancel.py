"""Call an update off before it is approved."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState

from ashat.common.failpoints import fault_point
from ashat.deployment.events import Cancelled
from ashat.deployment.state_machine import Stage, State
from flows._forms import LAST, Attempt, By, Reason, UpdateId
from flows._runs import ending, report_refusals
from tasks.approval.gate import close_gate_run
from tasks.push.transfer import drop_staged
from tasks.rollback.rollback import stop_rollback
from tasks.runtime.deployment import Deployment, deployment
from tasks.runtime.notify import notify_end
from tasks.runtime.run import now, whoami
from tasks.servers.public import put_public_back


@flow(name="cancel", flow_run_name="cancel {update_id}", description="Call an update off, and put Public back.")
@report_refusals
def cancel(
    update_id: UpdateId,
    attempt: Attempt = LAST,
    reason: Reason = "",
    by: By = "",
) -> PrefectState[Any]:
    """Cancel an update that is not approved yet; Public runs again what it ran before. Of one that is being rolled
    back, call that off, as long as no server has gone back.

    Args:
        update_id: The update, such as UPD-2026-11.
        attempt: Which attempt of it; 0: the last one.
        reason: Why; it is recorded.
        by: Who you are; recorded as you type it.
    """
    d = deployment(update_id, attempt)
    if d.state.rolling_back:
        return ending(stop_rollback(d, reason, by))
    return ending(cancel_update(d, reason=reason, by=by))


def cancel_update(d: Deployment, *, reason: str = "", by: str = "") -> State:
    """Record the cancellation first, so that no approval can overtake it, then close the gate and put Public back."""
    gate = d.state.gate
    d.advance(
        lambda newest: (
            None if newest.stage is Stage.CANCELLED else Cancelled(at=now(), by=by or whoami(), reason=reason)
        )
    )
    fault_point("cancel.recorded")
    if gate is not None and gate.run:
        close_gate_run(gate.run, f"{d.update_id} was cancelled")
    put_public_back(d)
    drop_staged(d)
    state = d.state
    if gate is not None:
        notify_end(state)
    return state
