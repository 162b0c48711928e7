"""Say to a task what happened to a release that brings it: which moments, and in which words. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import uuid5

from ashat.common.text import cut
from ashat.common.trackers import TaskComment, Tracker
from ashat.deployment.moments import ReleasePayload, Told

COMPLETED: Final = "ashat.release.completed"
_WORDS = 500


def comments_of(told: Told, tracker: Tracker) -> list[TaskComment]:
    """Make the comments that the tracker's tasks get of a moment; none of one that they do not hear of."""
    say = _SAID.get(told.event.removeprefix("ashat.release."))
    payload = told.payload
    if say is None or not isinstance(payload, ReleasePayload):
        return []
    keys = dict.fromkeys(key for task in payload.tasks if (key := tracker.claims(task)))
    text, spelled = say(payload), payload.model_dump(mode="json")
    return [
        TaskComment(
            key=key,
            marker=str(uuid5(told.id, f"{tracker.block}:{key}")),
            text=text,
            event=told.event,
            occurred=told.occurred,
            completes=told.event == COMPLETED,
            payload=spelled,
        )
        for key in keys
    ]


def _pushed(payload: ReleasePayload) -> str:
    return f"{_name(payload)} was pushed to {payload.public}{_by(payload)}: {cut(payload.description, _WORDS)}"


def _verified(payload: ReleasePayload) -> str:
    how = "with warnings" if payload.outcome == "attention" else "and all passed"
    return f"{_name(payload)} went through its checks, {how}."


def _wanted(payload: ReleasePayload) -> str:
    until = f" until {payload.expires:%Y-%m-%d %H:%M} UTC" if payload.expires else ""
    return f"{_name(payload)} waits for approval{until}."


def _promoted(payload: ReleasePayload) -> str:
    number = "" if payload.release_seq is None else f" as release {payload.release_seq}"
    return f"{payload.target} runs {_name(payload)}{number}."


def _completed(payload: ReleasePayload) -> str:
    found = payload.mainframes
    if found is None:
        return f"{_name(payload)} is completed."
    total = found.running + found.failed + found.missing
    others = [f"{count} {word}" for count, word in ((found.failed, "failed"), (found.missing, "missing")) if count]
    rest = f" ({', '.join(others)})" if others else ""
    return f"{_name(payload)} is completed: {found.running} of {total} Mainframes run it{rest}."


def _plain(words: str) -> Callable[[ReleasePayload], str]:
    """Say that it `words`, by whom and why, as far as that is known."""

    def say(payload: ReleasePayload) -> str:
        why = f": {cut(payload.reason, _WORDS)}" if payload.reason else "."
        return f"{_name(payload)} {words}{_by(payload)}{why}"

    return say


def _name(payload: ReleasePayload) -> str:
    return payload.update_id + (f" (attempt {payload.attempt})" if payload.attempt > 1 else "")


def _by(payload: ReleasePayload) -> str:
    return f" by {cut(payload.by, 100)}" if payload.by else ""


_SAID: dict[str, Callable[[ReleasePayload], str]] = {
    "pushed": _pushed,
    "verified": _verified,
    "failed": lambda payload: f"{_name(payload)} failed: {cut(payload.reason, _WORDS) or 'no reason is known'}",
    "approval-wanted": _wanted,
    "approved": _plain("was approved"),
    "rejected": _plain("was rejected"),
    "expired": lambda payload: f"{_name(payload)} expired: nobody answered in time.",
    "cancelled": _plain("was cancelled"),
    "promoted": _promoted,
    "completed": _completed,
    "rolling-back": _plain("is being rolled back"),
    "rolled-back": lambda payload: f"{_name(payload)} was rolled back.",
}
