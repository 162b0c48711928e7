"""Let the target run what was approved, and show it the decision that says so."""

from __future__ import annotations

from ashat.common.failpoints import fault_point
from ashat.deployment.events import DecisionVoid, Failed, Promoted, Promoting
from ashat.deployment.state_machine import Stage, State
from ashat.errors import NodeConflictError, SessionError, SwitchFailedError, UnsignedError
from ashat.protocol.messages import Current, Decision, NodeState, OperationRequest, SignedRelease
from tasks.approval.rollout_policy import why_void
from tasks.approval.signing import send_log, signed_release
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, whoami
from tasks.runtime.step import step
from tasks.servers.public import change, settled

_SHORT = 12


def decision_of(state: State) -> Decision:
    """Write the accepted approval in the form that OMEGA checks.

    Raises:
        SessionError: nobody approved it.
    """
    approval = state.decision
    if approval is None or approval.decision != "approve" or approval.release_seq is None or state.gate is None:
        raise SessionError(f"Deployment '{state.update_id}' has no approval.")
    if state.bundle is None or state.evidence is None:
        raise SessionError(f"Deployment '{state.update_id}' has no evidence.")
    return Decision(
        id=f"{state.update_id}.{state.attempt}.{approval.ordinal}",
        decision="approve",
        update_id=state.update_id,
        attempt=state.attempt,
        bundle=state.bundle,
        evidence=state.evidence,
        target=state.target,
        expected_current=state.omega_before,
        release_seq=approval.release_seq,
        approver=", ".join(state.deciders),
        at=approval.at,
    )


@step(
    "promote", description="Let the target run what was approved; it puts the old release back if the new is unhealthy."
)
def promote(d: Deployment) -> State:
    """Let the target run the approved bundle; do nothing if it does already by this approval.

    If the target moved on since the approval, or the rollout policy is another one by now, the approval is void and the
    deployment awaits a new one. If the new release does not become healthy, the target runs the old one again and the
    deployment has failed.
    """
    state = d.state
    if state.stage is not Stage.DEPLOYING:
        return state
    decision, seen = decision_of(state), settled(d.target)
    if _already(seen, decision):
        return _promoted(d, decision, seen.previous)
    if _moved_on(seen, decision):
        return _void(d, f"{state.the_target} runs something else than when it was approved")
    if why := why_void(state):
        return _void(d, why)
    return _promote(d, state, decision, seen.current)


def _promote(d: Deployment, state: State, decision: Decision, before: Current | None) -> State:
    reporter().say(f"{state.the_target} is told to run {state.update_id}, release {decision.release_seq}")
    operation = state.promoting or f"{decision.id}.{decision.release_seq}"
    promoting = Promoting(at=now(), by=whoami(), operation=operation)
    state = d.advance(lambda newest: None if newest.promoting else promoting)
    try:
        signed = signed_release(d.ledger, state)
        if signed is not None:
            send_log(d.ledger, d.target, signed)
        fault_point("promote.accepted")
        change(d.target, _request(state, decision, signed), operation)
    except (NodeConflictError, UnsignedError) as error:
        return _void(d, str(error))
    except SwitchFailedError as error:
        reporter().say(f"{state.the_target} does not run {state.update_id}: {error}")
        return d.ledger.append(state, Failed(at=now(), by=whoami(), reason=str(error), output=error.output))
    fault_point("promote.switched")
    return _promoted(d, decision, before)


def _request(state: State, decision: Decision, signed: SignedRelease | None) -> OperationRequest:
    return OperationRequest(
        action="promote",
        bundle=decision.bundle,
        expected_current=decision.expected_current,
        update_id=state.update_id,
        attempt=state.attempt,
        decision=decision,
        signed=signed,
        reason=f"approved by {decision.approver or 'somebody unnamed'}",
    )


def _already(seen: NodeState, decision: Decision) -> bool:
    current = seen.current
    return (
        current is not None
        and current.bundle == decision.bundle
        and current.release_seq == decision.release_seq
        and current.update_id == decision.update_id
    )


def _moved_on(seen: NodeState, decision: Decision) -> bool:
    return (seen.current.bundle if seen.current else None) != decision.expected_current


def _promoted(d: Deployment, decision: Decision, before: Current | None) -> State:
    was = before.update_id if before and before.bundle == decision.expected_current else ""
    step = d.target.migrated(decision.bundle)
    words = step.words if step else ""

    def arrived(newest: State) -> Promoting | Promoted | None:
        if newest.stage is not Stage.DEPLOYING:
            return None
        replaced, sequence = decision.expected_current, decision.release_seq
        return Promoted(
            at=now(), by=whoami(), from_bundle=replaced, from_update=was, release_seq=sequence, migrated=words
        )

    state = d.advance(arrived)
    replaced = was or (f"bundle {decision.expected_current[:_SHORT]}" if decision.expected_current else "nothing")
    reporter().say(f"{state.the_target} runs {state.update_id}, release {decision.release_seq}; before, {replaced}")
    if words:
        reporter().say(f"{state.the_target}: its migrate step: {words}")
    fault_point("promote.recorded")
    return state


def _void(d: Deployment, reason: str) -> State:
    reporter().say(f"The approval is void: {reason}")
    return d.advance(
        lambda newest: DecisionVoid(at=now(), by=whoami(), reason=reason) if newest.stage is Stage.DEPLOYING else None
    )
