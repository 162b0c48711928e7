"""Numbers as peers and strangers write them, in headers and the like: read within bounds, never raising."""

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
    try:
        at = parsedate_to_datetime(text)
        left = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(left.total_seconds(), 0.0), limit)
