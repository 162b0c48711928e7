"""Make the leaf of the ledger's Merkle tree that an event is. Pure, no I/O.

A leaf is the canonical JSON (`ashat.common.canonical_json`) of `{"attempt", "event", "update_id", "version"}`, `event`
being the event as `ashat.deployment.events` spells it.
"""

from __future__ import annotations

from typing import NamedTuple

from ashat.common.canonical_json import canonical_json


class Record(NamedTuple):
    """An event of the log: whose it is, its JSON, its place, and the tree's root (hex) once it was appended."""

    update_id: str
    attempt: int
    version: int
    body: str
    seq: int
    root: str

    @property
    def leaf(self) -> bytes:
        """The bytes that the tree holds of it."""
        return leaf_of(self.update_id, self.attempt, self.version, self.body)

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.update_id} attempt {self.attempt} version {self.version}"


class LogRow(NamedTuple):
    """The tree over all events: the log's name, how many there are, and the frontier from which it grows."""

    origin: str
    size: int
    frontier: str


def leaf_of(update_id: str, attempt: int, version: int, body: str) -> bytes:
    """Make the leaf of the event whose canonical JSON is `body`.

    The body is set in as it stands: whatever is in the database is hashed, even where it is no JSON any more.
    """
    name = canonical_json(update_id).decode()
    return f'{{"attempt":{attempt},"event":{body},"update_id":{name},"version":{version}}}'.encode()
