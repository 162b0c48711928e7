"""Write a rollout as one page that stands by itself: how far it came when, its waves, what failed, who decided what.

What Mainframes said, and their names, are texts of strangers: each is cut, and escaped where it is put in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ashat.cli.commands.event_lines import what, who
from ashat.cli.commands.html_pages import WIDTH, render
from ashat.common.text import cut
from ashat.protocol.rollout_table import FAILURE_COLUMNS, WAVE_COLUMNS, failure_rows, wave_rows
from ashat.rollouts.decide import progress
from ashat.rollouts.describe import conditions

if TYPE_CHECKING:
    from ashat.deployment.events import AnyEvent
    from ashat.protocol.fleet import FailureGroup, RolloutState, RolloutStep

HEIGHT: Final = 240
TEXT: Final = 500
DECISIONS: Final = 200
_TOP, _LEFT, _BOTTOM = 16, 8, 30
_KINDS = ("answered", "promoted", "rollout_began", "wave_opened", "rollout_stopped", "rollout_answered", "distributed")


@dataclass(frozen=True)
class Curve:
    """A line of the plot: what it counts, the class that colours it, its SVG path, and how many there are at last."""

    name: str
    style: str
    path: str
    last: int


@dataclass(frozen=True)
class Mark:
    """A wave that was opened, at `x` in the drawing's units."""

    x: float
    name: str
    at: datetime


def rollout_report(
    found: RolloutState,
    steps: Sequence[RolloutStep],
    failures: Sequence[FailureGroup],
    events: Iterable[AnyEvent],
    *,
    omega: str,
) -> str:
    """Write the page of a rollout of `omega`: when Mainframes came to stand as they do (`steps`, the oldest first),
    what those said that failed, and the record's events, of which those are shown that decide about it."""
    decided = [event for event in events if event.kind in _KINDS]
    ends = max([found.at if found.status in ("running", "paused", "asked") else found.changed_at, *_times(steps)])
    begins = min([found.began_at, *_times(steps)])
    return render(
        "rollout.html",
        found=found,
        omega=cut(omega, TEXT),
        progress=progress(found.counts),
        conditions=conditions(found.policy),
        height=HEIGHT,
        base=HEIGHT - _BOTTOM,
        begins=begins,
        ends=ends,
        curves=_curves(steps, begins, ends, found.counts.size),
        marks=_marks(found, begins, ends),
        tables=[
            ("Waves", WAVE_COLUMNS, _cut(wave_rows(found))),
            ("Did not take it", FAILURE_COLUMNS, _cut(failure_rows(failures))),
            ("Who decided what", ("at (UTC)", "what", "by", "in which words"), _decisions(decided, found, omega)),
        ],
        left_out=max(0, len(decided) - DECISIONS),
    )


def _times(steps: Sequence[RolloutStep]) -> list[datetime]:
    return [step.at for step in steps]


def _curves(steps: Sequence[RolloutStep], begins: datetime, ends: datetime, fleet: int) -> list[Curve]:
    wanted = (("run it", "good", "succeeded"), ("failed", "bad", "failed"), ("unreachable", "lost", "unreachable"))
    highest = max([fleet, *(sum(getattr(step, field) for step in steps) for _, _, field in wanted), 1])
    scale, base = (HEIGHT - _TOP - _BOTTOM) / highest, HEIGHT - _BOTTOM
    found = []
    for name, style, field in wanted:
        total, path = 0, f"M{_LEFT} {base}"
        for step in steps:
            total += getattr(step, field)
            path += f"H{_x(step.at, begins, ends)}V{round(base - total * scale, 1)}"
        if total:
            found.append(Curve(name, style, f"{path}H{WIDTH - _LEFT}", total))
    return found


def _marks(found: RolloutState, begins: datetime, ends: datetime) -> list[Mark]:
    opened = [(wave.name, wave.opened_at) for wave in found.opened if wave.opened_at]
    return [Mark(_x(at, begins, ends), cut(name, 20), at) for name, at in opened]


def _x(at: datetime, begins: datetime, ends: datetime) -> float:
    whole = (ends - begins).total_seconds()
    share = min(max((at - begins).total_seconds() / whole, 0), 1) if whole > 0 else 0
    return round(_LEFT + share * (WIDTH - 2 * _LEFT), 1)


def _decisions(decided: Sequence[AnyEvent], found: RolloutState, omega: str) -> list[tuple[str, ...]]:
    rows = [(f"{event.at:%Y-%m-%d %H:%M:%S}", event.name, who(event), what(event, "", omega)) for event in decided]
    return _cut(rows[:DECISIONS])


def _cut(rows: Iterable[Sequence[str]]) -> list[tuple[str, ...]]:
    return [tuple(cut(cell, TEXT) for cell in row) for row in rows]
