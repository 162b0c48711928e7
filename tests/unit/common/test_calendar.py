"""Calendars: when something may happen by windows and freezes, and when next."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from ashat.common.calendar import MOST, Calendar, Entry, Kind
from ashat.errors import UsageError

NIGHT = "FREQ=DAILY;BYHOUR=2 PT2H Europe/Berlin"
YEAR_END = "2026-12-20 2027-01-02 Europe/Berlin nobody is here"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("windows", "freezes", "moment", "why", "opens"),
    [
        ((), (), "2026-11-30 12:00", "", "2026-11-30 12:00"),
        ((NIGHT,), (), "2026-11-30 12:00", "no window is open", "2026-12-01 01:00"),
        ((NIGHT,), (), "2026-12-01 01:30", "", "2026-12-01 01:30"),
        ((), (YEAR_END,), "2026-12-19 22:59", "", "2026-12-19 22:59"),
        ((), (YEAR_END,), "2026-12-19 23:00", "a freeze holds: nobody is here", "2027-01-01 23:00"),
        ((NIGHT,), (YEAR_END,), "2026-12-25 01:30", "a freeze holds: nobody is here", "2027-01-02 01:00"),
        ((NIGHT,), (YEAR_END,), "2026-12-19 12:00", "no window is open", "2027-01-02 01:00"),
        # The clocks go forward on 2026-03-29 at 02:00: the window of that night opens an hour later by them.
        ((NIGHT,), (), "2026-03-28 12:00", "no window is open", "2026-03-29 01:00"),
        ((NIGHT,), (), "2026-03-29 12:00", "no window is open", "2026-03-30 00:00"),
        # A freeze in the middle of a window splits it.
        (("2026-12-01T10:00 PT4H UTC",), ("2026-12-01T11:00 PT1H UTC",), "2026-12-01 11:30", "a freeze holds", "12:00"),
        # Two freezes without a gap are one.
        ((), ("2026-12-01 P1D UTC", "2026-12-02 P1D UTC"), "2026-12-01 05:00", "a freeze holds", "2026-12-03 00:00"),
        # A window that a freeze always covers never opens.
        ((NIGHT,), ("FREQ=DAILY PT12H Europe/Berlin",), "2026-11-30 12:00", "no window is open", None),
        (("2026-12-01 P1D UTC",), (), "2026-12-02 00:00", "no window is open", None),
    ],
)
def test_whether_it_may_happen_and_when_next(
    windows: tuple[str, ...], freezes: tuple[str, ...], moment: str, why: str, opens: str | None
) -> None:
    calendar, now = Calendar.of(windows, freezes), at(moment)
    closed = calendar.closed(now)
    assert (closed.why if closed else "") == why
    wanted = opens and at(opens if "-" in opens else f"{moment[:10]} {opens}")
    assert calendar.opens(now) == wanted
    if wanted:
        assert calendar.closed(wanted) is None
    if closed:
        assert ("does not open" in closed.words) is (opens is None)


def test_it_is_closed_at_each_moment_before_it_opens() -> None:
    calendar = Calendar.of([NIGHT, "FREQ=WEEKLY;BYDAY=SA P1D UTC"], ["FREQ=MONTHLY;BYMONTHDAY=1 P4D UTC month end"])
    moment = at("2026-11-30 00:00")
    opens = calendar.opens(moment)
    assert opens is not None
    for minutes in range(0, 9 * 24 * 60, 131):
        now = moment + timedelta(minutes=minutes)
        found = calendar.opens(now)
        assert found is not None
        assert (calendar.closed(now) is None) == (found == now)
        assert calendar.closed(found) is None
        assert calendar.closed(found - timedelta(minutes=1)) is not None or found - timedelta(minutes=1) < now


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no freeze"),
        ("2026-12-20 P2W", "is no freeze"),
        ("2026-12-20 P2W Mars/Olympus", "is no time zone"),
        ("2026-12-20 2026-12-20 UTC", "ends before it begins"),
        ("2026-12-20 2028-12-20 UTC", "longer than a year"),
        ("2026-12-20 P90W UTC", "is no duration of up to 366 days"),
        ("2026-13-20 P1W UTC", "is no time; write it"),
        ("2026-12-20T10:00Z P1W UTC", "has an offset"),
        ("9999-12-31 P1W UTC", "is in no year"),
        ("0001-01-01 P1W Pacific/Kiritimati", "is in no year"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30 P1D UTC", "never comes"),
        ("FREQ=DAILY;UNTIL=99991231T000000 PT1H UTC", "has 'UNTIL'"),
        ("FREQ=MONTHLY P100D UTC", "is no duration|never comes"),
    ],
)
def test_what_is_no_freeze_is_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        Entry.parse("freeze", text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("time", ["", "   ", "2026-12-20", "2026-12-20 P2W"])
def test_no_word_of_a_note_is_read_as_one_of_the_time(time: str) -> None:
    for kind in get_args(Kind):
        with pytest.raises(UsageError, match=f"is no {kind}: write when") as refused:
            Entry.noted(kind, time, "UTC the year ends")
        assert "\n" not in str(refused.value)
    assert Entry.noted("freeze", "2026-12-20 P2W UTC", "the year ends").note == "the year ends"


@pytest.mark.parametrize("kind", get_args(Kind))
def test_the_time_that_a_refusal_shows_is_one(kind: Kind) -> None:
    with pytest.raises(UsageError) as refused:
        Entry.noted(kind, "", "")
    shown = str(refused.value).split("such as '")[1].removesuffix("'.")
    assert Entry.noted(kind, shown, "").text == shown


def test_a_note_is_one_printable_line_and_is_kept() -> None:
    entry = Entry.parse("freeze", "2026-12-20  P2W \n UTC  year\x1b[2J end\nmore " + "x" * 400)
    assert entry.text.startswith("2026-12-20 P2W UTC year\\x1b[2J end more xx")
    assert len(entry.note) <= 200
    assert Entry.parse("freeze", entry.text) == entry


def test_many_windows_are_refused_and_busy_ones_are_quick() -> None:
    with pytest.raises(UsageError, match=f"more than {MOST}"):
        Calendar.of([NIGHT] * (MOST + 1), [])
    hours = ",".join(map(str, range(24)))
    busy = [f"FREQ=DAILY;BYHOUR={hours} PT1M UTC"] * MOST
    began = time.process_time()
    assert Calendar.of(busy, ["FREQ=DAILY P1D UTC"]).opens(at("2026-11-30 12:00")) is None
    print(f"fifty busy windows under a freeze without end: {time.process_time() - began:.1f} s")
