"""Collect what OMEGA and the Mainframes demand besides a decision: the approvers' signatures over the release.

Whose they are, OMEGA says (`GET /v1/trust`). Where it keeps no trust root yet, it is given the one that was set up here
for it, and where none was, the one-person mode's: one key, on this machine, that signs what a person approved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from tuf.api.metadata import Root, Targets

from ashat.audit.sign import sign_on
from ashat.client.node import NodeClient
from ashat.common.canonical_json import canonical_json
from ashat.common.failpoints import fault_point
from ashat.deployment.approval_rules import pushers
from ashat.deployment.events import Subject
from ashat.deployment.state import ApprovalRequest
from ashat.deployment.state_machine import State
from ashat.errors import AuditError, SessionError, TrustError, UnprovenError, UnsignedError
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import LogLeaves, NodeState, ReleaseSignature, SignedRelease, TrustState
from ashat.settings import Settings
from ashat.transparency.merkle import leaf_hash
from ashat.trust.authority.authority import ALONE, Authority
from ashat.trust.authority.first_root import first_trust
from ashat.trust.keys.files import OnlinePublicKeys
from ashat.trust.release.known_log import open_log
from ashat.trust.release.proposal import Proposal
from ashat.trust.release.provenance import provenance_of, verify_provenance
from ashat.trust.tuf.metadata import parse, require_unexpired
from ashat.trust.tuf.release_document import CHANNEL, LogEntry, ReleaseDocument
from blocks.policy import load_policy
from tasks.runtime.deployment import Deployment
from tasks.runtime.run import now


def ensure_trust_root(target: NodeClient, name: str) -> TrustState:
    """Read whose signatures the target demands; if it keeps nothing, install what was set up here first. The one-person
    mode is set up for no target that begins with another root.

    Raises:
        TrustError: what was set up here is not signed by enough people yet, is not what the target begins with, or
            cannot be written; or what the target keeps has ended.
        NodeError: the target refuses, or does not answer.
    """
    found = target.trust()
    if found.root is not None:
        refuse_ended(found)
        return found
    authority = Authority(Settings().ensure_home(), name)
    if not authority.exists():
        if found.pinned is not None:
            raise TrustError(
                f"{name} begins with no root but its trust_root ({found.pinned[:12]}), and none was set up here: "
                "deploy trust publish, where that one was made; or bring trust/authority from there."
            )
        authority.init((), 1, online=OnlinePublicKeys.of(found.online), now=now())
    given = first_trust(authority, found, name)
    fault_point("trust.begun")
    return target.put_trust(given)


def refuse_ended(trust: TrustState) -> None:
    """See that the root and targets that a target keeps have not ended: it takes nothing that is approved by them.

    Raises:
        SignatureExpiredError: they have.
    """
    if trust.root is not None and trust.targets is not None:
        root = parse(trust.root.encode(), Root, "The target's root.json").signed
        require_unexpired(now(), root, parse(trust.targets.encode(), Targets, "The target's targets.json").signed)


def signs_by_itself(trust: TrustState) -> bool:
    """Say whether the one key that approves for the target is the one-person mode's, on this machine."""
    if not trust.target or trust.targets is None:
        return False
    targets = parse(trust.targets.encode(), Targets, "The target's targets.json")
    return Authority(Settings().ensure_home(), trust.target).approves_alone(targets.signed)


@dataclass(frozen=True)
class Countersigned:
    """Hold the signature that goes with an answer. `release_seq` is set where enough have signed, `proposal` is the
    digest of what was proposed only now."""

    signature: ReleaseSignature
    release_seq: int | None
    proposal: str | None = None


