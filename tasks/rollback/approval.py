"""The gate of a rollback: people are asked to sign the way back, where none that counts was signed with the release."""

from __future__ import annotations

from datetime import datetime, timedelta

from ashat.bundle.manifest import diff
from ashat.common.failpoints import fault_point
from ashat.deployment.approval_rules import TAIL, Answer
from ashat.deployment.events import RollbackAnswered, RollbackAsked
from ashat.deployment.state import RollbackGate
from ashat.deployment.state_machine import State
from ashat.errors import NodeError, NotConfiguredError, SessionError, TrustError
from ashat.protocol.messages import NodeState
from ashat.settings import Settings
from ashat.trust.release.proposal import Proposal
from blocks.server import load_server
from tasks.approval.gate import is_alive, look_at_target, resume
from tasks.approval.page import difference, one_person, reach, running, signed_by
from tasks.approval.signing import Countersigned
from tasks.rollback.signed_return import RollbackToSign, countersign_return, proposed_return
from tasks.runtime.artifacts import escape
from tasks.runtime.ledger import ledger, now, run_id, whoami
from tasks.runtime.step import step


def rollback_key(ordinal: int) -> str:
    """The key under which a run suspends for an asking; Prefect keeps the answer under it."""
    return f"rollback-{ordinal}"


def other_rollback(state: State) -> str:
    """The id of another living run that asks about the rollback of `state`; "" where none does."""
    gate = state.rollback_gate
    if gate is None or gate.run == run_id() or not state.rollback_waits(now()):
        return ""
    return gate.run if is_alive(gate.run) else ""


def ask_rollback(state: State, wanted: RollbackToSign, reason: str, *, resumed_keys: frozenset[str]) -> State:
    """Record that the question is put (again), unless `resumed_keys` says that this run was resumed with its answer.

    Raises:
        SessionError: the target cannot be asked, or nothing can be signed. Nothing is recorded.
    """
    gate = state.rollback_gate
    if gate is not None and not gate.answered and rollback_key(gate.ordinal) in resumed_keys:
        return state
    goes_on = gate is not None and gate.waits(now())
    seen, missing = look_at_target(state)
    if missing or seen is None:
        raise SessionError(f"{missing} Nothing was changed.")
    try:
        proposal = proposed_return(state, wanted.to, seen)
    except TrustError as error:
        why = f"No way back from '{state.update_id}' can be signed: {error}"
        raise SessionError(f"{why}. Nothing was changed.") from None
    expires = gate.expires if gate and goes_on else now() + timedelta(seconds=Settings().gate_timeout)
    again = gate.reason if gate and goes_on else ""
    text = compose_return(state.update_id, state.attempt, seen, wanted, proposal, expires, reason, again)
    with ledger() as record:
        shown = record.put_document("gate", {"markdown": text})
        state = record.append(
            state,
            RollbackAsked(
                at=now(),
                by=whoami(),
                ordinal=gate.ordinal + 1 if gate else 1,
                run=run_id(),
                expires=expires,
                to_update=wanted.to.update_id,
                to_attempt=wanted.to.attempt,
                evidence=wanted.to.evidence or "",
                missing=wanted.missing,
                shown=shown,
                proposal=proposal,
                reason=again,
            ),
        )
    fault_point("rollback.asked")
    return state


