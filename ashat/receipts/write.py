"""Writing a receipt (`ashat.receipts.receipt`) from the ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ashat.audit.sign import SignedLog, sign_log
from ashat.deployment.events import (
    AnyEvent,
    ApprovalAnswered,
    Distributed,
    FreezeOverridden,
    MainframeOutcome,
    Packaged,
    Promoted,
    Verified,
    event_from_json,
)
from ashat.deployment.state_machine import State
from ashat.errors import SessionError, UsageError
from ashat.ledger.leaf import Record
from ashat.ledger.ledger import Ledger
from ashat.receipts.receipt import LoggedEvent, Receipt, ReceiptLog, outcome_of
from ashat.transparency.log_signer import LogSigner
from ashat.transparency.merkle import consistency_proof, inclusion_proof
from ashat.trust.authority.authority import Authority
from ashat.trust.release.known_log import open_log
from ashat.trust.release.proposal import Proposal
from ashat.trust.tuf.release_document import ReleaseDocument


@dataclass(frozen=True)
class Written:
    """A receipt, and what to tell with it: the log's verifier key where the approvers signed none ("" where they did),
    and the other Mainframes that an event in it names."""

    receipt: Receipt
    log_key: str
    others: tuple[str, ...]


class _Happened(NamedTuple):
    record: Record
    event: AnyEvent


def write_receipt(ledger: Ledger, home: Path, state: State, mainframe: str = "") -> Written:
    """Write the receipt of an approved release; with `mainframe`, an id or a name, also of what that reported.

    Raises:
        SessionError: it was not approved, or not signed; or that Mainframe is not known to have reported it.
        UsageError: the key of the log is not under `home`, or several Mainframes have that name.
        AuditError: the log is not what was appended.
        TrustError, LedgerError: what was signed cannot be read.
    """
    if state.decision is None or state.decision.decision != "approve" or state.gate is None:
        raise SessionError(
            f"Deployment '{state.update_id}' was not approved, so there is nothing to give a receipt for."
        )
    if state.gate.proposal is None:
        raise SessionError(f"Deployment '{state.update_id}' was approved without signatures: nothing shows who did.")
    proposal = Proposal.from_json(ledger.document(state.gate.proposal))
    signed, document = proposal.signed_release(state.gate.signatures), proposal.release.document
    outcome = _outcome(state, mainframe) if mainframe else None
    log = _sign(ledger, home, document)
    given = {one.release for one in state.gate.signatures}
    story = _story(ledger, state, len(log.hashes))
    chosen = [one for one in story if _belongs(one.event, document, given)]
    if outcome is not None:
        chosen.append([one for one in story if outcome_of(one.event, outcome.id)][-1])
    unsealed = Receipt(
        roots=_roots(home, state.target),
        targets=proposal.targets.to_bytes().decode(),
        production=signed.production,
        document=signed.document,
        evidence=ledger.document(document.evidence),
        provenance=signed.provenance,
        log=_log(log, document, chosen),
        mainframe=outcome.id if outcome else "",
    )
    seal = LogSigner(home, ledger.log_head()[0]).sign_note(unsealed.sealed_text)
    receipt = unsealed.model_copy(update={"seal": seal})
    return Written(receipt, "" if document.log else log.vkey, _others(chosen, outcome))


def _outcome(state: State, wanted: str) -> MainframeOutcome:
    found = [outcome for outcome in state.mainframes if wanted in (outcome.id, outcome.name)]
    if len(found) > 1:
        raise UsageError(
            f"Several Mainframes are called {wanted!r}; give the id: {', '.join(one.id for one in found)}."
        )
    if not found:
        known = ", ".join(outcome.name for outcome in state.mainframes) or "none yet"
        raise SessionError(f"No Mainframe {wanted!r} is known to have been offered '{state.update_id}': {known}.")
    if found[0].result == "missing":
        raise SessionError(
            f"{found[0].name} has not reported '{state.update_id}' ({found[0].reason or 'not heard of yet'}): nothing "
            "shows what became of it there."
        )
    return found[0]


def _sign(ledger: Ledger, home: Path, document: ReleaseDocument) -> SignedLog:
    """Sign the log as it is now, by the key that the approvers named, if they named one."""
    if document.log is not None:
        verifier = LogSigner(home, ledger.log_head()[0]).verifier()
        if verifier is None or verifier.vkey != document.log.key:
            raise UsageError(
                "The key of the log that the approvers signed for is not on this machine: run this where the control "
                "plane runs, under its ASHAT_HOME."
            )
    return sign_log(ledger, home)


def _story(ledger: Ledger, state: State, size: int) -> list[_Happened]:
    """Read what happened to the deployment, among the first `size` events of the log."""
    identity = state.update_id, state.attempt
    records = [record for record in ledger.records(limit=size) if (record.update_id, record.attempt) == identity]
    return [_Happened(record, event_from_json(record.body)) for record in records]


def _belongs(event: AnyEvent, document: ReleaseDocument, signatures: set[str]) -> bool:
    """Tell whether a receipt tells the event, whichever Mainframe it is for."""
    match event:
        case Packaged():
            return event.bundle == document.bundle
        case Verified():
            return event.evidence == document.evidence
        case ApprovalAnswered(subject="release"):
            return event.accepted and event.signature is not None and event.signature.release in signatures
        case FreezeOverridden(server="omega" | "mainframes"):
            return True
        case Promoted():
            return event.release_seq == document.release_seq
    return False


def _log(log: SignedLog, document: ReleaseDocument, chosen: Sequence[_Happened]) -> ReceiptLog:
    earlier = open_log(document.log).size if document.log else 0
    return ReceiptLog(
        checkpoint=log.note,
        consistency=_hex(consistency_proof(log.hashes, earlier)),
        events=[
            LoggedEvent(
                index=record.seq, leaf=json.loads(record.leaf), proof=_hex(inclusion_proof(log.hashes, record.seq))
            )
            for record, _ in sorted(chosen, key=lambda one: one.record.seq)
        ],
    )


def _roots(home: Path, target: str) -> list[str]:
    """Read the roots after the first that are kept here, oldest first: a customer may have any earlier one."""
    authority = Authority(home, target)
    roots = authority.roots() if authority.exists() else []
    return [root.to_bytes().decode() for root in roots if root.signed.version > 1]


def _others(chosen: Sequence[_Happened], outcome: MainframeOutcome | None) -> tuple[str, ...]:
    named = [one for _, event in chosen if isinstance(event, Distributed) for one in event.mainframes]
    return tuple(one.name for one in named if outcome is None or one.id != outcome.id)


def _hex(nodes: Sequence[bytes]) -> list[str]:
    return [node.hex() for node in nodes]
