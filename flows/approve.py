"""The gate, and what lies behind it: a person decides, then OMEGA and the Mainframes are served.

The run suspends while it waits, so no process does; a resumption starts again from the first line. What was decided is
read from the ledger before anything is asked, and each answer is judged once.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState
from prefect.flow_runs import suspend_flow_run
from prefect.states import Completed
from pydantic import ValidationError

from ashat.common.failpoints import fault_point
from ashat.deployment.events import Expired
from ashat.deployment.state_machine import BEFORE_APPROVAL, Stage, State
from ashat.errors import ConflictError, SessionError
from flows._runs import ending, report_refusals, resumed_pause_keys
from tasks.approval.gate import GateForm, answer_of, ask, asking_key, gate_text, judge, run_url, seconds_left, take_gate
from tasks.promote.distribute import await_mainframes, offer, record_distribution
from tasks.promote.promote import promote
from tasks.push.transfer import relay
from tasks.runtime.artifacts import publish_markdown
from tasks.runtime.ledger import ledger, now, whoami
from tasks.runtime.notify import notify
from tasks.runtime.reporting import reporter
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
    holder = take_gate(state.update_id, state.attempt) if not state.ended else ""
    if holder:
        return Completed(name="AlreadyWaiting", message=f"Another run has this gate: {run_url(holder)}")
    while not (state := pass_gate(state)).ended:
        state = ship(state)
    if state.owes_public:
        put_public_back(state.update_id, state.attempt)
    if state.stage is Stage.COMPLETED:
        publish_servers(state)
    notify(f"{state.update_id}: {state.stage.value}", state.reason or state.description)
    return ending(state)


def pass_gate(state: State) -> State:
    """Ask until an answer counts. Returns at once where the decision was taken before."""
    resumed = resumed_pause_keys()
    while True:
        with ledger() as record:
            state = record.load(state.update_id, state.attempt)
        if state.stage in BEFORE_APPROVAL - {Stage.AWAITING_APPROVAL}:
            raise SessionError(f"Deployment '{state.update_id}' is {state.stage.value}: nothing awaits approval.")
        if state.stage is not Stage.AWAITING_APPROVAL:
            return state
        if state.overdue(now()):
            with ledger() as record:
                return record.append(state, Expired(at=now(), by=whoami()))
        state = ask(state, resumed_keys=resumed)
        text = gate_text(state)
        publish_markdown(f"gate-{state.update_id}-{state.attempt}", text, "What is to be decided")
        key = asking_key(state.askings)
        try:
            form = suspend_flow_run(
                wait_for_input=GateForm.with_initial_data(description=text),
                key=key,
                timeout=seconds_left(state, now()),
            )
        except ValidationError as error:
            reporter().say(f"An answer could not be read, so it is asked again: {error.errors()[0]['msg']}")
            resumed -= {key}
            continue
        try:
            judged = judge(state, answer_of(form))
        except ConflictError as error:
            reporter().say(f"This answer was not used: {error}")
            continue
        fault_point("promote.answer-judged")
        if judged.decision is None and judged.gate is not None:
            why = judged.gate.reason
            signed = ", ".join(signature.name for signature in judged.gate.signatures)
            reporter().say(f"The answer does not count: {why}" if why else f"Signed by {signed}; others must sign too.")


def ship(state: State) -> State:
    """Promote to OMEGA what was approved, and distribute it; whatever of it is done already is not done again."""
    identity = state.update_id, state.attempt
    if state.stage is Stage.DEPLOYING:
        relay(*identity)
        state = promote(*identity)
    if state.stage is Stage.DISTRIBUTING and state.release_seq is not None:
        offer(*identity)
        outcomes = await_mainframes(state.target, state.release_seq)
        state = record_distribution(*identity, outcomes)
    return state
