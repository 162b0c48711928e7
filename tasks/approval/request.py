"""Ask people to approve something, and judge and record an answer, whatever the subject.

Each asking has a number of its own, and each answer is judged once: the ledger takes one event after a state, and
refuses the answer of whoever comes second.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ashat.common.failpoints import fault_point
from ashat.common.text import cut
from ashat.deployment.approval_rules import Answer, ApprovalContext, refusal
from ashat.deployment.events import ApprovalAnswered, ApprovalRequested, ApprovalWithdrawn, GateClaimed
from ashat.deployment.state import ApprovalRequest
from ashat.deployment.state_machine import Stage, State
from ashat.errors import NodeError, NotConfiguredError, SessionError, TrustError
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import NodeState
from ashat.settings import Settings
from ashat.trust.release.proposal import Proposal
from tasks.approval.gate import is_alive
from tasks.approval.page import Composed, compose, running
from tasks.approval.rollout_policy import HeldPolicy, keep, policy_asked_by, policy_here
from tasks.approval.signing import Countersigned, countersign, proposed
from tasks.approval.subject import Subject
from tasks.runtime.connections import this_run
from tasks.runtime.deployment import Deployment
from tasks.runtime.run import now, run_id, whoami
from tasks.runtime.step import step
from tasks.servers.drift import why_not_owner

_SILENT = " does not answer: "
_SINCE = "since then, "
_OVER = "what stood in the way is over: "
_WORDS = 2000


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


@dataclass(frozen=True)
class World:
    """What a question is about, as things are: the target's state (None: it cannot be seen), why nobody can approve it
    ("": people can), the digest of what they would sign (None: they sign nothing), and the rollout policy (None: it has
    no part in this)."""

    seen: NodeState | None
    obstacle: str
    proposal: str | None
    rollout_policy: HeldPolicy | None = None

    def differs_from(self, request: ApprovalRequest, target: str) -> str:
        """Say what differs from when the question was put; "" where nothing does that it tells of."""
        if _gist(self.obstacle) != _gist(request.obstacle):
            return f"{_SINCE}{self.obstacle}" if self.obstacle else f"{_OVER}{request.obstacle}"
        if self.seen is not None and running(self.seen) != request.target_bundle:
            return f"{target} runs something else than when it was asked"
        if not self.obstacle and self.proposal != request.proposal:
            return "what is to be signed, or who signs, is something else than when it was asked"
        if self.rollout_policy is not None and request.rollout_policy not in (None, self.rollout_policy.digest):
            return "the rollout policy is another one than when it was asked"
        return ""


def look(d: Deployment, state: State, subject: Subject, request: ApprovalRequest | None = None) -> World:
    """Look at what a question about `subject` tells of; where it was put as `request`, by the rollout policy of that
    name."""
    update, (seen, obstacle), proposal = subject.update(state), look_at_target(d), None
    if seen is not None and not obstacle:
        try:
            proposal = proposed(d, state, subject.name, update, seen)
        except (TrustError, NodeError) as error:
            obstacle = str(error)
    if not obstacle and (decay := subject.stale_reason(d, state, running(seen))):
        obstacle = f"{decay}: deploy verify {update.update_id}"
    held = None
    if subject.rolls_out:
        held = policy_asked_by(d.ledger, request) if request is not None else policy_here()
    return World(seen, obstacle, proposal, held)


def ask(d: Deployment, state: State, subject: Subject, *, resumed_keys: frozenset[str]) -> State:
    """Record that the question is put (again) after `state`, unless this run was resumed with its answer.

    Raises:
        SessionError: it cannot be approved by now, and people may not be asked before it can. Nothing is recorded.
    """
    request = state.undecided(subject.name)
    if request is not None and not request.answered and subject.key(request.ordinal) in resumed_keys:
        return state
    world, update = look(d, state, subject), subject.update(state)
    if world.obstacle and not subject.asked_early:
        why = world.obstacle.rstrip(".")
        raise SessionError(f"The {subject.name} of '{d.update_id}' cannot be approved: {why}. Nothing was changed.")
    open_still = request is not None and request.waits(now())
    expires = request.expires if request and open_still else now() + timedelta(seconds=Settings().gate_timeout)
    composed = compose_question(d, subject, state, world, expires)
    if world.rollout_policy is not None and policy_here().digest != world.rollout_policy.digest:
        return ask(d, state, subject, resumed_keys=resumed_keys)  # it was changed while the page was written
    event = ApprovalRequested(
        at=now(),
        by=whoami(),
        subject=subject.name,
        ordinal=state.askings.get(subject.name, 0) + 1,
        run=run_id(),
        expires=expires,
        target_bundle=running(world.seen),
        to_update=update.update_id,
        to_attempt=update.attempt,
        evidence=update.evidence,
        why=subject.why,
        shown=d.ledger.put_document("gate", {"markdown": composed.form, "page": composed.page}),
        proposal=world.proposal,
        reason=_still_true(request.reason, world) if request and open_still else "",
        obstacle=world.obstacle,
        rollout_policy=keep(d.ledger, world.rollout_policy) if world.rollout_policy is not None else None,
        rollout_policy_name=world.rollout_policy.name if world.rollout_policy is not None else "",
    )
    state = d.ledger.append(state, event)
    fault_point("approval.asked")
    return state


def _still_true(reason: str, world: World) -> str:
    """Say why a question is put again that was taken back for `reason`, as the world is by now: what came in between
    may be over."""
    return f"{_OVER}{reason.removeprefix(_SINCE)}" if reason.startswith(_SINCE) and not world.obstacle else reason


def withdraw_if_outdated(d: Deployment, state: State, subject: Subject) -> str:
    """Take back a question that waits for an answer, where what it tells of has changed; why, or "".

    One that people may not be asked before it can be approved stays while something stands in the way: its answer is
    refused then, and says what.
    """
    request = state.undecided(subject.name)
    if request is None or request.answered or request.shown is None or not request.waits(now()):
        return ""
    if _SILENT in request.obstacle and not _answers(d):
        return ""
    world = look(d, state, subject, request)
    why = world.differs_from(request, d.the_target)
    if not why or (world.obstacle and not subject.asked_early):
        return ""
    withdraw(d.ledger, state, request, why)
    return why


def withdraw(ledger: Ledger, state: State, request: ApprovalRequest, why: str) -> State:
    """Take back a question that waits for an answer; its run is to put it anew (`gate.put_anew`).

    Raises:
        ConflictError: somebody's answer came first.
    """
    event = ApprovalWithdrawn(
        at=now(), by=whoami(), subject=request.subject, ordinal=request.ordinal, reason=cut(why, _WORDS)
    )
    state = ledger.append(state, event)
    fault_point("approval.withdrawn")
    return state


def form_text(ledger: Ledger, request: ApprovalRequest) -> str:
    """Read what the form shows, which has fewer of the differences than the page."""
    return str(_shown(ledger, request)["markdown"])


def page_text(ledger: Ledger, request: ApprovalRequest) -> str:
    """Read the page that the person is shown who decides, as it was recorded when the question was put."""
    shown = _shown(ledger, request)
    return str(shown.get("page", shown["markdown"]))  # earlier versions recorded one text for both


def _shown(ledger: Ledger, request: ApprovalRequest) -> dict[str, Any]:
    if request.shown is None:
        raise SessionError(f"The gate of '{request.update_id}' is only being opened; try again in a few seconds.")
    return ledger.document(request.shown)


def judge(d: Deployment, state: State, subject: Subject, answer: Answer) -> State:
    """Judge an answer to the asking in `state`, once, and record what came of it.

    Raises:
        ConflictError: somebody else's event came first; the answer is not recorded, nor used.
    """
    request, starts = state.approvals[subject.name], _starts(answer)
    context, seen = context_of_answer(d, state, subject, answer)
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
        not_before=starts,
        override_freeze=answer.override_freeze.strip(),
    )
    state = d.ledger.append(state, event)
    fault_point("approval.judged")
    return state


def context_of_answer(
    d: Deployment, state: State, subject: Subject, answer: Answer
) -> tuple[ApprovalContext, NodeState | None]:
    """Look at what an answer is judged by, and at the target's state (None: it cannot be asked)."""
    seen, missing = look_at_target(d)
    context = ApprovalContext(
        now=now(),
        target_bundle=running(seen),
        target_missing=missing,
        decay=subject.stale_reason(d, state, running(seen), _starts(answer)),
        rollout_policy=policy_here().digest if subject.rolls_out else "",
    )
    return context, seen


