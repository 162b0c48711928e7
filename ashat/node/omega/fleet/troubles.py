"""Counts what a rollout's cohort reported beside the rest of the fleet, for the comparison of the two."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ashat.node.core.db import from_text, now, to_text
from ashat.node.omega.fleet.tables import licences, mainframes, members, reports, waves
from ashat.protocol.fleet import PROGRAM_ENDED, PROGRAM_UNHEALTHY, CohortTroubles, GroupTroubles


def cohort_troubles(connection: sa.Connection, rollout: Any) -> CohortTroubles:
    """Count what members of a rollout, which is a row of `rollouts`, reported since it began.

    In the cohort is who is in a wave that is open. Of the rest, who reported to run anything at all counts as running
    its release; whose licence does not count any more is in neither.
    """
    since = rollout.began_at
    open_wave = sa.and_(waves.c.rollout == members.c.rollout, waves.c.number == members.c.wave)
    mine = sa.and_(members.c.rollout == rollout.id, _counts(to_text(now())))
    of = sa.select(members.c.licence, members.c.state).join(waves, open_wave)
    of = of.join(licences, licences.c.id == members.c.licence).where(mine)
    cohort = of.where(waves.c.opened_at.is_not(None)).subquery()
    rest = of.where(waves.c.opened_at.is_(None)).subquery()
    this = reports.c.release_seq == rollout.release_seq
    ran = sa.select(mainframes.c.licence).where(mainframes.c.result != "none")
    return CohortTroubles(
        since=from_text(since),
        cohort=_group(connection, cohort, sa.and_(this, reports.c.last_at >= since), None),
        rest=_group(connection, rest, sa.and_(sa.not_(this), reports.c.last_at >= since), ran),
    )


def _counts(at: str) -> sa.ColumnElement[bool]:
    return sa.and_(licences.c.revoked_at.is_(None), sa.or_(licences.c.expires.is_(None), licences.c.expires > at))


def _group(
    connection: sa.Connection, group: sa.Subquery, which: sa.ColumnElement[bool], ran: sa.Select[Any] | None
) -> GroupTroubles:
    """Count what a group said in the reports `which`; `ran` are those that run its release, None: who said so there."""
    failed = reports.c.result == "failed"
    ended = sa.and_(failed, reports.c.reason.contains(PROGRAM_ENDED, autoescape=True))
    unhealthy = sa.and_(failed, reports.c.reason.contains(PROGRAM_UNHEALTHY, autoescape=True))
    begun = sa.or_(reports.c.result == "running", ended, unhealthy)
    said = sa.select(
        reports.c.licence,
        *(_any(each).label(name) for name, each in (("begun", begun), ("ended", ended), ("unhealthy", unhealthy))),
        _any(failed).label("failed"),
    )
    each = said.where(which).group_by(reports.c.licence).subquery()
    runs = _flag(group.c.licence.in_(ran)) if ran is not None else sa.func.coalesce(each.c.begun, 0)
    troubled = sa.case((sa.or_(each.c.ended == 1, each.c.unhealthy == 1), 1), else_=0)
    refused = sa.case((sa.and_(each.c.failed == 1, each.c.begun == 0), 1), else_=0)
    wanted = sa.select(
        sa.func.count().label("size"),
        *(
            sa.func.coalesce(sa.func.sum(column), 0).label(name)
            for name, column in (
                ("ran", runs),
                ("ended", sa.func.coalesce(each.c.ended, 0)),
                ("unhealthy", sa.func.coalesce(each.c.unhealthy, 0)),
                ("troubled", troubled),
                ("refused", refused),
            )
        ),
    ).select_from(group.outerjoin(each, each.c.licence == group.c.licence))
    return GroupTroubles.model_validate(
        {name: int(value) for name, value in connection.execute(wanted).mappings().one().items()}
    )


def _flag(is_so: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.case((is_so, 1), else_=0)


def _any(is_so: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.max(_flag(is_so))
