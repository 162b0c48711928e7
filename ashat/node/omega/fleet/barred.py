"""Which Mainframes a rollout's release cannot be installed on: they are named, offered nothing, and in no wave."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from ashat.common.documents import STATE_LIMIT, load_json
from ashat.node.omega.fleet.tables import licences, reports, rollouts
from ashat.protocol.fleet import FailureGroup

NAMES_SHOWN = 5


def barred_of(rollout: Any) -> dict[str, str]:
    """Read the bundles on which the release of a row of `rollouts` cannot be installed, each with the reason."""
    return _read(rollout.barred)


def newest_barred(connection: sa.Connection) -> dict[str, str]:
    """Read the same of the newest rollout; nothing where there is none."""
    wanted = sa.select(rollouts.c.barred).order_by(rollouts.c.release_seq.desc()).limit(1)
    return _read(connection.execute(wanted).scalar() or "{}")


@lru_cache(16)
def _read(text: str) -> dict[str, str]:
    return {str(bundle): str(why) for bundle, why in load_json(text.encode(), limit=STATE_LIMIT).items()}


def running(connection: sa.Connection, licence: str | None = None) -> dict[str, str]:
    """Read which bundle each Mainframe reported last to run, by its licence; of that one, where it is given."""
    ran = sa.select(reports.c.licence, sa.func.max(reports.c.seq).label("seq")).where(reports.c.result == "running")
    if licence is not None:
        ran = ran.where(reports.c.licence == licence)
    last = ran.group_by(reports.c.licence).subquery()
    wanted = sa.select(reports.c.licence, reports.c.bundle).join(last, last.c.seq == reports.c.seq)
    return {row.licence: row.bundle for row in connection.execute(wanted)}


def is_barred(connection: sa.Connection, rollout: Any, licence: str) -> bool:
    """Tell whether the release cannot be installed on what that Mainframe runs."""
    barred = barred_of(rollout)
    return bool(barred) and running(connection, licence).get(licence) in barred


def barred_groups(connection: sa.Connection, rollout: Any, counted: sa.ColumnElement[bool]) -> list[FailureGroup]:
    """Group the Mainframes whose licence is `counted` that are barred, by what they run."""
    barred = barred_of(rollout)
    if not barred:
        return []
    names: dict[str, list[str]] = {}
    known = connection.execute(sa.select(licences.c.id, licences.c.name).where(counted).order_by(licences.c.name)).all()
    runs = running(connection)
    for licence, name in known:
        if (bundle := runs.get(licence, "")) in barred:
            names.setdefault(barred[bundle], []).append(name)
    return [
        FailureGroup(state="barred", reason=why, count=len(found), names=found[:NAMES_SHOWN])
        for why, found in sorted(names.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
