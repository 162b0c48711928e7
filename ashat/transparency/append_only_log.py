"""A log that only grows (RFC 9162), as far as it has to be kept to append to it, to sign it, and to prove how it grew.

Whoever keeps a log has its leaves, and one row with its name, its size and its frontier. The row is read and written in
the transaction that also writes what was appended, so that either both are there or none.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from ashat.transparency.checkpoint import Checkpoint
from ashat.transparency.merkle import CompactRange
from ashat.transparency.witness import require_extends


class AppendOnlyLog:
    """The log called `origin`, whose tree is `tree`.

    `root_at` gives the root that it had at a smaller size, None where that is not known. `name` and `entries` are what
    errors call it and what it holds.
    """

    def __init__(
        self,
        origin: str,
        tree: CompactRange,
        root_at: Callable[[int], bytes | None] = lambda _: None,
        *,
        name: str = "The log",
        entries: str = "events",
    ) -> None:
        self.origin = origin
        self._tree = tree
        self._root_at = root_at
        self._words = {"log": name, "entries": entries}

    @classmethod
    def begin(cls, kind: str) -> AppendOnlyLog:
        """Begin a log with a name of its own, after its `kind`: `ledger` or `node`."""
        return cls(f"ashat-deploy/{kind}-{secrets.token_hex(8)}", CompactRange())

    @property
    def size(self) -> int:
        """How many entries it has."""
        return self._tree.size

    @property
    def root(self) -> bytes:
        """The root of the tree over them."""
        return self._tree.root()

    @property
    def frontier(self) -> str:
        """What is kept of the tree; `CompactRange.parse` reads it."""
        return self._tree.text

    @property
    def checkpoint(self) -> Checkpoint:
        """What it is now."""
        return Checkpoint(self.origin, self.size, self.root)

    def append(self, leaf: bytes) -> tuple[int, str]:
        """Add the leaf of that hash; return its place, counted from 0, and the root that ends with it, in
        hexadecimal."""
        self._tree.append(leaf)
        return self.size - 1, self.root.hex()

    def require_extends(self, known: Checkpoint) -> None:
        """Check that it goes on from what it was when it was `known`.

        Raises:
            AuditError: it does not.
        """
        require_extends(self.checkpoint, known, lambda: self._root_at(known.size) == known.root, **self._words)