def countersign(d: Deployment, request: ApprovalRequest, seen: NodeState, line: str) -> Countersigned:
    """Judge the signature `line` that came with an approval; in the one-person mode, sign what was approved.

    Raises:
        UnsignedError: it is missing, no approver's, over something else, by somebody who has signed already, or by who
            pushed what would run where the policy wants four eyes.
        TrustError: of other classes: what is trusted here, or on the target, cannot be used.
        NodeError: the target does not answer.
    """
    trust, update = ensure_trust_root(d.target, d.target_name), d.ledger.load(request.update_id, request.attempt)
    fresh = propose(d.ledger, update, seen, trust, presigned=presigns_rollback(request.subject, update))
    sequence = fresh.release.document.release_seq
    if signs_by_itself(trust):
        refuse_one_pair_of_eyes(update)
        signer = Authority(Settings().ensure_home(), trust.target).embedded_approver()
        return Countersigned(fresh.sign(signer), sequence, d.ledger.put_document("proposal", fresh.to_json()))
    refuse_too_few_eyes(update, fresh)
    found = proposal_of(d.ledger, request)
    if found is None or not same(found, fresh):
        raise UnsignedError("what is to be signed is something else by now: read it again")
    given, complete = join(found, request.signatures, line, d.update_id)
    if wants_four_eyes(update):
        refuse_own_signature(update, found, given.name)
    return Countersigned(given, sequence if complete else None)


def join(
    proposal: Proposal, earlier: tuple[ReleaseSignature, ...], line: str, update_id: str
) -> tuple[ReleaseSignature, bool]:
    """Read the signature that `line` holds beside `earlier` ones over the same proposal, and whether enough have
    signed.

    Raises:
        UnsignedError: it is missing, no approver's, over something else, or by somebody who has signed already.
    """
    if not line.strip():
        names = ", ".join(proposal.count(earlier).missing)
        raise UnsignedError(f"it needs a signature of {names}: deploy approve {update_id} --key FILE.pem")
    given = proposal.read(line)
    if any(given.keyid == one.keyid for one in earlier):
        raise UnsignedError(f"{given.name} has signed already; somebody else must sign too")
    return given, proposal.count((*earlier, given)).complete


def proposed(d: Deployment, state: State, subject: Subject, update: State, seen: NodeState) -> str | None:
    """Propose what approvers are to sign to let `update` run; its digest. What was proposed before stays while it
    holds, and so do its signatures. None in the one-person mode, where what was approved is signed by itself.

    Raises:
        TrustError: what is trusted here, or on the target, cannot be used, or nothing can be signed.
        NodeError: the target does not answer.
    """
    trust, request = ensure_trust_root(d.target, d.target_name), state.undecided(subject)
    fresh = propose(d.ledger, update, seen, trust, presigned=presigns_rollback(subject, update))
    if signs_by_itself(trust):
        refuse_one_pair_of_eyes(update)
        return None
    refuse_too_few_eyes(update, fresh)
    refuse_lost_key(trust, fresh)
    before = proposal_of(d.ledger, request)
    if request is not None and before is not None and same(before, fresh):
        return request.proposal
    return d.ledger.put_document("proposal", fresh.to_json())


def presigns_rollback(subject: Subject, update: State) -> bool:
    """Say whether approvers sign the rollback together with what they are asked about: a release, where the policy has
    it so."""
    return subject == "release" and load_policy(update.policy).presign_rollback


def wants_four_eyes(state: State) -> bool:
    """Say whether the policy of the update's verification wants somebody else to sign than who pushed it."""
    return load_policy(state.policy).four_eyes


def refuse_own_signature(state: State, proposal: Proposal, name: str) -> None:
    """See that the approver called `name` is not who pushed the update.

    Raises:
        UnsignedError: they are.
    """
    if name.casefold() in _pushers(state, proposal):
        raise UnsignedError(f"{name} pushed it, and the policy wants four eyes: somebody else must sign")


def four_eyes_shortfall(state: State, proposal: Proposal) -> str:
    """Say why a policy that wants four eyes can never be satisfied: without who pushed, too few are left; "" where
    enough are."""
    holders = proposal.count(())
    own = _pushers(state, proposal)
    left = [name for name in holders.missing if name.casefold() not in own]
    if len(left) >= holders.threshold:
        return ""
    pushed = ", ".join(name for name in holders.missing if name not in left)
    return (
        f"the policy wants four eyes, and {pushed} pushed it: of {holders.threshold} who must sign, "
        f"{' and '.join(left) or 'nobody'} may. Reject it, and have somebody else push it; or let more people approve: "
        "deploy trust add-approver"
    )


def _pushers(state: State, proposal: Proposal) -> frozenset[str]:
    release = proposal.release
    proven = verify_provenance(proposal.targets.signed, release.document, release.provenance)
    return pushers(state, proven.builder if proven else "")


