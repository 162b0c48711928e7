"""Remind people of a question that nobody answers, and escalate it before it ends, once each."""

from __future__ import annotations

from ashat.deployment.moments import reminder_of
from ashat.deployment.reminders import Level, ReminderPolicy, due, reminder_key
from ashat.deployment.state import ApprovalRequest
from ashat.deployment.state_machine import State
from ashat.inbox.gather import waiting_for
from ashat.ledger.ledger import Ledger
from ashat.settings import Settings
from tasks.runtime.deployment import Deployment
from tasks.runtime.events import tell
from tasks.runtime.notify import notify
from tasks.runtime.run import now

REMINDERS = "reminders"
_KEPT = 1000


def remind(d: Deployment) -> list[str]:
    """Tell people again of the questions about one deployment that nobody has answered for too long, by the settings; a
    line for each. What is sent is noted first, so that nothing is sent twice.

    Raises:
        LedgerError: who can answer cannot be read, or the note cannot be written.
    """
    settings, state, at = Settings(), d.state, now()
    policy, lines = ReminderPolicy(settings.remind_after, settings.escalate_before), []
    for subject in ("rollback", "release"):
        request = state.undecided(subject)
        level = due(request, policy, at) if request is not None and not state.rolling_back else None
        if request is None or level is None:
            continue
        who = _words(d, state, request)
        if not _note_first(d.ledger, reminder_key(d.update_id, d.attempt, request), level):
            continue
        tell([reminder_of(state, request, level, at)])
        _send(d, request, level, who)
        lines.append(f"{d.update_id}: people were told again that its {subject} waits ({level})")
    return lines


def _words(d: Deployment, state: State, request: ApprovalRequest) -> str:
    waiting = waiting_for(state.summary(), request.summary(), d.ledger.document)
    return f"{waiting.what}\nIt can be answered by {waiting.who}: {waiting.how}"


def _send(d: Deployment, request: ApprovalRequest, level: Level, who: str) -> None:
    what = "approval" if request.subject == "release" else f"an approval of its {request.subject}"
    until = f"It closes at {request.expires:%Y-%m-%d %H:%M} UTC."
    escalation = level == "escalation"
    subject = (
        f"{d.update_id}: nobody answers, and it closes soon" if escalation else f"{d.update_id} still awaits {what}"
    )
    notify(subject, f"{who}\n{until}", run=request.run, escalation=escalation)


def _note_first(ledger: Ledger, key: str, level: Level) -> bool:
    """Note that this is sent now; False where it, or the escalation that stands for it, was sent before."""
    sent: dict[str, list[str]] = (ledger.newest(REMINDERS) or {}).get("sent", {})
    before = sent.get(key, [])
    if level in before or "escalation" in before:
        return False
    others = [(other, levels) for other, levels in sent.items() if other != key]
    ledger.put_newest(REMINDERS, {"sent": dict([*others[-_KEPT:], (key, [*before, level])])})
    return True
