"""A node's change log as others are shown it: a signed checkpoint, with proof that it continues an earlier one."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

from ashat.errors import AuditError
from ashat.node.core.db import Database
from ashat.node.core.errors import ApiError
from ashat.node.logs import change_log
from ashat.node.logs.change_log_audit import leaf_hashes, prove_growth
from ashat.protocol.messages import SignedCheckpoint
from ashat.transparency.checkpoint import Verifier, open_checkpoint

_KEPT_PROOFS = 256


class ChangeLogProofs:
    """Signs the change log of the node whose record is `database`, in the directory `data`, and proves its growth."""

    def __init__(self, database: Database, data: Path) -> None:
        self._database = database
        self._data = data
        self._lock = threading.Lock()
        self._signed: tuple[int, str, str] = (0, "", "")
        self._counted = (-1, 0)
        self._proof = lru_cache(_KEPT_PROOFS)(self._prove)

    def size(self) -> int:
        """Count the entries."""
        touched = self._database.touched()
        if self._counted[0] != touched:
            self._counted = (touched, change_log.size(self._database))
        return self._counted[1]

    def sign(self, *, again: bool = False) -> tuple[int, str, str]:
        """Sign a checkpoint where the log grew since the last one; with `again` in any case, to see that it only grew.

        Returns the size, the note, and the verifier key.

        Raises:
            ApiError: 409 `journal_broken`: the log is not what was signed before.
        """
        with self._lock:
            if again or self._signed[0] != self.size():
                try:
                    note, key = change_log.sign_checkpoint(self._database, self._data)
                except AuditError as error:
                    detail = f"The journal of changes is not what was signed: {error}"
                    raise ApiError(409, "journal_broken", detail) from None
                self._signed = open_checkpoint(note, [Verifier.parse(key)]).size, note, key
            return self._signed

    def since(self, earlier: int, *, again: bool = False) -> SignedCheckpoint:
        """Show a checkpoint, with proof that it continues the one of size `earlier`; raises as `sign` does."""
        size, note, key = self.sign(again=again)
        return SignedCheckpoint(checkpoint=note, key=key, proof=self._proof(earlier, size))

    def whole(self) -> tuple[SignedCheckpoint, list[bytes]]:
        """Show a checkpoint, with the hashes of all its entries, of which any proof can be made; raises as `sign`."""
        size, note, key = self.sign()
        return SignedCheckpoint(checkpoint=note, key=key), leaf_hashes(self._database, size)

    def _prove(self, earlier: int, size: int) -> tuple[str, ...]:
        return tuple(node.hex() for node in prove_growth(self._database, earlier, size))
