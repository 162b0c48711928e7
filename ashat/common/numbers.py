"""Numbers and times as peers and strangers write them: read within the bounds of what is stored and of the calendar."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# What JSON numbers hold exactly, and SQLite's integers too.
LARGEST = 1 << 53
_DIGITS = re.compile(r"[0-9]{1,16}")


def read_count(text: str) -> int | None:
    """Read a number of ASCII digits; None where it is none, or above 2**53."""
    number = int(text) if _DIGITS.fullmatch(text) else None
    return number if number is not None and number <= LARGEST else None


def read_retry_after(text: str, limit: float) -> float | None:
    """Read `Retry-After` as seconds from now, at most `limit` (RFC 9110, 10.2.3: seconds, or a date); None: neither."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:20]), limit)
    at = read_date(text)
    return None if at is None else min(max((at - datetime.now(UTC)).total_seconds(), 0.0), limit)


def read_date(text: str) -> datetime | None:
    """Read a date as headers have it (RFC 9110, 5.6.7); None where it is none."""
    try:
        at = parsedate_to_datetime(text.strip())
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def in_utc(moment: datetime) -> datetime:
    """Return an aware time as it is in UTC.

    Raises:
        ValueError: it is beyond the calendar's ends there.
    """
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is beyond the ends of the calendar in UTC") from None
