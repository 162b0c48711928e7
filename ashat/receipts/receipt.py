"""A receipt: one file by which a customer sees, with a root they hold and nothing else, what was approved and by whom.

Canonical JSON (`ashat.common.canonical_json`) and a newline:

    {"document", "production", "targets": what the approvers signed, and who they are, as text, byte for byte,
     "roots": the root metadata after the first version, as text, oldest first,
     "evidence", "provenance": what the approvers signed the digests of; the last, as text, is null where there is none,
     "log": {"checkpoint": a signed checkpoint of the ledger's log, made later than the one that was signed with the
             release; "consistency": the proof, in hex, that it continues that one; "events": [{"index", "leaf",
             "proof"}]: what happened to this release, and the proof that it stands there in the log},
     "mainframe": the id of a Mainframe whose report is among the events, or "",
     "seal": a signed note (https://c2sp.org/signed-note) by the key of the log over the format and the digest of all
             else, as one event may tell of several Mainframes,
     "format": "ashat-receipt-2"}

Each byte of it is covered by a signature, or by a hash that is, so none can be another. No end is asked for: an
approval that ended since was one. Pure, no I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tuf.api.metadata import Metadata, Root, Targets

from ashat.common.canonical_json import canonical_json, digest_of
from ashat.common.documents import load_json
from ashat.common.text import first_misfit
from ashat.deployment.events import (
    AnyEvent,
    ApprovalAnswered,
    Distributed,
    MainframeOutcome,
    MainframeServed,
    Packaged,
    Verified,
    event_from_json,
)
from ashat.errors import AuditError, ReceiptError, TrustError
from ashat.protocol.messages import Digest, ReleaseSignature
from ashat.transparency.checkpoint import Checkpoint, Verifier, open_checkpoint, open_note
from ashat.transparency.merkle import EMPTY_ROOT, consistency_holds, inclusion_holds, leaf_hash
from ashat.transparency.witness import require_extends
from ashat.trust.keys.files import name_of
from ashat.trust.release.known_log import open_log
from ashat.trust.release.provenance import VerifiedProvenance
from ashat.trust.release.release import Release, verify_release
from ashat.trust.tuf.metadata import PRODUCTION, Kind, parse, verify
from ashat.trust.tuf.release_document import ReleaseDocument
from ashat.trust.tuf.root_chain import check_chain, delegator_of

FORMAT: Final = "ashat-receipt-2"
LIMIT: Final = 4 * 1024 * 1024
_SIGNATURE = re.compile(r"(?:[0-9a-f]{2})+")
_Leaf = dict[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class LoggedEvent(_Part):
    """An event, its place (counted from 0), and the proof that it stands there."""

    index: int = Field(ge=0)
    leaf: _Leaf
    proof: list[Digest]


class ReceiptLog(_Part):
    """The log that the events stand in."""

    checkpoint: str
    consistency: list[Digest]
    events: list[LoggedEvent]


class Receipt(_Part):
    """What a receipt says, unproved."""

    format: Literal["ashat-receipt-2"] = FORMAT
    roots: list[str]
    targets: str
    production: str
    document: str
    evidence: dict[str, Any]
    provenance: str | None
    log: ReceiptLog
    mainframe: str
    seal: str = ""

    def to_bytes(self) -> bytes:
        """Write the file."""
        return canonical_json(self.model_dump(mode="json")) + b"\n"

    @property
    def sealed_text(self) -> str:
        """What the seal is over. It has two lines, so that it can never be taken for a checkpoint."""
        return f"{FORMAT}\n{digest_of(self.model_dump(mode='json', exclude={'seal'}))}\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Receipt:
        """Read a file.

        Raises:
            ReceiptError: it is no receipt that this version can read.
        """
        try:
            found = cls.model_validate(load_json(content, limit=LIMIT))
            exact = found.to_bytes() == content
        except ValidationError as error:
            why = first_misfit(error, "the whole")
            raise ReceiptError(f"This is no receipt that this version can read: {why}.") from None
        except ValueError as error:
            raise ReceiptError(f"This is no receipt: it is no JSON ({error}).") from None
        if not exact:
            raise ReceiptError("The receipt was altered: it is not spelled as deploy receipt spells it.")
        return found


@dataclass(frozen=True)
class VerifiedReceipt:
    """What a receipt proves. `one_person` says that the approving key lay with the machine that deploys; `origin` is
    None where `targets` names no builder."""

    document: ReleaseDocument
    evidence: dict[str, Any]
    origin: VerifiedProvenance | None
    threshold: int
    approvers: tuple[tuple[str, str], ...]
    one_person: bool
    checkpoint: Checkpoint
    events: tuple[tuple[int, AnyEvent], ...]
    mainframe: MainframeOutcome | None


def prove(content: bytes, root: bytes, log_key: str = "") -> VerifiedReceipt:
    """Verify a receipt by `root`, the root metadata that the customer has.

    `log_key` is the verifier key of the log, where it is not to be taken from what the approvers signed.

    Raises:
        ReceiptError: something in it does not fit; the message names it.
    """
    receipt = Receipt.from_bytes(content)
    try:
        held = parse(root, Root, "The root given")
        delegator, targets = _check_targets(receipt, held)
        release = Release.read(receipt.document.encode(), receipt.production.encode(), receipt.provenance)
        document, production = release.document, release.production
        # The same people may sign for several, and with the same keys.
        verified = verify_release(release, targets=targets.signed, roots=[held.signed, delegator.signed])
        _check_exact("production", receipt.production, production, [(targets.signed, PRODUCTION)])
        verifier = _log_verifier(document, log_key)
        checkpoint = _check_checkpoint(receipt.log, document, verifier)
    except (TrustError, AuditError) as error:
        raise ReceiptError(f"The receipt does not fit: {error}") from None
    evidence = _check_evidence(receipt.evidence, document)
    events = tuple(_check_events(receipt.log, checkpoint, document))
    _check_story([event for _, event in events], document, production)
    mainframe = _mainframe(receipt, [event for _, event in events])
    _check_seal(receipt, verifier)
    return VerifiedReceipt(
        document,
        evidence,
        verified.provenance,
        verified.signatures.threshold,
        tuple((name_of(targets.signed.get_key(keyid)), keyid) for keyid in sorted(production.signatures)),
        _one_person(delegator.signed, targets.signed),
        checkpoint,
        events,
        mainframe,
    )


def _check_targets(receipt: Receipt, root: Metadata[Root]) -> tuple[Metadata[Root], Metadata[Targets]]:
    """Verify the targets; return them and the root they are signed under: the one given, or one that follows on it."""
    trusted = _check_roots(receipt.roots, root)
    targets = parse(receipt.targets.encode(), Targets, "targets")
    delegator = delegator_of(trusted, targets)
    _check_exact("targets", receipt.targets, targets, [(delegator.signed, Targets.type)])
    return delegator, targets


def _check_roots(texts: Sequence[str], held: Metadata[Root]) -> list[Metadata[Root]]:
    """Verify the roots; return the one that is held and those that follow. Those before count for nothing, and lead to
    it."""
    roots = [parse(text.encode(), Root, "A root in it") for text in texts]
    if not roots:
        return [held]
    at, first, last = (root.signed.version for root in (held, roots[0], roots[-1]))
    if first > at + 1:
        raise ReceiptError(f"The root given is version {at}, and it goes on with {first}: give a later.")
    chain = [*([held] if first == at + 1 else []), *roots, *([held] if last == at - 1 else [])]
    verify(roots[0].signed, Root.type, roots[0])
    check_chain(chain)
    known = {root.signed.version: root for root in chain}
    for text, root in zip(texts, roots, strict=True):
        before = known.get(root.signed.version - 1)
        # Who else signed the first of those before the root that is held is known from the one before only.
        if before is not None or root.signed.version == 1:
            signers = [one.signed for one in (before, root) if one is not None]
            _check_exact("a root", text, root, [(signer, Root.type) for signer in signers])
    if known.get(at, held).signed != held.signed:
        raise ReceiptError(f"The receipt has another root version {at} than the one given.")
    return [held, *(root for root in roots if root.signed.version > at)]


def _check_exact(
    what: str, text: str, metadata: Metadata[Kind], delegators: Sequence[tuple[Root | Targets, str]]
) -> None:
    """Check that no byte of signed metadata could be another: its spelling, and each of its signatures."""
    good: set[str] = set()
    for delegator, role in delegators:
        result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
        good |= result.signed.keys()
    plain = all(_SIGNATURE.fullmatch(signature.signature) for signature in metadata.signatures.values())
    if metadata.to_bytes() != text.encode() or good != metadata.signatures.keys() or not plain:
        raise ReceiptError(f"The receipt does not fit: {what} was altered since it was signed.")


def _log_verifier(document: ReleaseDocument, log_key: str) -> Verifier:
    """Find the key of the log: the one that the approvers signed, or the one given."""
    if not log_key and document.log is None:
        raise ReceiptError(
            "The approvers signed for no log: give --log-key, the verifier key that the keeper of the ledger hands out."
        )
    return Verifier.parse(log_key or (document.log.key if document.log else ""))


def _check_seal(receipt: Receipt, verifier: Verifier) -> None:
    try:
        sealed = open_note(receipt.seal, [verifier])
    except AuditError as error:
        raise ReceiptError(f"The seal of the receipt does not fit: {error}") from None
    if sealed != receipt.sealed_text or _signatures(receipt.seal) != 1:
        raise ReceiptError("The receipt does not fit: it was altered since it was sealed.")


def _signatures(note: str) -> int:
    return note.rpartition("\n\n")[2].count("\n")


def _check_checkpoint(log: ReceiptLog, document: ReleaseDocument, verifier: Verifier) -> Checkpoint:
    """Verify that the receipt's checkpoint continues the one that was signed with the release."""
    found = open_checkpoint(log.checkpoint, [verifier])
    if _signatures(log.checkpoint) != 1 or found.extensions:
        raise ReceiptError("The receipt does not fit: its checkpoint holds more than one log's root and one signature.")
    signed = open_log(document.log) if document.log else Checkpoint(found.origin, 0, EMPTY_ROOT)
    proof = [bytes.fromhex(node) for node in log.consistency]
    if signed.size == found.size and proof:
        raise ReceiptError("The receipt does not fit: it proves what needs no proof.")
    require_extends(found, signed, lambda: consistency_holds(signed.size, found.size, proof, signed.root, found.root))
    return found


