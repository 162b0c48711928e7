"""The gate: what a person is shown, how their answer reaches the suspended run, and how it is judged and recorded."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from httpx import HTTPStatusError, codes
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.objects import State as PrefectState
from prefect.client.schemas.responses import SetStateStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.input import RunInput
from prefect.states import Cancelled
from prefect.utilities.urls import url_for
from pydantic import Field

from ashat.common.failpoints import fault_point
from ashat.deployment.approval_rules import Answer, ApprovalContext, refusal, stale_reason
from ashat.deployment.events import ApprovalAnswered, ApprovalRequested, GateClaimed
from ashat.deployment.state_machine import Stage, State
from ashat.errors import ConflictError, ControlPlaneError, NodeError, NotConfiguredError, SessionError, TrustError
from ashat.protocol.messages import NodeState
from ashat.trust.release.proposal import Proposal
from ashat.verification.evidence import Evidence
from blocks.policy import load_policy
from blocks.server import load_server
from tasks.approval.page import compose, running
from tasks.approval.signing import Countersigned, countersign, proposed
from tasks.runtime.ledger import ledger, now, run_id, whoami
from tasks.runtime.step import step
from tasks.servers.drift import why_not_owner
from tasks.verify.proofs import SELF_TEST, known_proofs
from tasks.verify.verdict import untrusted
from tasks.verify.verification import current_versions

APPROVE_DEPLOYMENT = "approve/approve"
_SUSPENDS_WITHIN = 30.0
_ABOUT_TO_SUSPEND = {StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING}
_ALIVE = {StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING}


class GateForm(RunInput):
    """What a person fills in to let an update into production, or to keep it out."""

    decision: Literal["approve", "reject"] = Field(
        title="Decision", description="Nothing is shipped without approve. The arrows open the list."
    )
    evidence: str = Field(
        title="The evidence's last 8 characters",
        description="They end the text above, so that what you read is what you approve.",
        max_length=64,
    )
    approver: str = Field(default="", title="Who you are", description="Recorded as you type it.", max_length=200)
    comment: str = Field(default="", title="Comment", description="Why. Needed where a check is ⚠️.", max_length=2000)
    signature: str = Field(
        default="", title="Signature", description="What deploy sign printed, where people sign.", max_length=600
    )


def start_approve_run(state: State, *, again: str = "") -> str:
    """Start the run of `approve` for the gate that is open, or find the one that was started; returns its id.

    `again` makes another run, where the one before is known to be dead.

    Raises:
        ControlPlaneError: Prefect has no such deployment, or does not answer.
    """
    key = f"approve:{state.update_id}:{state.attempt}:{state.openings}" + (f":{again}" if again else "")
    try:
        run = run_deployment(
            APPROVE_DEPLOYMENT,
            parameters={"update_id": state.update_id, "attempt": state.attempt},
            timeout=0,
            as_subflow=False,
            idempotency_key=key,
            tags=[f"update:{state.update_id}"],
        )
    except ObjectNotFound:
        raise ControlPlaneError(
            f"Prefect has no deployment {APPROVE_DEPLOYMENT}: run deploy up, or prefect deploy --all, once."
        ) from None
    if not isinstance(run, FlowRun):
        raise ControlPlaneError("Prefect did not say which run it started.")
    return str(run.id)


def run_url(flow_run: str) -> str:
    """Where the run is shown in Prefect's UI; its id where no UI is known."""
    return url_for("flow-run", obj_id=UUID(flow_run)) or flow_run


def is_alive(flow_run: str) -> bool:
    """Whether a flow run still may do something: it waits, runs, or is about to."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run)).state
    except (ObjectNotFound, ValueError):
        return False
    return state is not None and state.type in _ALIVE


def close_gate_run(flow_run: str, message: str, stage: Stage = Stage.CANCELLED) -> None:
    """End a run of `approve` that has nothing left to wait for; its state carries the stage's name."""
    with get_client(sync_client=True) as client:
        try:
            client.set_flow_run_state(UUID(flow_run), Cancelled(name=stage.value, message=message), force=True)
        except ObjectNotFound:
            return


def take_gate(update_id: str, attempt: int) -> str:
    """Take charge of the gate for this run; returns "" or the id of the living run that has it."""
    mine = run_id()
    with ledger() as record:
        state = record.load(update_id, attempt)
        holder = state.gate.run if state.gate else ""
        if holder and holder != mine and is_alive(holder):
            return holder
        if state.stage is Stage.AWAITING_APPROVAL and holder != mine:
            record.append(state, GateClaimed(at=now(), by=whoami(), run=mine))
            fault_point("gate.taken")
    return ""


def asking_key(ordinal: int) -> str:
    """The key under which a run suspends for an asking; Prefect keeps the answer under it."""
    return f"gate-{ordinal}"


def ask(state: State, *, resumed_keys: frozenset[str]) -> State:
    """Record that the question is put (again), unless `resumed_keys` says that this run was resumed with its answer."""
    gate = state.gate
    if gate is not None and not gate.answered and asking_key(gate.ordinal) in resumed_keys:
        return state
    seen, missing = look_at_target(state)
    bundle, proposal = running(seen), None
    if seen is not None and not missing:
        proposal, missing = _proposed(state, seen)
    text = compose_question(state.update_id, state.attempt, seen, missing, proposal)
    with ledger() as record:
        if gate is not None and gate.run != run_id():
            state = record.append(state, GateClaimed(at=now(), by=whoami(), run=run_id()))
        shown = record.put_document("gate", {"markdown": text})
        state = record.append(
            state,
            ApprovalRequested(
                at=now(),
                by=whoami(),
                ordinal=state.askings + 1,
                target_bundle=bundle,
                shown=shown,
                proposal=proposal,
                reason=gate.reason if gate else "",
            ),
        )
    fault_point("gate.asked")
    return state


