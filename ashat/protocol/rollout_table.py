"""Lay a rollout out as tables: its waves with how many Mainframes stand how, and what those said that failed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ashat.protocol.fleet import FailureGroup, RolloutState

WAVE_COLUMNS: Final = (
    "",
    "wave",
    "Mainframes",
    "run it",
    "failed",
    "unreachable",
    "under way",
    "waiting",
    "held",
    "open since (UTC)",
)
FAILURE_COLUMNS: Final = ("Mainframes", "say", "such as")


def wave_rows(found: RolloutState) -> list[tuple[str, ...]]:
    """Write a row for each wave, below `WAVE_COLUMNS`. Names are as they were given: escape them."""
    return [
        (
            str(wave.number + 1),
            wave.name,
            f"{wave.counts.size:,}",
            f"{wave.succeeded:,}",
            f"{wave.failed + wave.accepted:,}",
            f"{wave.unreachable:,}",
            f"{wave.under_way:,}",
            f"{wave.waiting:,}",
            f"{wave.held:,}",
            f"{wave.opened_at:%Y-%m-%d %H:%M:%S}" if wave.opened_at else "not open",
        )
        for wave in found.waves
    ]


def failure_rows(groups: Iterable[FailureGroup]) -> list[tuple[str, ...]]:
    """Write a row for each group of Mainframes that said the same, below `FAILURE_COLUMNS`. What they said is a
    stranger's text: escape it."""
    return [(f"{group.count:,}", group.reason or "no answer in time", ", ".join(group.names)) for group in groups]
