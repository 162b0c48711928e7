"""Hands on to the node's change log what was done to the fleet: each once, in order, after any crash.

An entry is written with the change itself, into the fleet's database; how far the change log has come is kept with its
entries. So several OMEGAs on one database each have the whole.
"""

from __future__ import annotations

import json
from typing import Any, Final

import sqlalchemy as sa

from ashat.common.documents import STATE_LIMIT, load_json
from ashat.node.core.db import Database
from ashat.node.logs import change_log
from ashat.node.omega.fleet.database import FleetDatabase, next_number
from ashat.node.omega.fleet.tables import outbox

_RELAYED: Final = "fleet_relayed"
_AT_ONCE: Final = 1000


def note(connection: sa.Connection, kind: str, **facts: Any) -> None:
    """Note, as a part of the transaction that makes the change, what the change log is to say. `facts` hold no
    floats."""
    seq = next_number(connection, "outbox")
    connection.execute(outbox.insert().values(seq=seq, kind=kind, by=change_log.who(), facts=json.dumps(facts)))


def relay(fleet: FleetDatabase, record: Database) -> None:
    """Append to the change log of `record` what was noted and is not in it yet."""
    while rows := fleet.read(
        sa.select(outbox).where(outbox.c.seq > int(record.get_meta(_RELAYED) or 0)).order_by("seq").limit(_AT_ONCE)
    ):
        with record.transaction() as connection:
            known = connection.execute("SELECT value FROM meta WHERE key = ?", (_RELAYED,)).fetchone()
            relayed = int(known["value"]) if known else 0
            for row in rows:
                if row.seq > relayed:
                    with change_log.asked_by(row.by):
                        facts = load_json(row.facts.encode(), limit=STATE_LIMIT)
                        change_log.append(connection, row.kind, **facts)
            last = str(max(relayed, rows[-1].seq))
            connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (_RELAYED, last))
