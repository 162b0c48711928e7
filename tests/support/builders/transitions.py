"""Every change of stage that the state machine allows, found by trying every event from every state it can reach."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from ashat.deployment import events as e
from ashat.deployment.stages import Stage
from ashat.deployment.state import State
from ashat.deployment.state_machine import apply, start
from ashat.errors import SessionError
from ashat.protocol.messages import Source

_AT = datetime(2026, 11, 24, tzinfo=UTC)
_EXPIRES = _AT + timedelta(hours=1)
_OLD, _NEW = "1" * 64, "2" * 64
_MAINFRAME = e.MainframeOutcome(id="1", name="customer-1", result="running")


def transitions() -> set[tuple[Stage, Stage]]:
    """The pairs of different stages (before, after)."""
    found: set[tuple[Stage, Stage]] = set()
    first = start("UPD-1", 1)
    seen, todo = {_essence(first)}, [first]
    while todo:
        state = todo.pop()
        for event in _events(state):
            try:
                after = apply(state, event)
            except SessionError:
                continue
            if after.stage is not state.stage:
                found.add((state.stage, after.stage))
            if _essence(after) not in seen:
                seen.add(_essence(after))
                todo.append(after)
    return found


def _essence(state: State) -> tuple[object, ...]:
    """What the rules look at: finitely many of it, unlike of versions and ordinals."""
    gate = state.gate
    return (
        state.version > 0,
        state.stage,
        state.bundle,
        state.switching,
        state.evidence,
        gate and (gate.answered, gate.ordinal > 0),
        state.decision is not None,
        state.promoting,
        state.release_seq,
        state.rolling_back,
        frozenset(state.rolled_back),
        state.public_restored,
        bool(state.mainframes),
    )


def _events(state: State) -> Iterator[e.AnyEvent]:
    """One event of each kind, and one for each way it can go, as they could come next."""
    yield e.Created(at=_AT, description="d", target="omega", public="public")
    yield e.Packaged(at=_AT, bundle=_NEW, files=1, size=1, source=Source(name="s"))
    yield e.PublicSwitching(at=_AT, from_bundle=_OLD)
    yield e.Pushed(at=_AT, url="http://127.0.0.1:8470")
    yield e.VerificationStarted(at=_AT)
    yield e.Verified(at=_AT, evidence=_NEW, outcome="passed", checks=())
    yield e.Verified(at=_AT, evidence=_NEW, outcome="failed", checks=())
    yield e.GateOpened(at=_AT, opening=state.openings + 1, expires=_EXPIRES)
    yield e.GateClaimed(at=_AT, run="r")
    asked = state.askings.get("release", 0)
    yield e.ApprovalRequested(at=_AT, ordinal=asked + 1, target_bundle=_OLD)
    yield e.ApprovalAnswered(at=_AT, ordinal=asked, decision="approve", accepted=True, release_seq=1)
    yield e.ApprovalAnswered(at=_AT, ordinal=asked, decision="approve", accepted=False)
    yield e.ApprovalAnswered(at=_AT, ordinal=asked, decision="reject", accepted=True)
    yield e.DecisionVoid(at=_AT, reason="r")
    yield e.WindowAwaited(at=_AT, server="omega", why="w")
    yield e.WindowOpened(at=_AT, server="omega")
    yield e.FreezeOverridden(at=_AT, server="omega", reason="r")
    yield e.Promoting(at=_AT, operation="o")
    yield e.Promoted(at=_AT, from_bundle=_OLD, release_seq=1)
    yield e.Distributed(at=_AT, mainframes=())
    yield e.MainframeServed(at=_AT, mainframe=_MAINFRAME)
    yield e.Failed(at=_AT, reason="r")
    yield e.Cancelled(at=_AT)
    yield e.Expired(at=_EXPIRES)
    yield e.PublicRestored(at=_AT, to_bundle=_OLD)
    yield e.RollbackStarted(at=_AT)
    yield e.ServerRolledBack(at=_AT, server="public", to_bundle=_OLD)
    yield e.RolledBack(at=_AT)
