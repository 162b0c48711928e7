"""What `ashat-node status` says: from the node's own files, so it needs no token, no certificate and no network."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from ashat.common.documents import STATE_LIMIT, read_json
from ashat.errors import AshatError
from ashat.node.cli.record import open_record
from ashat.node.context import LOCK_FILE
from ashat.node.mainframe.agent import CLOCK
from ashat.node.operations import lease, records
from ashat.node.serve import ADDRESS_FILE


def describe(data: Path) -> tuple[bool, list[str]]:
    """Tell whether the node of `data` serves, with lines that say so.

    Raises:
        AshatError: no node has ever served from there, or its record cannot be read.
    """
    try:
        address = read_json(data / ADDRESS_FILE, limit=STATE_LIMIT)
        name, url = f"{address['role']} '{address['name']}'", address["url"]
    except (OSError, ValueError, KeyError):
        raise AshatError(f"No node has served from {data} yet; run: ashat-node serve") from None
    serves = _held(data / LOCK_FILE)
    with open_record(data) as db:
        clock = db.get_meta(CLOCK)
        current, operation, held = records.standing(db).current, records.latest(db), lease.held(db)
    lines = [f"{name} serves on {url}, pid {address['pid']}" if serves else f"{name} is not running"]
    if current:
        seq = f", release {current.release_seq}" if current.release_seq else ""
        lines.append(
            f"runs {current.bundle[:12]} of {current.update_id}{seq} since {current.since:%Y-%m-%d %H:%M:%S} UTC"
        )
    else:
        lines.append("runs nothing")
    if serves and address.get("runs_program_as"):
        lines.append(address["runs_program_as"])
    if clock:
        lines.append(f"{clock}; one of the two is wrong")
    if operation:
        lines.append(
            f"last change: {operation.id} {operation.status}{': ' + operation.reason if operation.reason else ''}"
        )
    if held:
        lines.append(f"lent to {held.holder} ({held.who}: {held.why}) until {held.expires:%H:%M:%S} UTC at the latest")
    return serves, lines


def _held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0, mode=0o600):
            return False
    except Timeout:
        return True
