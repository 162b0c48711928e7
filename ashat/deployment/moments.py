"""Tell the moments in the life of an update to whoever listens: each as one event with a documented schema. Pure.

A moment is derived from one event of the ledger, so its id is the same whoever tells of it, and however often.
docs/events.md lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID, uuid5

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ashat.common.text import cut
from ashat.deployment import events as e
from ashat.deployment.reminders import Level, reminder_key
from ashat.deployment.state import ApprovalRequest, State
from ashat.protocol.messages import Moment as Time

SCHEMA: Final = "ashat-event/1"
_NAMESPACE = UUID("6f2f3b0e-3d0c-5d55-9c39-7b1f8a3c1d11")
_WORDS = 1000
_NAMED = 20
_SERVER_EVENTS = {"unreachable": "unreachable", "drift": "drifted", "doubt": "doubted"}
EVENTS: Final = frozenset(
    (
        *("ashat.release.pushed", "ashat.release.verified", "ashat.release.failed", "ashat.release.stuck"),
        *("ashat.release.approval-wanted", "ashat.release.asked-anew", "ashat.release.approval-reminder"),
        *("ashat.release.approval-escalation", "ashat.release.signed", "ashat.release.approved"),
        *("ashat.release.rejected", "ashat.release.answer-refused", "ashat.release.approval-void"),
        *("ashat.release.expired", "ashat.release.cancelled", "ashat.release.promoted", "ashat.release.completed"),
        *("ashat.release.mainframe-served", "ashat.release.rollback-wanted", "ashat.release.rollback-asked-anew"),
        *("ashat.release.rollback-signed", "ashat.release.rollback-approved", "ashat.release.rollback-rejected"),
        *("ashat.release.rollback-answer-refused", "ashat.release.rolling-back", "ashat.release.rollback-stopped"),
        *("ashat.release.window-awaited", "ashat.release.window-opened", "ashat.release.freeze-overridden"),
        *("ashat.release.rolled-back", "ashat.release.wave-opened", "ashat.release.rollout-paused"),
        *("ashat.release.rollout-resumed", "ashat.release.rollout-aborted"),
        *("ashat.server.unreachable", "ashat.server.drifted", "ashat.server.doubted", "ashat.server.recovered"),
        *("ashat.key.ending", "ashat.key.renewed"),
    )
)
"""Every event that is told; docs/events.md says of each when, and a name that is not here is told of nowhere."""
Words = Annotated[str, Field(max_length=_WORDS)]


def _documented(name: str) -> str:
    if name not in EVENTS:
        raise ValueError(f"no event is called {name}")
    return name


class Mainframes(BaseModel):
    """How many Mainframes run a release, and the names of those that failed, at most 20 of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    running: int
    failed: int
    missing: int
    failed_names: tuple[str, ...] = Field(default=(), max_length=_NAMED)


