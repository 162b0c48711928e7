"""What a person's word on a rollout does to its members: failures are accepted, tried again, or offers withdrawn."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from ashat.node.core.db import now, to_text
from ashat.node.omega.fleet.counters import move_all
from ashat.node.omega.fleet.tables import mainframes, members, waves

_AT_ONCE: Final = 500


def accept_failures(connection: sa.Connection, identity: str) -> None:
    """Count those that failed or were not reached as seen; a wave that is open has its whole time again."""
    time = to_text(now())
    for state in ("failed", "unreachable"):
        move_all(connection, identity, state, "accepted", {"changed_at": time})
    newest = sa.select(sa.func.max(waves.c.number)).where(waves.c.rollout == identity, waves.c.opened_at.is_not(None))
    which = sa.and_(waves.c.rollout == identity, waves.c.number == newest.scalar_subquery())
    connection.execute(waves.update().where(which).values(opened_at=time))


def try_again(connection: sa.Connection, identity: str) -> int:
    """Have those wait for another offer that failed, were not reached, or were accepted as they are; count them. Waves
    that are open have their whole time again."""
    time, count = to_text(now()), 0
    for state in ("failed", "unreachable", "accepted"):
        fresh = {"reason": "", "offered_at": None, "changed_at": time, "tries": members.c.tries + 1}
        count += len(move_all(connection, identity, state, "waiting", fresh))
    if count:
        again = waves.update().where(waves.c.rollout == identity, waves.c.opened_at.is_not(None))
        connection.execute(again.values(opened_at=time))
    return count


def withdraw_offers(connection: sa.Connection, identity: str, *, only_waiting: bool = False) -> None:
    """Have those wait again that were offered the release and did not answer, or, `only_waiting`, those of them that
    said that it waits there: it is offered to nobody else. Who is in the middle of it goes on to the end, and counts by
    what it reports then."""
    fresh = {"reason": "", "offered_at": None, "changed_at": to_text(now())}
    which = members.c.reason != "" if only_waiting else None
    those = sorted(move_all(connection, identity, "under_way", "waiting", fresh, which))
    for start in range(0, len(those), _AT_ONCE):
        some = mainframes.c.licence.in_(those[start : start + _AT_ONCE])
        connection.execute(mainframes.update().where(some).values(waits=""))
