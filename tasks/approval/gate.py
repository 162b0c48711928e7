"""Start the runs that wait for people, with the form they fill in, and hand an answer to the run that is suspended."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any, Literal
from uuid import UUID

from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State as PrefectState
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.states import Cancelled, Scheduled
from prefect.utilities.urls import url_for
from pydantic import Field, create_model

from ashat.deployment.aftermath import AND_THEN
from ashat.deployment.approval_rules import Answer
from ashat.deployment.state import ApprovalRequest
from ashat.deployment.state_machine import Stage, State
from ashat.errors import ConflictError, SessionError
from tasks.runtime.update_runs import start_update_run

APPROVE_DEPLOYMENT = "approve/approve"
ROLLBACK_DEPLOYMENT = "rollback/rollback"
SWITCH_DEPLOYMENT = "switch/switch"
_SUSPENDS_WITHIN = 30.0
_ABOUT_TO_SUSPEND = {StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING}
_ALIVE = {StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING}


class GateForm(RunInput):
    """Ask for what a person fills in to approve or reject."""

    decision: Literal["approve", "reject"] = Field(
        title="Decision", description="Nothing is shipped without approve. The arrows open the list."
    )
    evidence: str = Field(
        title="The evidence's last 8 characters",
        description="Line 3 above the decision has them: what you read is what you approve.",
        max_length=64,
    )
    approver: str = Field(default="", title="Who you are", description="Recorded as you type it.", max_length=200)
    comment: str = Field(default="", title="Comment", description="Why. Needed where a check is ⚠️.", max_length=2000)
    signature: str = Field(
        default="", title="Signature", description="What deploy sign printed, where people sign.", max_length=600
    )

    not_before: str = Field(
        default="",
        title="Not before",
        description="A time, such as 2026-12-01T02:00Z, before which it is not to go. Empty: as soon as it may.",
        max_length=40,
    )
    override_freeze: str = Field(
        default="",
        title="Override a freeze",
        description="Why it goes at once although a freeze or a closed window holds it. Empty: it waits.",
        max_length=1000,
    )

    def answer(self) -> Answer:
        """Return the answer that was filled in."""
        return Answer(
            self.decision,
            self.evidence,
            self.approver,
            self.comment,
            self.signature,
            self.not_before,
            self.override_freeze,
        )


class RejectForm(GateForm):
    """Ask for the only decision that counts where nobody can approve as things are."""

    decision: Literal["reject"] = Field(
        title="Decision",
        description="It cannot be approved yet, and can only be rejected.",
        json_schema_extra={"enum": ["reject"]},
    )


def form_that_asks(text: str, head: str, *, only_reject: bool) -> type[GateForm]:
    """Make the form that shows Markdown `text` above its fields, and its `head` once more at the first field.

    The first of Prefect's UIs gives the text what room the fields leave, which in most windows is none.
    """
    form = RejectForm if only_reject else GateForm
    field = form.model_fields["decision"]
    described = Field(
        title=field.title, description=f"{head}\n\n{field.description}", json_schema_extra=field.json_schema_extra
    )
    annotation: Any = field.annotation
    asking: type[GateForm] = create_model(form.__name__, __base__=form, decision=(annotation, described))
    return asking.with_initial_data(description=text)


def start_approve_run(state: State, *, again: str = "") -> str:
    """Start the run of `approve` for the gate that is open, or find the one that was started; returns its id.

    `again` makes another run, where the one before is known to be dead.

    Raises:
        ControlPlaneError: Prefect has no such deployment, or does not answer.
    """
    key = f"approve:{state.update_id}:{state.attempt}:{state.openings}" + (f":{again}" if again else "")
    return start_run(APPROVE_DEPLOYMENT, state, key)


def follow_dead_run(state: State, dead: str) -> str:
    """Start the run of `approve` that follows a dead one; if that died as well, the next, until one lives; its id."""
    while True:
        started = start_approve_run(state, again=dead)
        if started == dead or is_alive(started):
            return started
        dead = started


def start_run(deployment: str, state: State, key: str, **parameters: str) -> str:
    """Start a run of a flow about the update, or find the one that was started under that key; returns its id.

    Raises:
        ControlPlaneError: Prefect has no such deployment, or does not answer.
    """
    about = {"update_id": state.update_id, "attempt": state.attempt, **parameters}
    return start_update_run(deployment, about, key=key)


def run_url(flow_run: str) -> str:
    """Name the page of the run in Prefect's UI; its id if no UI is known."""
    return url_for("flow-run", obj_id=UUID(flow_run)) or flow_run


