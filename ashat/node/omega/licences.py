"""Licences: their keys, when they count, where they are kept, and what their Mainframes reported.

A key holds 96 random bits, so it is kept as a plain sha256: there is nothing to guess offline, and a lookup by hash
tells a caller nothing through its timing. For the same reason there is no lock-out after wrong keys, which would only
hit the other Mainframes behind the same address.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, cast

from ashat.common.text import printable
from ashat.node.core.db import Database, from_text, now, to_text
from ashat.node.logs import change_log
from ashat.protocol.messages import Mainframe, MainframeReport, Moment

ID_LENGTH = 12
LicenceStatus = Literal["active", "expired", "revoked"]


def new_key() -> str:
    """Make a fresh key, `RACORE-XXXXXXXX-XXXXXXXX-XXXXXXXX`, from the system's random source."""
    groups = (secrets.token_hex(4).upper() for _ in range(3))
    return "-".join(("RACORE", *groups))


def key_hash(key: str) -> str:
    """Hash `key` into what OMEGA keeps: its sha256 as 64 lower-case hex digits."""
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def licence_id(key: str) -> str:
    """Name the licence with `key` as people speak of it: the first 12 digits of `key_hash(key)`."""
    return key_hash(key)[:ID_LENGTH]


def licence_status(*, expires: datetime | None, revoked_at: datetime | None, now: datetime) -> LicenceStatus:
    """Tell whether the licence counts at `now`. It expires at the very instant `expires`; revoked beats expired."""
    if revoked_at is not None:
        return "revoked"
    if expires is not None and now >= expires:
        return "expired"
    return "active"