class _Payload(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal["ashat-event/1"] = SCHEMA


class ReleasePayload(_Payload):
    """What an event `ashat.release.*` says of an update.

    `subject` is what people are asked about, or was decided: a release or its rollback. `by` names who did it, as they
    gave their name; `reason` says why. `run` is the flow run that waits for an answer, or did so last, `expires` until
    when, and `link` the address of its page, where the form is. `tasks` are the keys of those that it brings. `before`
    is for how many seconds more it waits, in a reminder. `opens` is when a server opens that it waits for.
    """

    update_id: str
    attempt: int
    stage: str
    description: Words = ""
    target: str
    public: str
    bundle: str | None = None
    evidence: str | None = None
    outcome: str = ""
    subject: Literal["", "release", "rollback"] = ""
    by: Words = ""
    reason: Words = ""
    run: str = ""
    link: str = ""
    expires: Time | None = None
    release_seq: int | None = None
    mainframes: Mainframes | None = None
    tasks: tuple[e.TaskKey, ...] = ()
    before: int | None = None
    opens: Time | None = None


class ServerPayload(_Payload):
    """What an event `ashat.server.*` says: what is wrong with which server, or was until now, and since when."""

    server: str
    name: str
    what: Words
    since: Time


class KeyPayload(_Payload):
    """What an event `ashat.key.*` says: whose key, root or certificate ends, when, and what to do about it."""

    server: str
    name: str
    what: Words
    ends: Time
    how: Words


class Told(BaseModel):
    """One event as it is given to Prefect: its name, what it is about, and what it says. `related` are flow runs, by
    their ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    event: Annotated[str, AfterValidator(_documented)]
    occurred: Time
    resource: str
    name: str
    run: str = ""
    payload: ReleasePayload | ServerPayload | KeyPayload

    def linked(self, link: str) -> Told:
        """Add the address of the run's page to what is said of an update."""
        if not isinstance(self.payload, ReleasePayload):
            return self
        return self.model_copy(update={"payload": self.payload.model_copy(update={"link": link})})


def moment_id(*parts: object) -> UUID:
    """Derive the id of an event from what it tells of, so that telling it again is telling it once."""
    return uuid5(_NAMESPACE, ":".join(str(part) for part in parts))


def told_of(log: str, seq: int, happened: Sequence[e.AnyEvent], state: State) -> Told | None:
    """Tell of the last of what `happened` to an update, which has the place `seq` in the log of that name, and brought
    the update to `state`; None where that is no moment to be told of."""
    event = happened[-1]
    name_of = _NAMES.get(event.kind)
    name = name_of(event, happened) if name_of else ""
    if not name:
        return None
    return _release(moment_id(log, seq), name, event.at, state, event)


def asks_first(happened: Sequence[e.AnyEvent]) -> bool:
    """Say whether the last of what `happened` is the first asking of its kind, which people are to be told of."""
    event = happened[-1] if happened else None
    return isinstance(event, e.ApprovalRequested) and _asked(event, happened) in ("approval-wanted", "rollback-wanted")


def reminder_of(state: State, request: ApprovalRequest, level: Level, at: datetime) -> Told:
    """Tell that by that time nobody has answered a question since people were asked first."""
    identity = moment_id(reminder_key(state.update_id, state.attempt, request), level)
    told = _release(identity, f"approval-{level}", at, state, None, subject=request.subject)
    before = int((request.expires - at).total_seconds())
    return told.model_copy(update={"payload": told.payload.model_copy(update={"before": before})})


def told_of_trouble(trouble: Mapping[str, str], *, over: datetime | None = None) -> Told:
    """Tell of what `reconcile` noted to be wrong with a server, or about to end there; or that it was over by then."""
    kind, server = trouble["kind"], trouble["server"]
    name, what = trouble.get("name") or server, cut(trouble["what"], _WORDS)
    since = datetime.fromisoformat(trouble["since"])
    identity = moment_id(server, kind, trouble["since"], "over" if over else "begun")
    payload: ServerPayload | KeyPayload
    if kind in _SERVER_EVENTS:
        event = "ashat.server.recovered" if over else f"ashat.server.{_SERVER_EVENTS[kind]}"
        resource, payload = f"ashat.server.{server}", ServerPayload(server=server, name=name, what=what, since=since)
    else:
        event, resource = f"ashat.key.{'renewed' if over else 'ending'}", f"ashat.key.{server}.{kind}"
        ends = datetime.fromisoformat(trouble["until"])
        payload = KeyPayload(server=server, name=name, what=what, ends=ends, how=cut(trouble.get("how", ""), _WORDS))
    return Told(id=identity, event=event, occurred=over or since, resource=resource, name=name, payload=payload)


def _release(
    identity: UUID,
    name: str,
    at: datetime,
    state: State,
    event: e.AnyEvent | None,
    *,
    subject: Literal["", "release", "rollback"] = "",
) -> Told:
    if isinstance(event, e.ApprovalRequested | e.ApprovalAnswered):
        subject = event.subject
    request = state.approvals.get(subject) if subject else None
    distributed = event is not None and event.kind == "distributed"
    payload = ReleasePayload(
        update_id=state.update_id,
        attempt=state.attempt,
        stage=state.stage.value,
        description=cut(state.description, _WORDS),
        target=state.target,
        public=state.public,
        bundle=state.bundle,
        evidence=state.evidence,
        outcome=state.outcome or "",
        subject=subject,
        by=cut(getattr(event, "approver", "") or (event.by if event else ""), _WORDS),
        reason=cut(_reason(event, state), _WORDS),
        run=request.run if request else event.run if isinstance(event, e.RolloutStopped) else "",
        expires=request.expires if request else None,
        release_seq=state.release_seq,
        mainframes=_mainframes(state) if distributed else None,
        tasks=state.tasks,
        opens=event.opens if isinstance(event, e.WindowAwaited) else None,
    )
    resource = f"ashat.release.{state.update_id}.{state.attempt}"
    return Told(
        id=identity,
        event=f"ashat.release.{name}",
        occurred=at,
        resource=resource,
        name=state.update_id,
        run=payload.run,
        payload=payload,
    )


def _reason(event: e.AnyEvent | None, state: State) -> str:
    if event is None:
        return ""
    if event.kind in ("failed", "verified", "expired", "cancelled"):
        return state.reason
    words = (str(getattr(event, field, "") or "") for field in ("comment", "reason", "why", "obstacle", "closed"))
    return "; ".join(word for word in words if word)


def _mainframes(state: State) -> Mainframes:
    counts = dict.fromkeys(("running", "failed", "missing"), 0)
    for mainframe in state.mainframes:
        counts[mainframe.result] += 1
    failed = [mainframe.name for mainframe in state.mainframes if mainframe.result == "failed"]
    return Mainframes(**counts, failed_names=tuple(failed[:_NAMED]))


def _answered(event: e.ApprovalAnswered, _: Sequence[e.AnyEvent]) -> str:
    prefix = "" if event.subject == "release" else "rollback-"
    if not event.accepted:
        return f"{prefix}answer-refused"
    if not event.settles:
        return f"{prefix}signed"
    return prefix + ("approved" if event.decision == "approve" else "rejected")


def _asked(event: e.ApprovalRequested, happened: Sequence[e.AnyEvent]) -> str:
    """Name an asking: the first about a rollback, and the first since the gate was opened; each other asks anew."""
    if event.subject == "rollback":
        return "rollback-wanted" if event.ordinal == 1 else "rollback-asked-anew"
    for earlier in reversed(happened[:-1]):
        if isinstance(earlier, e.GateOpened):
            return "approval-wanted"
        if isinstance(earlier, e.ApprovalRequested) and earlier.subject == "release":
            break
    return "asked-anew"


_Name = Callable[[Any, Sequence[e.AnyEvent]], str]
_NAMES: dict[str, _Name] = {
    "pushed": lambda *_: "pushed",
    "verified": lambda event, _: "failed" if event.outcome == "failed" else "verified",
    "asked": _asked,
    "answered": _answered,
    "decision_void": lambda *_: "approval-void",
    "window_awaited": lambda *_: "window-awaited",
    "window_opened": lambda *_: "window-opened",
    "freeze_overridden": lambda *_: "freeze-overridden",
    "promoted": lambda *_: "promoted",
    "wave_opened": lambda *_: "wave-opened",
    "rollout_stopped": lambda *_: "rollout-paused",
    "rollout_answered": lambda event, _: "rollout-resumed" if event.decision == "resume" else "rollout-aborted",
    "distributed": lambda *_: "completed",
    "mainframe_served": lambda *_: "mainframe-served",
    "failed": lambda *_: "failed",
    "cancelled": lambda *_: "cancelled",
    "expired": lambda *_: "expired",
    "run_died": lambda *_: "stuck",
    "rollback_started": lambda *_: "rolling-back",
    "rollback_stopped": lambda *_: "rollback-stopped",
    "rolled_back": lambda *_: "rolled-back",
}