def refuse_too_few_eyes(state: State, proposal: Proposal) -> None:
    """See that enough approvers are left without who pushed the update, where the policy wants four eyes.

    Raises:
        UnsignedError: they are not.
    """
    if wants_four_eyes(state) and (why := four_eyes_shortfall(state, proposal)):
        raise UnsignedError(why)


def refuse_lost_key(trust: TrustState, proposal: Proposal) -> None:
    """See that the one key of the one-person mode, which was set up here, is still here where nobody else may sign.

    Raises:
        UnsignedError: it is not.
    """
    authority = Authority(Settings().ensure_home(), trust.target)
    alone = authority.exists() and tuple(proposal.count(()).missing) == (ALONE,)
    if alone and not authority.alone_key.exists():
        raise UnsignedError(
            f"no key can sign it: the one key that approves, {authority.alone_key}, is not there. Restore it from a "
            "backup (docs/guide.md, What to back up)"
        )


def refuse_one_pair_of_eyes(state: State) -> None:
    """Refuse what the policy wants four eyes for where one key signs whatever was approved.

    Raises:
        UnsignedError: it does.
    """
    if wants_four_eyes(state):
        raise UnsignedError(
            "the policy wants four eyes, which cannot hold in the one-person mode, where one key signs whatever was "
            "approved: set up people who sign (docs/trust.md), or a policy without four_eyes"
        )


def propose(record: Ledger, state: State, seen: NodeState, trust: TrustState, *, presigned: bool) -> Proposal:
    """Make what approvers would sign to let the update into the target, which is as `seen`; with `presigned`, its
    rollback besides.

    It is for the name that the target's root was made for, whatever it is configured as here.

    Raises:
        SessionError: the update has no evidence.
        UnprovenError: the target's people demand a provenance, and the update's is missing or by somebody else.
        TrustError: what the target keeps cannot be read, or the record is not what was appended.
    """
    if state.bundle is None or state.evidence is None or trust.targets is None:
        raise SessionError(f"Deployment '{state.update_id}' has no evidence yet: deploy verify {state.update_id}.")
    at, lifetime = now(), Settings().approval_lifetime
    ends = at + timedelta(seconds=lifetime)
    sequence = max(record.highest_release_seq(state.target), seen.release_seq) + 1
    provenance = provenance_text(record, state)
    release = _document(state, trust, provenance, sequence, ends)
    release = release.model_copy(update={"log": _log_of(record) if trust.log is not None else None})
    targets = parse(trust.targets.encode(), Targets, "The target's targets.json").signed
    verify_provenance(targets, release, provenance)
    back, theirs = _rollback(record, release, seen, trust, targets) if presigned else (None, None)
    return Proposal.make(
        trust.targets.encode(),
        trust.production.encode() if trust.production is not None else None,
        (release, back),
        lifetime=lifetime,
        now=at,
        provenances={digest: text for text in (provenance, theirs) if text and (digest := _digest(text))},
        replaced=_signed_last(trust),
    )


def _document(
    state: State, trust: TrustState, provenance: str | None, sequence: int, expires: datetime
) -> ReleaseDocument:
    """Make the document of the update's release, which has evidence, for the target that keeps `trust`."""
    assert state.bundle is not None
    assert state.evidence is not None
    return ReleaseDocument(
        channel=CHANNEL,
        target=trust.target,
        update_id=state.update_id,
        attempt=state.attempt,
        release_seq=sequence,
        bundle=state.bundle,
        evidence=state.evidence,
        provenance=_digest(provenance),
        expires=expires,
    )


def _rollback(
    record: Ledger, release: ReleaseDocument, seen: NodeState, trust: TrustState, targets: Targets
) -> tuple[ReleaseDocument | None, str | None]:
    """Make the document of the rollback of `release`, and its provenance; None where none can be signed: the target
    runs nothing, or not what was signed last, or that has not the provenance that is demanded by now."""
    last, current = _signed_last(trust), seen.current
    if last is None or current is None or _identity(last) != (current.bundle, current.update_id, current.attempt):
        return None, None
    known = record.find(last.update_id, last.attempt)
    provenance = provenance_text(record, known) if known and last.provenance is not None else None
    if _digest(provenance) != last.provenance:
        return None, None
    document = last.model_copy(
        update={"release_seq": release.release_seq + 1, "expires": release.expires, "log": release.log}
    )
    try:
        verify_provenance(targets, document, provenance)
    except UnprovenError:
        return None, None
    return document, provenance


