"""Maintenance windows: when each is open, over changes of the clocks too, and which texts are none."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from ashat.common.windows import Window
from ashat.errors import UsageError

NIGHTS = "FREQ=WEEKLY;BYDAY=SA,SU;BYHOUR=2 PT4H Europe/Berlin"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "moment", "holds"),
    [
        (NIGHTS, "2026-01-03 00:59", False),  # 01:59 in winter
        (NIGHTS, "2026-01-03 01:00", True),
        (NIGHTS, "2026-01-03 04:59", True),
        (NIGHTS, "2026-01-03 05:00", False),
        (NIGHTS, "2026-01-02 02:00", False),
        (NIGHTS, "2026-07-04 00:00", True),  # 02:00 in summer
        (NIGHTS, "2026-07-04 04:00", False),
        (
            "FREQ=DAILY;BYHOUR=2;BYMINUTE=30 PT1H Europe/Berlin",
            "2026-03-29 01:30",
            True,
        ),  # skipped: 03:30 in summer time
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=30 PT30M Europe/Berlin", "2026-10-25 00:30", True),  # comes twice: the first
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=30 PT30M Europe/Berlin", "2026-10-25 01:30", False),
        ("FREQ=DAILY;BYHOUR=22 PT6H UTC", "2026-05-02 03:59", True),  # over midnight
        ("FREQ=MONTHLY;BYDAY=1SU P1D UTC", "2026-11-01 12:00", True),
        ("FREQ=MONTHLY;BYDAY=1SU P1D UTC", "2026-11-08 12:00", False),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29 P1W UTC", "2028-03-05 00:00", True),
        ("FREQ=DAILY P7D UTC", "2026-05-02 03:59", True),
    ],
)
def test_when_a_window_is_open(window: str, moment: str, holds: bool) -> None:
    assert Window.parse(window).holds(at(moment)) is holds


def test_when_it_opens_next() -> None:
    window = Window.parse(NIGHTS)
    assert window.next(at("2026-01-02 12:00")) == at("2026-01-03 01:00")
    assert window.next(at("2026-01-03 01:00")) == at("2026-01-04 01:00")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no window"),
        ("FREQ=DAILY PT1H", "is no window"),
        ("FREQ=DAILY PT1H UTC more", "is no window"),
        ("x" * 600, "is no window"),
        ("FREQ=SECONDLY PT1H UTC", "recurs by none of"),
        ("FREQ=HOURLY PT1H UTC", "recurs by none of"),
        ("BYDAY=MO PT1H UTC", "it needs FREQ="),
        ("FREQ=DAILY;BYMINUTE=0,1,2 PT1H UTC", "several BYMINUTE"),
        ("FREQ=DAILY;BYSECOND=1 PT1H UTC", "has 'BYSECOND'"),
        ("FREQ=DAILY;BYHOUR=25 PT1H UTC", "recurrence rule"),
        ("FREQ=DAILY;INTERVAL=0 PT1H UTC", "recurrence rule"),
        ("FREQ=DAILY;INTERVAL=x PT1H UTC", "recurrence rule"),
        ("FREQ=DAILY;INTERVAL=-1 PT1H UTC", "recurrence rule"),
        ("FREQ=YEARLY;INTERVAL=99999999999 PT1H UTC", "recurrence rule"),
        ("FREQ=DAILY;COUNT=-1 PT1H UTC", "has 'COUNT'"),
        ("FREQ=DAILY;BYMONTHDAY=1 PT1H UTC", "goes with FREQ=MONTHLY"),
        ("FREQ=MONTHLY;BYMONTHDAY=99 PT1H UTC", "recurrence rule|never comes"),
        ("FREQ=DAILY;BYMONTH=13 PT1H UTC", "recurrence rule|never comes"),
        ("FREQ=WEEKLY;BYDAY=XX PT1H UTC", "recurrence rule"),
        ("FREQ=MONTHLY;BYSETPOS=400;BYDAY=MO PT1H UTC", "recurrence rule|never comes"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30 PT1H UTC", "never comes"),
        ("FREQ=DAILY;UNTIL=20200101T000000 PT1H UTC", "has 'UNTIL'"),
        ("FREQ=DAILY PT0M UTC", "is no duration"),
        ("FREQ=DAILY P PT UTC", "is no window"),
        ("FREQ=DAILY PT200H UTC", "is no duration"),
        ("FREQ=DAILY 4h UTC", "is no duration"),
        ("FREQ=DAILY PT1H Mars/Olympus", "is no time zone"),
        ("FREQ=DAILY PT1H ../../etc/passwd", "is no time zone"),
        ("FREQ=DAILY PT1H /etc/localtime", "is no time zone"),
    ],
)
def test_what_is_no_window_is_one_line(text: str, says: str) -> None:
    began = time.monotonic()
    with pytest.raises(UsageError, match=says) as refused:
        Window.parse(text)
    assert "\n" not in str(refused.value)
    assert time.monotonic() - began < 5


def test_each_opening_of_a_year_lasts_as_long_as_it_says() -> None:
    window = Window.parse("FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=30 PT45M America/New_York")
    moment, opened = at("2026-01-01 00:00"), 0
    while moment < at("2027-01-01 00:00"):
        opens = window.next(moment)
        assert opens is not None
        assert window.holds(opens)
        assert window.holds(opens + timedelta(minutes=44))
        assert not window.holds(opens + timedelta(minutes=45))
        assert not window.holds(opens - timedelta(seconds=1))
        moment, opened = opens, opened + 1
    assert opened == 53  # the last is the first of the year after