def _check_evidence(evidence: dict[str, Any], document: ReleaseDocument) -> dict[str, Any]:
    if digest_of(evidence) != document.evidence:
        raise ReceiptError("The receipt does not fit: the evidence is not the one that was signed.")
    about = tuple(evidence.get(name) for name in ("bundle", "update_id", "attempt"))
    if about != (document.bundle, document.update_id, document.attempt):
        raise ReceiptError("The receipt does not fit: the evidence is about another release.")
    return evidence


def _check_events(log: ReceiptLog, checkpoint: Checkpoint, document: ReleaseDocument) -> Iterator[tuple[int, AnyEvent]]:
    last = -1
    for logged in log.events:
        where = f"event {logged.index + 1}"
        proof = [bytes.fromhex(node) for node in logged.proof]
        leaf = leaf_hash(canonical_json(logged.leaf))
        if logged.index <= last or not inclusion_holds(leaf, logged.index, checkpoint.size, proof, checkpoint.root):
            raise ReceiptError(f"The receipt does not fit: {where} does not stand there in the log.")
        if (logged.leaf.get("update_id"), logged.leaf.get("attempt")) != (document.update_id, document.attempt):
            raise ReceiptError(f"The receipt does not fit: {where} is about another release.")
        last = logged.index
        try:
            yield logged.index, event_from_json(json.dumps(logged.leaf.get("event")))
        except ValidationError:
            raise ReceiptError(f"This version does not know {where}: a newer one made the receipt; upgrade.") from None


