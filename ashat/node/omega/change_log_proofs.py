"""OMEGA's journal of changes as Mainframes are shown it: signed once for each size, whoever asks."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

from ashat.errors import AuditError
from ashat.node.core.db import Database
from ashat.node.core.errors import ApiError
from ashat.node.logs import change_log
from ashat.node.logs.change_log_audit import prove_growth
from ashat.protocol.messages import SignedCheckpoint
from ashat.transparency.checkpoint import Verifier, open_checkpoint

_KEPT_PROOFS = 256


class ShownJournal:
    """The journal of the OMEGA whose record is `database`, in the directory `data`."""

    def __init__(self, database: Database, data: Path) -> None:
        self._database = database
        self._data = data
        self._lock = threading.Lock()
        self._signed: tuple[int, str, str] = (0, "", "")
        self._proof = lru_cache(_KEPT_PROOFS)(self._prove)

    def size(self) -> int:
        """How many entries it has."""
        return change_log.size(self._database)

    def since(self, earlier: int) -> SignedCheckpoint:
        """A checkpoint of it, with proof that it continues the one of size `earlier`.

        Raises:
            ApiError: 409 `journal_broken`: it is not what was signed before.
        """
        with self._lock:
            if self._signed[0] != self.size():
                self._signed = self._sign()
            size, note, key = self._signed
        return SignedCheckpoint(checkpoint=note, key=key, proof=self._proof(earlier, size))

    def _sign(self) -> tuple[int, str, str]:
        try:
            note, key = change_log.sign_checkpoint(self._database, self._data)
        except AuditError as error:
            raise ApiError(409, "journal_broken", f"The journal of changes is not what was signed: {error}") from None
        return open_checkpoint(note, [Verifier.parse(key)]).size, note, key

    def _prove(self, earlier: int, size: int) -> tuple[str, ...]:
        return tuple(node.hex() for node in prove_growth(self._database, earlier, size))
