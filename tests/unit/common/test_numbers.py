"""Numbers that strangers write are read within bounds, and never raise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.common.numbers import LARGEST, read_count, read_retry_after

ODD = ("", "²", "٣", "-1", "+1", "1.5", "nan", "inf", "1e9", "0x10", " 1", "1_000", "9" * 5000, str(LARGEST + 1))


@pytest.mark.parametrize("text", ODD, ids=lambda text: ascii(text)[:20])
def test_a_count_is_ascii_digits_up_to_a_bound(text: str) -> None:
    assert read_count(text) is None


def test_a_count_is_read() -> None:
    assert [read_count(text) for text in ("0", "007", str(LARGEST))] == [0, 7, LARGEST]


@pytest.mark.parametrize(
    "text",
    ["", "²", "-1", "1.5", "nan", "inf", "soon", "Mon, 99 Foo 2026", "Thu, 01 Jan 1 00:00:00 +999999999999", "٣"],
)
def test_a_retry_after_that_says_nothing_is_none(text: str) -> None:
    assert read_retry_after(text, 300) is None


@pytest.mark.parametrize(
    "text", ["99999999999", "9" * 5000, "2592000", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -1200"]
)
def test_a_long_retry_after_ends_at_the_limit(text: str) -> None:
    assert read_retry_after(text, 300) == 300


def test_a_retry_after_is_seconds_or_a_date() -> None:
    assert read_retry_after(" 7 ", 300) == 7
    assert read_retry_after("Thu, 01 Jan 1970 00:00:00 GMT", 300) == 0
    soon = read_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=100)), 300)
    assert soon is not None
    assert 10 < soon <= 100


@given(st.one_of(st.text(), st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [-+A-Z0-9]*")))
def test_no_text_raises_or_leaves_the_bounds(text: str) -> None:
    count, pause = read_count(text), read_retry_after(text, 300)
    assert count is None or 0 <= count <= LARGEST
    assert pause is None or 0 <= pause <= 300
