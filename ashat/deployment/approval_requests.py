"""Ask people to approve, and keep their answers: the rules of an approval request in the state machine. Pure, no I/O.

Every subject goes by the same rules. What differs stands in `_SUBJECTS`, where a further subject needs one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ashat.deployment import events as e
from ashat.deployment.rollback_rules import refuse_rollback
from ashat.deployment.stages import Stage
from ashat.deployment.state import ApprovalRequest, State
from ashat.errors import SessionError


class _Rules(NamedTuple):
    """Hold what one subject has of its own: its name in messages, what refuses to ask, and what its decision changes.

    `opened` says that an event of its own opens the request (GateOpened), and says what it is about and when it ends;
    else each asking does. `withdrawn` says that a reject ends it even after another answer to the same asking was
    judged: nothing else does.
    """

    called: str
    refuse_to_ask: Callable[[State], None]
    decide: Callable[[State, e.ApprovalAnswered], State]
    opened: bool
    withdrawn: bool


def asked(state: State, event: e.ApprovalRequested) -> State:
    """Put the question, or put it again; signatures over the same proposal stay."""
    rules, before = _SUBJECTS[event.subject], state.undecided(event.subject)
    rules.refuse_to_ask(state)
    number = state.askings.get(event.subject, 0) + 1
    if event.ordinal != number:
        raise SessionError(
            f"Deployment '{state.update_id}': the next asking about its {event.subject} is number {number}."
        )
    request = before if rules.opened and before else _asked_by(state, event)
    same = before is not None and event.proposal == before.proposal
    put = replace(
        request,
        run=event.run or request.run,
        ordinal=number,
        why=event.why,
        target_bundle=event.target_bundle,
        shown=event.shown,
        proposal=event.proposal,
        signatures=before.signatures if same and before else (),
        reason=event.reason,
        obstacle=event.obstacle,
        rollout_policy=event.rollout_policy,
        rollout_policy_name=event.rollout_policy_name,
        answered=False,
        not_before=before.not_before if same and before else None,
        override_freeze=before.override_freeze if same and before else "",
    )
    return replace(state.with_request(put), askings={**state.askings, event.subject: number})


def _asked_by(state: State, event: e.ApprovalRequested) -> ApprovalRequest:
    if event.expires is None or event.evidence is None:
        raise SessionError(
            f"Deployment '{state.update_id}': a question about its {event.subject} needs evidence, and an end."
        )
    return ApprovalRequest(
        event.subject, event.expires, event.to_update, event.to_attempt, event.evidence, since=event.at
    )


def withdrawn(state: State, event: e.ApprovalWithdrawn) -> State:
    """Take a question back that nobody has answered: one that its own event opened is put anew, another is over."""
    rules, request = _SUBJECTS[event.subject], state.undecided(event.subject)
    if request is None or event.ordinal != request.ordinal or request.answered:
        called = rules.called.format(state.update_id)
        raise SessionError(f"Question {event.ordinal} about {called} waits for no answer by now.")
    if not rules.opened:
        return state.without_request(event.subject)
    return state.with_request(replace(request, shown=None, answered=True, reason=event.reason))


def answered(state: State, event: e.ApprovalAnswered) -> State:
    """Keep an answer that was judged; the first that settles the question decides."""
    rules, request = _SUBJECTS[event.subject], state.undecided(event.subject)
    if request is None:
        raise SessionError(f"Nobody is asked about {_called(state, event)}: it is {state.stage.value}.")
    ends_it = rules.withdrawn and event.accepted and event.decision == "reject"
    if event.ordinal != request.ordinal or (request.answered and not ends_it):
        raise SessionError(f"Deployment '{state.update_id}': answer {event.ordinal} was judged already or never asked.")
    judged = replace(request, answered=True, reason="" if event.accepted else event.reason)
    if event.accepted and event.decision == "approve":
        judged = _timed(_signed(state, judged, event), event)
    if not event.settles:
        return state.with_request(judged)
    decided = state.with_request(replace(judged, decision=event.decision, decided_by=event.approver))
    return rules.decide(decided, event)


def _signed(state: State, request: ApprovalRequest, event: e.ApprovalAnswered) -> ApprovalRequest:
    called = _called(state, event)
    if event.at >= request.expires:
        raise SessionError(f"It is too late: {called} could be approved until {request.expires.isoformat()}.")
    if event.proposal is not None:
        request = replace(request, proposal=event.proposal, signatures=())
    if event.signature is None:
        if event.subject == "release" and event.release_seq is not None:  # before there were signatures
            return request
        raise SessionError(f"An accepted approval of {called} carries a signature, or the last its release_seq.")
    if request.proposal is None:
        raise SessionError(f"Nothing is proposed for {called} that could be signed.")
    if any(event.signature.keyid == earlier.keyid for earlier in request.signatures):
        raise SessionError(f"{event.signature.name} has signed {called} already.")
    return replace(request, signatures=(*request.signatures, event.signature))


def _timed(request: ApprovalRequest, event: e.ApprovalAnswered) -> ApprovalRequest:
    """Keep when an approval is to take effect: of several, the latest time counts."""
    times = [time for time in (request.not_before, event.not_before) if time is not None]
    override = event.override_freeze or request.override_freeze
    return replace(request, not_before=max(times, default=None), override_freeze=override)


def _refuse_release(state: State) -> None:
    if state.undecided("release") is None:
        raise SessionError(f"Deployment '{state.update_id}' is {state.stage.value}: its gate is not open.")


def _decide_release(state: State, event: e.ApprovalAnswered) -> State:
    state = replace(state, deciders=state.approvals["release"].deciders)
    if event.decision == "reject":
        why = event.comment or f"rejected by {event.approver}"
        return replace(state, stage=Stage.REJECTED, decision=event, reason=why)
    before = state.approvals["release"].target_bundle
    return replace(state, stage=Stage.DEPLOYING, decision=event, release_seq=event.release_seq, omega_before=before)


def _refuse_unneeded(state: State) -> None:
    refuse_rollback(state)
    if not state.reached_omega or state.rolling_back:
        raise SessionError(f"Deployment '{state.update_id}' has no rollback that anybody must approve.")


def _called(state: State, event: e.ApprovalAnswered) -> str:
    return _SUBJECTS[event.subject].called.format(state.update_id)


_SUBJECTS: dict[e.Subject, _Rules] = {
    "release": _Rules("'{}'", _refuse_release, _decide_release, opened=True, withdrawn=False),
    "rollback": _Rules("the rollback of '{}'", _refuse_unneeded, lambda state, _: state, opened=False, withdrawn=True),
}
