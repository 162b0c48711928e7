"""A ledger's log read, checked event by event, and signed by the key of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ashat.audit.auditor import Auditor, with_documents
from ashat.ledger.ledger import Ledger
from ashat.transparency.log_signer import LogSigner

_LAST: Final = "checkpoint"


class SignedLog(NamedTuple):
    """A log as it was signed: the checkpoint, the verifier key as one line, the hash of each event that was read."""

    note: str
    vkey: str
    hashes: Sequence[bytes]


def audit_log(ledger: Ledger, auditor: Auditor, *, until: int | None = None) -> Auditor:
    """Have `auditor` check every event of the log that comes after those it knows; with `until`, none after so many.

    Raises:
        AuditError: an event does not fit, or the log does not begin as the auditor knows it.
        LedgerError: the database does not answer.
    """
    first = max(auditor.size - 1, 0)
    records = ledger.records(first=first, limit=until - first if until is not None else None)
    if auditor.size:
        auditor.begin_after(next(records, None))
    for item in with_documents(records, ledger.document_text) if auditor.asks_for_documents else records:
        auditor.check(item)
    auditor.end()
    return auditor


def check_beside_events(ledger: Ledger, auditor: Auditor) -> str:
    """Check what the events do not vouch for: their columns, documents that no event names (`auditor` saw the others),
    and the database's own pages; return what could not be checked, if anything.

    Raises:
        LedgerError: something is missing, damaged or altered.
    """
    ledger.check_columns()
    for digest in ledger.document_digests():
        if digest not in auditor.documents:
            ledger.document(digest)
    return ledger.check_storage()


def sign_log(ledger: Ledger, home: Path, *, documents: bool = False) -> SignedLog:
    """Sign the log as it is now with the key under `home`, which is made where there is none.

    Raises:
        AuditError: an event does not fit, or the log does not continue what was signed here last.
        CheckpointError: the key cannot be used.
        LedgerError: the database does not answer.
    """
    signer = LogSigner(home, ledger.log_head()[0])
    with signer.locked():
        auditor = audit_log(ledger, Auditor(appended=ledger.log_head()[1], documents=documents))
        return _signed(signer, auditor)


def sign_on(ledger: Ledger, home: Path) -> SignedLog:
    """Sign the log as it is now, having read only what was appended since it was signed here last; of that the place
    and the bytes are checked. All of it where it was never signed here.

    What is signed continues what was signed before, whatever the events before that say by now; `sign_log` sees that.

    Raises:
        AuditError, CheckpointError, LedgerError: as `sign_log`.
    """
    signer = LogSigner(home, ledger.log_head()[0])
    with signer.locked():
        last = signer.last()
        begun = signer.kept_tree(_LAST, last) if last is not None else None
        auditor = Auditor(appended=ledger.log_head()[1], documents=False, stories=False, begun=begun)
        return _signed(signer, audit_log(ledger, auditor))


def _signed(signer: LogSigner, auditor: Auditor) -> SignedLog:
    note = signer.sign(auditor)
    signer.keep_tree(_LAST, auditor.tree)
    verifier = signer.verifier()
    assert verifier is not None
    return SignedLog(note, verifier.vkey, auditor.hashes)
