"""Audits a node's change log: is it what was written, and is the node's record what it says."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ashat.common.canonical_json import canonical_json
from ashat.errors import AuditError
from ashat.node.core.db import Database
from ashat.node.logs.change_log import named
from ashat.transparency.checkpoint import Checkpoint
from ashat.transparency.merkle import EMPTY_ROOT, CompactRange, consistency_proof, leaf_hash

_OPERATION = ("action", "bundle", "update_id", "attempt", "release_seq")


@dataclass(frozen=True)
class Change:
    """An entry of the change log, counted from 1; `facts` are `at`, `by`, `kind` and what its kind has."""

    number: int
    facts: dict[str, Any]
    root: str

    @property
    def name(self) -> str:
        """The entry, for messages."""
        what = next((self.facts[key] for key in ("operation", "update_id", "id") if key in self.facts), "")
        return f"entry {self.number} ({' '.join(filter(None, (str(self.facts.get('kind')), str(what))))})"


@dataclass(frozen=True)
class Audited:
    """What was found in order."""

    origin: str
    size: int
    root: bytes
    checkpoints: int


def read_changes(database: Database, *, after: int = 0, limit: int = -1) -> list[Change]:
    """Read the entries behind the first `after`, oldest first, at most `limit` (-1: all).

    Raises:
        AuditError: one is no JSON object.
    """
    rows = database.all("SELECT * FROM changes WHERE seq >= ? ORDER BY seq LIMIT ?", (after, limit))
    return [_change(row) for row in rows]


def prove_growth(database: Database, earlier: int, size: int) -> list[bytes]:
    """Prove that the first `size` entries begin with the first `earlier`; empty where there never were as many."""
    if not 0 < earlier < size:
        return []
    return consistency_proof(leaf_hashes(database, size), earlier)


def leaf_hashes(database: Database, size: int) -> list[bytes]:
    """List the hashes of the first `size` entries, of which any proof of the change log can be made."""
    rows = database.all("SELECT entry FROM changes WHERE seq < ? ORDER BY seq", (size,))
    return [leaf_hash(row["entry"].encode()) for row in rows]


class KeptLicence(NamedTuple):
    """What a node keeps of a licence that the change log tells of; times as they are kept."""

    created_at: str
    expires: str | None
    revoked_at: str | None


def audit(
    database: Database, checkpoints: Sequence[Checkpoint] = (), licences: Mapping[str, KeptLicence] | None = None
) -> Audited:
    """Check every entry, `checkpoints` that were signed earlier, the node's record, and an OMEGA's `licences` by their
    id, against the change log.

    Raises:
        AuditError: something does not fit; the message names the first entry that does not, where one can be named.
    """
    with database.snapshot() as connection:
        log = connection.execute("SELECT * FROM changes_log").fetchone()
        if log is None:
            raise AuditError("This node has no journal of changes yet: it begins when the node is next started.")
        tree, roots, changes = CompactRange(), {0: EMPTY_ROOT}, []
        wanted = {checkpoint.size for checkpoint in checkpoints}
        for change in _checked(connection, tree):
            changes.append(change)
            if tree.size in wanted:
                roots[tree.size] = tree.root()
        if tree.size < log["size"]:
            raise AuditError(
                f"Entry {tree.size + 1} is missing: {log['size']} were written, and the journal ends with {tree.size}.",
                event=tree.size + 1,
            )
        if (tree.size, tree.text) != (log["size"], log["frontier"]):
            raise AuditError(
                f"Entry {log['size'] + 1} does not fit: {log['size']} were written.", event=log["size"] + 1
            )
        for checkpoint in checkpoints:
            named(log["origin"], tree, roots.get).require_extends(checkpoint)
        _compare_operations(connection, changes)
        if changes and licences is not None:
            _compare_licences(licences, changes)
        return Audited(log["origin"], tree.size, tree.root(), len(checkpoints))


def _checked(connection: sqlite3.Connection, tree: CompactRange) -> Iterator[Change]:
    for row in connection.execute("SELECT * FROM changes ORDER BY seq"):
        if row["seq"] != tree.size:
            raise AuditError(f"Entry {tree.size + 1} is missing: {row['seq'] + 1} comes next.", event=tree.size + 1)
        change = _change(row)
        tree.append(leaf_hash(row["entry"].encode("utf-8", "replace")))
        if tree.root().hex() != row["root"] or canonical_json(change.facts) != row["entry"].encode("utf-8", "replace"):
            raise _misfit(change, "what it says, or where it stands, is not what was written")
        yield change


def _change(row: sqlite3.Row) -> Change:
    try:
        facts = json.loads(row["entry"])
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise AuditError(f"Entry {row['seq'] + 1} does not fit: it is no JSON object.", event=row["seq"] + 1)
    return Change(row["seq"] + 1, facts, row["root"])


def _compare_operations(connection: sqlite3.Connection, changes: list[Change]) -> None:
    """Ask whether the record's operations, from the log's beginning on, are those that the log has."""
    began = {change.facts["operation"]: change for change in changes if change.facts["kind"] == "operation-began"}
    ended: dict[str, Change] = {}
    for each in changes:
        if each.facts["kind"] == "operation-ended":
            ended[each.facts["operation"]] = each
        elif each.facts["kind"] == "operation-taken-back":
            del ended[each.facts["operation"]]
    first = changes[0].facts.get("operations_before", 0) if changes else 0
    rows = connection.execute("SELECT *, to_bundle AS bundle FROM operations WHERE seq > ?", (first,)).fetchall()
    for row in rows:
        change, end = began.pop(row["id"], None), ended.get(row["id"])
        if change is None:
            raise AuditError(f"The record has the operation {row['id']!r}, which the journal does not.")
        other = next((field for field in _OPERATION if row[field] != change.facts[field]), None)
        if other:
            raise _misfit(change, f"in the record its {other} is another")
        if row["status"] != (end.facts["status"] if end else "running"):
            raise _misfit(end or change, f"in the record the operation is {row['status']}")
    if began:
        raise _misfit(min(began.values(), key=lambda change: change.number), "the record has no such operation")
    _compare_current(connection, began=changes, ended=ended)


def _compare_current(connection: sqlite3.Connection, *, began: list[Change], ended: dict[str, Change]) -> None:
    """Ask whether what the record calls current is what the last operation brought that succeeded."""
    done = [change for change in ended.values() if change.facts["status"] == "succeeded"]
    if not done:
        return
    last = max(done, key=lambda change: change.number)
    brought = next((c for c in began if c.facts["kind"] == "operation-began" and _same(c, last)), None)
    row = connection.execute("SELECT bundle FROM releases WHERE slot = 'current'").fetchone()
    runs = row["bundle"] if row else None
    if brought is not None and runs != brought.facts["bundle"]:
        raise _misfit(last, f"by the record {(runs or 'nothing')[:12]} runs, and it brought another")


def _same(one: Change, other: Change) -> bool:
    same: bool = one.facts["operation"] == other.facts["operation"]
    return same


def _compare_licences(rows: Mapping[str, KeptLicence], changes: list[Change]) -> None:
    """Ask whether each licence that the log knows is in the record as it was last kept, or revoked."""
    kept = {change.facts["id"]: change for change in changes if change.facts["kind"] == "licence-kept"}
    revoked = {change.facts["id"]: change for change in changes if change.facts["kind"] == "licence-revoked"}
    for name, row in rows.items():
        if row.created_at > changes[0].facts["at"] and name not in kept:
            raise AuditError(f"The record has the licence {name}, which the journal does not.")
    for name, change in {**kept, **revoked}.items():
        if name not in rows:
            raise _misfit(change, "the record has no such licence")
        if (rows[name].revoked_at is not None) != (name in revoked):
            raise _misfit(change, f"in the record the licence is {'not ' if name in revoked else ''}revoked")
    for name, change in kept.items():
        if rows[name].expires != change.facts["expires"]:
            raise _misfit(change, "in the record the licence ends at another time")


def _misfit(change: Change, why: str) -> AuditError:
    return AuditError(f"E{change.name[1:]} does not fit: {why}.", event=change.number)
