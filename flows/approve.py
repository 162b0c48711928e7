"""The gate, and what lies behind it: a person decides, then OMEGA and the Mainframes are served.

The run suspends while it waits, so no process does; a resumption starts again from the first line. What was decided is
read from the ledger before anything is asked, and each answer is judged once.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState
from prefect.states import Completed

from ashat.deployment.state_machine import Stage, State
from flows._runs import await_approval, ending, report_refusals
from tasks.approval.gate import run_url
from tasks.approval.release import Release
from tasks.approval.request import claim_gate
from tasks.promote.distribute import await_mainframes, offer, record_distribution
from tasks.promote.promote import promote
from tasks.push.transfer import relay
from tasks.runtime.deployment import deployment
from tasks.runtime.ledger import ledger
from tasks.runtime.notify import notify
from tasks.servers.drift import publish_servers
from tasks.servers.public import put_public_back


@flow(
    name="approve",
    flow_run_name="approve {update_id}",
    description="Wait for a person's decision, then promote to OMEGA and distribute to the Licensed Mainframes.",
)
@report_refusals
def approve(
    update_id: str,
    attempt: int | None = None,
) -> PrefectState[Any]:
    """Suspend until a person decides; then do what they decided.

    Args:
        update_id: The update, such as UPD-2026-11.
        attempt: Which attempt of it; empty: the last one.
    """
    with ledger() as record:
        state = record.load(update_id, attempt)
    holder = claim_gate(state.update_id, state.attempt) if not state.ended else ""
    if holder:
        return Completed(name="AlreadyWaiting", message=f"Another run has this gate: {run_url(holder)}")
    while not (state := await_approval(state, Release())).ended:
        state = ship(state)
    if state.owes_public:
        put_public_back(deployment(state.update_id, state.attempt))
    if state.stage is Stage.COMPLETED:
        publish_servers(state)
    notify(f"{state.update_id}: {state.stage.value}", state.reason or state.description)
    return ending(state)


def ship(state: State) -> State:
    """Promote to OMEGA what was approved, and distribute it; whatever of it is done already is not done again."""
    d = deployment(state.update_id, state.attempt)
    if state.stage is Stage.DEPLOYING:
        relay(d)
        state = promote(d)
    if state.stage is Stage.DISTRIBUTING and state.release_seq is not None:
        offer(d)
        state = record_distribution(d, await_mainframes(d, state.release_seq))
    return state
