"""What a node runs and how it came to, as rows of its record and as the types of `ashat.protocol.messages`.

Functions that take a connection are parts of a transaction; the others read by themselves.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ashat.node.core.db import Database, from_text, now, to_text
from ashat.node.logs import change_log
from ashat.protocol.messages import Current, Operation, OperationRequest, Step

_OPERATIONS = """
SELECT operations.*, lines, (
    SELECT json_object(
        'status', status, 'command', json(command), 'reversible', reversible, 'limit', limit_seconds,
        'detail', detail, 'began_at', began_at, 'ended_at', ended_at
    ) FROM migrations WHERE migrations.operation = operations.id
) AS migration
FROM operations LEFT JOIN outputs ON outputs.operation = operations.id
"""
_OUTPUTS_KEPT = 20
_KEEP_OUTPUTS = "DELETE FROM outputs WHERE rowid NOT IN (SELECT rowid FROM outputs ORDER BY rowid DESC LIMIT ?)"


@dataclass(frozen=True, slots=True)
class RunningRelease:
    """What a node runs when a change is asked for.

    `brought_by` is the action of the operation that brought `current`; `release_seq` is the highest accepted.
    """

    current: Current | None
    previous: Current | None
    brought_by: str | None
    release_seq: int

    @property
    def bundle(self) -> str | None:
        """The bundle that runs, None where nothing does."""
        return self.current.bundle if self.current else None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The operation under way: `undoing` once it was decided to put back what ran; `resumed` counts restarts."""

    operation: Operation
    undoing: bool
    resumed: int


def standing(db: Database) -> RunningRelease:
    """Read what the node runs now."""
    with db.snapshot() as connection:
        return read_standing(connection)


def needed(db: Database) -> list[tuple[str, Literal["runs", "ran before"]]]:
    """List the bundles that the node has to hold whole, each once, with why."""
    now = standing(db)
    named: list[tuple[Current | None, Literal["runs", "ran before"]]] = [
        (now.previous, "ran before"),
        (now.current, "runs"),
    ]
    return list({release.bundle: why for release, why in named if release}.items())[::-1]


def read_standing(connection: sqlite3.Connection) -> RunningRelease:
    """Read what the node runs, as this transaction sees it."""
    rows = {row["slot"]: row for row in connection.execute("SELECT * FROM releases")}
    current = rows.get("current")
    brought = None
    if current:
        found = connection.execute("SELECT action FROM operations WHERE id = ?", (current["operation"],)).fetchone()
        brought = found["action"] if found else None
    highest = connection.execute("SELECT coalesce(max(release_seq), 0) FROM operations").fetchone()[0]
    return RunningRelease(
        current=_current(current) if current else None,
        previous=_current(rows["previous"]) if "previous" in rows else None,
        brought_by=brought,
        release_seq=highest,
    )


def find(db: Database, operation_id: str) -> Operation | None:
    """Read the operation with that id, None where there is none."""
    row = db.one(f"{_OPERATIONS} WHERE operations.id = ?", (operation_id,))
    return to_operation(row) if row else None


def latest(db: Database) -> Operation | None:
    """Read the operation under way, else the last one."""
    row = db.one(f"{_OPERATIONS} ORDER BY seq DESC LIMIT 1")
    return to_operation(row) if row else None


def unfinished(db: Database) -> Unfinished | None:
    """Read the operation under way, with how far its undoing is; None where there is none."""
    row = db.one("SELECT * FROM operations WHERE status = 'running'")
    return Unfinished(to_operation(row), bool(row["undoing"]), row["resumed"]) if row else None


def begin(
    connection: sqlite3.Connection,
    operation_id: str,
    request: OperationRequest,
    *,
    running: str | None,
    release_seq: int | None,
) -> None:
    """Record that `request` was accepted while the bundle `running` ran."""
    connection.execute(
        "INSERT INTO operations (id, request, action, status, from_bundle, to_bundle, update_id, attempt, release_seq,"
        " started_at) VALUES (?, ?, ?, 'running', ?, ?, ?, ?, ?, ?)",
        (
            operation_id,
            request.model_dump_json(),
            request.action,
            running,
            request.bundle,
            request.update_id,
            request.attempt,
            release_seq,
            to_text(now()),
        ),
    )
    decision = request.decision
    change_log.append(
        connection,
        "operation-began",
        operation=operation_id,
        action=request.action,
        runs=running,
        bundle=request.bundle,
        update_id=request.update_id,
        attempt=request.attempt,
        release_seq=release_seq,
        decision=decision.id if decision else None,
        approver=decision.approver if decision else None,
        reason=request.reason,
    )


def add_step(db: Database, operation_id: str, step: Step) -> None:
    """Record that a part of the operation is done."""
    with db.transaction() as connection:
        row = connection.execute("SELECT steps FROM operations WHERE id = ?", (operation_id,)).fetchone()
        steps = [*json.loads(row["steps"]), step.model_dump()]
        connection.execute("UPDATE operations SET steps = ? WHERE id = ?", (json.dumps(steps), operation_id))