@step("compose-return", description="Write what the person is shown: what would run again, and what that changes.")
def compose_return(
    update_id: str,
    attempt: int,
    seen: NodeState,
    wanted: RollbackToSign,
    proposal: str | None,
    expires: datetime,
    reason: str,
    again: str,
) -> str:
    """The page of a rollback's gate as Markdown, over a target that is as `seen`."""
    with ledger() as record:
        state = record.load(update_id, attempt)
        signing = Proposal.from_json(record.document(proposal)) if proposal else None
    gate, to, target = state.rollback_gate, wanted.to, escape(state.target)
    evidence, name = to.evidence or "", escape(update_id)
    verified = f", verified {to.verified_at:%Y-%m-%d %H:%M} UTC" if to.verified_at else ""
    lines = [f"# May {target} go back from {name} to {escape(to.update_id)}?", ""]
    lines += [f"> ⚠️ **Asked again:** {escape(again)}", ""] if again else []
    lines += [f"**{escape(reason)}**", ""] if reason.strip() else []
    lines += [
        f"- People are asked because {escape(wanted.missing)}",
        f"- Would run again: {escape(to.update_id)}, version {escape(to.bundle_version)}, bundle "
        f"`{(to.bundle or '')[:12]}`{verified}",
        f"- Will reach {target} and {reach(state)}",
        f"- Open until {expires:%Y-%m-%d %H:%M} UTC; until then {target} keeps running what it runs",
        "",
        "## What changes",
        "",
        _changes(state, to, running(seen)),
        "",
    ]
    earlier = gate.signatures if gate and not gate.decision and gate.proposal == proposal else ()
    lines += signed_by(update_id, signing, earlier) if signing else one_person(state)
    lines += ["## Evidence", "", f"`{evidence[:32]}` `{evidence[32:]}`", ""]
    return "\n".join([*lines, f"To decide, type its last {TAIL} characters: **`{evidence[-TAIL:]}`**."])


def _changes(state: State, to: State, target_bundle: str | None) -> str:
    with load_server(state.target).client() as target:
        now_runs = target.manifest(target_bundle) if target_bundle else None
        return difference(diff(now_runs, target.manifest(to.bundle or "")))


def rollback_text(state: State) -> str:
    """What the person is shown who decides, as Markdown: what was recorded when the question was put."""
    with ledger() as record:
        return str(record.document(_open(state).shown)["markdown"])


def judge_rollback(state: State, answer: Answer) -> State:
    """Judge an answer to the asking in `state`, once, and record what came of it.

    Raises:
        ConflictError: somebody else's event came first; the answer is not recorded, nor used.
    """
    gate, at = _open(state), now()
    seen, missing = look_at_target(state)
    why = _refusal(state, gate, answer, seen, missing, at)
    signed: Countersigned | None = None
    if not why and answer.decision == "approve" and seen is not None:
        try:
            signed = countersign_return(state, gate, seen, answer.signature)
        except (TrustError, NodeError, NotConfiguredError) as error:
            why = str(error)
    event = RollbackAnswered(
        at=at,
        by=whoami(),
        ordinal=gate.ordinal,
        decision=answer.decision,
        accepted=not why,
        approver=signed.signature.name if signed and not signed.proposal else answer.approver,
        comment=answer.comment,
        reason=why,
        complete=signed is not None and signed.release_seq is not None,
        proposal=signed.proposal if signed else None,
        signature=signed.signature if signed else None,
    )
    with ledger() as record:
        state = record.append(state, event)
    fault_point("rollback.answer-judged")
    return state


def _refusal(
    state: State, gate: RollbackGate, answer: Answer, seen: NodeState | None, missing: str, at: datetime
) -> str:
    if at >= gate.expires:
        return f"the question about the rollback closed at {gate.expires:%Y-%m-%d %H:%M} UTC"
    if answer.decision == "reject":
        return ""
    if answer.tail.strip().lower() != gate.evidence[-TAIL:]:
        return f"the evidence typed is not the evidence shown: type its last {TAIL} characters"
    if missing:
        return missing
    return "" if running(seen) == state.bundle else f"{state.target} runs something else by now"


def answer_rollback(state: State, answer: Answer) -> None:
    """Hand a person's answer to the run that waits for it.

    Raises:
        SessionError: none does.
        ConflictError: somebody else answered first.
    """
    resume(_open(state).run, answer, state.update_id)


def _open(state: State) -> RollbackGate:
    if state.rollback_gate is None:
        raise SessionError(f"Nobody is asked whether '{state.update_id}' may be rolled back.")
    return state.rollback_gate
