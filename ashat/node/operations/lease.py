"""One update at a time has the server: who, why, since when, until when."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from ashat.node.core.db import Database, from_text, now, to_text
from ashat.node.core.errors import ApiError
from ashat.protocol.messages import Lease, LeaseRequest


def held(db: Database) -> Lease | None:
    """Read the lease that is in force, None where there is none."""
    row = db.one("SELECT * FROM lease")
    return _in_force(row, now())


def acquire(db: Database, request: LeaseRequest) -> Lease:
    """Take the lease, or renew it, for `request.ttl` seconds from now.

    Raises:
        ApiError: somebody else holds it (423).
    """
    at = now()
    with db.transaction() as connection:
        found = _read(connection, at)
        if found and found.holder != request.holder:
            raise _leased(found)
        lease = Lease(
            holder=request.holder,
            who=request.who,
            why=request.why,
            since=found.since if found else at,
            expires=at + timedelta(seconds=request.ttl),
        )
        connection.execute(
            "INSERT OR REPLACE INTO lease (only, holder, who, why, since, expires) VALUES (1, ?, ?, ?, ?, ?)",
            (lease.holder, lease.who, lease.why, to_text(lease.since), to_text(lease.expires)),
        )
    return lease


def release(db: Database, holder: str) -> None:
    """Give the lease back, if `holder` has it."""
    with db.transaction() as connection:
        connection.execute("DELETE FROM lease WHERE holder = ?", (holder,))


def check_holder(connection: sqlite3.Connection, holder: str | None) -> None:
    """Refuse a change by whoever does not hold a lease that is in force.

    Raises:
        ApiError: somebody else holds it (423).
    """
    found = _read(connection, now())
    if found and found.holder != holder:
        raise _leased(found)


def _read(connection: sqlite3.Connection, at: datetime) -> Lease | None:
    return _in_force(connection.execute("SELECT * FROM lease").fetchone(), at)


def _in_force(row: sqlite3.Row | None, at: datetime) -> Lease | None:
    if row is None or from_text(row["expires"]) <= at:
        return None
    return Lease(
        holder=row["holder"],
        who=row["who"],
        why=row["why"],
        since=from_text(row["since"]),
        expires=from_text(row["expires"]),
    )


def _leased(lease: Lease) -> ApiError:
    return ApiError(
        423,
        "leased",
        f"{lease.holder} has this server ({lease.who}: {lease.why}) until {lease.expires:%H:%M:%S} UTC at the latest; "
        "wait for it.",
        lease=lease.model_dump(mode="json"),
    )
