"""Decide when people are told again of a question that nobody has answered. Pure, no I/O."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from ashat.deployment.state import ApprovalRequest

Level = Literal["reminder", "escalation"]


class ReminderPolicy(NamedTuple):
    """Say after how many seconds without an answer people are reminded, and how many before the end it is escalated;
    0: never."""

    after: float
    before_end: float


def due(request: ApprovalRequest, policy: ReminderPolicy, at: datetime) -> Level | None:
    """Say which of the two is due by that time: the escalation, once its time has come, stands for the reminder, too.

    A question that waits for less long than the policy thinks of is escalated when half of its time is over.
    """
    if request.since is None or not request.waits(at):
        return None
    if policy.before_end and at >= escalation_time(request, request.since, policy):
        return "escalation"
    if policy.after and at >= request.since + timedelta(seconds=policy.after):
        return "reminder"
    return None


def escalation_time(request: ApprovalRequest, since: datetime, policy: ReminderPolicy) -> datetime:
    """Say when a question that waits `since` then is escalated."""
    return max(request.expires - timedelta(seconds=policy.before_end), since + (request.expires - since) / 2)


def reminder_key(update_id: str, attempt: int, request: ApprovalRequest) -> str:
    """Name the question in the note of what was sent; one that is put anew keeps its name, one that opens again later
    has another."""
    since = request.since.isoformat(timespec="seconds") if request.since else ""
    return f"{update_id}#{attempt} {request.subject} {since}"