def _proposed(state: State, seen: NodeState) -> tuple[str | None, str]:
    """What is to be signed, and why nothing can be ("" where it can)."""
    try:
        return proposed(state, seen), ""
    except (TrustError, NodeError) as error:
        return None, str(error)


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
    """Whether the form of a suspended run is saved; true of a run that waits for none."""
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


def gate_text(state: State) -> str:
    """What the person is shown who decides, as Markdown: what was recorded when the question was put."""
    if state.gate is None or state.gate.shown is None:
        raise SessionError(f"The gate of '{state.update_id}' is only being opened; try again in a few seconds.")
    with ledger() as record:
        return str(record.document(state.gate.shown)["markdown"])


def judge(state: State, answer: Answer) -> State:
    """Judge an answer to the asking in `state`, once, and record what came of it.

    Raises:
        ConflictError: somebody else's event came first; the answer is not recorded, nor used.
    """
    if state.gate is None:
        raise SessionError(f"Deployment '{state.update_id}' has no open gate.")
    seen, missing = look_at_target(state)
    world = ApprovalContext(
        now=now(),
        target_bundle=running(seen),
        target_missing=missing,
        decay=decay_of(state, running(seen)),
    )
    why = refusal(state, answer, world)
    signed: Countersigned | None = None
    if not why and answer.decision == "approve" and seen is not None:
        try:
            signed = countersign(state, seen, answer.signature)
        except (TrustError, NodeError) as error:
            why = str(error)
    with ledger() as record:
        return record.append(
            state,
            ApprovalAnswered(
                at=world.now,
                by=whoami(),
                ordinal=state.gate.ordinal,
                decision=answer.decision,
                accepted=not why,
                approver=signed.signature.name if signed and not signed.proposal else answer.approver,
                comment=answer.comment,
                reason=why,
                release_seq=signed.release_seq if signed else None,
                proposal=signed.proposal if signed else None,
                signature=signed.signature if signed else None,
            ),
        )


def decay_of(state: State, target_bundle: str | None) -> str:
    """Why the evidence of `state` no longer counts, "" where it does; see `approval_rules.stale_reason`."""
    if state.evidence is None:
        return ""
    with ledger() as record:
        evidence = Evidence.read(record.document(state.evidence))
        proofs = known_proofs(record.newest(SELF_TEST))
    policy = load_policy(state.policy).policy()
    return stale_reason(
        evidence,
        now=now(),
        policy=policy,
        versions=current_versions(policy),
        target_bundle=target_bundle,
        untrusted=untrusted(proofs),
    )


def look_at_target(state: State) -> tuple[NodeState | None, str]:
    """The target's state, and why it cannot be asked, or not for a change ("" where it can)."""
    try:
        return see_target(state.target), why_not_owner(state.target)
    except NotConfiguredError as error:
        return None, str(error)
    except NodeError as error:
        return None, f"{state.target} does not answer: {error}"


@step("see-target", description="See what the target runs now.")
def see_target(name: str) -> NodeState:
    """The state of the server of that name."""
    with load_server(name).client() as target:
        return target.state()


@step("compose-question", description="Write what the person is shown: what changes on the target, and the checks.")
def compose_question(update_id: str, attempt: int, seen: NodeState | None, missing: str, proposal: str | None) -> str:
    """The gate's page as Markdown, over a target that is as `seen`, or that cannot be asked because of `missing`.

    `proposal` is the digest of what people are to sign, None where nobody has to.
    """
    with ledger() as record:
        state = record.load(update_id, attempt)
        signing = Proposal.from_json(record.document(proposal)) if proposal else None
        return compose(state, seen, missing, signing)


def answer_gate(state: State, answer: Answer) -> None:
    """Hand a person's answer to the suspended run.

    Raises:
        SessionError: no run waits for an answer.
        ConflictError: somebody else answered first.
    """
    if state.gate is None or not state.gate.run:
        raise SessionError(f"The gate of '{state.update_id}' is only being opened; try again in a few seconds.")
    resume(state.gate.run, answer, state.update_id)


def resume(flow_run: str, answer: Answer, update_id: str) -> None:
    """Hand a person's answer to a suspended run, which asks about `update_id`.

    Raises:
        ConflictError: somebody else answered first.
    """
    form = {
        "decision": answer.decision,
        "evidence": answer.tail,
        "approver": answer.approver,
        "comment": answer.comment,
        "signature": answer.signature,
    }
    _await_suspended(flow_run)
    with get_client(sync_client=True) as client:
        result = client.resume_flow_run(UUID(flow_run), run_input=form)
    if result.status is SetStateStatus.ACCEPT:
        return
    reason = getattr(result.details, "reason", "") or "it is not waiting"
    raise ConflictError(
        f"Your answer did not reach the gate of '{update_id}' ({reason}): somebody else answered, or it closed. "
        "Look at deploy status."
    )


def seconds_left(state: State, at: datetime) -> int:
    """Whole seconds until the gate closes; at least 1."""
    return max(1, int((state.gate.expires - at).total_seconds())) if state.gate else 1


def answer_of(form: Any) -> Answer:
    """The answer that a filled-in form holds."""
    return Answer(form.decision, form.evidence, form.approver, form.comment, form.signature)