def _check_story(events: Sequence[AnyEvent], document: ReleaseDocument, production: Metadata[Targets]) -> None:
    """Check that the log tells what was signed: these bytes, this evidence, these signatures, under this number."""
    facts: tuple[tuple[str, bool], ...] = (
        ("bundle", any(isinstance(event, Packaged) and event.bundle == document.bundle for event in events)),
        ("evidence", any(isinstance(event, Verified) and event.evidence == document.evidence for event in events)),
        ("release_seq", any(event.release_seq == document.release_seq for event in approvals(events))),
        ("signatures", _signed(events) == {key: one.signature for key, one in production.signatures.items()}),
    )
    for what, fits in facts:
        if not fits:
            raise ReceiptError(f"The receipt does not fit: the events do not tell the {what} that was signed.")


def approvals(events: Sequence[AnyEvent]) -> Iterator[ApprovalAnswered]:
    """Select the approvals of a release that count."""
    for event in events:
        if (
            isinstance(event, ApprovalAnswered)
            and event.subject == "release"
            and event.accepted
            and event.decision == "approve"
        ):
            yield event


def _signed(events: Sequence[AnyEvent]) -> dict[str, str]:
    given: list[ReleaseSignature] = [event.signature for event in approvals(events) if event.signature]
    return {one.keyid: one.release for one in given}


def outcome_of(event: AnyEvent, mainframe: str) -> MainframeOutcome | None:
    """Find what an event says of the Mainframe of that id; None where it says nothing."""
    return next((outcome for outcome in _outcomes(event) if outcome.id == mainframe), None)


def _outcomes(event: AnyEvent) -> Sequence[MainframeOutcome]:
    if isinstance(event, MainframeServed):
        return (event.mainframe,)
    return event.mainframes if isinstance(event, Distributed) else ()


def _mainframe(receipt: Receipt, events: Sequence[AnyEvent]) -> MainframeOutcome | None:
    """Find what the Mainframe of the receipt reported; None where it is of none."""
    if not receipt.mainframe:
        return None
    found = [outcome for event in events if (outcome := outcome_of(event, receipt.mainframe))]
    named = repr(receipt.mainframe[:40])
    if not found:
        raise ReceiptError(f"The receipt does not fit: no event in it tells of the Mainframe {named}.")
    if found[-1].result == "missing":
        raise ReceiptError(f"The receipt does not fit: by its events, the Mainframe {named} has not reported.")
    return found[-1]


def _one_person(root: Root, targets: Targets) -> bool:
    """Tell whether these are the keys that the one-person mode makes by itself."""
    held = {
        role: [name_of(delegator.get_key(keyid)) for keyid in delegator.get_delegated_role(role).keyids]
        for delegator, role in ((root, Root.type), (root, Targets.type), (targets, PRODUCTION))
    }
    return held == {Root.type: ["root"], Targets.type: ["targets"], PRODUCTION: ["approver"]}