SEEN_STEP = timedelta(seconds=5)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS licences (
    id TEXT PRIMARY KEY,
    key_hash TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires TEXT,
    revoked_at TEXT,
    last_seen TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS reports (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    licence TEXT NOT NULL REFERENCES licences (id),
    release_seq INTEGER NOT NULL,
    bundle TEXT NOT NULL,
    result TEXT NOT NULL CHECK (result IN ('running', 'failed')),
    reason TEXT NOT NULL,
    first_at TEXT NOT NULL,
    last_at TEXT NOT NULL,
    times INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE INDEX IF NOT EXISTS reports_by_licence ON reports (licence, seq);
CREATE TABLE IF NOT EXISTS doubts (
    licence TEXT PRIMARY KEY REFERENCES licences (id),
    told TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;
"""
_LATEST = """
SELECT licences.*, reports.release_seq, reports.bundle, reports.result, reports.reason, doubts.told FROM licences
LEFT JOIN doubts ON doubts.licence = licences.id
LEFT JOIN reports ON reports.seq = (SELECT max(seq) FROM reports WHERE reports.licence = licences.id)
ORDER BY licences.name, licences.id
"""


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as OMEGA keeps it: everything but the key."""

    id: str
    name: str
    expires: datetime | None
    revoked_at: datetime | None
    last_seen: datetime | None

    @property
    def status(self) -> LicenceStatus:
        """Whether it counts now."""
        return licence_status(expires=self.expires, revoked_at=self.revoked_at, now=now())


class ReportLine(MainframeReport):
    """A thing that a Mainframe reported, `times` times from `first_at` to `last_at`."""

    first_at: Moment
    last_at: Moment
    times: int


class LicenceStore:
    """OMEGA's register of Mainframes. Safe to use from many threads and from several processes at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.ensure(_SCHEMA)

    def upsert(self, key: str, name: str, expires: datetime | None) -> tuple[Licence, bool]:
        """Keep the licence with `key`, or renew the one that is kept already; True where it is new.

        A revoked licence takes the new name and date and stays revoked.
        """
        return self.keep_all([(key, name, expires)])[0]

    def keep_all(self, licences: list[tuple[str, str, datetime | None]]) -> list[tuple[Licence, bool]]:
        """Do `upsert` for each of `licences`: all of them or, if that fails, none."""
        kept = []
        with self._database.transaction() as connection:
            for key, name, expires in licences:
                known = connection.execute("SELECT * FROM licences WHERE id = ?", (licence_id(key),)).fetchone()
                row = connection.execute(
                    "INSERT INTO licences (id, key_hash, name, created_at, expires) VALUES (?, ?, ?, ?, ?) "
                    "ON CONFLICT (key_hash) DO UPDATE SET name = excluded.name, expires = excluded.expires RETURNING *",
                    (licence_id(key), key_hash(key), name, to_text(now()), to_text(expires) if expires else None),
                ).fetchone()
                if known is None or (known["name"], known["expires"]) != (row["name"], row["expires"]):
                    change_log.append(
                        connection, "licence-kept", id=row["id"], name=row["name"], expires=row["expires"]
                    )
                kept.append((_licence(row), known is None))
        return kept

    def revoke(self, licence: str) -> Licence | None:
        """Revoke the licence for good; None where there is no such id. To revoke it again changes nothing."""
        with self._database.transaction() as connection:
            at = to_text(now())
            row = connection.execute(
                "UPDATE licences SET revoked_at = coalesce(revoked_at, ?) WHERE id = ? RETURNING *", (at, licence)
            ).fetchone()
            if row and row["revoked_at"] == at:
                change_log.append(connection, "licence-revoked", id=row["id"], name=row["name"])
        return _licence(row) if row else None

    def all(self) -> list[Licence]:
        """List every licence, by name."""
        return [_licence(row) for row in self._database.all("SELECT * FROM licences ORDER BY name, id")]

    def find(self, key: str) -> Licence | None:
        """Find the licence with `key`, whatever its status."""
        row = self._database.one("SELECT * FROM licences WHERE key_hash = ?", (key_hash(key),))
        return _licence(row) if row else None

    def seen(self, licence: Licence) -> None:
        """Note that the Mainframe with `licence` asked just now, to within `SEEN_STEP`."""
        time = now()
        if licence.last_seen is None or abs(time - licence.last_seen) >= SEEN_STEP:
            with self._database.transaction() as connection:
                connection.execute("UPDATE licences SET last_seen = ? WHERE id = ?", (to_text(time), licence.id))

    def report(self, licence: Licence, report: MainframeReport) -> None:
        """Add a report to the Mainframe's history; the same again only counts up.

        Its texts are a stranger's, and end up on terminals: they are kept as one printable line each.
        """
        reason, doubt = printable(report.reason), printable(report.journal)
        reported = (report.release_seq, report.bundle, report.result, reason)
        time = to_text(now())
        with self._database.transaction() as connection:
            connection.execute("UPDATE licences SET last_seen = ? WHERE id = ?", (time, licence.id))
            connection.execute("DELETE FROM doubts WHERE licence = ?", (licence.id,))
            if doubt:
                connection.execute("INSERT INTO doubts VALUES (?, ?, ?)", (licence.id, doubt, time))
            last = connection.execute(
                "SELECT * FROM reports WHERE licence = ? ORDER BY seq DESC LIMIT 1", (licence.id,)
            ).fetchone()
            if last and (last["release_seq"], last["bundle"], last["result"], last["reason"]) == reported:
                connection.execute(
                    "UPDATE reports SET times = times + 1, last_at = ? WHERE seq = ?", (time, last["seq"])
                )
            else:
                connection.execute(
                    "INSERT INTO reports (licence, release_seq, bundle, result, reason, first_at, last_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (licence.id, *reported, time, time),
                )

    def reports(self, licence: str, limit: int = 100) -> list[ReportLine]:
        """List what the Mainframe with licence id `licence` reported, newest first."""
        rows = self._database.all(
            "SELECT release_seq, bundle, result, reason, first_at, last_at, times FROM reports "
            "WHERE licence = ? ORDER BY seq DESC LIMIT ?",
            (licence, limit),
        )
        return [ReportLine.model_validate(dict(row)) for row in rows]

    def mainframes(self) -> list[Mainframe]:
        """List every licensed install with the last thing that it reported, by name."""
        return [
            Mainframe(
                id=row["id"],
                name=row["name"],
                status=_licence(row).status,
                last_seen=_time(row["last_seen"]),
                bundle=row["bundle"],
                release_seq=row["release_seq"],
                result=row["result"] or "none",
                reason=row["reason"] or "",
                journal=row["told"] or "",
            )
            for row in self._database.all(_LATEST)
        ]


def _licence(row: sqlite3.Row) -> Licence:
    return Licence(
        id=cast(str, row["id"]),
        name=cast(str, row["name"]),
        expires=_time(row["expires"]),
        revoked_at=_time(row["revoked_at"]),
        last_seen=_time(row["last_seen"]),
    )


def _time(text: str | None) -> datetime | None:
    return from_text(text) if text else None
