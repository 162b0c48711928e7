"""Takes over what an earlier version kept of the fleet in the node's own record: everything, once."""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import sqlalchemy as sa

from ashat.node.core.db import Database
from ashat.node.omega.fleet.database import FleetDatabase, next_number
from ashat.node.omega.fleet.tables import licences, mainframes, reports

_TABLES: Final = ("last_outputs", "waiting", "old_protocol", "doubts", "reports", "licences")
_LATEST: Final = """
SELECT licences.*, r.release_seq, r.bundle, r.result, r.reason, r.last_at FROM licences
LEFT JOIN reports AS r ON r.seq = (SELECT max(seq) FROM reports WHERE reports.licence = licences.id)
"""


def take_over(record: Database, fleet: FleetDatabase) -> None:
    """Move the licences, the Mainframes and their reports from `record`, where an earlier version kept them.

    They are in the fleet's database before they leave the record, so a crash between the two does it again.
    """
    if record.one("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'licences'") is None:
        return
    with record.snapshot() as connection:
        found = connection.execute(_LATEST).fetchall()
        history = connection.execute("SELECT * FROM reports ORDER BY seq").fetchall()
        asides = {name: _aside(connection, name) for name in _TABLES[:4]}
    fleet.change(lambda connection: _write(connection, found, history, asides))
    with record.transaction() as connection:
        for name in _TABLES:
            connection.execute(f"DROP TABLE IF EXISTS {name}")


def _aside(connection: sqlite3.Connection, name: str) -> dict[str, sqlite3.Row]:
    """Read a table of at most one row a licence; an earlier version may not have had it."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone():
        return {}
    return {row["licence"]: row for row in connection.execute(f"SELECT * FROM {name}")}  # noqa: S608


def _write(
    connection: sa.Connection,
    found: list[sqlite3.Row],
    history: list[sqlite3.Row],
    asides: dict[str, dict[str, sqlite3.Row]],
) -> None:
    known = set(connection.execute(sa.select(licences.c.id)).scalars())
    new = [row for row in found if row["id"] not in known]
    if not new:
        return
    version = next_number(connection, "licences_version")
    names = ("id", "key_hash", "name", "created_at", "expires", "revoked_at")
    kept = [{**{name: row[name] for name in names}, "version": version} for row in new]
    connection.execute(
        licences.insert(), [{**row, "old_protocol": row["id"] in asides["old_protocol"]} for row in kept]
    )
    connection.execute(mainframes.insert(), [_mainframe(row, asides) for row in new])
    columns = ("licence", "release_seq", "bundle", "result", "reason", "first_at", "last_at", "times")
    taken = {row["id"] for row in new}
    lines = [{name: row[name] for name in columns} for row in history if row["licence"] in taken]
    if lines:
        connection.execute(reports.insert(), lines)


def _mainframe(row: sqlite3.Row, asides: dict[str, dict[str, sqlite3.Row]]) -> dict[str, Any]:
    def aside(table: str, column: str, other: str | None = "") -> Any:
        found = asides[table].get(row["id"])
        return found[column] if found is not None else other

    return {
        "licence": row["id"],
        "last_seen": row["last_seen"],
        "release_seq": row["release_seq"],
        "bundle": row["bundle"],
        "result": row["result"] or "none",
        "reason": row["reason"] or "",
        "reported_at": row["last_at"],
        "doubt": aside("doubts", "told"),
        "waits": aside("waiting", "told"),
        "output": aside("last_outputs", "lines", "[]"),
        "old_version": aside("old_protocol", "version"),
        "old_at": aside("old_protocol", "at", None),
    }
