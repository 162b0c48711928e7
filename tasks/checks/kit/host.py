"""Looks how busy this host is with other things than what is measured on it."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.checks.kit.samples import Block

LOOK_SECONDS = 0.1
BUSY_PER_MILLE = 250
"""From this share of the processors on, times that are measured beside it say little about a release."""


def busy_over(blocks: Iterable[Block]) -> int | None:
    """Compute how busy this host was with other things, in the mean of the blocks, per mille; None: not known."""
    looks = [block.busy_per_mille for block in blocks if block.busy_per_mille is not None]
    return round(sum(looks) / len(looks)) if looks else None


def busy_in_words(per_mille: int | None) -> str:
    """Name the host's load, and what to do."""
    if per_mille is None:
        return "; verify again once its host is quiet"
    return f"; this host was {per_mille // 10} % busy with other things: verify again once it is quiet"


def busy_per_mille() -> int:
    """Measure for `LOOK_SECONDS` which share of this host's processors is in use, while nobody loads the program."""
    import psutil

    return round(psutil.cpu_percent(LOOK_SECONDS) * 10)
