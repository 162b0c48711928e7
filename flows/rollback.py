"""The way back from an update, on every server that it reached."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State as PrefectState

from flows.ending import ending, in_a_line
from tasks.notify import notify
from tasks.record import ledger
from tasks.reporting import reporter
from tasks.rollback import end_rollback, follow_mainframes, roll_back_omega, roll_back_public, start_rollback


@flow(
    name="rollback",
    flow_run_name="rollback {update_id}",
    description="Let each server that an update reached run again what it ran before.",
)
@in_a_line
def rollback(
    update_id: str,
    attempt: int | None = None,
    reason: str = "",
    by: str = "",
) -> PrefectState[Any]:
    """Roll an update back on OMEGA, the Mainframes and Public, refusing where something else runs by now.

    Args:
        update_id: The update, such as UPD-2026-11.
        attempt: Which attempt of it; empty: the last one.
        reason: Why; it is recorded.
        by: Who you are; recorded as you type it.
    """
    with ledger() as record:
        state = record.load(update_id, attempt)
    way = start_rollback(state.update_id, state.attempt, reason, by)
    for place, why in way.kept.items():
        reporter().say(f"{place} is left alone: {why}")
    if "omega" in way.servers:
        sequence = roll_back_omega(state.update_id, state.attempt)
        if sequence is not None:
            follow_mainframes(state, sequence)
    if "public" in way.servers:
        roll_back_public(state.update_id, state.attempt)
    state = end_rollback(state.update_id, state.attempt)
    notify(f"{update_id} was rolled back", reason)
    return ending(state)
