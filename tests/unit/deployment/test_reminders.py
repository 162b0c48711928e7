"""When people are told again of a question that nobody has answered."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ashat.deployment.reminders import ReminderPolicy, due, reminder_key
from ashat.deployment.state import ApprovalRequest

BEGAN = datetime(2026, 11, 24, tzinfo=UTC)
DAY = 86400
WEEK = ApprovalRequest("release", BEGAN + timedelta(days=7), "UPD-1", 1, "e" * 64, since=BEGAN)
DEFAULT = ReminderPolicy(DAY, DAY)


@pytest.mark.parametrize(
    ("hours", "policy", "level"),
    [
        (0, DEFAULT, None),
        (23.9, DEFAULT, None),
        (24, DEFAULT, "reminder"),
        (143.9, DEFAULT, "reminder"),
        (144, DEFAULT, "escalation"),
        (167.9, DEFAULT, "escalation"),
        (168, DEFAULT, None),
        (100, ReminderPolicy(0, DAY), None),
        (167, ReminderPolicy(DAY, 0), "reminder"),
        (167, ReminderPolicy(0, 0), None),
        (80, ReminderPolicy(DAY, 30 * DAY), "reminder"),
        (84, ReminderPolicy(DAY, 30 * DAY), "escalation"),
    ],
)
def test_a_question_is_due_by_the_policy(hours: float, policy: ReminderPolicy, level: str | None) -> None:
    assert due(WEEK, policy, BEGAN + timedelta(hours=hours)) == level


def test_what_is_decided_or_has_no_beginning_is_never_due() -> None:
    late = BEGAN + timedelta(hours=150)
    assert due(replace(WEEK, decision="reject"), DEFAULT, late) is None
    assert due(replace(WEEK, since=None), DEFAULT, late) is None


def test_a_question_that_is_put_anew_is_the_same_and_one_of_a_later_gate_another() -> None:
    assert reminder_key("UPD-1", 1, WEEK) == reminder_key("UPD-1", 1, replace(WEEK, ordinal=7, run="another"))
    later = replace(WEEK, since=BEGAN + timedelta(hours=1))
    assert len({reminder_key("UPD-1", 1, WEEK), reminder_key("UPD-1", 2, WEEK), reminder_key("UPD-1", 1, later)}) == 3