def mark_undoing(
    db: Database, operation_id: str, reason: str, *, interrupted: bool = False, output: Sequence[str] = ()
) -> None:
    """Record, before anything is put back, that the operation failed and why, and what the program wrote last;
    `interrupted`: the node's own fault."""
    with db.transaction() as connection:
        connection.execute(
            "UPDATE operations SET undoing = 1, reason = ?, interrupted = ? WHERE id = ?",
            (reason, int(interrupted), operation_id),
        )
        _keep_output(connection, operation_id, output)


def mark_resumed(db: Database, operation_id: str) -> None:
    """Record that a new process of the node took the operation up."""
    with db.transaction() as connection:
        connection.execute("UPDATE operations SET resumed = resumed + 1 WHERE id = ?", (operation_id,))


def succeed(db: Database, operation: Operation) -> None:
    """Record that the operation is done: what it brought runs, and what ran is what ran before."""
    at = to_text(now())
    with db.transaction() as connection:
        connection.execute("DELETE FROM releases WHERE slot = 'previous'")
        connection.execute("UPDATE releases SET slot = 'previous' WHERE slot = 'current'")
        if operation.to is not None:
            connection.execute(
                "INSERT INTO releases (slot, bundle, update_id, attempt, release_seq, operation, since)"
                " VALUES ('current', ?, ?, ?, ?, ?, ?)",
                (operation.to, operation.update_id, operation.attempt, operation.release_seq, operation.id, at),
            )
        connection.execute(
            "UPDATE operations SET status = 'succeeded', reason = '', ended_at = ? WHERE id = ?", (at, operation.id)
        )
        change_log.append(connection, "operation-ended", operation=operation.id, status="succeeded", reason="")


def fail(db: Database, operation_id: str, reason: str, *, switched_back: bool, output: Sequence[str] = ()) -> None:
    """Record that the operation failed; what ran before it runs. `output` is what its migrate step wrote last."""
    with db.transaction() as connection:
        _keep_output(connection, operation_id, output)
        connection.execute(
            "UPDATE operations SET status = 'failed', reason = ?, switched_back = ?, ended_at = ? WHERE id = ?",
            (reason, int(switched_back), to_text(now()), operation_id),
        )
        change_log.append(connection, "operation-ended", operation=operation_id, status="failed", reason=reason)


def take_back(db: Database, operation_id: str, reason: str, output: Sequence[str] = ()) -> bool:
    """Record that what the operation brought is to make way for what ran before, which runs by the record from now on;
    False, and nothing is recorded, where that is not to be: something else runs, or nothing else ran."""
    with db.transaction() as connection:
        slots = {row["slot"]: row for row in connection.execute("SELECT * FROM releases")}
        current, previous = slots.get("current"), slots.get("previous")
        busy = connection.execute("SELECT 1 FROM operations WHERE status = 'running'").fetchone()
        if busy or current is None or previous is None or current["operation"] != operation_id:
            return False
        row = connection.execute("SELECT from_bundle FROM operations WHERE id = ?", (operation_id,)).fetchone()
        if row["from_bundle"] != previous["bundle"] or previous["bundle"] == current["bundle"]:
            return False
        connection.execute("DELETE FROM releases WHERE slot = 'current'")
        connection.execute("UPDATE releases SET slot = 'current' WHERE slot = 'previous'")
        connection.execute(
            "UPDATE operations SET status = 'running', undoing = 1, reason = ?, ended_at = NULL WHERE id = ?",
            (reason, operation_id),
        )
        _keep_output(connection, operation_id, output)
        change_log.append(connection, "operation-taken-back", operation=operation_id, reason=reason)
    return True


def output_of_release(db: Database, release_seq: int) -> tuple[str, ...]:
    """Read what the program wrote last when a release of that number failed to start the last time; nothing where it
    did not fail of that."""
    row = db.one(f"{_OPERATIONS} WHERE release_seq = ? ORDER BY seq DESC LIMIT 1", (release_seq,))
    return to_operation(row).output if row else ()


def _keep_output(connection: sqlite3.Connection, operation_id: str, output: Sequence[str]) -> None:
    if output:
        connection.execute("INSERT OR REPLACE INTO outputs VALUES (?, ?)", (operation_id, json.dumps(output)))
        connection.execute(_KEEP_OUTPUTS, (_OUTPUTS_KEPT,))


def to_operation(row: sqlite3.Row) -> Operation:
    """Make the operation that a row of `operations` holds."""
    joined = dict(row)
    return Operation.model_validate(
        {
            "id": row["id"],
            "action": row["action"],
            "status": row["status"],
            "from": row["from_bundle"],
            "to": row["to_bundle"],
            "update_id": row["update_id"],
            "attempt": row["attempt"],
            "release_seq": row["release_seq"],
            "reason": row["reason"],
            "steps": json.loads(row["steps"]),
            "started_at": from_text(row["started_at"]),
            "ended_at": from_text(row["ended_at"]) if row["ended_at"] else None,
            "switched_back": bool(row["switched_back"]),
            "interrupted": bool(row["interrupted"]),
            "migration": json.loads(joined.get("migration") or "null"),
            "output": json.loads(joined.get("lines") or "[]"),
        }
    )


def _current(row: sqlite3.Row) -> Current:
    return Current(
        bundle=row["bundle"],
        update_id=row["update_id"],
        attempt=row["attempt"],
        release_seq=row["release_seq"],
        since=from_text(row["since"]),
    )
