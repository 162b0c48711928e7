"""The ledger's log as a release document names it, and as whoever acts on releases remembers it.

The approvers sign a checkpoint of the log (https://c2sp.org/tlog-checkpoint) with each release, so a log that was
rewritten since cannot be shown to anybody without them; and whoever remembers the one before can ask for a proof
(RFC 9162, section 2.1.4) that this one continues it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ashat.common.failpoints import fault_point
from ashat.errors import AuditError, LogError
from ashat.protocol.messages import SignedCheckpoint
from ashat.transparency.checkpoint import Checkpoint, open_signed
from ashat.transparency.witness import Prove, Witness
from ashat.trust.tuf.release_document import LogEntry, ReleaseDocument

# Bytes of an answer that holds a proof: a log of 2**53 events has one of 54 hashes.
PROOF_LIMIT: Final = 16 * 1024


def open_log(entry: LogEntry) -> Checkpoint:
    """Read the checkpoint that a release document names, once its signature was checked.

    Raises:
        LogError: it is no checkpoint, or not signed by the key beside it.
    """
    try:
        return open_signed(entry.checkpoint, entry.key)
    except AuditError as error:
        raise LogError(f"The log that was signed for cannot be read: {error}") from None


def signed_checkpoint(entry: LogEntry) -> SignedCheckpoint:
    """Convert the log that a release document names into what a witness remembers."""
    return SignedCheckpoint(checkpoint=entry.checkpoint, key=entry.key)


def log_witness(cache: Path) -> Witness:
    """Open what a Mainframe remembers of the log, in its directory of trust."""
    return Witness(cache / "log.json", give_up="ashat-node forget-log gives that up")


def follow_log(witness: Witness, document: ReleaseDocument, prove: Prove) -> None:
    """Check that the log of `document` continues the one remembered, and remember it instead, before anybody acts.

    A document without a log is taken only for as long as none was ever seen.

    Raises:
        LogError: it does not continue it, or what is remembered cannot be read.
        OSError: it cannot be written.
    """
    try:
        if document.log is None:
            if witness.known() is not None:
                raise LogError(
                    f"{document.update_id} was signed without the log that it stands in, which was seen here before."
                )
            return
        open_log(document.log)
        if witness.judge(signed_checkpoint(document.log), prove):
            fault_point("trust.log-remembered")
    except AuditError as error:
        raise LogError(str(error)) from None
