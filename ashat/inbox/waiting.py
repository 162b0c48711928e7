"""Say what waits for a person, since when, until when, who can answer it and how. Pure, no I/O, and quick to import."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from ashat.deployment.stages import Stage

Kind = Literal["release", "rollback", "rollout", "window", "trust", "server", "channel", "tracker"]
SOON = timedelta(days=30)
"""How long before its end a trust root waits to be renewed."""
_FAR = datetime.max.replace(tzinfo=UTC)
_TROUBLES = {
    "unreachable": "start it, or repair the way to it",
    "drift": "deploy servers; then push again what it should run, or roll it back",
    "doubt": "docs/architecture.md#the-audit-log says what that may mean",
    "channel": "deploy notify test",
    "tracker": "deploy tracker test",
}


@dataclass(frozen=True)
class Waiting:
    """One thing that waits for a person.

    `about` names the update or the server. `signers` are those who still may sign it, by name, with their key ids;
    `needed` counts how many of them it still takes. Where it has no signers, whoever operates the control plane can
    answer. `run` is the flow run whose page has the form; "" where it has none.
    """

    kind: Kind
    about: str
    what: str
    since: datetime | None
    until: datetime | None
    how: str
    run: str = ""
    signers: Mapping[str, str] = field(default_factory=dict)
    signed: tuple[str, ...] = ()
    needed: int = 0

    @property
    def who(self) -> str:
        """Say in words who can answer it."""
        if not self.signers:
            return "whoever operates the control plane" if not self.needed else "nobody who has not signed already"
        names = ", ".join(self.signers)
        have = f" ({', '.join(self.signed)} signed)" if self.signed else ""
        return f"{self.needed} of {names}{have}" if len(self.signers) > 1 else f"{names}{have}"

    def to_data(self, link: str) -> dict[str, Any]:
        """Spell it as JSON-ready data; `link` is the address of its form ("": there is none)."""
        return {
            "kind": self.kind,
            "about": self.about,
            "what": self.what,
            "since": self.since.isoformat() if self.since else None,
            "until": self.until.isoformat() if self.until else None,
            "who": {
                "signers": list(self.signers),
                "signed": list(self.signed),
                "needed": self.needed,
                "words": self.who,
            },
            "how": self.how,
            "link": link or None,
            "run": self.run or None,
        }


@dataclass(frozen=True)
class Me:
    """Who asks: the ids of the keys that they have, and whether they operate the control plane from here."""

    keyids: frozenset[str] = frozenset()
    operates: bool = False

    def can_answer(self, waiting: Waiting) -> bool:
        """Say whether they can answer it: with a key of theirs that has not signed yet, or, where it takes no key of a
        person, because they operate the control plane."""
        if waiting.signers:
            return not self.keyids.isdisjoint(waiting.signers.values())
        return self.operates and not waiting.needed


@dataclass(frozen=True)
class Inbox:
    """Everything that waits, what ends first before the rest, and what was not looked at."""

    waiting: tuple[Waiting, ...] = ()
    not_looked_at: tuple[str, ...] = ()

    def of(self, me: Me) -> Inbox:
        """Leave only what `me` can answer."""
        return replace(self, waiting=tuple(one for one in self.waiting if me.can_answer(one)))


def in_order(waiting: Collection[Waiting]) -> tuple[Waiting, ...]:
    """Sort: what ends first before what ends later, then what waits for longest."""
    return tuple(sorted(waiting, key=lambda one: (one.until or _FAR, one.since or _FAR, one.about)))


def open_requests(summary: Mapping[str, Any], at: datetime) -> Iterator[dict[str, Any]]:
    """Yield the questions in a deployment's summary that people may answer at that time."""
    for request in summary.get("requests", ()):
        if at < datetime.fromisoformat(request["expires"]) and not summary.get("rolling_back"):
            yield request


def of_request(
    summary: Mapping[str, Any], request: Mapping[str, Any], signers: Mapping[str, str], threshold: int
) -> Waiting:
    """Tell of a question about the update of `summary`; `signers` are all who approve where people sign, of whom it
    takes `threshold`, and nobody in the one-person mode."""
    update_id, subject = summary["update_id"], request["subject"]
    name = f"{update_id}#{summary['attempt']}" if summary["attempt"] > 1 else str(update_id)
    signed = tuple(request["signed"])
    if subject == "release":
        what = f"may it go to {summary['target_name']}? {summary['description']}"
    else:
        what = f"may {summary['target_name']} go back to {request['update_id']}? {request['why']}"
    if request["obstacle"]:
        what = f"it can only be rejected yet, since {request['obstacle']}"
    elif subject == "release" and summary.get("outcome") == "attention":
        what = f"{what} (a check did not pass cleanly: an approval needs a comment)"
    return Waiting(
        "release" if subject == "release" else "rollback",
        name,
        what,
        _time(request["since"]),
        _time(request["expires"]),
        f"deploy approve {update_id}" + (" --key FILE.pem" if signers and not request["obstacle"] else ""),
        run=request["run"],
        signers={} if request["obstacle"] else {n: keyid for n, keyid in signers.items() if n not in signed},
        signed=signed,
        needed=0 if request["obstacle"] else max(threshold - len(signed), 0) if signers else 0,
    )


def of_rollout(summary: Mapping[str, Any]) -> Waiting | None:
    """Tell of a rollout that has stopped; None where it has not."""
    if not summary.get("rollout_run"):
        return None
    update_id = str(summary["update_id"])
    return Waiting(
        "rollout",
        update_id,
        f"its rollout {summary['rollout']}",
        _time(summary["updated_at"]),
        None,
        f"deploy rollout resume {update_id}, or abort",
        run=summary["rollout_run"],
    )


def of_window(summary: Mapping[str, Any]) -> Waiting | None:
    """Tell of an update that waits for a server which is closed; None where it does not."""
    if not summary.get("window") or summary.get("rolling_back"):
        return None
    update_id = str(summary["update_id"])
    pushing = summary["stage"] == Stage.PLANNING
    override = f"deploy push {update_id} … --resume" if pushing else f"deploy approve {update_id}"
    return Waiting(
        "window",
        update_id,
        summary["window"],
        _time(summary["updated_at"]),
        _time(summary.get("window_opens")),
        f'by itself; now: {override} --override-freeze "REASON"',
    )


def of_trouble(trouble: Mapping[str, str]) -> Waiting:
    """Tell of what `reconcile` saw to be wrong with a server, with a channel, or with a tracker."""
    kind = trouble["kind"]
    which: dict[str, Kind] = {"channel": "channel", "tracker": "tracker"}
    return Waiting(
        which.get(kind, "server"),
        trouble.get("name") or trouble["server"],
        f"{kind}: {trouble['what']}",
        _time(trouble["since"]),
        _time(trouble.get("until")),
        trouble.get("how") or _TROUBLES.get(kind, "deploy doctor"),
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
