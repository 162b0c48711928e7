"""Say figures of delivery in words, on the terminal and on the page alike."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from ashat.cli.terminal import output

if TYPE_CHECKING:
    from ashat.stats.dora import Times

UNKNOWN = "not known"


def in_words(times: Times) -> str:
    """Say durations in words, with how many they are."""
    if times.median is None or times.longest is None:
        return f"{UNKNOWN} (n = 0)"
    return f"median {duration(times.median)}, longest {duration(times.longest)} (n = {times.n})"


def duration(seconds: float | None) -> str:
    """Say a duration in seconds for people; that it is not known, where there is none."""
    return UNKNOWN if seconds is None else output.span(timedelta(seconds=seconds))


def percent(rate: float | None) -> str:
    """Say a share for people."""
    return UNKNOWN if rate is None else f"{100 * rate:.0f} %"
