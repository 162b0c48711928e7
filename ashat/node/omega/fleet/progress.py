"""Count how a rollout went on: when its members came to stand as they do."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from ashat.node.core.db import from_text
from ashat.node.omega.fleet.tables import members
from ashat.protocol.fleet import RolloutStep

STEPS: Final = 400
_SETTLED: Final = {"succeeded": "succeeded", "failed": "failed", "accepted": "failed", "unreachable": "unreachable"}
# How many characters of a time tell the second, minute, ten minutes, hour, day and month, and how long these last.
_SPANS: Final = ((19, 1), (16, 60), (15, 600), (13, 3600), (10, 86400), (7, 31 * 86400))
_SPAN_BEGINS: Final = "0000-01-01T00:00:00+00:00"


def steps_of(connection: sa.Connection, identity: str) -> list[RolloutStep]:
    """Count when the members of a rollout came to stand as they do, those that failed and were accepted as failed:
    in at most `STEPS` spans of a second, a minute, ten minutes, an hour, a day or a month, the oldest first."""
    settled = sa.and_(members.c.rollout == identity, members.c.state.in_(_SETTLED))
    ends = sa.select(sa.func.min(members.c.changed_at), sa.func.max(members.c.changed_at)).where(settled)
    first, last = connection.execute(ends).one()
    if first is None:
        return []
    seconds = (from_text(last) - from_text(first)).total_seconds()
    length = next((length for length, span in _SPANS if seconds / span < STEPS), _SPANS[-1][0])
    span = sa.func.substr(members.c.changed_at, 1, length).label("span")
    counted = sa.select(span, members.c.state, sa.func.count()).where(settled).group_by(span, members.c.state)
    found: dict[str, dict[str, int]] = {}
    for at, state, count in connection.execute(counted.order_by(span)):
        step = found.setdefault(at, {})
        step[_SETTLED[state]] = step.get(_SETTLED[state], 0) + count
    return [RolloutStep.model_validate({"at": at + _SPAN_BEGINS[len(at) :], **step}) for at, step in found.items()]
