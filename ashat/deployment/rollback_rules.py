"""The rules of a rollback: the part of the state machine (`state_machine`) that a rollback goes by. Pure, no I/O.

Where the target demands signatures and no way back that counts was signed with the approval, people are asked first:
RollbackAsked, RollbackAnswered until enough have signed, and only then RollbackStarted.
"""

from __future__ import annotations

from dataclasses import replace

from ashat.deployment import events as e
from ashat.deployment.stages import Stage
from ashat.deployment.state import RollbackGate, State
from ashat.errors import SessionError


def asked(state: State, event: e.RollbackAsked) -> State:
    """The question is put, or put again; signatures over the same proposal stay."""
    refuse_rollback(state)
    gate = state.rollback_gate
    if not state.reached_omega or state.rolling_back:
        raise SessionError(f"Deployment '{state.update_id}' has no rollback that anybody must approve.")
    number = gate.ordinal + 1 if gate else 1
    if event.ordinal != number:
        raise SessionError(f"Deployment '{state.update_id}': the next asking about its rollback is number {number}.")
    goes_on = gate is not None and not gate.decision and event.proposal == gate.proposal
    put = RollbackGate(
        ordinal=event.ordinal,
        expires=event.expires,
        run=event.run,
        to_update=event.to_update,
        to_attempt=event.to_attempt,
        evidence=event.evidence,
        missing=event.missing,
        shown=event.shown,
        proposal=event.proposal,
        signatures=gate.signatures if gate and goes_on else (),
        reason=event.reason,
    )
    return replace(state, rollback_gate=put)


def answered(state: State, event: e.RollbackAnswered) -> State:
    """An answer was judged."""
    gate = state.rollback_gate
    if gate is None or gate.decision or state.rolling_back:
        raise SessionError(f"Nobody is asked whether '{state.update_id}' may be rolled back.")
    rejects = event.accepted and event.decision == "reject"
    if event.ordinal != gate.ordinal or (gate.answered and not rejects):
        raise SessionError(f"Deployment '{state.update_id}': answer {event.ordinal} was judged already or never asked.")
    judged = replace(gate, answered=True, reason="" if event.accepted else event.reason)
    if not event.accepted:
        return replace(state, rollback_gate=judged)
    if event.decision == "reject":
        return replace(state, rollback_gate=replace(judged, decision="reject", decided_by=event.approver))
    if event.at >= gate.expires:
        raise SessionError(f"The rollback of '{state.update_id}' could be approved until {gate.expires.isoformat()}.")
    if event.signature is None:
        raise SessionError("An accepted approval of a rollback carries a signature.")
    proposal, earlier = (event.proposal, ()) if event.proposal is not None else (gate.proposal, gate.signatures)
    if proposal is None:
        raise SessionError(f"Nothing is proposed for the rollback of '{state.update_id}' that could be signed.")
    if any(event.signature.keyid == one.keyid for one in earlier):
        raise SessionError(f"{event.signature.name} has signed the rollback of '{state.update_id}' already.")
    signed = replace(judged, proposal=proposal, signatures=(*earlier, event.signature))
    if event.complete:
        signed = replace(signed, decision="approve", decided_by=event.approver)
    return replace(state, rollback_gate=signed)


def started(state: State, event: e.RollbackStarted) -> State:
    """Servers are about to be put back."""
    refuse_rollback(state)
    return replace(state, rolling_back=True, rollback_run=event.run)


def refuse_rollback(state: State) -> None:
    """Refuse a rollback that has nothing to roll back.

    Raises:
        SessionError: it reached no server, or is rolled back already.
    """
    if state.stage is Stage.ROLLED_BACK:
        raise SessionError(f"Deployment '{state.update_id}' is rolled back already.")
    if state.stage in (Stage.CANCELLED, Stage.REJECTED, Stage.EXPIRED):
        raise SessionError(
            f"Deployment '{state.update_id}' is {state.stage.value}: Public was put back then. Nothing to roll back."
        )
    if not state.switching:
        raise SessionError(f"Deployment '{state.update_id}' has reached no server yet: nothing to roll back.")
    if state.public_restored and not state.rolling_back:
        raise SessionError(f"Deployment '{state.update_id}' failed and Public was put back: nothing to roll back.")


def server_rolled_back(state: State, event: e.ServerRolledBack) -> State:
    """One server was put back, or left alone."""
    if not state.rolling_back:
        raise SessionError(f"Deployment '{state.update_id}' is not being rolled back.")
    return replace(state, rolled_back={**state.rolled_back, event.server: event})


def rolled_back(state: State, event: e.RolledBack) -> State:
    """Every server is back."""
    if not state.rolling_back:
        raise SessionError(f"Deployment '{state.update_id}' is not being rolled back.")
    return replace(state, stage=Stage.ROLLED_BACK, rolling_back=False, gate=None)
