"""Find the tasks that a release brings: those that somebody named, and those that its commits name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ashat.bundle.git import messages_since
from ashat.common.trackers import MOST_TASKS, Tracker, is_task_key, keys_in, spelled
from ashat.deployment.stages import Stage
from ashat.errors import UsageError
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import Source
from tasks.runtime.reporting import reporter
from tasks.runtime.trackers import known_trackers

_APPROVED = (Stage.DISTRIBUTING.value, Stage.COMPLETED.value)


def check_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys, each once.

    Raises:
        UsageError: one is no key of a task, or there are more than 50.
    """
    found = tuple(dict.fromkeys(keys))
    for key in found:
        if not is_task_key(key):
            raise UsageError(f"{key[:80]!r} is no key of a task: give one such as '#12', GH-12 or PROJ-12.")
    if len(found) > MOST_TASKS:
        raise UsageError(f"{len(found)} tasks are given; a release has {MOST_TASKS} at most.")
    return found


def tasks_of(ledger: Ledger, target: str, directory: Path, source: Source, named: Sequence[str]) -> tuple[str, ...]:
    """List the tasks of what is packed from `source` for `target`: those `named`, then those that the messages of its
    commits name since the last release that was approved for that target, as far as a tracker knows their keys."""
    trackers = known_trackers()
    _tell_unknown(named, trackers)
    found = [spelled(key, trackers) for key in named]
    if trackers and source.commit:
        messages = messages_since(directory, source.commit, approved_commit(ledger, target, source))
        found += keys_in(messages, trackers)
    keys = tuple(dict.fromkeys(found))
    if len(keys) > MOST_TASKS:
        reporter().say(f"⚠️ Its commits name {len(keys)} tasks; the first {MOST_TASKS} are kept.")
    if keys:
        reporter().say(f"Tasks: {', '.join(keys[:MOST_TASKS])}")
    return keys[:MOST_TASKS]


def approved_commit(ledger: Ledger, target: str, source: Source) -> str | None:
    """Find the commit of the last release that was approved for the target, and on which this one builds; None where
    that is not known."""
    found = (
        summary
        for summary in ledger.summaries(stages=_APPROVED)
        if summary["target"] == target and summary["commit"] and source.builds_on(summary["commit"])
    )
    newest = max(found, key=lambda summary: summary["release_seq"] or 0, default=None)
    return str(newest["commit"]) if newest else None


def _tell_unknown(named: Sequence[str], trackers: Sequence[Tracker]) -> None:
    unknown = [key for key in named if not any(tracker.claims(key) for tracker in trackers)]
    if unknown and trackers:
        reporter().say(f"No tracker knows keys like {', '.join(unknown)}: recorded, but none is told (deploy tracker).")
