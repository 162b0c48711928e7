"""Read from the ledger's events what each deployment to a target came to, in the times that the record has. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple

# The kinds of events that say what a delivery came to; the others need not be read.
KINDS: Final = (
    "created",
    "packaged",
    "pushed",
    "verification_started",
    "verified",
    "gate_opened",
    "answered",
    "promoting",
    "promoted",
    "distributed",
    "failed",
    "cancelled",
    "expired",
    "rollback_started",
    "rollback_stopped",
    "server_rolled_back",
    "rolled_back",
)


class Entry(NamedTuple):
    """An event as the ledger keeps it: whose it is, and its JSON as it was parsed."""

    update_id: str
    attempt: int
    event: dict[str, Any]


@dataclass(frozen=True)
class Delivery:
    """What an attempt came to. A time is None where that did not happen, or the record does not say when.

    `source` is what it was packed from, `committed` when the commit was made that was packed as it is. `verifying` is
    when its first verification began, `verified` when the first one ended, `asked` when its gate opened first.
    `rolling` is when its rollback began, `undone` when the target ran again what it ran before. `ended` says how it
    ended, "" where it has not, and `endings` every way in which it did; `checks` are the name and the outcome of each
    check of every verification.
    """

    update_id: str
    attempt: int
    target: str = ""
    source: str = ""
    created: datetime | None = None
    committed: datetime | None = None
    pushed: datetime | None = None
    verifying: datetime | None = None
    verified: datetime | None = None
    asked: datetime | None = None
    decided: datetime | None = None
    promoting: datetime | None = None
    promoted: datetime | None = None
    distributed: datetime | None = None
    failed: datetime | None = None
    rolling: datetime | None = None
    undone: datetime | None = None
    ended: str = ""
    endings: frozenset[str] = frozenset()
    checks: tuple[tuple[str, str], ...] = ()

    @property
    def final_decision(self) -> datetime | None:
        """When it was decided, once no other answer can follow: it is promoted, or rejected."""
        return self.decided if self.promoting or self.ended == "rejected" else None

    @property
    def reached(self) -> datetime | None:
        """When the target was switched to it; where it did not become healthy there, when that began."""
        return self.promoted or (self.promoting if self.failed else None)

    @property
    def failed_at_target(self) -> bool:
        """Whether the target had to go back: by itself, as it did not become healthy, or by a rollback."""
        return self.reached is not None and (self.promoted is None or bool(self.rolling or self.undone))

    @property
    def recovered(self) -> datetime | None:
        """When the target ran again what it ran before, after it failed there."""
        return (self.undone if self.promoted else self.failed) if self.failed_at_target else None


_FIRST: Final = {
    "created": "created",
    "pushed": "pushed",
    "verification_started": "verifying",
    "verified": "verified",
    "gate_opened": "asked",
    "promoting": "promoting",
    "promoted": "promoted",
    "distributed": "distributed",
    "failed": "failed",
}
_ENDED: Final = {
    "failed": "failed",
    "cancelled": "cancelled",
    "expired": "expired",
    "rolled_back": "rolled_back",
    "distributed": "completed",
}


def deliveries(entries: Iterable[Entry]) -> list[Delivery]:
    """Fold the events, in the order of the record, into what each attempt came to, in the order in which they began."""
    found: dict[tuple[str, int], Delivery] = {}
    for entry in entries:
        key = entry.update_id, entry.attempt
        found[key] = _after(found.get(key) or Delivery(*key), entry.event)
    return list(found.values())


def _after(seen: Delivery, event: dict[str, Any]) -> Delivery:
    kind, at = event["kind"], datetime.fromisoformat(event["at"])
    changes: dict[str, Any] = {}
    name = _FIRST.get(kind)
    if name and getattr(seen, name) is None:
        changes[name] = at
    ended = _ENDED.get(kind, "")
    if kind == "answered" and event["accepted"]:
        changes["decided"] = at
        if event["decision"] == "reject":
            ended = "rejected"
    elif kind == "created":
        changes["target"] = event["target"]
    elif kind == "packaged":
        changes |= _packaged(event["source"])
    elif kind == "verified":
        changes["checks"] = (*seen.checks, *((check["name"], check["outcome"]) for check in event["checks"]))
    elif kind in ("rollback_started", "rollback_stopped"):
        changes["rolling"] = at if kind == "rollback_started" else None
    elif kind == "server_rolled_back" and event["server"] == "omega" and not event.get("kept"):
        changes["undone"] = at
    if ended:
        changes |= {"ended": ended, "endings": seen.endings | {ended}}
    return replace(seen, **changes) if changes else seen


def _packaged(source: dict[str, Any]) -> dict[str, Any]:
    committed = source.get("committed")
    return {
        "source": str(source["name"]),
        "committed": datetime.fromisoformat(committed) if committed and not source.get("dirty") else None,
    }
