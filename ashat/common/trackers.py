"""Name the trackers that hear of a release, and the keys of the tasks that it brings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

VARIABLE: Final = "ashat_trackers"
"""The variable of Prefect that lists the trackers which `deploy tracker add` made, beside their blocks."""
MOST: Final = 20
MOST_TASKS: Final = 50
KINDS: Final = ("github", "gitlab", "jira", "webhook")
PREFIX = re.compile(r"#|!|[A-Za-z][A-Za-z0-9_]{0,30}[-#]")
_KEY = re.compile(r"(?=.{1,64}\Z)[#!]?[A-Za-z0-9](?:[A-Za-z0-9_.#/-]*[A-Za-z0-9])?")
# In these a number alone names the task, so that each prefix says the same.
_NUMBERED = ("github", "gitlab")


class TaskComment(NamedTuple):
    """What a task is told: the text, and which event of which time it is about. `marker` is the same each time that
    it is told; `completes` says that the release is completed by it, and `payload` is what the event says."""

    key: str
    marker: str
    text: str
    event: str
    occurred: datetime
    completes: bool
    payload: Mapping[str, Any]


class Tracker(NamedTuple):
    """A tracker's block, as type/name, its kind, and what its keys begin with; a number follows, as in `PROJ-12`."""

    block: str
    kind: str
    prefixes: tuple[str, ...]

    def find(self, text: str) -> list[str]:
        """List the keys of this tracker in a text, in the order in which they stand there."""
        begins = "|".join(re.escape(prefix) for prefix in sorted(self.prefixes, key=len, reverse=True))
        found = re.finditer(rf"(?<![\w/#!&-])({begins})([1-9][0-9]{{0,9}})(?!\w)", text) if begins else ()
        return [self._spelled(one[1], one[2]) for one in found]

    def claims(self, key: str) -> str:
        """Return the key as this tracker spells it; "" where it is none of its keys."""
        found = self.find(key)
        prefix = next((prefix for prefix in self.prefixes if key.startswith(prefix)), None)
        return found[0] if len(found) == 1 and prefix is not None and key[len(prefix) :].isdigit() else ""

    def _spelled(self, prefix: str, number: str) -> str:
        return f"{self.prefixes[0] if self.kind in _NUMBERED else prefix}{number}"


def is_task_key(text: str) -> bool:
    """Say whether that may be the key of a task: 64 letters, digits and `_.#/-` at most, such as `#12` or `PROJ-12`."""
    return text.isascii() and _KEY.fullmatch(text) is not None


def spelled(key: str, trackers: Iterable[Tracker]) -> str:
    """Spell a key as the tracker does that knows it, so that `#12` and `GH-12` are one task."""
    return next((known for tracker in trackers if (known := tracker.claims(key))), key)


def keys_in(text: str, trackers: Sequence[Tracker]) -> list[str]:
    """List the keys of tasks in a text that one of the trackers knows, each once."""
    return list(dict.fromkeys(key for tracker in trackers for key in tracker.find(text)))


def trackers_of(value: object) -> list[Tracker]:
    """Read the trackers in the variable's value, 20 at most; what is no tracker is left out: whoever reaches Prefect's
    API can write there."""
    listed = value.get("trackers") if isinstance(value, dict) else None
    found = (_tracker(one) for one in (listed[:MOST] if isinstance(listed, list) else []))
    return [tracker for tracker in found if tracker is not None]


def as_variable(trackers: Iterable[Tracker]) -> dict[str, Any]:
    """Spell the trackers as the variable's value."""
    return {"trackers": [{**tracker._asdict(), "prefixes": list(tracker.prefixes)} for tracker in trackers]}


def _tracker(one: object) -> Tracker | None:
    if not isinstance(one, dict):
        return None
    block, kind, prefixes = one.get("block"), one.get("kind"), one.get("prefixes")
    if not isinstance(block, str) or "/" not in block or kind not in KINDS or not isinstance(prefixes, list):
        return None
    known = tuple(one for one in prefixes[:MOST] if isinstance(one, str) and PREFIX.fullmatch(one))
    return Tracker(block, kind, known) if known else None
