"""What the benches of a fleet share: its licences, what simulated Mainframes say, and how each is accounted for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

from ashat import __version__
from ashat.common.identifiers import key_hash, licence_id
from ashat.node.core.db import RECORD_FILE, Database, now, to_text
from ashat.node.omega.fleet.database import FleetDatabase, next_number
from ashat.node.omega.fleet.fleet import open_fleet
from ashat.node.omega.fleet.tables import licences, members, reports, waves
from ashat.node.omega.fleet.tables import mainframes as installs

_PARTS = 5000
_LENGTH = b"content-length:"
_COUNTED = ("waiting", "under_way", "succeeded", "failed", "unreachable", "accepted")


class Account(NamedTuple):
    """How each Mainframe stands in a rollout, from the rows one by one: how many rows there are, of how many
    Mainframes, how many stand how; how many reports say that it runs, of how many Mainframes; and how many stand how by
    the counters of the waves."""

    rows: int
    distinct: int
    states: Counter[str]
    reports: int
    reported: int
    counters: Counter[str]

    def faults(self, mainframes: int) -> list[str]:
        """Say what does not fit: a Mainframe that is there twice or not at all, a report that was not kept once, a
        counter that says something else than the rows."""
        found = []
        if not self.rows == self.distinct == mainframes:
            found.append(f"{self.rows} rows of {self.distinct} Mainframes, not of {mainframes}")
        if not self.reports == self.reported == self.states["succeeded"]:
            said = f"{self.reports} reports of {self.reported} Mainframes say that they run it"
            found.append(f"{said}, and {self.states['succeeded']} rows")
        if self.counters != self.states:
            found.append(f"the counters say {dict(self.counters)}, the rows {dict(self.states)}")
        return found


def account(database: FleetDatabase, rollout: str, release_seq: int) -> Account:
    """Count how each Mainframe of a rollout stands."""
    own = members.c.rollout == rollout
    each = sa.select(members.c.state, sa.func.count()).where(own).group_by(members.c.state)
    of = sa.select(sa.func.count(), sa.func.count(members.c.licence.distinct())).where(own)
    ran = sa.and_(reports.c.release_seq == release_seq, reports.c.result == "running")
    said = sa.select(sa.func.count(), sa.func.count(reports.c.licence.distinct())).where(ran)
    totals = sa.select(*(sa.func.sum(waves.c[name]).label(name) for name in _COUNTED)).where(waves.c.rollout == rollout)
    with database.reading() as connection:
        rows, distinct = connection.execute(of).one()
        told, tellers = connection.execute(said).one()
        counted = connection.execute(totals).mappings().one()
        states = Counter({row[0]: int(row[1]) for row in connection.execute(each)})
    counters = Counter({name: int(count) for name, count in counted.items() if count})
    return Account(rows, distinct, states, told, tellers, counters)


def license_fleet(data: Path, settings: Path | None, keys: list[str]) -> None:
    """Keep a licence for each key on the OMEGA in that directory, past the change log, which would take longer than
    what is measured."""
    database = Database(data / RECORD_FILE)

    def keep(connection: sa.Connection) -> None:
        common = {"created_at": to_text(now()), "version": next_number(connection, "licences_version")}
        for start in range(0, len(keys), _PARTS):
            part = keys[start : start + _PARTS]
            rows = [{"id": licence_id(key), "key_hash": key_hash(key), "name": licence_id(key)} for key in part]
            connection.execute(licences.insert(), [{**row, **common} for row in rows])
            connection.execute(installs.insert(), [{"licence": row["id"]} for row in rows])

    with open_fleet(database, data, settings) as fleet:
        fleet.database.change(keep)
    database.close()


def head_of(key: str) -> bytes:
    """Spell the headers that a Mainframe's client sends."""
    return (
        "Host: 127.0.0.1\r\nAccept: application/json\r\nAccept-Encoding: identity\r\nConnection: keep-alive\r\n"
        f"User-Agent: ashat-deploy\r\nAuthorization: Licence {key}\r\n"
        f"Ashat-Agent: {__version__}\r\nAshat-Run: {key[-8:]}{key[-8:]}\r\n"
    ).encode()


def content_length(head: bytes) -> int:
    """Read how many bytes follow the headers of an answer."""
    at = head.lower().find(_LENGTH)
    return int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def report_of(offer: dict[str, Any], result: str, reason: str = "") -> dict[str, Any]:
    """Spell what a Mainframe reports about an offer."""
    told = {"release_seq": offer["release_seq"], "bundle": offer["bundle"], "result": result}
    return {**told, "reason": reason, "journal": "", "output": []}
