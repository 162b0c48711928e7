"""Put windows and freezes together: may something happen now, and when next? Pure.

Where there are windows, it may happen only while one is open; while a freeze holds, it may not, whatever window is
open.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from ashat.common.text import cut, printable
from ashat.common.windows import HORIZON, Period, Span, parse_period
from ashat.errors import UsageError

Kind = Literal["window", "freeze"]
MOST: Final = 50
"""How many windows, and how many freezes, one calendar has at most."""
LONGEST_FREEZE: Final = timedelta(days=92)
_NOTE: Final = 200
_EXAMPLES: Final = {"window": "FREQ=DAILY;BYHOUR=2 PT4H Europe/Berlin", "freeze": "2026-12-20 P2W Europe/Berlin"}
_SPANS: Final = 20_000
_WORDS = re.compile(r"\s*(\S+\s+\S+\s+\S+)(?:\s+(.*))?", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """A window or a freeze, with a note that says why; it is written as the time, then the note."""

    kind: Kind
    period: Period
    note: str = ""

    @classmethod
    def parse(cls, kind: Kind, text: str) -> Entry:
        """Read `TIME [NOTE]`, a time as of `ashat.common.windows`.

        Raises:
            UsageError: it is none; one line that says what is wrong.
        """
        time, note = _words(kind, text)
        period = parse_period(" ".join(time.split()), LONGEST_FREEZE) if kind == "freeze" else parse_period(time)
        return cls(kind, period, cut(printable(note.strip()), _NOTE))

    @classmethod
    def noted(cls, kind: Kind, time: str, note: str) -> Entry:
        """Read a time as `parse` does, and give it that note.

        Raises:
            UsageError: it is none; one line that says what is wrong.
        """
        _words(kind, time)  # else a part of the note would be read as one of the time
        return cls.parse(kind, f"{time} {note}")

    @property
    def text(self) -> str:
        """Spell it as it is kept."""
        return f"{self.period.text} {self.note}".strip()


@dataclass(frozen=True)
class Closed:
    """Why something may not happen now, and from when on it may; None: not within five years."""

    why: str
    opens: datetime | None

    @property
    def words(self) -> str:
        """Say both in a line."""
        return f"{self.why}; {self.until}"

    @property
    def until(self) -> str:
        """Say until when."""
        return f"it opens at {self.opens:%Y-%m-%d %H:%M} UTC" if self.opens else "it does not open within five years"


@dataclass(frozen=True)
class Calendar:
    """The windows and freezes of one thing, such as a server."""

    windows: tuple[Entry, ...] = ()
    freezes: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, windows: Iterable[str], freezes: Iterable[str]) -> Calendar:
        """Read both.

        Raises:
            UsageError: one of them does not fit, or there are too many.
        """
        found = cls(
            tuple(Entry.parse("window", text) for text in windows),
            tuple(Entry.parse("freeze", text) for text in freezes),
        )
        if max(len(found.windows), len(found.freezes)) > MOST:
            raise UsageError(f"There are more than {MOST} windows, or freezes: remove some.")
        return found

    def closed(self, at: datetime) -> Closed | None:
        """Say why it may not happen at that time; None where it may."""
        frozen = next((one for one in self.freezes if _holds(one.period, at)), None)
        if frozen is not None:
            note = f": {frozen.note}" if frozen.note else ""
            return Closed(f"a freeze holds{note}", self.opens(at))
        if self.windows and not any(_holds(one.period, at) for one in self.windows):
            return Closed("no window is open", self.opens(at))
        return None

    def opens(self, at: datetime) -> datetime | None:
        """Find the first moment from `at` on in which it may happen; None where there is none within five years."""
        until = at + HORIZON
        windows = _merged(self.windows, at, until) if self.windows else iter([(at, until)])
        freezes, waiting = _merged(self.freezes, at, until), None
        free = at
        for (start, end), _ in zip(windows, range(_SPANS), strict=False):
            free = max(free, start)
            while (waiting := waiting or next(freezes, None)) is not None and waiting[0] <= free:
                free, waiting = max(free, waiting[1]), None
            if free < end:
                return free
        return None


def _words(kind: Kind, text: str) -> tuple[str, str]:
    """Take the time and the note apart."""
    found = _WORDS.fullmatch(text)
    if found is None:
        raise UsageError(
            f"{text[:80]!r} is no {kind}: write when it recurs or begins, how long it lasts or when it ends, and a "
            f"time zone, such as '{_EXAMPLES[kind]}'."
        )
    return found[1], found[2] or ""


def _holds(period: Period, at: datetime) -> bool:
    return any(start <= at < end for start, end in period.spans(at, at))


def _merged(entries: Iterable[Entry], after: datetime, until: datetime) -> Iterator[Span]:
    return heapq.merge(*(one.period.spans(after, until) for one in entries))
