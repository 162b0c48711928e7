"""A ledger whose log is signed for, and what a thief makes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import sqlalchemy as sa

from ashat.audit.sign import sign_log
from ashat.ledger.ledger import Ledger
from ashat.transparency.merkle import CompactRange, consistency_proof
from ashat.trust.tuf.release_document import LogEntry
from tests.support.builders.ledgers import connected, honest, rewrite


class SignedLedger:
    """A ledger in `directory`, and the key that signs its log."""

    def __init__(self, directory: Path, updates: int = 0) -> None:
        self.directory = directory
        self.url = f"sqlite:///{directory / 'ledger.db'}"
        directory.mkdir(parents=True, exist_ok=True)
        for _ in range(updates):
            self.grow()

    def grow(self) -> LogEntry:
        """An update more, up to its gate; the log then."""
        with Ledger.open(self.url) as ledger:
            honest(ledger, f"UPD-{len(ledger.listed()) + 1}")
        return self.entry()

    def entry(self) -> LogEntry:
        """The log as it is, signed."""
        with Ledger.open(self.url) as ledger:
            note, vkey, _ = sign_log(ledger, self.directory)
        return LogEntry(checkpoint=note, key=vkey)

    @property
    def leaves(self) -> list[bytes]:
        """The hash of each event."""
        with Ledger.open(self.url) as ledger:
            return list(sign_log(ledger, self.directory).hashes)

    @property
    def size(self) -> int:
        """How many events it has."""
        with Ledger.open(self.url) as ledger:
            return ledger.log_head()[1]

    def proof(self, earlier: int, size: int) -> list[bytes]:
        """What shows that it went on from `earlier` to `size`."""
        return consistency_proof(self.leaves[:size], earlier)

    def forked(self, directory: Path) -> SignedLedger:
        """A copy that goes on by itself, with the stolen key, whose memory of what it signed is removed."""
        shutil.copytree(self.directory, directory)
        for memory in directory.glob("audit/*/checkpoint"):
            memory.unlink()
        return SignedLedger(directory)

    def rewritten(self, directory: Path) -> SignedLedger:
        """A copy in which the first event is another, and every root was computed anew."""
        forged = self.forked(directory)
        rewrite(forged.url, 0, lambda event: event.update(by="noa"))
        return forged

    def truncated(self, directory: Path, size: int) -> SignedLedger:
        """A copy in which the events from `size` on never happened."""
        forged = self.forked(directory)
        tree = CompactRange()
        for leaf in self.leaves[:size]:
            tree.append(leaf)
        frontier = " ".join(node.hex() for node in tree.nodes)
        with connected(forged.url) as connection:
            connection.execute(sa.text("delete from events where seq >= :size"), {"size": size})
            connection.execute(sa.text("delete from sessions where update_id not in (select update_id from events)"))
            head = {"frontier": frontier, "size": size}
            connection.execute(sa.text("update log set frontier = :frontier, size = :size"), head)
        return forged
