"""Clocks: the one that people set and that may be wrong, and the one that only counts since this machine started."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

# By how much two clocks may differ before that is worth a word: certificates and signed times are made with less care.
SKEW_LIMIT = timedelta(minutes=5)
_UNITS = (("days", timedelta(days=1)), ("hours", timedelta(hours=1)), ("minutes", timedelta(minutes=1)))


def uptime() -> float:
    """Return the seconds since this machine started, asleep or not; whoever sets the clock does not change it.

    It is comparable among processes for which `boot_id` is the same.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@cache
def boot_id() -> str:
    """Identify this start of this machine; where the system does not, this process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return uuid.uuid4().hex


def written_at(path: str | Path, at: float) -> float:
    """Return `at`, the file's own time; a time to come, as a clock that was ahead left it, becomes now."""
    now = time.time()
    if at <= now + SKEW_LIMIT.total_seconds():
        return at
    os.utime(path)
    return now


def skew(theirs: datetime, whose: str, here: datetime | None = None) -> str:
    """Say how far the clock here is from `theirs`, such as "the clock here is 730 days behind OMEGA's"; "" where it is
    not far."""
    off = (here or datetime.now(UTC)) - theirs
    if abs(off) <= SKEW_LIMIT:
        return ""
    unit, length = next((name, length) for name, length in _UNITS if abs(off) >= 2 * length)
    return (
        f"the clock here is {round(abs(off) / length)} {unit} {'behind' if off < timedelta() else 'ahead of'} {whose}"
    )
