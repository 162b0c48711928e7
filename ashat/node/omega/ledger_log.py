"""The ledger's log as OMEGA keeps it: the hash of each event, never the events.

It grows only by what the approvers signed for: a release document names a checkpoint, and the hashes that come with it
must give its root over those that are kept. So whoever rewrites the ledger can ship nothing more from it, and a
Mainframe gets its proof that the log it is shown continues the one it remembers.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache

from ashat.errors import LogError
from ashat.node.core.db import Database
from ashat.node.core.errors import ApiError
from ashat.node.logs import change_log
from ashat.protocol.messages import LogState
from ashat.transparency.checkpoint import Checkpoint
from ashat.transparency.merkle import HASH_BYTES, CompactRange, consistency_proof, root_of
from ashat.trust.release.known_log import open_log
from ashat.trust.tuf.release_document import ReleaseDocument

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log_leaves (
    seq INTEGER PRIMARY KEY,
    hash BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS log_head (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    origin TEXT NOT NULL,
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    frontier BLOB NOT NULL,
    published INTEGER NOT NULL
) STRICT;
"""
_KEPT_PROOFS = 256


class KeptLog:
    """The log of one OMEGA, in the node's record."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.ensure(_SCHEMA)
        self._proof = lru_cache(_KEPT_PROOFS)(self._make_proof)

    def state(self) -> LogState:
        """Return what is kept of the log."""
        head = self._database.one("SELECT origin, size, root FROM log_head")
        return LogState(origin=head["origin"], size=head["size"], root=head["root"].hex()) if head else LogState()

    def extend(self, document: ReleaseDocument, first: int, leaves: list[bytes]) -> LogState:
        """Keep the log that `document` names, durably. `leaves` follow from the event at `first` on; the same again
        changes nothing.

        Raises:
            ApiError: 409 `log_missing` where it names none, or events between what is kept and `first` are missing;
                `log_forked` where it does not continue what is kept.
        """
        found = _named(document)
        if found is None:
            raise _missing("This release was signed without a log, so there is nothing to keep.")
        with self._database.transaction() as connection:
            if not self._keeps(connection, found):
                self._append(connection, found, first, leaves)
        return self.state()

    def check(self, connection: sqlite3.Connection, document: ReleaseDocument) -> None:
        """See that the log of a release that is to be let in is kept here, and no shorter than what Mainframes saw.

        Raises:
            ApiError: 409 `log_missing`, `log_forked`.
        """
        found, head = _named(document), _head(connection)
        if found is None:
            if head is not None:
                raise _missing(f"{document.update_id} was signed without the log that earlier releases stood in.")
            return
        if not self._keeps(connection, found):
            raise _missing(
                f"OMEGA keeps {head['size'] if head else 0} events of the log, and {document.update_id} was signed for "
                f"{found.size}: send them first."
            )
        if head is not None and found.size < head["published"]:
            raise _forked(f"it has {found.size} events, and releases with {head['published']} were offered already")

    def publish(self, connection: sqlite3.Connection, document: ReleaseDocument) -> None:
        """Note that Mainframes are shown the log of `document` from now on."""
        found = _named(document)
        if found is not None:
            connection.execute("UPDATE log_head SET published = max(published, ?)", (found.size,))

    def proof(self, earlier: int, size: int) -> list[bytes]:
        """Prove that one size of the log that is kept continues another.

        Raises:
            ApiError: 404 where it never had these sizes.
        """
        kept = self.state()
        if not 0 <= earlier <= size <= kept.size:
            raise ApiError(
                404, "not_found", f"OMEGA keeps {kept.size} events: there is no proof from {earlier} to {size}."
            )
        return self._proof(earlier, size, kept.root)

    def leaves(self) -> list[bytes]:
        """List the hashes of all events that are kept, in order."""
        return [row["hash"] for row in self._database.all("SELECT hash FROM log_leaves ORDER BY seq")]

    def forget(self) -> LogState:
        """Forget the log, and return what was kept of it until now."""
        kept = self.state()
        with self._database.transaction() as connection:
            if kept.origin:
                change_log.append(connection, "log-forgotten", origin=kept.origin, size=kept.size, root=kept.root)
            connection.execute("DELETE FROM log_leaves")
            connection.execute("DELETE FROM log_head")
        return kept

    def _make_proof(self, earlier: int, size: int, _root: str) -> list[bytes]:
        rows = self._database.all("SELECT hash FROM log_leaves ORDER BY seq LIMIT ?", (size,))
        return consistency_proof([row["hash"] for row in rows], earlier)

    def _keeps(self, connection: sqlite3.Connection, found: Checkpoint) -> bool:
        """Tell whether the log is kept as far as `found`.

        Raises:
            ApiError: 409 `log_forked` where another one is.
        """
        head = _head(connection)
        if head is None:
            return False
        if head["origin"] != found.origin:
            raise _forked(f"it is {found.origin}, and {head['origin']} is kept")
        if found.size > head["size"]:
            return False
        if found.size == head["size"]:
            root = head["root"]
        else:
            rows = connection.execute("SELECT hash FROM log_leaves ORDER BY seq LIMIT ?", (found.size,))
            root = root_of(row["hash"] for row in rows)
        if root != found.root:
            raise _forked(f"its first {found.size} events are not those that are kept")
        return True

    def _append(self, connection: sqlite3.Connection, found: Checkpoint, first: int, leaves: list[bytes]) -> None:
        head = _head(connection)
        size = head["size"] if head else 0
        if first > size or first + len(leaves) < found.size:
            raise _missing(f"OMEGA keeps {size} events of the log: send those from there up to {found.size}.")
        fresh = leaves[size - first : found.size - first]
        tree = CompactRange(size, _nodes(head["frontier"])) if head else CompactRange()
        for leaf in fresh:
            tree.append(leaf)
        if tree.root() != found.root:
            raise _forked(f"its {found.size} events do not begin with the {size} that are kept, or were altered")
        change_log.append(connection, "log-kept", origin=found.origin, size=found.size, root=found.root.hex())
        connection.executemany("INSERT INTO log_leaves (seq, hash) VALUES (?, ?)", enumerate(fresh, size))
        connection.execute(
            "INSERT OR REPLACE INTO log_head (only, origin, size, root, frontier, published) VALUES (1, ?, ?, ?, ?, ?)",
            (found.origin, found.size, found.root, b"".join(tree.nodes), head["published"] if head else 0),
        )


def _head(connection: sqlite3.Connection) -> sqlite3.Row | None:
    row: sqlite3.Row | None = connection.execute("SELECT * FROM log_head").fetchone()
    return row


def _nodes(frontier: bytes) -> list[bytes]:
    return [frontier[at : at + HASH_BYTES] for at in range(0, len(frontier), HASH_BYTES)]


def _named(document: ReleaseDocument) -> Checkpoint | None:
    try:
        return open_log(document.log) if document.log else None
    except LogError as error:
        raise ApiError(409, "untrusted", f"OMEGA refuses what was signed: {error}") from None


def _missing(why: str) -> ApiError:
    return ApiError(409, "log_missing", why)


def _forked(why: str) -> ApiError:
    return ApiError(
        409,
        "log_forked",
        f"The record was rewritten, cut off or forked: {why}. Nothing was changed. Run deploy audit verify, and "
        "restore the ledger; or give up what OMEGA keeps of it, there: ashat-node forget-log",
    )
