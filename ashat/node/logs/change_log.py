"""The change log: everything that was done to a node, append-only and in the same transactions.

Each entry is canonical JSON and a leaf of a Merkle tree (RFC 9162); its row holds the tree's root with it, so the first
entry that was altered, moved or taken out can be named. Signed checkpoints of it (`<data>/audit/`) show to whoever kept
one that the log only grew since. Triggers of the database refuse to change a row.

What lies outside the record (tokens, the trust root) is followed: the log says what is found there at each look
that finds it changed. A token opens nothing before.
"""

from __future__ import annotations

import getpass
import os
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ashat.common.canonical_json import canonical_json
from ashat.errors import AuditError
from ashat.node.core.db import Database, now, to_text
from ashat.transparency.checkpoint import Checkpoint
from ashat.transparency.log_signer import LogSigner
from ashat.transparency.merkle import EMPTY_ROOT, CompactRange, leaf_hash

Facts = Mapping[str, Any]

_asked_by: ContextVar[str] = ContextVar("asked_by", default="the node")


@contextmanager
def asked_by(who: str) -> Iterator[None]:
    """Have what is appended meanwhile, in this context, say that `who` asked for it."""
    before = _asked_by.set(who)
    try:
        yield
    finally:
        _asked_by.reset(before)


def local_operator() -> str:
    """Name who types on the node's own machine, for `asked_by`."""
    try:
        return f"{getpass.getuser().encode('utf-8', 'replace').decode()} on this machine"
    except (KeyError, OSError):
        return f"user {os.getuid()} on this machine"


def begin(database: Database) -> None:
    """Begin the change log, where it has not begun; what happened before is not in it."""
    with database.transaction() as connection:
        _log(connection)


def append(connection: sqlite3.Connection, kind: str, **facts: Any) -> None:
    """Add an entry, stamped now, as a part of the transaction that makes the change. `facts` hold no floats."""
    _append(connection, _log(connection), kind, facts)


def follow(database: Database, kind: str, found: Mapping[str, Facts]) -> None:
    """Add an entry for each thing of that kind that is new, changed or gone since the last look, `found` by its id."""
    wanted = {name: _text(facts) for name, facts in found.items()}
    if _followed(database.all("SELECT name, facts FROM followed WHERE kind = ?", (kind,))) == wanted:
        return
    with database.transaction() as connection:
        before = _followed(connection.execute("SELECT name, facts FROM followed WHERE kind = ?", (kind,)).fetchall())
        for name in [*(gone for gone in before if gone not in wanted), *wanted]:
            if before.get(name) == wanted.get(name):
                continue
            what = "added" if name not in before else "changed" if name in wanted else "removed"
            append(connection, f"{kind}-{what}", id=name, **found.get(name, {}))
        connection.execute("DELETE FROM followed WHERE kind = ?", (kind,))
        connection.executemany("INSERT INTO followed VALUES (?, ?, ?)", [(kind, *pair) for pair in wanted.items()])


def size(database: Database) -> int:
    """Count the entries of the change log; 0 where it has not begun."""
    row = database.one("SELECT size FROM changes_log")
    return int(row["size"]) if row else 0


@dataclass(frozen=True)
class Head:
    """The change log as it is now: what a checkpoint is made of."""

    origin: str
    size: int
    root: bytes
    _database: Database

    def require_extends(self, checkpoint: Checkpoint) -> None:
        """See that the change log begins with the entries of `checkpoint`.

        Raises:
            AuditError: it does not.
        """
        require_extends(checkpoint, self.origin, self.size, _root_at(self._database, checkpoint.size))


def head(database: Database) -> Head:
    """Return the change log as it is now.

    Raises:
        AuditError: there is none yet, or its last entries are gone.
    """
    row = database.one("SELECT origin, size FROM changes_log")
    if row is None:
        raise AuditError("This node has no journal of changes yet: it begins when the node is next started.")
    size: int = row["size"]
    root = _root_at(database, size)
    if root is None:
        raise AuditError(f"Entry {size} is missing, and it was written.", event=size)
    return Head(row["origin"], size, root, database)


def sign_checkpoint(database: Database, data: Path) -> tuple[str, str]:
    """Sign a checkpoint of the change log of the node in `data`, which continues the last one; return its key, too.

    Raises:
        AuditError: the log does not continue what was signed last.
        CheckpointError: the key cannot be read or made.
    """
    keys = LogSigner(data, head(database).origin)
    with keys.locked():
        note = keys.sign(head(database))
    verifier = keys.verifier()
    assert verifier is not None
    return note, verifier.vkey


def require_extends(checkpoint: Checkpoint, origin: str, size: int, root: bytes | None) -> None:
    """See that a log of `size` entries begins with those of `checkpoint`; `root` is what it had at that size.

    Raises:
        AuditError: it does not.
    """
    if checkpoint.origin != origin:
        raise AuditError(f"The checkpoint is of another journal: {checkpoint.origin}, not {origin}.")
    if checkpoint.size > size:
        raise AuditError(
            f"Entry {size + 1} is missing: a checkpoint covers {checkpoint.size}, and the journal ends with {size}.",
            event=size + 1,
        )
    if checkpoint.root != root:
        raise AuditError(
            f"The first {checkpoint.size} entries are not those of the checkpoint: the journal was rewritten, or is "
            "another branch of it."
        )


def _log(connection: sqlite3.Connection) -> sqlite3.Row:
    row = connection.execute("SELECT * FROM changes_log").fetchone()
    if row is None:
        origin = f"ashat-deploy/node-{secrets.token_hex(8)}"
        connection.execute("INSERT INTO changes_log VALUES (1, ?, 0, '')", (origin,))
        before = connection.execute("SELECT coalesce(max(seq), 0) FROM operations").fetchone()[0]
        row = connection.execute("SELECT * FROM changes_log").fetchone()
        _append(connection, row, "journal-began", {"operations_before": before})
        row = connection.execute("SELECT * FROM changes_log").fetchone()
    found: sqlite3.Row = row
    return found


def _append(connection: sqlite3.Connection, log: sqlite3.Row, kind: str, facts: Facts) -> None:
    tree = CompactRange(log["size"], [bytes.fromhex(node) for node in log["frontier"].split()])
    text = _text({"at": to_text(now()), "by": _asked_by.get(), "kind": kind, **facts})
    tree.append(leaf_hash(text.encode()))
    connection.execute("INSERT INTO changes VALUES (?, ?, ?)", (tree.size - 1, text, tree.root().hex()))
    nodes = " ".join(node.hex() for node in tree.nodes)
    connection.execute("UPDATE changes_log SET size = ?, frontier = ?", (tree.size, nodes))


def _text(facts: Facts) -> str:
    return canonical_json(dict(facts)).decode()


def _followed(rows: list[sqlite3.Row]) -> dict[str, str]:
    return {row["name"]: row["facts"] for row in rows}


def _root_at(database: Database, size: int) -> bytes | None:
    if size == 0:
        return EMPTY_ROOT
    row = database.one("SELECT root FROM changes WHERE seq = ?", (size - 1,))
    return bytes.fromhex(row["root"]) if row else None
