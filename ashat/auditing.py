"""A ledger's log read, checked event by event, and signed by the key of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ashat.auditkeys import AuditKeys
from ashat.auditlog import Auditor, with_documents
from ashat.ledger import Ledger


class SignedLog(NamedTuple):
    """A log as it was signed: the checkpoint, the verifier key as one line, and the hash of each event in it."""

    note: str
    vkey: str
    hashes: Sequence[bytes]


def audited(
    ledger: Ledger,
    appended: int,
    *,
    expected: Sequence[bytes] = (),
    documents: bool = True,
    stories: bool = True,
) -> Auditor:
    """Every event of the log, checked; see `Auditor`. `appended` is the size that the log's row had before.

    Raises:
        AuditError: an event does not fit.
        LedgerError: the database does not answer.
    """
    auditor = Auditor(expected=expected, documents=documents, stories=stories, appended=appended)
    records = ledger.records()
    for item in with_documents(records, ledger.document_text) if documents else records:
        auditor.check(item)
    auditor.end()
    return auditor


def sign_log(ledger: Ledger, home: Path, *, documents: bool = False, stories: bool = True) -> SignedLog:
    """Sign the log as it is now with the key under `home`, which is made where there is none.

    Without `stories` only the place and the bytes of each event are checked: a tenth of the time.

    Raises:
        AuditError: an event does not fit, or the log does not continue what was signed here last.
        CheckpointError: the key cannot be used.
        LedgerError: the database does not answer.
    """
    keys = AuditKeys(home, ledger.log_head()[0])
    with keys.alone():
        auditor = audited(ledger, ledger.log_head()[1], documents=documents, stories=stories)
        note = keys.sign(auditor)
        verifier = keys.verifier()
    assert verifier is not None
    return SignedLog(note, verifier.vkey, auditor.hashes)
