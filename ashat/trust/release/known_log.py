"""The ledger's log as a release document names it, and as a Mainframe remembers it.

The approvers sign a checkpoint of the log (https://c2sp.org/tlog-checkpoint) with each release, so a log that was
rewritten since cannot be shown to anybody without them; and whoever remembers the one before can ask for a proof
(RFC 9162, section 2.1.4) that this one continues it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from ashat.common.canonical_json import canonical_json
from ashat.common.failpoints import fault_point
from ashat.common.files import replace_file, sync_directory
from ashat.errors import AuditError, LogError, TrustError
from ashat.transparency.checkpoint import Checkpoint, Verifier, open_checkpoint
from ashat.transparency.merkle import consistency_holds
from ashat.trust.tuf.release_document import LogEntry, ReleaseDocument

# Bytes of an answer that holds a proof: a log of 2**53 events has one of 54 hashes.
PROOF_LIMIT: Final = 16 * 1024

Prove = Callable[[int, int], Sequence[bytes]]
"""Gets the consistency proof between two sizes from whoever keeps the log."""


def open_log(entry: LogEntry) -> Checkpoint:
    """The checkpoint that a release document names, once its signature was checked.

    Raises:
        LogError: it is no checkpoint, or not signed by the key beside it.
    """
    try:
        verifier = Verifier.parse(entry.key)
        found = open_checkpoint(entry.checkpoint, [verifier])
    except AuditError as error:
        raise LogError(f"The log that was signed for cannot be read: {error}") from None
    if found.origin != verifier.name:
        raise LogError(f"The key of the log {verifier.name} signed a checkpoint of another one, {found.origin}.")
    return found


def check_continues(found: Checkpoint, known: Checkpoint, prove: Prove) -> None:
    """See that the log `found` goes on from `known`. A proof is asked for only where the two differ.

    Raises:
        LogError: it does not; the message says in which way.
    """
    if found.origin != known.origin:
        raise LogError(f"The approvers signed for another log, {found.origin}: {known.origin} was seen here before.")
    if found.size < known.size:
        raise LogError(f"The log was cut off: {known.size} events were seen here before, and it has {found.size}.")
    if found.size == known.size:
        if found.root != known.root:
            raise LogError(f"The log was forked: it has {found.size} events, as when it was seen here, but other ones.")
        return
    if known.size and not consistency_holds(
        known.size, found.size, prove(known.size, found.size), known.root, found.root
    ):
        raise LogError(
            f"The log was rewritten or forked: nothing shows that its {found.size} events begin with the {known.size} "
            "that were seen here before."
        )


class RememberedLog:
    """The log as it was seen last, in a file of its own, durably."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> LogEntry | None:
        """What is remembered; None where nothing is.

        Raises:
            TrustError: it cannot be read.
        """
        try:
            return LogEntry.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            why = error.strerror if isinstance(error, OSError) else "it was altered"
            raise TrustError(
                f"{self._path} cannot be read ({why}): without it a log that was rewritten would not be noticed. "
                "Restore it from a backup, or give it up with: ashat-node forget-log"
            ) from None

    def forget(self) -> bool:
        """Remember nothing any more; whether anything was remembered.

        Raises:
            TrustError: the file cannot be removed.
        """
        try:
            self._path.unlink()
            sync_directory(self._path.parent)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise TrustError(f"{self._path} cannot be removed: {error.strerror}.") from error
        return True

    def follow(self, document: ReleaseDocument, prove: Prove) -> None:
        """See that the log of `document` continues the one remembered, and remember it instead, before anybody acts.

        A document without a log is taken only for as long as none was ever seen.

        Raises:
            LogError: it does not continue it.
            TrustError: what is remembered cannot be read.
            OSError: it cannot be written.
        """
        known = self.read()
        if document.log == known:
            return
        if document.log is None:
            raise LogError(
                f"{document.update_id} was signed without the log that it stands in, which was seen here before."
            )
        found = open_log(document.log)
        if known is not None:
            check_continues(found, open_log(known), prove)
        self.keep(document.log)
        fault_point("trust.log-remembered")

    def keep(self, entry: LogEntry) -> None:
        """Remember `entry` from now on, durably.

        Raises:
            OSError: it cannot be written.
        """
        replace_file(self._path, canonical_json(entry.model_dump(mode="json")), mode=0o600)
