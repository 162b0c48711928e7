"""Roll an update back: each server that it reached runs again what it ran before, unless something else runs by now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ashat.client.node import NodeClient
from ashat.common.failpoints import fault_point
from ashat.deployment.events import RollbackStarted, RollbackStopped, RolledBack, ServerRolledBack
from ashat.deployment.restore import restore_target
from ashat.deployment.state import PreviousRelease
from ashat.deployment.state_machine import Stage, State, refuse_rollback
from ashat.errors import NodeError, NotConfiguredError, SessionError
from ashat.protocol.messages import Current, NodeState, Offer, OperationRequest
from ashat.settings import Settings
from tasks.approval.gate import is_alive
from tasks.approval.signing import send_log
from tasks.promote.distribute import await_mainframes
from tasks.rollback.signed_rollback import signed_rollback
from tasks.runtime.deployment import Deployment
from tasks.runtime.run import now, run_id, whoami
from tasks.runtime.step import step
from tasks.servers.drift import why_not_owner
from tasks.servers.public import change, public_lease, settled, switch_back

Place = Literal["public", "omega", "mainframes"]


@dataclass(frozen=True)
class RollbackPlan:
    """Hold what a rollback will do: the servers that are put back, in order, and why each other is left alone."""

    servers: tuple[Place, ...]
    kept: dict[Place, str]


def plan_rollback(state: State, public: NodeState, target: NodeState | None, before: PreviousRelease) -> RollbackPlan:
    """Plan what can be put back, from what the servers run now, and what Public ran `before`. Pure. Of what is still on
    its way, nothing has to run yet: the rollback stops it.

    Raises:
        SessionError: nothing can, or the target runs it and has nothing to go back to.
    """
    refuse_rollback(state)
    servers: list[Place] = []
    kept: dict[Place, str] = {}
    if state.reached_omega:
        if target is None:
            raise SessionError(f"{state.target} is not configured here, and '{state.update_id}' reached it.")
        if _runs(target, state):
            if _brought_back(target, state):
                raise SessionError(
                    f"{state.the_target} went back to '{state.update_id}' when a later update was rolled back, and no "
                    "approval covers the way further back: push that source as a new update. Nothing was changed."
                )
            if state.omega_before is None:
                raise SessionError(
                    f"{state.the_target} ran nothing before '{state.update_id}': there is nothing to roll back to. "
                    "Push a release that mends it instead."
                )
            servers += ["omega", "mainframes"]
        else:
            kept["omega"] = _runs_instead(state.the_target, target)
    under_way = state.stage in (Stage.AWAITING_WINDOW, Stage.DEPLOYING, Stage.DISTRIBUTING)
    if not _runs(public, state):
        kept["public"] = _runs_instead(state.the_public, public)
    elif before.bundle is not None or servers:
        servers.append("public")
    elif under_way:
        kept["public"] = f"{state.the_public} ran nothing before"
    else:
        instead = "" if state.reached_omega else f" deploy cancel {state.update_id} stops it there."
        raise SessionError(
            f"{state.the_public} ran nothing before '{state.update_id}': there is nothing to roll back to.{instead}"
        )
    if not servers and not under_way:
        raise SessionError(
            f"Deployment '{state.update_id}' no longer runs anywhere ({'; '.join(kept.values())}): nothing was changed."
        )
    return RollbackPlan(tuple(servers), kept)


def look_back(d: Deployment) -> RollbackPlan:
    """Look at the servers, and plan the rollback; one that was begun is done to its end.

    Raises:
        SessionError: there is nothing that can be put back, or not by this token.
    """
    state = d.state
    if state.rolling_back:
        return RollbackPlan(("omega", "mainframes", "public") if state.reached_omega else ("public",), {})
    before = restore_target(state, d.ledger.find)
    plan = plan_rollback(state, settled(d.public), _target_state(d) if state.reached_omega else None, before)
    if "omega" in plan.servers and (why := why_not_owner(d)):
        raise SessionError(f"{why} Nothing was changed.")
    return plan


def start_rollback(d: Deployment, reason: str, by: str) -> None:
    """Record the intent to put the servers back, or that this run goes on with what was begun."""
    state = d.state
    if state.rolling_back and state.rollback_run == run_id():
        return
    d.ledger.append(state, RollbackStarted(at=now(), by=by or whoami(), reason=reason, run=run_id()))
    fault_point("rollback.started")


def stop_rollback(d: Deployment, reason: str, by: str) -> State:
    """Call a rollback off that was begun, and failed before any server had gone back; the new state.

    Raises:
        SessionError: a run of it is at work, or a server has gone back.
    """
    state = d.state
    if is_alive(state.rollback_run):
        raise SessionError(
            f"A run of the rollback of '{d.update_id}' is at work. Wait for its end: only what it left undone can be "
            "called off."
        )
    if state.reached_omega and _went_back(d, state):
        raise SessionError(f"{d.the_target} has gone back from '{d.update_id}': its rollback can only be finished.")
    return d.ledger.append(state, RollbackStopped(at=now(), by=by or whoami(), reason=reason))


def was_stopped(state: State) -> bool:
    """Say whether a rollback that a run is to go on with was called off meanwhile."""
    request = state.approvals.get("rollback")
    approved = request is not None and request.decision == "approve"
    return not (state.rolling_back or approved or state.stage is Stage.ROLLED_BACK)


def _went_back(d: Deployment, state: State) -> bool:
    try:
        current = d.target.identity().current
    except (NodeError, NotConfiguredError):
        return False  # nothing has told it to: a run that did would have recorded it, or be asked for again
    return (current.bundle if current else None) == state.omega_before


@step("roll-back-omega", description="Let OMEGA run what this update replaced, and offer that to the Mainframes.")
def roll_back_omega(d: Deployment) -> int | None:
    """Put the target back under the approval that covers the rollback; the new `release_seq`, None if left alone.

    Raises:
        SwitchFailedError: what ran before no longer becomes healthy.
    """
    state = d.state
    if "omega" in state.rolled_back:
        return state.rolled_back["omega"].release_seq
    seen, now_runs = settled(d.target), None
    kept = "" if _runs(seen, state) or _came_back(seen, state) else _runs_instead(state.the_target, seen)
    if not kept:
        _undo(d, seen, state)
        fault_point("rollback.omega-switched")
        now_runs = _offer_current(d.target)
    sequence = now_runs.release_seq if now_runs else None
    brought = now_runs.update_id if now_runs and now_runs.update_id != state.update_id else ""
    _record(d, "omega", to=state.omega_before, brought=brought, sequence=sequence, kept=kept)
    fault_point("rollback.omega-recorded")
    return sequence


@step("roll-back-public", description="Let the Public Server run what it ran before this update.")
def roll_back_public(d: Deployment) -> None:
    """Put Public back, unless another update runs there by now."""
    state = d.state
    if "public" in state.rolled_back:
        return
    before = restore_target(state, d.ledger.find)
    with public_lease(d, "rollback") as holder:
        kept = switch_back(d.public, state, before, holder, reason="rollback")
        fault_point("rollback.public-switched")
    _record(d, "public", to=before.bundle, brought=before.update_id, sequence=None, kept=kept)


def follow_mainframes(d: Deployment, release_seq: int) -> None:
    """Wait for the Mainframes to take what OMEGA offers again, and record who did not."""
    offer = d.target.state().offer
    if offer is None or offer.release_seq != release_seq:
        raise SessionError(f"{d.the_target} does not offer what it went back to any more. Look at deploy servers.")
    outcomes = await_mainframes(d.target, offer, Settings().mainframe_timeout)
    behind = ", ".join(outcome.name for outcome in outcomes if outcome.result != "running")
    kept = f"not yet: {behind}" if behind else ""
    state = d.state
    brought = state.rolled_back["omega"].to_update if "omega" in state.rolled_back else ""
    _record(d, "mainframes", to=state.omega_before, brought=brought, sequence=release_seq, kept=kept)


def end_rollback(d: Deployment) -> State:
    """Record that every server is back."""
    return d.advance(lambda newest: RolledBack(at=now(), by=whoami()) if newest.rolling_back else None)


def _undo(d: Deployment, seen: NodeState, state: State) -> None:
    if not _runs(seen, state):
        return
    before = seen.previous if seen.previous and seen.previous.bundle == state.omega_before else None
    signed = signed_rollback(d.ledger, state)
    if signed is not None:
        send_log(d.ledger, d.target, signed)
    request = OperationRequest(
        action="rollback",
        bundle=state.omega_before,
        expected_current=state.bundle,
        update_id=before.update_id if before else state.update_id,
        attempt=before.attempt if before else state.attempt,
        signed=signed,
        reason=f"rollback of {state.update_id}",
    )
    change(d.target, request, f"{state.update_id}.{state.attempt}.rollback")


def _offer_current(target: NodeClient) -> Current | None:
    current = target.state().current
    if current is None or current.release_seq is None:
        return None
    target.put_offer(
        Offer(
            release_seq=current.release_seq,
            bundle=current.bundle,
            update_id=current.update_id,
            attempt=current.attempt,
        )
    )
    return current


def _record(d: Deployment, place: Place, *, to: str | None, brought: str, sequence: int | None, kept: str) -> None:
    event = ServerRolledBack(
        at=now(), by=whoami(), server=place, to_bundle=to, to_update=brought, release_seq=sequence, kept=kept
    )
    d.advance(lambda newest: None if place in newest.rolled_back else event)


def _target_state(d: Deployment) -> NodeState | None:
    try:
        return settled(d.target)
    except NotConfiguredError:
        return None
    except NodeError as error:
        raise type(error)(f"{error} Nothing was changed.", server=error.server, status=error.status) from error


def _runs(seen: NodeState, state: State) -> bool:
    current = seen.current
    return current is not None and (current.bundle, current.update_id, current.attempt) == (
        state.bundle,
        state.update_id,
        state.attempt,
    )


def _brought_back(seen: NodeState, state: State) -> bool:
    """Say whether the target runs the update by a rollback to it, not by its own approval."""
    current = seen.current
    return current is not None and current.release_seq not in (None, state.release_seq)


def _came_back(seen: NodeState, state: State) -> bool:
    """Say whether the target runs what it is to go back to, under a release_seq given out after this update's."""
    current = seen.current
    return (
        current is not None
        and current.bundle == state.omega_before
        and state.release_seq is not None
        and (current.release_seq or 0) > state.release_seq
    )


def _runs_instead(name: str, seen: NodeState) -> str:
    what = seen.current.update_id if seen.current else "nothing"
    return f"{name} runs {what} by now"
