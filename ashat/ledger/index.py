"""Make the row of the list of deployments that a state is, and read it. Pure, no I/O, and quick to import."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ashat.errors import LedgerError

if TYPE_CHECKING:
    from ashat.deployment.state_machine import State


def index_row(state: State) -> dict[str, Any]:
    """Make the row of the table `sessions`, by column; `summary` is JSON."""
    return {
        "update_id": state.update_id,
        "attempt": state.attempt,
        "version": state.version,
        "stage": state.stage.value,
        "target": state.target,
        "pushed_by": state.pushed_by[:255],
        "release_seq": state.release_seq,
        "rollback_seq": max((event.release_seq or 0 for event in state.rolled_back.values()), default=None),
        "created_at": _utc(state.created_at),
        "updated_at": _utc(state.updated_at),
        "summary": json.dumps(state.summary(), ensure_ascii=False),
    }


def summary_from_json(text: str) -> dict[str, Any]:
    """Read the summary in a row.

    Raises:
        LedgerError: it is none.
    """
    try:
        summary = json.loads(text)
    except (ValueError, RecursionError, TypeError):
        summary = None
    if not isinstance(summary, dict):
        raise LedgerError("The list of deployments in the ledger was altered: deploy audit verify says where.")
    return summary


def _utc(at: datetime | None) -> str:
    return at.astimezone(UTC).isoformat() if at else ""
