"""Maintenance windows: when they recur by RFC 5545, how long each is, and in which time zone.

A window is written `RECURRENCE DURATION ZONE`, such as `FREQ=WEEKLY;BYDAY=SA,SU;BYHOUR=2 PT4H Europe/Berlin`: a
recurrence rule (RFC 5545, 3.3.10) of days or longer that has no end, a duration (3.3.6) of at most a week, a name of
the IANA time zone database. The rule counts local time from Monday, 2024-01-01, 00:00: a window at 02:30 opens at 02:30
on the clock of its zone in winter and in summer. Where that is skipped, it opens an hour later; where it comes twice,
the first time.

A time that comes once is written `START DURATION ZONE` or `START END ZONE`, such as `2026-12-20 P2W Europe/Berlin` or
`2026-12-24T12:00 2027-01-02 UTC`. `ashat.common.calendar` puts windows and freezes together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rrule, rrulestr

from ashat.errors import UsageError

_START = datetime(2024, 1, 1)  # noqa: DTZ001  # local time of the window's zone
_FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_DURATION = re.compile(r"P(?:([0-9]{1,2})W|(?:([0-9]{1,2})D)?(?:T(?:([0-9]{1,3})H)?(?:([0-9]{1,4})M)?)?)")
_LONGEST = timedelta(days=7)
_LONGEST_ONCE = timedelta(days=366)
_LAST_YEAR = 9000  # so that no arithmetic comes near the end of the calendar
_RULE_LENGTH = 500
HORIZON = timedelta(days=366 * 5)
_DAY = timedelta(days=1)
_RANGES = {"INTERVAL": (1, 1000), "BYMONTH": (1, 12), "BYMONTHDAY": (-31, 31)}
_NUMBER = re.compile(r"[+-]?[0-9]{1,4}")
_DATE = re.compile(r"[0-9]{4}-")
Span = tuple[datetime, datetime]
_PARTS = {
    "FREQ",
    "INTERVAL",
    "WKST",
    "BYDAY",
    "BYMONTHDAY",
    "BYMONTH",
    "BYSETPOS",
    "BYHOUR",
    "BYMINUTE",
}


@dataclass(frozen=True)
class Once:
    """A time that comes once, from `start` to `end`, in UTC; `text` is as it was written."""

    text: str
    start: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str) -> Once:
        """Read a time that comes once.

        Raises:
            UsageError: it is none; one line that says what is wrong.
        """
        words = text.split()
        if len(words) != 3 or len(text) > _RULE_LENGTH:
            raise UsageError(f"{text[:80]!r} is no time: write its start, its duration or end, and a time zone.")
        zone = _zone(words[2])
        start = _moment(words[0], zone)
        end = start + _duration(words[1], _LONGEST_ONCE) if words[1].startswith("P") else _moment(words[1], zone)
        if not timedelta() < end - start <= _LONGEST_ONCE:
            raise UsageError(f"{text[:80]!r} ends before it begins, or lasts longer than a year.")
        return cls(text, start, end)

    def spans(self, after: datetime, until: datetime) -> Iterator[Span]:
        """Yield the time, where any of it is between the two."""
        if self.end > after and self.start <= until:
            yield self.start, self.end


@dataclass(frozen=True)
class Window:
    """One recurring window; `text` is as it was written."""

    text: str
    recurrence: str
    lasts: timedelta
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, longest: timedelta = _LONGEST) -> Window:
        """Read a window that lasts at most so long.

        Raises:
            UsageError: it is none; one line that says what is wrong.
        """
        words = text.split()
        if len(words) != 3 or len(text) > _RULE_LENGTH:
            raise UsageError(
                f"{text[:80]!r} is no window: write a recurrence, a duration and a time zone, with spaces."
            )
        recurrence, duration, zone = words
        window = cls(text, recurrence, _duration(duration, longest), _zone(zone))
        _check(recurrence)
        try:
            comes = window.next(datetime(2024, 1, 1, tzinfo=UTC))
        except (ValueError, OverflowError) as error:
            raise UsageError(f"{recurrence[:80]!r} is no recurrence rule: {error}") from None
        if comes is None:
            raise UsageError(f"{recurrence[:80]!r} never comes within five years of 2024.")
        return window

    def holds(self, at: datetime) -> bool:
        """Tell whether the window is open at `at`."""
        return any(start <= at < start + self.lasts for start in self._starts(at - self.lasts, at))

    def next(self, at: datetime) -> datetime | None:
        """Find when it opens next after `at`, in UTC; None where that is not within five years."""
        return next((start for start in self._starts(at, at + HORIZON) if start > at), None)

    def spans(self, after: datetime, until: datetime) -> Iterator[Span]:
        """Yield, in order, each time that it is open between the two, or partly is."""
        for start in self._starts(after - self.lasts, until):
            if start + self.lasts > after:
                yield start, start + self.lasts

    def _starts(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Each opening from `after` to `until`, in UTC."""
        first, last = (moment.astimezone(self.zone).replace(tzinfo=None) for moment in (after, until))
        for start in self._rule.xafter(first - _DAY, inc=True):
            if start > last + _DAY:
                return
            moment = start.replace(tzinfo=self.zone).astimezone(UTC)
            if after <= moment <= until:
                yield moment

    @cached_property
    def _rule(self) -> rrule:
        rule = rrulestr(self.recurrence, dtstart=_START)
        if not isinstance(rule, rrule):
            raise UsageError(f"{self.recurrence[:80]!r} is no recurrence rule.")
        return rule


