"""Find and check the signed rollback of an update: signed with the release, or by people who were asked for it.

What they sign then is what they sign for any release: a document with a new, higher `release_seq`, which names the old
content.
"""

from __future__ import annotations

from datetime import datetime

from tuf.api.metadata import Targets

from ashat.deployment.state_machine import State
from ashat.errors import MixAndMatchError, SessionError, TrustError, UnsignedError
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import NodeState, SignedRelease, TrustState
from ashat.trust.release.release import Release, verify_release
from ashat.trust.tuf.metadata import parse
from tasks.approval.signing import proposal_of, refuse_ended
from tasks.rollback.approval import Rollback
from tasks.runtime.deployment import Deployment
from tasks.runtime.run import now


def rollback_to_sign(d: Deployment, reason: str) -> Rollback | None:
    """Find what people have to approve before the target can go back from the update, for that `reason`; None where a
    signed rollback counts, they have signed it by now, or the target demands no signature.

    Raises:
        SessionError: what ran before cannot be signed: the record does not know it, or has no evidence of it.
        SignatureExpiredError: the target takes nothing, since what says who approves has ended.
        NodeError: the target does not answer.
    """
    trust, state = d.target.trust(), d.state
    if trust.root is None:
        return None
    refuse_ended(trust)
    try:
        check_signed_rollback(signed_rollback(d.ledger, state), trust, now())
    except TrustError as error:
        return Rollback(_replaced(d.ledger, state, d.target.state()), str(error), reason)
    return None


def signed_rollback(record: Ledger, state: State) -> SignedRelease | None:
    """Read the rollback of the update as people signed it: when they were asked for it, else with the approval."""
    request = state.approvals.get("rollback")
    if request is not None and request.decision == "approve" and (proposal := proposal_of(record, request)):
        return proposal.signed_release(request.signatures)
    proposal = proposal_of(record, state.gate)
    return proposal.signed_rollback(state.gate.signatures) if proposal and state.gate else None


def check_signed_rollback(signed: SignedRelease | None, trust: TrustState, at: datetime) -> None:
    """See that a signed rollback still counts on a target that keeps `trust`.

    Raises:
        TrustError: the message says why it does not.
    """
    if signed is None:
        raise UnsignedError("no rollback was signed with its approval")
    targets = parse((trust.targets or "").encode(), Targets, "The target's targets.json").signed
    held = parse((trust.production or "").encode(), Targets, "The target's production.json").signed
    rollback = Release.of(signed)
    if rollback.production.signed.version != held.version + 1:
        raise MixAndMatchError("the rollback that was signed no longer follows on what was signed last")
    verify_release(rollback, targets=targets, target=trust.target, now=at)


def _replaced(record: Ledger, state: State, seen: NodeState) -> State:
    before = seen.previous
    known = record.find(before.update_id, before.attempt) if before and before.bundle == state.omega_before else None
    if known is None or known.evidence is None or known.bundle != state.omega_before:
        raise SessionError(
            f"No rollback of '{state.update_id}' that counts was signed with its approval, and none can be signed "
            f"now: the record has no evidence of what {state.the_target} ran before. Push that as a new update. "
            "Nothing was changed."
        )
    return known
