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
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from ashat.common.canonical_json import canonical_json
from ashat.errors import AuditError
from ashat.node.core.db import Database, now, to_text
from ashat.transparency.append_only_log import AppendOnlyLog
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


def who() -> str:
    """Name who asks for what is done now, as `asked_by` has it."""
    return _asked_by.get()


def local_operator() -> str:
    """Name who types on the node's own machine, for `asked_by`."""
    try:
        return f"{getpass.getuser().encode('utf-8', 'replace').decode()} on this machine"
    except (KeyError, OSError):
        return f"user {os.getuid()} on this machine"


def begin(database: Database) -> None:
    """Begin the change log, where it has not begun; what happened before is not in it."""
    with database.transaction() as connection:
        _open(connection)


def append(connection: sqlite3.Connection, kind: str, **facts: Any) -> None:
    """Add an entry, stamped now, as a part of the transaction that makes the change. `facts` hold no floats."""
    _append(connection, _open(connection), kind, facts)


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


def head(database: Database) -> AppendOnlyLog:
    """Read the change log as it is now.

    Raises:
        AuditError: there is none yet, or its last entries are gone.
    """
    row = database.one("SELECT * FROM changes_log")
    if row is None:
        raise AuditError("This node has no journal of changes yet: it begins when the node is next started.")

    def root_at(size: int) -> bytes | None:
        last = database.one("SELECT root FROM changes WHERE seq = ?", (size - 1,))
        return bytes.fromhex(last["root"]) if last else None if size else EMPTY_ROOT

    try:
        found = _parsed(row, root_at)
        if root_at(found.size) == found.root:
            return found
    except ValueError:
        pass  # said below: a frontier of no tree fits no entry either
    raise AuditError(f"Entry {row['size']} is missing or was altered.", event=row["size"])


def sign_checkpoint(database: Database, data: Path) -> tuple[str, str]:
    """Sign a checkpoint of the change log of the node in `data`, which continues the last one; return its key, too.

    Raises:
        AuditError: the log does not continue what was signed last.
        CheckpointError: the key cannot be read or made.
    """
    signer = LogSigner(data, head(database).origin)
    with signer.locked():
        note = signer.sign(head(database))
    verifier = signer.verifier()
    assert verifier is not None
    return note, verifier.vkey


def named(origin: str, tree: CompactRange, root_at: Callable[[int], bytes | None]) -> AppendOnlyLog:
    """Make a log of what is known of a change log."""
    return AppendOnlyLog(origin, tree, root_at, name="The journal of changes", entries="entries")


def _open(connection: sqlite3.Connection) -> AppendOnlyLog:
    row = connection.execute("SELECT * FROM changes_log").fetchone()
    if row is not None:
        return _parsed(row)
    begun = AppendOnlyLog.begin("node")
    connection.execute("INSERT INTO changes_log VALUES (1, ?, 0, '')", (begun.origin,))
    before = connection.execute("SELECT coalesce(max(seq), 0) FROM operations").fetchone()[0]
    _append(connection, begun, "journal-began", {"operations_before": before})
    return begun


def _parsed(row: sqlite3.Row, root_at: Callable[[int], bytes | None] = lambda _: None) -> AppendOnlyLog:
    return named(row["origin"], CompactRange.parse(row["size"], row["frontier"]), root_at)


def _append(connection: sqlite3.Connection, log: AppendOnlyLog, kind: str, facts: Facts) -> None:
    text = _text({"at": to_text(now()), "by": _asked_by.get(), "kind": kind, **facts})
    place, root = log.append(leaf_hash(text.encode()))
    connection.execute("INSERT INTO changes VALUES (?, ?, ?)", (place, text, root))
    connection.execute("UPDATE changes_log SET size = ?, frontier = ?", (log.size, log.frontier))


def _text(facts: Facts) -> str:
    return canonical_json(dict(facts)).decode()


def _followed(rows: list[sqlite3.Row]) -> dict[str, str]:
    return {row["name"]: row["facts"] for row in rows}
