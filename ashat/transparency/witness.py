"""What a node's journal of changes was, remembered on another machine: `<home>/witnessed/<server>.json`.

A journal that was written anew fits itself. It does not continue the checkpoint that somebody else kept, so each
checkpoint is asked for with a proof (RFC 9162) that it continues the one before. The first is taken as it comes.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ashat.common.files import make_directory, replace_file
from ashat.errors import AuditError
from ashat.protocol.messages import SignedCheckpoint
from ashat.transparency.checkpoint import Checkpoint, Verifier, open_checkpoint
from ashat.transparency.merkle import consistency_holds


class Witness:
    """What is remembered under `home` of the journal of the server that has that name here.

    `begin_anew` tells in errors how to give that up.
    """

    def __init__(self, home: Path, server: str, begin_anew: str = "remove that file to begin anew") -> None:
        self._begin_anew = begin_anew
        self.path = home / "witnessed" / f"{server}.json"

    def known(self) -> SignedCheckpoint | None:
        """What was told last; None where nothing ever was.

        Raises:
            AuditError: the file cannot be read.
        """
        try:
            return SignedCheckpoint.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it holds something else"
            raise AuditError(f"{self.path} cannot be read: {reason}; {self._begin_anew}.") from None

    def size(self) -> int:
        """How many entries the journal had: from where on a proof is asked for; 0 where nothing is known.

        Raises:
            AuditError: as `known`, or what is remembered was altered.
        """
        known = self.known()
        return _opened(known, known.key).size if known else 0

    def judge(self, told: SignedCheckpoint) -> None:
        """Remember what the server tells, if it continues what it told before.

        Raises:
            AuditError: it does not; what is remembered stays.
        """
        known = self.known()
        if known is None:
            _opened(told, told.key)
            self._keep(told)
            return
        before = _opened(known, known.key)
        try:
            now = _opened(told, known.key)
        except AuditError as error:
            raise self._refusal(f"is not signed as before: {error}") from None
        if now.origin != before.origin:
            raise self._refusal(f"is another one: it was {before.origin}, and is {now.origin}")
        if now.size < before.size:
            raise self._refusal(f"was cut: it had {before.size} entries, and has {now.size}")
        proof = [bytes.fromhex(node) for node in told.proof]
        if not consistency_holds(before.size, now.size, proof, before.root, now.root):
            raise self._refusal(f"was rewritten: its first {before.size} entries are not those that it had")
        if now != before:
            self._keep(told)

    def _keep(self, told: SignedCheckpoint) -> None:
        make_directory(self.path.parent, mode=0o700)
        replace_file(self.path, told.model_dump_json(exclude={"proof"}).encode() + b"\n", mode=0o600)

    def _refusal(self, why: str) -> AuditError:
        return AuditError(
            f"{self.path.stem}: its journal of changes {why}. Find out who did that; what it was is in {self.path}: "
            f"{self._begin_anew}."
        )


def _opened(told: SignedCheckpoint, key: str) -> Checkpoint:
    return open_checkpoint(told.checkpoint, [Verifier.parse(key)])
