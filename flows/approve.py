"""Wait at the gate until a person has decided, then serve OMEGA and the Mainframes.

The run suspends while it waits, so no process does; a resumption starts again from the first line. What was decided is
read from the ledger before anything is asked, and each answer is judged once.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState
from prefect.states import Completed

from ashat.deployment.state_machine import Stage
from flows._forms import LAST, Attempt, UpdateId
from flows._rollout import ask_whether_it_goes_on
from flows._runs import await_approval, ending, report_refusals, sleep_while_closed
from tasks.approval.gate import run_url
from tasks.approval.release import Release
from tasks.approval.request import claim_gate
from tasks.promote.distribute import begin_rollout, carry_out_answer, open_waves, record_distribution
from tasks.promote.promote import promote
from tasks.promote.window import await_target
from tasks.push.transfer import relay
from tasks.rollback.by_policy import roll_back_as_answered, roll_back_by_policy
from tasks.runtime.deployment import Deployment, deployment
from tasks.runtime.notify import notify_end
from tasks.servers.drift import publish_servers
from tasks.servers.public import put_public_back


@flow(
    name="approve",
    flow_run_name="approve {update_id}",
    description="Wait for a person's decision, then promote to OMEGA and distribute to the Licensed Mainframes.",
)
@report_refusals
def approve(
    update_id: UpdateId,
    attempt: Attempt = LAST,
) -> PrefectState[Any]:
    """Suspend until a person decides; then do what they decided.

    Args:
        update_id: The update, such as UPD-2026-11.
        attempt: Which attempt of it; 0: the last one.
    """
    d = deployment(update_id, attempt)
    if not d.state.ended and (holder := claim_gate(d)):
        return Completed(name="AlreadyWaiting", message=f"Another run has this gate: {run_url(holder)}")
    while not (state := await_approval(d, Release())).ended and not state.rolling_back:
        ship(d)
    if state.rolling_back:
        return Completed(name="RollingBack", message=f"'{update_id}' is being rolled back: {state.rollback_reason}")
    if state.owes_public:
        put_public_back(d)
    if state.stage is Stage.COMPLETED:
        publish_servers(state)
    notify_end(state)
    return ending(state)


def ship(d: Deployment) -> None:
    """Promote to OMEGA what was approved, once that is open, and roll it out; whatever of it is done already is not
    done again."""
    if await_target(d) is not None:
        sleep_while_closed(d)
    if d.state.stage is Stage.DEPLOYING:
        relay(d)
        promote(d)
    if d.state.stage is Stage.DISTRIBUTING:
        begin_rollout(d)
        carry_out(d)
        while stopped := open_waves(d):
            if not (stopped.roll_back and roll_back_by_policy(d, stopped.why)):
                ask_whether_it_goes_on(d, stopped.why)
            carry_out(d)
        if not d.state.rolling_back:
            record_distribution(d)


def carry_out(d: Deployment) -> None:
    """Do what a person answered of a rollout that stopped: let it go on, end it, or take it back."""
    if not roll_back_as_answered(d):
        carry_out_answer(d)
