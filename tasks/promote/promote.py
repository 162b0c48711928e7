"""Behind the gate: the target is told to run what was approved, with the decision that says so."""

from __future__ import annotations

from ashat.client.node import NodeClient
from ashat.common.failpoints import fault_point
from ashat.deployment.events import DecisionVoid, Failed, Promoted, Promoting
from ashat.deployment.state_machine import Stage, State
from ashat.errors import NodeConflictError, SessionError, SwitchFailedError, UnsignedError
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import Decision, NodeState, OperationRequest, SignedRelease
from blocks.server import load_server
from tasks.approval.signing import send_log, signed_release
from tasks.runtime.ledger import ledger, now, whoami
from tasks.runtime.step import step
from tasks.servers.public import change, settled


def decision_of(state: State) -> Decision:
    """The accepted approval in the form that OMEGA checks.

    Raises:
        SessionError: nobody approved it.
    """
    said, gate = state.decision, state.gate
    if said is None or said.decision != "approve" or said.release_seq is None or gate is None:
        raise SessionError(f"Deployment '{state.update_id}' has no approval.")
    if state.bundle is None or state.evidence is None:
        raise SessionError(f"Deployment '{state.update_id}' has no evidence.")
    return Decision(
        id=f"{state.update_id}.{state.attempt}.{said.ordinal}",
        decision="approve",
        update_id=state.update_id,
        attempt=state.attempt,
        bundle=state.bundle,
        evidence=state.evidence,
        target=state.target,
        expected_current=state.omega_before,
        release_seq=said.release_seq,
        approver=said.approver,
        at=said.at,
    )


@step(
    "promote", description="Let the target run what was approved; it puts the old release back if the new is unhealthy."
)
def promote(update_id: str, attempt: int) -> State:
    """Let the target run the approved bundle. Does nothing where it already does by this approval.

    If the target moved on since the approval, the approval is void and the deployment awaits a new one. If the new
    release does not become healthy, the target runs the old one again and the deployment has failed.
    """
    with ledger() as record:
        state = record.load(update_id, attempt)
        if state.stage is not Stage.DEPLOYING:
            return state
        decision = decision_of(state)
        with load_server(state.target).client() as target:
            seen = settled(target)
            if _already(seen, decision):
                return _promoted(record, state, decision)
            if _moved_on(seen, decision):
                return _void(record, state, f"{state.target} runs something else than when it was approved")
            return _promote(record, state, target, decision)


def _promote(record: Ledger, state: State, target: NodeClient, decision: Decision) -> State:
    operation = state.promoting or f"{decision.id}.{decision.release_seq}"
    state = record.advance(
        state.update_id,
        state.attempt,
        lambda newest: None if newest.promoting else Promoting(at=now(), by=whoami(), operation=operation),
    )
    try:
        signed = signed_release(record, state)
        if signed is not None:
            send_log(record, target, signed)
        fault_point("promote.accepted")
        change(target, _request(state, decision, signed), operation)
    except (NodeConflictError, UnsignedError) as error:
        return _void(record, state, str(error))
    except SwitchFailedError as error:
        return record.append(state, Failed(at=now(), by=whoami(), reason=str(error)))
    fault_point("promote.switched")
    return _promoted(record, state, decision)


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


def _promoted(record: Ledger, state: State, decision: Decision) -> State:
    def arrived(newest: State) -> Promoting | Promoted | None:
        if newest.stage is not Stage.DEPLOYING:
            return None
        return Promoted(at=now(), by=whoami(), from_bundle=decision.expected_current, release_seq=decision.release_seq)

    state = record.advance(state.update_id, state.attempt, arrived)
    fault_point("promote.recorded")
    return state


def _void(record: Ledger, state: State, reason: str) -> State:
    return record.advance(
        state.update_id,
        state.attempt,
        lambda newest: DecisionVoid(at=now(), by=whoami(), reason=reason) if newest.stage is Stage.DEPLOYING else None,
    )
