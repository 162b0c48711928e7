"""One update at a time has the server: who, why, since when, until when.

A lease lasts as long as it was asked for, by the clock that counts since the machine started: whoever sets the time
neither ends nor prolongs it, and a restart of the node changes nothing. After a restart of the machine it lasts until
the time that it was to end by the clock, but no longer than any lease may.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime, timedelta

from ashat.common.clocks import boot_id, uptime
from ashat.node.core.db import Database, from_text, now, to_text
from ashat.node.core.errors import ApiError
from ashat.protocol.messages import LEASE_SECONDS, Lease, LeaseRequest

_CLOCK = "lease_clock"
_AS_SAID = timedelta(seconds=2)


def held(db: Database) -> Lease | None:
    """Read the lease that is in force, None where there is none."""
    with db.snapshot() as connection:
        return _read(connection)


def resume(db: Database) -> None:
    """Go on counting what is left of a lease since the machine started, before the node answers anybody."""
    found = held(db)
    if found is None or str(db.get_meta(_CLOCK)).startswith(boot_id()):
        return
    with db.transaction() as connection:
        expires = from_text(connection.execute("SELECT expires FROM lease").fetchone()["expires"])
        _count(connection, expires, _left(connection, expires))


def acquire(db: Database, request: LeaseRequest) -> Lease:
    """Take the lease, or renew it, for `request.ttl` seconds from now.

    Raises:
        ApiError: somebody else holds it (423).
    """
    at = now()
    with db.transaction() as connection:
        found = _read(connection)
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
        _count(connection, lease.expires, request.ttl)
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
    found = _read(connection)
    if found and found.holder != holder:
        raise _leased(found)


def _read(connection: sqlite3.Connection) -> Lease | None:
    row = connection.execute("SELECT * FROM lease").fetchone()
    if row is None:
        return None
    expires = from_text(row["expires"])
    left = _left(connection, expires)
    if left <= 0:
        return None
    ends = now() + timedelta(seconds=left)
    return Lease(
        holder=row["holder"],
        who=row["who"],
        why=row["why"],
        since=from_text(row["since"]),
        expires=expires if abs(ends - expires) < _AS_SAID else ends,
    )


def _count(connection: sqlite3.Connection, expires: datetime, seconds: float) -> None:
    value = f"{boot_id()} {uptime() + seconds} {to_text(expires)}"
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_CLOCK, value))


def _left(connection: sqlite3.Connection, expires: datetime) -> float:
    """Count the seconds that are left of the lease that was to end at `expires`."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (_CLOCK,)).fetchone()
    boot, until, counted = str(row["value"]).split() if row else ("", "0", "")
    if boot == boot_id() and counted == to_text(expires):
        return float(until) - uptime()
    return min((expires - now()).total_seconds(), LEASE_SECONDS)


def _leased(lease: Lease) -> ApiError:
    return ApiError(
        423,
        "leased",
        f"{lease.holder} has this server ({lease.who}: {lease.why}) until {lease.expires:%H:%M:%S} UTC at the latest; "
        "wait for it.",
        lease=lease.model_dump(mode="json"),
    )
