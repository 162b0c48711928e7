"""A node's journal of changes: entries, what it shows, and what a thief makes of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from ashat.node.core.db import Database
from ashat.node.logs import change_log
from ashat.node.logs.change_log_audit import prove_growth
from ashat.protocol.messages import SignedCheckpoint
from ashat.transparency.checkpoint import Verifier, open_checkpoint


def done(database: Database, *names: str) -> None:
    for name in names:
        with database.transaction() as connection:
            change_log.append(connection, "licence-revoked", id=name, name=name)


def told(database: Database, since: int = 0) -> SignedCheckpoint:
    note, key = change_log.sign_checkpoint(database, database.path.parent)
    size = open_checkpoint(note, [Verifier.parse(key)]).size
    proof = prove_growth(database, since, size)
    return SignedCheckpoint(checkpoint=note, key=key, proof=tuple(node.hex() for node in proof))


def forget(database: Database, *, key: bool = False) -> None:
    """What a thief does who writes the journal anew, under its old name, and signs with its old key, or with a new."""
    with closing(sqlite3.connect(database.path)) as connection, connection:
        connection.execute("DROP TRIGGER changes_are_kept")
        connection.execute("DELETE FROM changes")
        connection.execute("UPDATE changes_log SET size = 0, frontier = ''")
    kept = next((database.path.parent / "audit").iterdir())
    (kept / "checkpoint").unlink()
    if key:
        (kept / "key.pem").unlink()
        (kept / "key.vkey").unlink()
