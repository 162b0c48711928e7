"""Roll a deployment back: the rules of a rollback in the state machine (`state_machine`). Pure, no I/O.

Where the target demands signatures and no signed rollback counts, people are asked first (`approval_requests`).
"""

from __future__ import annotations

from dataclasses import replace

from ashat.deployment import events as e
from ashat.deployment.stages import Stage
from ashat.deployment.state import State
from ashat.errors import SessionError


def started(state: State, event: e.RollbackStarted) -> State:
    """Note that servers are about to be put back."""
    refuse_rollback(state)
    return replace(
        state, rolling_back=True, rollback_run=event.run, rollback_reason=event.reason or state.rollback_reason
    )


def stopped(state: State, event: e.RollbackStopped) -> State:
    """Note that the rollback was called off; an approval of it counts no more."""
    if not state.rolling_back:
        raise SessionError(f"Deployment '{state.update_id}' is not being rolled back.")
    if state.rolled_back:
        raise SessionError(
            f"A server has gone back from '{state.update_id}' already: its rollback can only be finished."
        )
    return replace(state.without_request("rollback"), rolling_back=False, rollback_run="", rollback_reason="")


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
    """Note that one server was put back, or left alone."""
    if not state.rolling_back:
        raise SessionError(f"Deployment '{state.update_id}' is not being rolled back.")
    return replace(state, rolled_back={**state.rolled_back, event.server: event})


def rolled_back(state: State, event: e.RolledBack) -> State:
    """Note that every server is back."""
    if not state.rolling_back:
        raise SessionError(f"Deployment '{state.update_id}' is not being rolled back.")
    return replace(state.without_gate(), stage=Stage.ROLLED_BACK, rolling_back=False)
