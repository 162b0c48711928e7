"""Change how the members of a rollout stand, and the counters of its waves with that: nobody counts members anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from ashat.node.omega.fleet.tables import members, waves
from ashat.protocol.fleet import MemberState

# What each Mainframe's question and report takes is spelled once: to spell it anew takes longer than to carry it out.
_THIS: Final = sa.and_(members.c.rollout == sa.bindparam("of"), members.c.licence == sa.bindparam("whose"))


@cache
def moving(columns: tuple[str, ...]) -> sa.Update:
    """Spell that a member of a rollout has other values in those columns."""
    return members.update().where(_THIS).values({name: sa.bindparam(f"new_{name}") for name in columns})


@cache
def counting(before: MemberState, after: MemberState) -> sa.Update:
    """Spell that one member of a wave is no more as `before`, but as `after`."""
    which = sa.and_(waves.c.rollout == sa.bindparam("of"), waves.c.number == sa.bindparam("which"))
    values: dict[str, Any] = {before: waves.c[before] - 1, after: waves.c[after] + 1}
    if after in ("succeeded", "failed"):
        values["last_answer_at"] = sa.bindparam("time")
    if after == "succeeded":
        values["last_success_at"] = sa.bindparam("time")
    return waves.update().where(which).values(values)


def count_moved(connection: sa.Connection, rollout: str, wave: int, changes: dict[str, int], **values: Any) -> None:
    """Change the counters of a wave by so many."""
    counted = {name: waves.c[name] + by for name, by in changes.items()}
    which = sa.and_(waves.c.rollout == rollout, waves.c.number == wave)
    connection.execute(waves.update().where(which).values(**counted, **values))


def move_all(
    connection: sa.Connection,
    rollout: str,
    before: MemberState,
    after: MemberState,
    values: Mapping[str, Any],
    which: sa.ColumnElement[bool] | None = None,
) -> list[str]:
    """Move each member of a rollout that is as `before`, and for which `which` holds, to `after`, with those values in
    other columns; whose they are, by the licence."""
    those = sa.and_(members.c.rollout == rollout, members.c.state == before, sa.true() if which is None else which)
    moved = members.update().where(those).values(state=after, **values)
    found = connection.execute(moved.returning(members.c.licence, members.c.wave)).all()
    for wave, count in sorted(Counter(row.wave for row in found).items()):
        count_moved(connection, rollout, wave, {before: -count, after: count})
    return [row.licence for row in found]


def switching_in(connection: sa.Connection, rollout: str, limit: int) -> int:
    """Count who is under way in a rollout. Where these are as many as `limit`, those are not counted that said that it
    waits there, as for its owner's word: others need not wait for them."""
    total = sa.select(sa.func.sum(waves.c.under_way)).where(waves.c.rollout == rollout)
    found = int(connection.execute(total).scalar() or 0)
    if found < limit:
        return found
    opened = sa.select(waves.c.number).where(waves.c.rollout == rollout, waves.c.opened_at.is_not(None))
    waiting = sa.select(sa.func.count()).where(
        members.c.rollout == rollout,
        members.c.wave.in_(opened),
        members.c.state == "under_way",
        members.c.reason != "",
    )
    return found - int(connection.execute(waiting).scalar_one())