def could_be_signed(record: Ledger, state: State, trust: TrustState) -> str:
    """Say why approvers could not sign that the target, which keeps `trust`, runs an update; "" if they could.

    Raises:
        TrustError: what the target keeps cannot be read, or the record is not what was appended.
    """
    if state.bundle is None or state.evidence is None or trust.targets is None:
        return "there is no evidence of it"
    targets = parse(trust.targets.encode(), Targets, "The target's targets.json").signed
    provenance = provenance_text(record, state)
    ends = now() + timedelta(seconds=Settings().approval_lifetime)
    document = _document(state, trust, provenance, record.highest_release_seq(state.target) + 1, ends)
    try:
        verify_provenance(targets, document, provenance)
    except UnprovenError as error:
        return str(error)
    return ""


def provenance_text(record: Ledger, state: State) -> str | None:
    """Read the provenance of an update as it stands by now, canonical JSON; None if nobody signed how it was built.

    Raises:
        LedgerError: a statement is not what was recorded.
    """
    if state.built is None:
        return None
    evidence = record.document(state.attested) if state.attested else None
    return canonical_json(provenance_of(record.document(state.built), evidence)).decode()


def _digest(text: str | None) -> str | None:
    return sha256(text.encode()).hexdigest() if text is not None else None


def proposal_of(record: Ledger, request: ApprovalRequest | None) -> Proposal | None:
    """Read what was proposed when the request was last put or answered; None if nothing was."""
    if request is None or request.proposal is None:
        return None
    return Proposal.from_json(record.document(request.proposal))


def signed_release(record: Ledger, state: State) -> SignedRelease | None:
    """Read the approved release as it was signed; None if it was approved before there were signatures.

    Raises:
        UnsignedError: too few have signed it.
    """
    proposal = proposal_of(record, state.gate)
    if proposal is None or state.gate is None:
        return None
    found = proposal.count(state.gate.signatures)
    if not found.complete:
        raise UnsignedError(f"'{state.update_id}' is signed by {found}.")
    return proposal.signed_release(state.gate.signatures)


def send_log(record: Ledger, target: NodeClient, signed: SignedRelease) -> None:
    """Have the target keep the log that the release names, which it demands before it lets that in.

    Raises:
        NodeConflictError: the record does not continue what the target keeps of it.
        NodeError: the target does not answer.
    """
    document = ReleaseDocument.from_bytes(signed.document.encode())
    kept = target.trust().log
    if document.log is None or kept is None:
        return
    size = open_log(document.log).size
    if kept.size < size:
        lacking = record.records(first=kept.size, limit=size - kept.size)
        leaves = [leaf_hash(event.leaf).hex() for event in lacking]
        target.put_log(LogLeaves(signed=signed, first=kept.size, leaves=leaves))
    fault_point("log.sent")


def _log_of(record: Ledger) -> LogEntry:
    """Sign the log as it is now.

    Raises:
        TrustError: an event is not what was appended, or the key cannot be used.
    """
    try:
        note, vkey, _ = sign_on(record, Settings().ensure_home())
    except AuditError as error:
        raise TrustError(f"The record cannot be signed for: {error}") from None
    return LogEntry(checkpoint=note, key=vkey)


def same(one: Proposal, other: Proposal) -> bool:
    """Say whether two proposals differ in nothing but the time of their making, and in how far the log was by then."""

    def content(proposal: Proposal) -> object:
        drafts = [draft for draft in (proposal.release, proposal.rollback) if draft]
        return [proposal.targets.to_bytes()] + [
            (draft.production.signed.version, draft.document.log is None, _but_for_time(draft.document))
            for draft in drafts
        ]

    return content(one) == content(other)


def _but_for_time(document: ReleaseDocument) -> dict[str, object]:
    return document.model_dump(exclude={"expires", "log"})


def _signed_last(trust: TrustState) -> ReleaseDocument | None:
    """Read the release that the approvers signed last for the target."""
    text = trust.documents.get(CHANNEL)
    return ReleaseDocument.from_bytes(text.encode()) if text is not None else None


def _identity(document: ReleaseDocument) -> tuple[str, str, int]:
    return document.bundle, document.update_id, document.attempt