Period = Window | Once


def parse_period(text: str, longest: timedelta = _LONGEST) -> Period:
    """Read a time that recurs, for at most so long each time, or that comes once.

    Raises:
        UsageError: it is neither; one line that says what is wrong.
    """
    if _DATE.match(text.lstrip()):
        return Once.parse(text)
    return Window.parse(text, longest)


def _check(recurrence: str) -> None:
    """Refuse a rule of which a day could have more than a few openings, since each look goes through all before it."""
    parts = dict(part.partition("=")[::2] for part in recurrence.upper().split(";"))
    if parts.get("FREQ") not in _FREQUENCIES:
        raise UsageError(f"{recurrence[:80]!r} recurs by none of {', '.join(_FREQUENCIES)}: it needs FREQ=…")
    if strange := sorted(parts.keys() - _PARTS):
        raise UsageError(f"{recurrence[:80]!r} has {strange[0][:20]!r}; it may have {', '.join(sorted(_PARTS))}.")
    # What never comes is followed to the year 9999, in steps of FREQ.
    if "BYMONTHDAY" in parts and parts["FREQ"] not in ("MONTHLY", "YEARLY"):
        raise UsageError(f"{recurrence[:80]!r} has BYMONTHDAY; that goes with FREQ=MONTHLY or FREQ=YEARLY.")
    for name, (lowest, highest) in _RANGES.items():
        for text in parts.get(name, "1").split(","):
            if not (_NUMBER.fullmatch(text) and lowest <= int(text) <= highest):
                raise UsageError(f"{recurrence[:80]!r} is no recurrence rule: {name} is from {lowest} to {highest}.")
    if "," in parts.get("BYMINUTE", ""):
        raise UsageError(f"{recurrence[:80]!r} has several BYMINUTE; write a window for each.")


def _duration(text: str, longest: timedelta) -> timedelta:
    found = _DURATION.fullmatch(text)
    weeks, days, hours, minutes = (int(number or 0) for number in found.groups()) if found else (0, 0, 0, 0)
    lasts = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes)
    if not timedelta() < lasts <= longest:
        words = "a week" if longest == _LONGEST else f"{longest.days} days"
        raise UsageError(f"{text[:40]!r} is no duration of up to {words}, such as PT4H or PT90M.")
    return lasts


def _moment(text: str, zone: ZoneInfo) -> datetime:
    """Read a local date or time of that zone; in UTC."""
    try:
        local = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text[:40]!r} is no time; write it as 2026-12-20 or 2026-12-20T22:00.") from None
    if local.tzinfo is not None:
        raise UsageError(f"{text[:40]!r} has an offset beside the time zone {zone.key}: write it without.")
    if not _START.year <= local.year < _LAST_YEAR:
        raise UsageError(f"{text[:40]!r} is in no year from {_START.year} to {_LAST_YEAR}.")
    return local.replace(tzinfo=zone).astimezone(UTC)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"{name[:60]!r} is no time zone, such as Europe/Berlin or UTC.") from None
