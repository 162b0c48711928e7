"""Read the ages that options take, such as 30m, 12h or 7d."""

from __future__ import annotations

from datetime import timedelta

from ashat.errors import UsageError

_UNITS = {"m": 60, "h": 3600, "d": 86400}


def parse_age(text: str, option: str) -> timedelta:
    """Read an age in minutes, hours or days.

    Raises:
        UsageError: it is none; the line names `option`.
    """
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit()) or len(number) > 5:
        raise UsageError(f"{option} takes minutes, hours or days, such as 30m, 12h or 7d; not {text[:40]!r}.")
    return timedelta(seconds=int(number) * _UNITS[unit])
