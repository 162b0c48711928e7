"""What many Mainframes ask and report in one moment, in a few statements for all: each is told and counted as alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from ashat.node.core.db import now, to_text
from ashat.node.omega.fleet.counters import count_moved, moving, switching_in
from ashat.node.omega.fleet.database import FleetDatabase
from ashat.node.omega.fleet.rollouts import (
    has_it,
    of_release,
    offer_to_one,
    policy_of,
    reported,
)
from ashat.node.omega.fleet.tables import members, waves
from ashat.protocol.fleet import MainframeReport, MemberState
from ashat.protocol.messages import Offer

_MEMBERS: Final = sa.select(members).where(
    members.c.rollout == sa.bindparam("rollout"), members.c.licence.in_(sa.bindparam("licences", expanding=True))
)
_Moved = list[tuple[Any, dict[str, Any]]]


class Told(NamedTuple):
    """What a Mainframe is told, as `RolloutStore.offer_to` says; whether that `stays` so until anything is decided
    about a rollout anew."""

    tries: int | None
    stays: bool


def tell(database: FleetDatabase, licence: str, offer: Offer) -> Future[Told]:
    """Tell whether that Mainframe may have `offer` now."""
    return database.submit_to(_tell_all, (licence, offer))


def reported_all(connection: sa.Connection, said: Mapping[str, MainframeReport]) -> None:
    """Do `reported` for many Mainframes, by licence, which all say that they run what was offered."""
    for release_seq in sorted({report.release_seq for report in said.values()}):
        row = of_release(connection, release_seq)
        if row is None:
            continue
        of = {licence: report for licence, report in said.items() if report.release_seq == release_seq}
        known = _members(connection, row.id, of)
        moved: _Moved = []
        for licence, report in of.items():
            member = known.get(licence)
            if member is None:
                reported(connection, licence, report)
            elif (member.state, member.reason) != ("succeeded", report.reason):
                moved.append((member, {"reason": report.reason}))
        if moved:
            _move_all(connection, moved, "succeeded")


def _tell_all(connection: sa.Connection, asked: Sequence[tuple[str, Offer]]) -> list[Told]:
    """Do `offer_to_one` for many Mainframes; what each is told, in the order in which they asked."""
    told: dict[tuple[str, int], Told] = {}
    for release_seq in sorted({offer.release_seq for _, offer in asked}):
        of = {licence: offer for licence, offer in asked if offer.release_seq == release_seq}
        row = of_release(connection, release_seq)
        known = _members(connection, row.id, of) if row is not None else {}
        for licence, offer in of.items():
            if licence not in known:
                tries = offer_to_one(connection, licence, offer)
                told[licence, release_seq] = Told(tries, stays=tries is not None)
        if known:
            told |= {(licence, release_seq): answer for licence, answer in _tell_members(connection, row, known)}
    return [told[licence, offer.release_seq] for licence, offer in asked]


def _tell_members(connection: sa.Connection, row: Any, those: Mapping[str, Any]) -> list[tuple[str, Told]]:
    policy = policy_of(row)
    opened = sa.select(waves.c.number).where(waves.c.rollout == row.id, waves.c.opened_at.is_not(None))
    waiting = any(member.state == "waiting" for member in those.values()) and row.status in ("running", "completed")
    may = set(connection.execute(opened).scalars()) if waiting else set()
    at_once = policy.at_once if may else 0
    left = at_once - switching_in(connection, row.id, at_once) if at_once else len(those)
    told: list[tuple[str, Told]] = []
    moved: _Moved = []
    for licence, member in those.items():
        has = has_it(row, member)
        if not has and member.wave in may and len(moved) < left:
            moved.append((member, {"offered_at": to_text(now())}))
            has = True
        told.append((licence, Told(int(member.tries), True) if has else Told(None, member.wave not in may)))
    if moved:
        _move_all(connection, moved, "under_way")
    return told


def _members(connection: sa.Connection, rollout: str, of: Iterable[str]) -> dict[str, Any]:
    found = connection.execute(_MEMBERS, {"rollout": rollout, "licences": sorted(of)})
    return {row.licence: row for row in found}


def _move_all(connection: sa.Connection, moved: _Moved, state: MemberState) -> None:
    """Change the state of many members of one rollout, of which the same values are given, and their waves' counters.

    The order is the same for whoever writes: two that wait for each other's rows would wait for ever.
    """
    time, counted = to_text(now()), Counter[tuple[int, MemberState]]()
    rows = []
    for member, values in sorted(moved, key=lambda each: str(each[0].licence)):
        given = {"state": state, "changed_at": time, **values}
        renamed = {f"new_{name}": value for name, value in given.items()}
        rows.append({"of": member.rollout, "whose": member.licence, **renamed})
        if member.state != state:
            counted[member.wave, member.state] += 1
    connection.execute(moving(("state", "changed_at", *moved[0][1])), rows)
    answered = {"last_answer_at": time, "last_success_at": time} if state == "succeeded" else {}
    for (wave, before), count in sorted(counted.items()):
        count_moved(connection, moved[0][0].rollout, wave, {before: -count, state: count}, **answered)
