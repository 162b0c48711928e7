"""Tell an event of the record to a person: who did it, and what it says beside its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ashat.common.identifiers import name_of_release
from ashat.deployment.approval_rules import TAIL
from ashat.deployment.reach import Reach

if TYPE_CHECKING:
    from ashat.deployment.events import AnyEvent

_SHORT = 12


def who(event: AnyEvent) -> str:
    """Name who did it: of an answer the person who gave it, else whoever ran the flow or the command."""
    return (event.approver if event.kind in ("answered", "rollout_answered") else "") or event.by


def what(event: AnyEvent, public: str, target: str) -> str:
    """Say what an event of an update that goes over `public` to `target` says, in a line."""
    tell = _TOLD.get(event.kind)
    return tell(event, public, target) if tell else str(getattr(event, "reason", "") or getattr(event, "why", ""))


def _packaged(event: Any) -> str:
    commit = f", {event.source.in_short}" if event.source.in_short else ""
    tasks = f", tasks {', '.join(event.tasks)}" if event.tasks else ""
    return f"bundle {event.bundle[:_SHORT]}, {event.files} files{commit}{tasks}"


def _verified(event: Any) -> str:
    unclean = [f"{check.title}: {check.seen}" for check in event.checks if check.outcome != "pass"]
    return "; ".join([f"{event.outcome}, evidence …{event.evidence[-TAIL:]}", *unclean])


def _asked(event: Any) -> str:
    return f"it can only be rejected: {event.obstacle}" if event.obstacle else event.reason or event.why


def _answered(event: Any) -> str:
    count = "" if event.accepted else ", which does not count"
    number = f", release {event.release_seq}" if event.release_seq is not None else ""
    later = f"not before {event.not_before:%Y-%m-%d %H:%M:%S} UTC" if event.not_before else ""
    override = f"overrides a freeze: {event.override_freeze}" if event.override_freeze else ""
    why = "; ".join(filter(None, (event.comment, event.reason, later, override)))
    return f"{event.decision}{count}{number}" + (f": {why}" if why else "")


def _back(event: Any, server: str) -> str:
    again = name_of_release(event.to_bundle, event.to_update)
    return f"{server}: {event.kept}" if event.kept else f"{server} runs {again} again"


def _migrated(event: Any) -> str:
    return f"; its migrate step: {event.migrated}" if event.migrated else ""


def _where(event: Any, public: str, target: str) -> str:
    return {"public": public, "omega": target}.get(event.server, "Mainframes")


def _before(event: Any) -> str:
    return name_of_release(event.from_bundle, event.from_update)


def _reach(event: Any) -> str:
    counted = None if event.running is None or event.total is None else (event.running, event.total)
    early = f"; ended early: {event.ended_early}" if event.ended_early else ""
    return Reach.of(event.mainframes, counted).words + early


_TOLD: dict[str, Callable[[Any, str, str], str]] = {
    "created": lambda event, public, target: f"{event.description} ({public} → {target})",
    "packaged": lambda event, _public, _target: _packaged(event),
    "public_switching": lambda event, public, _: f"{public}, which runs {_before(event)}",
    "pushed": lambda event, public, _: f"{public} runs it, at {event.url}{_migrated(event)}",
    "verification_started": lambda event, public, _: f"on {public}, policy {event.policy}",
    "verified": lambda event, _public, _target: _verified(event),
    "gate_opened": lambda event, _public, _target: f"until {event.expires:%Y-%m-%d %H:%M:%S} UTC",
    "asked": lambda event, _public, _target: _asked(event),
    "answered": lambda event, _public, _target: _answered(event),
    "window_awaited": lambda event, public, target: (
        f"{_where(event, public, target)}: {event.why}; "
        + (f"opens {event.opens:%Y-%m-%d %H:%M:%S} UTC" if event.opens else "no opening is in sight")
    ),
    "window_opened": lambda event, public, target: f"{_where(event, public, target)} is open",
    "freeze_overridden": lambda event, public, target: (
        f"{_where(event, public, target)}: {event.reason}" + (f" (although {event.closed})" * bool(event.closed))
    ),
    "promoting": lambda _, _public, target: f"{target} is told to run it",
    "promoted": lambda event, _, target: (
        f"{target} runs it, release {event.release_seq}; before, {_before(event)}{_migrated(event)}"
    ),
    "rollout_began": lambda event, _public, _target: ", ".join(f"{name} {size}" for name, size in event.waves),
    "wave_opened": lambda event, _public, _target: (
        f"up to wave {event.through + 1}" + (f": {event.why}" * bool(event.why))
    ),
    "rollout_answered": lambda event, _public, _target: event.decision + (f": {event.comment}" * bool(event.comment)),
    "distributed": lambda event, _public, _target: _reach(event),
    "failed": lambda event, _public, _target: (
        event.reason + (f"; its program wrote last: {event.output[-1]}" if event.output else "")
    ),
    "mainframe_served": lambda event, _public, _target: f"{event.mainframe.name} runs it",
    "public_restored": lambda event, public, _: _back(event, public),
    "server_rolled_back": lambda event, public, target: _back(
        event, {"public": public, "omega": target}.get(event.server, event.server)
    ),
}
