"""Witnesses OMEGA's change log: remembers a checkpoint of it, and refuses an OMEGA whose log does not continue it.

OMEGA says with each answer how long its log is. Where that is news, and now and then, a Mainframe asks for a signed
checkpoint with the proof (RFC 9162) that it continues the one that it remembers (`ashat.transparency.witness`). The
first is taken as it comes, with its key. One that does not continue it was written anew: then nothing more is taken
from that OMEGA, and what runs keeps running, until an operator gives up what is remembered.

<data>/witnessed/omega.json         what is remembered
<data>/witnessed/omega.doubt.json   the checkpoint that does not continue it, signed as it was, and why it does not
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ashat.common.canonical_json import canonical_json
from ashat.common.documents import STATE_LIMIT, read_json
from ashat.common.files import replace_file
from ashat.errors import AuditError, NodeConflictError, TrustError
from ashat.node.core.db import Database
from ashat.node.logs import change_log
from ashat.node.mainframe.omega_client import OmegaClient
from ashat.protocol.messages import SignedCheckpoint
from ashat.transparency.checkpoint import Verifier
from ashat.transparency.witness import Witness

log = logging.getLogger("ashat.node.mainframe")

LOOK_INTERVAL: Final = 3600.0
_GIVE_UP = "ashat-node forget-journal on this Mainframe begins anew"
_SHOWS_NONE = (
    "OMEGA shows its journal of changes no more, which it did before: nobody outside sees what is done to it. Ask its "
    "operator whether an older version was put back there."
)


@dataclass(frozen=True)
class WitnessStatus:
    """What is wrong with OMEGA's change log ("" where nothing is), and whether that keeps from taking its offers."""

    words: str = ""
    refuses: bool = False


class OmegaWitness:
    """The witness of OMEGA, for one thread. What it remembers is read each time: it may be given up meanwhile."""

    def __init__(self, data: Path, database: Database) -> None:
        self._database = database
        self.witness = Witness.of_changes(data, "omega", _GIVE_UP)
        _, self._doubt = memory_of(data)
        self._looked = -LOOK_INTERVAL

    def refuse_doubted(self) -> None:
        """Refuse everything of an OMEGA whose change log was found not to continue what is remembered.

        Raises:
            TrustError: it was found so, and nobody gave up what is remembered.
        """
        if doubt := self._kept_doubt():
            raise TrustError(doubt)

    def look(self, omega: OmegaClient) -> WitnessStatus:
        """Ask OMEGA for what is new in its change log, after it answered what it offers.

        Raises:
            NodeError: OMEGA said no, or nothing.
            OSError: what is to be remembered cannot be written.
        """
        doubt = self._kept_doubt()
        if doubt:
            return WitnessStatus(doubt, refuses=True)
        try:
            known = self.witness.size() if self.witness.path.exists() else None
            if omega.change_log_size is None:
                return WitnessStatus(_SHOWS_NONE if known is not None else "")
            if omega.change_log_size == known and time.monotonic() - self._looked < LOOK_INTERVAL:
                return WitnessStatus()
            shown = omega.checkpoint(known or 0)
        except (AuditError, NodeConflictError) as error:
            return WitnessStatus(str(error), refuses=True)
        if shown is None:
            return WitnessStatus(_SHOWS_NONE if known is not None else "")
        return self._judge(shown, first=known is None)

    def _judge(self, shown: SignedCheckpoint, *, first: bool) -> WitnessStatus:
        try:
            self.witness.judge(shown)
        except AuditError as error:
            if not first:
                self._keep_doubt(shown, str(error))
            return WitnessStatus(str(error), refuses=True)
        self._looked = time.monotonic()
        if first:
            key = Verifier.parse(shown.key)
            log.info("OMEGA's journal of changes is remembered from now on, by the key that it showed: %s", key.vkey)
            with self._database.transaction() as connection:
                change_log.append(connection, "omega-journal-remembered", origin=key.name, key=key.key_id.hex())
        return WitnessStatus()

    def _kept_doubt(self) -> str:
        try:
            return str(read_json(self._doubt, limit=STATE_LIMIT)["why"])
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, KeyError, TypeError):
            return f"{self._doubt}, which says what is wrong with OMEGA's journal, cannot be read; {_GIVE_UP}."

    def _keep_doubt(self, shown: SignedCheckpoint, why: str) -> None:
        content = canonical_json({"told": shown.model_dump(mode="json"), "why": why})
        replace_file(self._doubt, content, mode=0o600)
        with self._database.transaction() as connection:
            change_log.append(connection, "omega-journal-doubted", why=why)


def memory_of(data: Path) -> tuple[Path, Path]:
    """Name the files in which the Mainframe of a data directory remembers OMEGA's change log, and what it doubts."""
    return Witness.of_changes(data, "omega").path, data / "witnessed" / "omega.doubt.json"
