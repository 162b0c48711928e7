"""Ask people to approve something, and judge and record an answer, whatever the subject.

Each asking has a number of its own, and each answer is judged once: the ledger takes one event after a state, and
refuses the answer of whoever comes second.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ashat.common.failpoints import fault_point
from ashat.deployment.approval_rules import Answer, ApprovalContext, refusal
from ashat.deployment.events import ApprovalAnswered, ApprovalRequested, GateClaimed
from ashat.deployment.state import ApprovalRequest
from ashat.deployment.state_machine import Stage, State
from ashat.errors import NodeError, NotConfiguredError, SessionError, TrustError
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import NodeState
from ashat.settings import Settings
from ashat.trust.release.proposal import Proposal
from tasks.approval.gate import is_alive
from tasks.approval.page import compose, running
from tasks.approval.signing import Countersigned, countersign, proposed
from tasks.approval.subject import Subject
from tasks.runtime.deployment import Deployment
from tasks.runtime.run import now, run_id, whoami
from tasks.runtime.step import step
from tasks.servers.drift import why_not_owner


def other_run(request: ApprovalRequest | None) -> str:
    """Find another living run that waits for the answer; its id, or ""."""
    if request is None or request.run in ("", run_id()):
        return ""
    return request.run if is_alive(request.run) else ""


def claim_gate(d: Deployment) -> str:
    """Take charge of the gate for this run, from one that died if there was one; the id of the living run that has it,
    or ""."""
    state = d.state
    if other := other_run(state.gate):
        return other
    if state.stage is Stage.AWAITING_APPROVAL and state.gate is not None and state.gate.run != run_id():
        d.ledger.append(state, GateClaimed(at=now(), by=whoami(), run=run_id()))
        fault_point("gate.taken")
    return ""


def ask(d: Deployment, state: State, subject: Subject, *, resumed_keys: frozenset[str]) -> State:
    """Record that the question is put (again) after `state`, unless this run was resumed with its answer.

    Raises:
        SessionError: it cannot be approved by now, and people may not be asked before it can. Nothing is recorded.
    """
    request = state.undecided(subject.name)
    if request is not None and not request.answered and subject.key(request.ordinal) in resumed_keys:
        return state
    seen, missing = look_at_target(d)
    update, proposal, open_still = subject.update(state), None, request is not None and request.waits(now())
    if seen is not None and not missing:
        try:
            proposal = proposed(d, state, subject.name, update, seen)
        except (TrustError, NodeError) as error:
            missing = str(error)
    if missing and not subject.asked_early:
        why = missing.rstrip(".")
        raise SessionError(f"The {subject.name} of '{d.update_id}' cannot be approved: {why}. Nothing was changed.")
    expires = request.expires if request and open_still else now() + timedelta(seconds=Settings().gate_timeout)
    text = compose_question(d, subject, state, seen, missing, expires, proposal)
    event = ApprovalRequested(
        at=now(),
        by=whoami(),
        subject=subject.name,
        ordinal=state.askings.get(subject.name, 0) + 1,
        run=run_id(),
        expires=expires,
        target_bundle=running(seen),
        to_update=update.update_id,
        to_attempt=update.attempt,
        evidence=update.evidence,
        why=subject.why,
        shown=d.ledger.put_document("gate", {"markdown": text}),
        proposal=proposal,
        reason=request.reason if request and open_still else "",
    )
    state = d.ledger.append(state, event)
    fault_point("approval.asked")
    return state


def page_text(ledger: Ledger, request: ApprovalRequest) -> str:
    """Read the page that the person is shown who decides, as it was recorded when the question was put."""
    if request.shown is None:
        raise SessionError(f"The gate of '{request.update_id}' is only being opened; try again in a few seconds.")
    return str(ledger.document(request.shown)["markdown"])


def judge(d: Deployment, state: State, subject: Subject, answer: Answer) -> State:
    """Judge an answer to the asking in `state`, once, and record what came of it.

    Raises:
        ConflictError: somebody else's event came first; the answer is not recorded, nor used.
    """
    request, (seen, missing) = state.approvals[subject.name], look_at_target(d)
    context = ApprovalContext(
        now=now(),
        target_bundle=running(seen),
        target_missing=missing,
        decay=subject.stale_reason(d, state, running(seen)),
    )
    why = refusal(state, subject.name, answer, context)
    signed: Countersigned | None = None
    if not why and answer.decision == "approve" and seen is not None:
        try:
            signed = countersign(d, request, seen, answer.signature)
        except (TrustError, NodeError, NotConfiguredError) as error:
            why = str(error)
    enough = signed.release_seq if signed else None
    event = ApprovalAnswered(
        at=context.now,
        by=whoami(),
        subject=subject.name,
        ordinal=request.ordinal,
        decision=answer.decision,
        accepted=not why,
        approver=signed.signature.name if signed and not signed.proposal else answer.approver,
        comment=answer.comment,
        reason=why,
        complete=enough is not None,
        release_seq=enough if subject.name == "release" else None,
        proposal=signed.proposal if signed else None,
        signature=signed.signature if signed else None,
    )
    state = d.ledger.append(state, event)
    fault_point("approval.judged")
    return state


def look_at_target(d: Deployment) -> tuple[NodeState | None, str]:
    """Read the target's state, and why it cannot be asked, or not for a change ("" if it can)."""
    try:
        return see_target(d), why_not_owner(d)
    except NotConfiguredError as error:
        return None, str(error)
    except NodeError as error:
        return None, f"{d.target_name} does not answer: {error}"


@step("see-target", description="See what the target runs now.")
def see_target(d: Deployment) -> NodeState:
    """Read the target's state."""
    return d.target.state()


@step("compose-question", description="Write what the person is shown: what would run, and what that changes.")
def compose_question(
    d: Deployment,
    subject: Subject,
    state: State,
    seen: NodeState | None,
    missing: str,
    expires: datetime,
    proposal: str | None,
) -> str:
    """Write the request's page as Markdown, over a target that is as `seen`, or that cannot be asked because of
    `missing`.

    `proposal` is the digest of what people are to sign, None where nobody has to.
    """
    signing = Proposal.from_json(d.ledger.document(proposal)) if proposal else None
    return compose(d, subject, state, seen, missing, expires, signing)