def _starts(answer: Answer) -> datetime | None:
    """Read when what is answered is to go; None: at once, or it is no time, which `refusal` says."""
    try:
        return answer.starts
    except (ValueError, OverflowError):
        return None


def look_at_target(d: Deployment) -> tuple[NodeState | None, str]:
    """Read the target's state, and why it cannot be asked, or not for a change ("" if it can)."""
    this_run().knock(d.target_name)
    try:
        return see_target(d), why_not_owner(d)
    except NotConfiguredError as error:
        return None, str(error)
    except NodeError as error:
        return None, f"{d.the_target}{_SILENT}{error}"


def _answers(d: Deployment) -> bool:
    """Say whether the target answers, asked once."""
    try:
        d.target.identity()
    except (NodeError, NotConfiguredError):
        return False
    return True


@step("see-target", description="See what the target runs now.")
def see_target(d: Deployment) -> NodeState:
    """Read the target's state."""
    return d.target.state()


@step("compose-question", description="Write what the person is shown: what would run, and what that changes.")
def compose_question(
    d: Deployment,
    subject: Subject,
    state: State,
    world: World,
    expires: datetime,
) -> Composed:
    """Write the request's page as Markdown, over a `world` as it was seen."""
    signing = Proposal.from_json(d.ledger.document(world.proposal)) if world.proposal else None
    return compose(d, subject, state, world.seen, world.obstacle, expires, signing)


def _gist(obstacle: str) -> str:
    """Drop from what stands in the way how a server did not answer: that differs each time."""
    return obstacle.partition(_SILENT)[0] + _SILENT if _SILENT in obstacle else obstacle
