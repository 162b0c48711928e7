"""Fold a deployment's events: `(state, event) -> state`, or a refusal with a reason. Pure, no I/O.

Planning -> Pushed -> Testing -> AwaitingApproval -> DeployingToOmega -> Distributing -> Completed
between approval and OMEGA, where that is closed: AwaitingWindow
and from there, or from on the way: Failed, Rejected, Expired, Cancelled, RolledBack
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ashat.deployment import approval_requests, rollback_rules, rollout_rules, window_rules
from ashat.deployment import events as e
from ashat.deployment.rollback_rules import refuse_rollback
from ashat.deployment.stages import BEFORE_APPROVAL, ENDED, PUT_BACK, Stage
from ashat.deployment.state import ApprovalRequest, PreviousRelease, State
from ashat.errors import SessionError

__all__ = [
    "BEFORE_APPROVAL",
    "ENDED",
    "PUT_BACK",
    "Stage",
    "State",
    "apply",
    "fold",
    "refuse_rollback",
    "start",
]

_WHILE_ROLLING_BACK = (
    e.RollbackStarted,
    e.RollbackStopped,
    e.ServerRolledBack,
    e.RolledBack,
    e.MainframeServed,
    e.PublicRestored,
    e.RunDied,
)
# What a run writes down that may die before it has done anything.
_BRINGS_NOTHING_ON = (e.RunDied, e.GateClaimed, e.Promoting, e.RollbackStarted)


def start(update_id: str, attempt: int) -> State:
    """Make the state before the first event."""
    return State(update_id=update_id, attempt=attempt)


def apply(state: State, event: e.AnyEvent) -> State:
    """Apply `event`; the state after it.

    Raises:
        SessionError: the state does not allow it; the message says why and what to do.
    """
    if state.version == 0 and not isinstance(event, e.Created):
        raise SessionError(f"Deployment '{state.update_id}' does not exist. Push it first: deploy push.")
    if state.rolling_back and not isinstance(event, _WHILE_ROLLING_BACK):
        raise SessionError(f"Deployment '{state.update_id}' is being rolled back: deploy status shows how far it is.")
    changed: State = _RULES[type(event)](state, event)
    if changed.deaths and not isinstance(event, _BRINGS_NOTHING_ON):
        changed = replace(changed, deaths=())
    return replace(changed, version=state.version + 1, updated_at=event.at)


def fold(update_id: str, attempt: int, events: list[e.AnyEvent]) -> State:
    """Apply all `events` in order; the state after them."""
    state = start(update_id, attempt)
    for event in events:
        state = apply(state, event)
    return state


def _refuse(state: State, what: str, *allowed: Stage) -> None:
    if state.stage not in allowed:
        words = ", ".join(stage.value for stage in allowed)
        raise SessionError(f"Deployment '{state.update_id}' is {state.stage.value}: {what} needs it to be {words}.")


def _created(state: State, event: e.Created) -> State:
    if state.version:
        raise SessionError(f"Deployment session '{state.update_id}' already exists.")
    return replace(
        state,
        description=event.description,
        info=event.info,
        target=event.target,
        public=event.public,
        target_title=event.target_title,
        public_title=event.public_title,
        run=event.run,
        pushed_by=event.by,
        created_at=event.at,
    )


def _packaged(state: State, event: e.Packaged) -> State:
    _refuse(state, "packing", Stage.PLANNING)
    if state.switching and event.bundle != state.bundle:
        raise SessionError(
            f"Deployment '{state.update_id}' was already on its way to Public with other content. "
            f"Cancel it and push again: deploy cancel {state.update_id}."
        )
    return replace(
        state,
        bundle=event.bundle,
        bundle_version=event.version,
        files=event.files,
        size=event.size,
        source=event.source,
        commits=event.commits,
        tasks=event.tasks,
        built=event.attestation,
        irreversible=event.irreversible,
    )


def _public_switching(state: State, event: e.PublicSwitching) -> State:
    _refuse(state, "switching Public", Stage.PLANNING, Stage.PUSHED, Stage.TESTING, Stage.AWAITING_APPROVAL)
    if state.bundle is None:
        raise SessionError(f"Deployment '{state.update_id}' has not been packed yet.")
    if event.from_bundle == state.bundle and state.switching:
        return state
    noted = ((event.from_bundle, event.baseline),) if event.from_bundle and event.baseline else ()
    return replace(
        state,
        switching=True,
        baselines=(*state.baselines, *noted),
        public_ran=(*state.public_ran, PreviousRelease(event.from_bundle, event.from_update, event.from_attempt)),
    )


def _pushed(state: State, event: e.Pushed) -> State:
    _refuse(state, "recording the push", Stage.PLANNING)
    if not state.switching:
        raise SessionError(f"Deployment '{state.update_id}' has not been switched to on Public yet.")
    migrated = _migrated(state, state.the_public, event.migrated)
    return replace(state, stage=Stage.PUSHED, window=None, public_url=event.url, migrated=migrated)


def _migrated(state: State, server: str, words: str) -> dict[str, str]:
    return {**state.migrated, server: words} if words else dict(state.migrated)


def _verification_started(state: State, event: e.VerificationStarted) -> State:
    _refuse(state, "verification", Stage.PUSHED, Stage.TESTING, Stage.AWAITING_APPROVAL)
    return replace(
        state.without_gate(),
        stage=Stage.TESTING,
        run_verify=event.run,
        policy=event.policy,
        evidence=None,
        attested=None,
        evidence_before=state.evidence or state.evidence_before,
        outcome="",
        checks=(),
    )


def _verified(state: State, event: e.Verified) -> State:
    _refuse(state, "recording evidence", Stage.TESTING)
    found = replace(
        state,
        evidence=event.evidence,
        attested=event.attestation,
        verified_at=event.at,
        outcome=event.outcome,
        checks=event.checks,
    )
    if event.outcome != "failed":
        return found
    failing = ", ".join(check.title for check in event.checks if check.outcome == "fail")
    return replace(
        found,
        stage=Stage.FAILED,
        failed_at=Stage.TESTING,
        reason=f"Verification failed: {failing}",
        keeps_public=not event.rolls_back,
    )


def _gate_opened(state: State, event: e.GateOpened) -> State:
    _refuse(state, "opening the gate", Stage.TESTING)
    if state.evidence is None:
        raise SessionError(f"Deployment '{state.update_id}' has no evidence yet: deploy verify {state.update_id}.")
    if event.opening != state.openings + 1:
        raise SessionError(f"Deployment '{state.update_id}': the next opening of its gate is {state.openings + 1}.")
    gate = ApprovalRequest("release", event.expires, state.update_id, state.attempt, state.evidence, since=event.at)
    return replace(state.with_request(gate), stage=Stage.AWAITING_APPROVAL, openings=event.opening)


def _gate(state: State, what: str) -> ApprovalRequest:
    _refuse(state, what, Stage.AWAITING_APPROVAL)
    if state.gate is None:
        raise SessionError(f"Deployment '{state.update_id}' has no open gate.")
    return state.gate


def _gate_claimed(state: State, event: e.GateClaimed) -> State:
    # What the run before has shown cannot be answered any more: this one asks anew.
    return state.with_request(replace(_gate(state, "taking the gate"), run=event.run, shown=None))


def _decision_void(state: State, event: e.DecisionVoid) -> State:
    _refuse(state, "voiding the approval", Stage.DEPLOYING, Stage.AWAITING_WINDOW)
    if state.gate is None:
        raise SessionError(f"Deployment '{state.update_id}' has no gate to return to.")
    expires = event.expires or state.gate.expires
    asked_again = replace(state.gate, decision="", decided_by="", reason=event.reason, expires=expires)
    asked_again = replace(asked_again, not_before=None, override_freeze="")
    return replace(
        state.with_request(asked_again),
        stage=Stage.AWAITING_APPROVAL,
        decision=None,
        deciders=(),
        release_seq=None,
        omega_before=None,
        promoting=None,
        window=None,
        overridden={server: each for server, each in state.overridden.items() if server != "omega"},
    )


def _promoting(state: State, event: e.Promoting) -> State:
    _refuse(state, "promotion", Stage.DEPLOYING)
    return replace(state, promoting=event.operation)


def _promoted(state: State, event: e.Promoted) -> State:
    _refuse(state, "recording the promotion", Stage.DEPLOYING)
    if not state.reached_omega:
        raise SessionError(f"Deployment '{state.update_id}' was never sent to {state.the_target}.")
    return replace(
        state,
        stage=Stage.DISTRIBUTING,
        omega_before=event.from_bundle,
        release_seq=event.release_seq,
        migrated=_migrated(state, state.the_target, event.migrated),
    )


def _distributed(state: State, event: e.Distributed) -> State:
    _refuse(state, "recording the distribution", Stage.DISTRIBUTING)
    counted = None if event.running is None or event.total is None else (event.running, event.total)
    reason = f"its rollout was ended early: {event.ended_early}" if event.ended_early else state.reason
    return replace(state, stage=Stage.COMPLETED, mainframes=event.mainframes, mainframes_counted=counted, reason=reason)


def _mainframe_served(state: State, event: e.MainframeServed) -> State:
    _refuse(state, "recording a late Mainframe", Stage.COMPLETED)
    others = tuple(m for m in state.mainframes if m.id != event.mainframe.id)
    running, total = state.mainframes_counted or (0, 0)
    return replace(
        state,
        mainframes=tuple(sorted((*others, event.mainframe), key=lambda m: m.name)),
        mainframes_counted=(running + 1, max(total, running + 1)) if state.mainframes_counted else None,
    )


def _failed(state: State, event: e.Failed) -> State:
    if state.ended:
        raise SessionError(f"Deployment '{state.update_id}' is {state.stage.value} already.")
    return replace(state, stage=Stage.FAILED, failed_at=state.stage, reason=event.reason, output=event.output)


def _cancelled(state: State, event: e.Cancelled) -> State:
    if state.stage not in BEFORE_APPROVAL | {Stage.AWAITING_WINDOW}:
        how = f" Roll it back instead: deploy rollback {state.update_id}." if state.reached_omega else ""
        raise SessionError(
            f"Deployment '{state.update_id}' is {state.stage.value}: only what awaits approval can be cancelled.{how}"
        )
    return replace(state, stage=Stage.CANCELLED, reason=event.reason, window=None)


def _expired(state: State, event: e.Expired) -> State:
    gate = _gate(state, "expiry")
    if event.at < gate.expires:
        raise SessionError(f"Deployment '{state.update_id}' may be approved until {gate.expires.isoformat()}.")
    return replace(state, stage=Stage.EXPIRED, reason="nobody answered in time")


def _run_died(state: State, event: e.RunDied) -> State:
    return replace(state, deaths=(*state.deaths, event))


def _public_restored(state: State, event: e.PublicRestored) -> State:
    if event.asked and state.ended and not state.rolling_back:
        return state
    if not state.owes_public:
        raise SessionError(f"Deployment '{state.update_id}' has nothing to put back on Public.")
    return replace(state, public_restored=True)


_RULES: dict[type[e.Event], Any] = {
    e.Created: _created,
    e.Packaged: _packaged,
    e.PublicSwitching: _public_switching,
    e.Pushed: _pushed,
    e.VerificationStarted: _verification_started,
    e.Verified: _verified,
    e.GateOpened: _gate_opened,
    e.GateClaimed: _gate_claimed,
    e.ApprovalRequested: approval_requests.asked,
    e.ApprovalWithdrawn: approval_requests.withdrawn,
    e.ApprovalAnswered: approval_requests.answered,
    e.DecisionVoid: _decision_void,
    e.WindowAwaited: window_rules.awaited,
    e.WindowOpened: window_rules.opened,
    e.FreezeOverridden: window_rules.overridden,
    e.Promoting: _promoting,
    e.Promoted: _promoted,
    e.RolloutBegan: rollout_rules.began,
    e.WaveOpened: rollout_rules.opened,
    e.RolloutStopped: rollout_rules.stopped,
    e.RolloutAnswered: rollout_rules.answered,
    e.Distributed: _distributed,
    e.MainframeServed: _mainframe_served,
    e.Failed: _failed,
    e.Cancelled: _cancelled,
    e.Expired: _expired,
    e.RunDied: _run_died,
    e.PublicRestored: _public_restored,
    e.RollbackStarted: rollback_rules.started,
    e.RollbackStopped: rollback_rules.stopped,
    e.ServerRolledBack: rollback_rules.server_rolled_back,
    e.RolledBack: rollback_rules.rolled_back,
}
