"""The way back from an update, on every server that it reached.

Where the target demands signatures and no way back that counts was signed with the approval, the run suspends until
people have signed it.
"""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState
from prefect.flow_runs import suspend_flow_run
from prefect.states import Cancelled, Completed
from pydantic import ValidationError

from ashat.deployment.state_machine import State
from ashat.errors import ConflictError, SessionError
from flows._runs import ending, report_refusals, resumed_pause_keys
from tasks.approval.gate import GateForm, answer_of, run_url
from tasks.rollback.approval import ask_rollback, judge_rollback, other_rollback, rollback_key, rollback_text
from tasks.rollback.rollback import (
    end_rollback,
    follow_mainframes,
    look_back,
    roll_back_omega,
    roll_back_public,
    start_rollback,
)
from tasks.rollback.signed_return import RollbackToSign, rollback_to_sign
from tasks.runtime.artifacts import publish_markdown
from tasks.runtime.ledger import ledger, now
from tasks.runtime.notify import notify
from tasks.runtime.reporting import reporter


@flow(
    name="rollback",
    flow_run_name="rollback {update_id}",
    description="Let each server that an update reached run again what it ran before.",
)
@report_refusals
def rollback(
    update_id: str,
    attempt: int | None = None,
    reason: str = "",
    by: str = "",
) -> PrefectState[Any]:
    """Roll an update back on OMEGA, the Mainframes and Public, refusing where something else runs by now.

    Args:
        update_id: The update, such as UPD-2026-11.
        attempt: Which attempt of it; empty: the last one.
        reason: Why; it is recorded.
        by: Who you are; recorded as you type it.
    """
    with ledger() as record:
        state = record.load(update_id, attempt)
    way = look_back(state)
    if "omega" in way.servers and not state.rolling_back and (wanted := rollback_to_sign(state)) is not None:
        if holder := other_rollback(state):
            return Completed(name="AlreadyWaiting", message=f"Another run asks about it: {run_url(holder)}")
        state = pass_rollback_gate(state, wanted, reason)
        if state.rollback_gate is not None and state.rollback_gate.decision == "reject":
            return Cancelled(name="Rejected", message=_rejected(state))
        way = look_back(state)
    start_rollback(state.update_id, state.attempt, reason, by)
    for place, why in way.kept.items():
        reporter().say(f"{place} is left alone: {why}")
    if "omega" in way.servers:
        sequence = roll_back_omega(state.update_id, state.attempt)
        if sequence is not None:
            follow_mainframes(state, sequence)
    if "public" in way.servers:
        roll_back_public(state.update_id, state.attempt)
    state = end_rollback(state.update_id, state.attempt)
    notify(f"{update_id} was rolled back", reason)
    return ending(state)


def pass_rollback_gate(state: State, wanted: RollbackToSign, reason: str) -> State:
    """Ask until enough have signed the way back, or one has rejected it. Returns at once where that is so already.

    Raises:
        SessionError: nobody answered in time, or nothing can be signed. Nothing was changed.
    """
    resumed = resumed_pause_keys()
    while True:
        with ledger() as record:
            state = record.load(state.update_id, state.attempt)
        gate = state.rollback_gate
        if gate is not None and gate.decision and rollback_key(gate.ordinal) in resumed:
            return state
        if gate is not None and rollback_key(gate.ordinal) in resumed and not gate.waits(now()):
            raise SessionError(f"Nobody answered whether '{state.update_id}' may be rolled back: nothing was changed.")
        state = ask_rollback(state, wanted, reason, resumed_keys=resumed)
        gate = state.rollback_gate
        assert gate is not None
        text, key = rollback_text(state), rollback_key(gate.ordinal)
        publish_markdown(f"rollback-{state.update_id}-{state.attempt}", text, "What is to be decided")
        resumed |= {key}
        try:
            form = suspend_flow_run(
                wait_for_input=GateForm.with_initial_data(description=text),
                key=key,
                timeout=max(1, int((gate.expires - now()).total_seconds())),
            )
        except ValidationError as error:
            reporter().say(f"An answer could not be read, so it is asked again: {error.errors()[0]['msg']}")
            resumed -= {key}
            continue
        try:
            judged = judge_rollback(state, answer_of(form)).rollback_gate
        except ConflictError as error:
            reporter().say(f"This answer was not used: {error}")
            continue
        if judged is not None and not judged.decision:
            signed = ", ".join(signature.name for signature in judged.signatures)
            why = f"The answer does not count: {judged.reason}"
            reporter().say(why if judged.reason else f"Signed by {signed}; others must sign too.")


def _rejected(state: State) -> str:
    by = state.rollback_gate.decided_by if state.rollback_gate else ""
    return f"The rollback of '{state.update_id}' was rejected by {by or 'somebody'}: nothing was changed."
