"""The way back on a target that demands signatures: signed with the release, or by people who are asked for it.

What they sign then is what they sign for any release: a document with a new, higher `release_seq`, which names the old
content.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tuf.api.metadata import Targets

from ashat.deployment.state import RollbackGate
from ashat.deployment.state_machine import State
from ashat.errors import MixAndMatchError, SessionError, SignatureExpiredError, TrustError, UnsignedError
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import NodeState, SignedRelease, TrustState
from ashat.settings import Settings
from ashat.trust.authority.authority import Authority
from ashat.trust.release.proposal import Proposal
from ashat.trust.release.provenance import verify_provenance
from ashat.trust.tuf.metadata import PRODUCTION, parse, verify
from ashat.trust.tuf.release_document import ReleaseDocument
from blocks.server import load_server
from tasks.approval.signing import (
    Countersigned,
    join,
    proposal_of,
    propose,
    refuse_ended,
    refuse_one_pair_of_eyes,
    refuse_own_signature,
    refuse_too_few_eyes,
    same,
    signs_by_itself,
    wants_four_eyes,
)
from tasks.runtime.ledger import ledger, now


@dataclass(frozen=True)
class RollbackToSign:
    """What the target would go back to, and why people have to sign that."""

    to: State
    missing: str


def rollback_to_sign(state: State) -> RollbackToSign | None:
    """What people have to sign before the target can go back from `state`; None where a signed way back counts, they
    have signed it by now, or the target demands no signature.

    Raises:
        SessionError: what ran before cannot be signed: the record does not know it, or has no evidence of it.
        SignatureExpiredError: the target takes nothing, since what says who approves has ended.
        NodeError: the target does not answer.
    """
    with ledger() as record, load_server(state.target).client() as target:
        trust = target.trust()
        if trust.root is None:
            return None
        refuse_ended(trust)
        try:
            check_way_back(signed_way_back(record, state), trust, now())
        except TrustError as error:
            return RollbackToSign(_replaced(record, state, target.state()), str(error))
    return None


def signed_way_back(record: Ledger, state: State) -> SignedRelease | None:
    """The way back from the update as people signed it: when they were asked for it, else with the approval."""
    gate = state.rollback_gate
    if gate is not None and gate.decision == "approve" and gate.proposal is not None:
        return Proposal.from_json(record.document(gate.proposal)).signed_release(gate.signatures)
    proposal = proposal_of(record, state)
    return proposal.signed_way_back(state.gate.signatures) if proposal and state.gate else None


def check_way_back(signed: SignedRelease | None, trust: TrustState, at: datetime) -> None:
    """See that a signed way back still counts on a target that keeps `trust`.

    Raises:
        TrustError: the message says why it does not.
    """
    if signed is None:
        raise UnsignedError("no way back was signed with its approval")
    targets = parse((trust.targets or "").encode(), Targets, "The target's targets.json").signed
    held = parse((trust.production or "").encode(), Targets, "The target's production.json").signed
    given = parse(signed.production.encode(), Targets, "The way back that was signed")
    if given.signed.version != held.version + 1:
        raise MixAndMatchError("the way back that was signed no longer follows on what was signed last")
    if given.signed.expires <= at:
        raise SignatureExpiredError(f"the way back that was signed ended at {given.signed.expires:%Y-%m-%d %H:%M} UTC")
    verify(targets, PRODUCTION, given)
    provenance = signed.provenance.encode() if signed.provenance is not None else None
    verify_provenance(targets, ReleaseDocument.from_bytes(signed.document.encode()), provenance)


def proposed_return(state: State, to: State, seen: NodeState) -> str | None:
    """The digest of what approvers are to sign for the return: what was proposed before, if that still holds. None in
    the one-person mode, where what was approved is signed by itself.

    Raises:
        TrustError: what is trusted on the target cannot be used, or nothing can be signed.
        NodeError: the target does not answer.
    """
    with ledger() as record, load_server(state.target).client() as target:
        trust = target.trust()
        fresh, gate = propose(record, to, seen, trust, way_back=False), state.rollback_gate
        if signs_by_itself(trust):
            refuse_one_pair_of_eyes(to)
            return None
        refuse_too_few_eyes(to, fresh)
        if gate is not None and gate.proposal is not None:
            before = Proposal.from_json(record.document(gate.proposal))
            if not gate.decision and same(before, fresh):
                return gate.proposal
        return record.put_document("proposal", fresh.to_json())


def countersign_return(state: State, gate: RollbackGate, seen: NodeState, line: str) -> Countersigned:
    """Judge the signature `line` that came with an approval of the return; in the one-person mode, sign it.

    Raises:
        UnsignedError: it is missing, no approver's, over something else, by somebody who has signed already, or by who
            pushed what would run again where the policy wants four eyes.
        TrustError: of other classes: what is trusted here, or on the target, cannot be used.
        NodeError: the target does not answer.
    """
    with ledger() as record, load_server(state.target).client() as target:
        trust, to = target.trust(), record.load(gate.to_update, gate.to_attempt)
        fresh = propose(record, to, seen, trust, way_back=False)
        sequence = fresh.release.document.release_seq
        if signs_by_itself(trust):
            refuse_one_pair_of_eyes(to)
            signer = Authority(Settings().ensure_home(), trust.target).embedded_approver()
            return Countersigned(fresh.sign(signer), sequence, record.put_document("proposal", fresh.to_json()))
        found = Proposal.from_json(record.document(gate.proposal)) if gate.proposal else None
        if found is None or not same(found, fresh):
            raise UnsignedError("what is to be signed is something else by now: read it again")
        given, complete = join(found, gate.signatures, line, state.update_id)
        if wants_four_eyes(to):
            refuse_own_signature(to, found, given.name)
        return Countersigned(given, sequence if complete else None)


def _replaced(record: Ledger, state: State, seen: NodeState) -> State:
    before = seen.previous
    known = record.find(before.update_id, before.attempt) if before and before.bundle == state.omega_before else None
    if known is None or known.evidence is None or known.bundle != state.omega_before:
        raise SessionError(
            f"No way back from '{state.update_id}' that counts was signed with its approval, and none can be signed "
            f"now: the record has no evidence of what {state.target} ran before. Push that as a new update. Nothing "
            "was changed."
        )
    return known
