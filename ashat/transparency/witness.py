"""Whether a log goes on from what it was, and what somebody who does not keep it remembers of it.

A log that was written anew fits itself. It does not continue the checkpoint that somebody else kept, so each checkpoint
is held against the one before: by a proof (RFC 9162, section 2.1.4) from whoever keeps the log, or by the log itself
where that is here. The first is taken as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from ashat.common.files import make_directory, read_bounded, replace_file, sync_directory
from ashat.errors import AuditError
from ashat.protocol.messages import SignedCheckpoint
from ashat.transparency.checkpoint import LONGEST_NOTE, Checkpoint, open_signed
from ashat.transparency.merkle import consistency_holds

_BEGIN_ANEW = "remove that file to begin anew"

Prove = Callable[[int, int], Sequence[bytes]]
"""Gets the consistency proof between two sizes of a log from whoever keeps it."""


def require_extends(
    now: Checkpoint, known: Checkpoint, begins: Callable[[], bool], *, log: str = "The log", entries: str = "events"
) -> None:
    """Check that a log, which is `now`, goes on from what it was when it was `known`.

    `begins` says whether its first entries, as many as it had then, have the root that it had then; it is asked only
    where there are more by now. `log` and `entries` are what the errors call it and what it holds.

    Raises:
        AuditError: it is another log, was cut, or was rewritten.
    """
    if now.origin != known.origin:
        raise AuditError(f"{log} is another one: it was {known.origin}, and is {now.origin}.")
    if now.size < known.size:
        raise AuditError(f"{log} was cut: it had {known.size} {entries}, and has {now.size}.", event=now.size + 1)
    fits = now.root == known.root if now.size == known.size else begins()
    if not fits:
        raise AuditError(f"{log} was rewritten or forked: its first {known.size} {entries} are not those that it had.")


class Witness:
    """Remembers the last checkpoint of a log that others keep, in the file `path`, and judges the next.

    With `same_key` each has to be signed by the key of the first. `log` and `entries` are what the errors call the log
    and what it holds, `give_up` says how an operator has it forgotten.
    """

    def __init__(
        self,
        path: Path,
        *,
        log: str = "The log",
        entries: str = "events",
        give_up: str = _BEGIN_ANEW,
        same_key: bool = False,
    ) -> None:
        self.path = path
        self._log = log
        self._entries = entries
        self._give_up = give_up
        self._same_key = same_key

    @classmethod
    def of_changes(cls, home: Path, server: str, give_up: str = _BEGIN_ANEW) -> Witness:
        """Remember the journal of changes of the node called `server`, in `<home>/witnessed/<server>.json`."""
        path = home / "witnessed" / f"{server}.json"
        log = f"{server}: its journal of changes"
        return cls(path, log=log, entries="entries", give_up=give_up, same_key=True)

    def known(self) -> SignedCheckpoint | None:
        """Read what is remembered; None where nothing is.

        Raises:
            AuditError: the file cannot be read.
        """
        try:
            return SignedCheckpoint.model_validate_json(read_bounded(self.path, LONGEST_NOTE))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it holds something else"
            raise AuditError(f"{self.path} cannot be read: {reason}; {self._give_up}.") from None

    def size(self) -> int:
        """Read how many entries the log had: a proof is asked for from there on; 0 where nothing is known.

        Raises:
            AuditError: as `known`, or what is remembered was altered.
        """
        known = self.known()
        return open_signed(known.checkpoint, known.key).size if known else 0

    def judge(self, seen: SignedCheckpoint, prove: Prove | None = None) -> bool:
        """Remember `seen`, if it continues what is remembered; say whether that is news.

        The proof comes with it, or from `prove`.

        Raises:
            AuditError: it does not continue it; what is remembered stays.
        """
        known = self.known()
        if known is not None:
            if self._same_key:
                seen = seen.model_copy(update={"key": known.key})
            if (seen.checkpoint, seen.key) == (known.checkpoint, known.key):
                return False
            self._require_extends(seen, known, prove)
        else:
            open_signed(seen.checkpoint, seen.key)
        self.keep(seen)
        return True

    def keep(self, seen: SignedCheckpoint) -> None:
        """Remember `seen` from now on, durably, whatever was before.

        Raises:
            OSError: it cannot be written.
        """
        make_directory(self.path.parent, mode=0o700)
        replace_file(self.path, seen.model_dump_json(exclude={"proof"}).encode() + b"\n", mode=0o600)

    def forget(self) -> bool:
        """Remember nothing any more; say whether anything was remembered.

        Raises:
            OSError: the file cannot be removed.
        """
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        sync_directory(self.path.parent)
        return True

    def _require_extends(self, seen: SignedCheckpoint, known: SignedCheckpoint, prove: Prove | None) -> None:
        before = open_signed(known.checkpoint, known.key)
        try:
            now = open_signed(seen.checkpoint, seen.key)
        except AuditError as error:
            raise self._refusal(f"{self._log} is not signed as before: {error}") from None

        def begins() -> bool:
            given = [bytes.fromhex(node) for node in seen.proof]
            proof = prove(before.size, now.size) if prove and before.size else given
            return consistency_holds(before.size, now.size, proof, before.root, now.root)

        try:
            require_extends(now, before, begins, log=self._log, entries=self._entries)
        except AuditError as error:
            raise self._refusal(str(error)) from None

    def _refusal(self, why: str) -> AuditError:
        return AuditError(f"{why} Find out who did that; what it was is in {self.path}: {self._give_up}.")