def is_alive(flow_run: str) -> bool:
    """Say whether a flow run still may do something: it waits, runs, or is about to."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
    except (ObjectNotFound, ValueError):
        return False
    return state is not None and state.type in _ALIVE


def how_it_ended(flow_run: str) -> tuple[str, bool]:
    """Say why a flow run ended, by its last state's message ("": Prefect does not know), and whether it crashed."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
    except (ObjectNotFound, ValueError):
        return "", False
    if state is None:
        return "", False
    return (state.message or state.name or "").partition(AND_THEN)[0], state.type is StateType.CRASHED


def waits_for_answer(flow_run: str) -> bool:
    """Say whether a flow run is suspended; one that was resumed has an answer, and is about to judge it."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
    except (ObjectNotFound, ValueError):
        return False
    return state is not None and state.type is StateType.PAUSED


def put_anew(flow_run: str) -> bool:
    """Let a run that waits for an answer go on without one, from its first line, so that it asks anew; whether it did
    wait."""
    try:
        _await_suspended(flow_run)
    except (ObjectNotFound, ValueError):
        return False
    if not waits_for_answer(flow_run):
        return False
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run), Scheduled(name="AskingAnew"), force=True)
    return True


def close_gate_run(flow_run: str, message: str, stage: Stage = Stage.CANCELLED) -> None:
    """End a run of `approve` that has nothing left to wait for; its state carries the stage's name."""
    with get_client(sync_client=True) as client:
        try:
            client.set_flow_run_state(UUID(flow_run), Cancelled(name=stage.value, message=message), force=True)
        except ObjectNotFound:
            return


def _await_suspended(flow_run: str) -> None:
    """Wait while the run is about to suspend; an answer that comes before could not be checked against the form.

    Prefect saves the form only after the run's state says that it is suspended.
    """
    deadline = time.monotonic() + _SUSPENDS_WITHIN
    with get_client(sync_client=True) as client:
        while time.monotonic() < deadline:
            state = client.read_flow_run(UUID(flow_run)).state
            if state is None or (state.type not in _ABOUT_TO_SUSPEND and _has_form(client, flow_run, state)):
                return
            time.sleep(0.3)


def _has_form(client: SyncPrefectClient, flow_run: str, state: PrefectState) -> bool:
    """Say whether the form of a suspended run is saved; true of a run that waits for none."""
    keys = state.state_details.run_input_keyset
    if state.type is not StateType.PAUSED or keys is None:
        return True
    try:
        client.read_flow_run_input(UUID(flow_run), key=keys["schema"])
    except HTTPStatusError as error:
        if error.response.status_code != codes.NOT_FOUND:
            raise
        return False
    return True


def answer(request: ApprovalRequest, given: Answer, update_id: str) -> None:
    """Hand a person's answer to the suspended run that asks about `update_id`.

    Raises:
        SessionError: no run waits for an answer.
        ConflictError: somebody else answered first.
    """
    answer_run(request.run, asdict(given), f"the gate of '{update_id}'")


def answer_run(run: str, given: dict[str, Any], what: str) -> None:
    """Hand what a person filled in to the suspended run `run`, which asks about `what`.

    Raises:
        SessionError: no run waits for an answer.
        ConflictError: somebody else answered first.
    """
    if not run:
        raise SessionError(f"Nobody asks about {what} yet; try again in a few seconds.")
    _await_suspended(run)
    with get_client(sync_client=True) as client:
        result = client.resume_flow_run(UUID(run), run_input=given)
    if result.status is SetStateStatus.ACCEPT:
        return
    reason = getattr(result.details, "reason", "") or "it is not waiting"
    raise ConflictError(
        f"Your answer did not reach {what} ({reason}): somebody else answered, or it closed. Look at deploy status."
    )
