"""What `ashat-node status` says: from the node's own files, so it needs no token, no certificate and no network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from ashat.common.clocks import uptime
from ashat.common.documents import STATE_LIMIT, read_json
from ashat.common.processes import ProcessRef
from ashat.errors import AshatError
from ashat.node.app_process.place import SLOTS, Place
from ashat.node.app_process.traffic import direction
from ashat.node.cli.record import open_record
from ashat.node.context import LOCK_FILE
from ashat.node.core.db import Database
from ashat.node.mainframe.agent import AGENT, CLOCK, last_words
from ashat.node.operations import lease, records
from ashat.node.serve import ADDRESS_FILE
from ashat.protocol.messages import Operation

_LOOK_EVERY = 0.2


def describe(data: Path) -> tuple[bool, list[str]]:
    """Tell whether the node of `data` serves, with lines that say so.

    Raises:
        AshatError: no node has ever served from there, or its record cannot be read.
    """
    try:
        address = read_json(data / ADDRESS_FILE, limit=STATE_LIMIT)
        name, url = f"{address['role']} '{address['name']}'", address["url"]
    except FileNotFoundError:
        raise AshatError(f"No node has served from {data} yet; run: ashat-node serve") from None
    except OSError as error:
        raise AshatError(
            f"{data / ADDRESS_FILE} cannot be read ({error.strerror}), so nobody knows whether the node serves; run "
            "this as the node's user."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise AshatError(f"{data / ADDRESS_FILE} is damaged; the node writes it anew at its next start.") from None
    serves = is_held(data / LOCK_FILE)
    with open_record(data) as db:
        clock, agent = db.get_meta(CLOCK), last_words(db.get_meta(AGENT) or "")
        current, operation, held = records.standing(db).current, records.latest(db), lease.held(db)
        slots = list(_slots(db))
    lines = [f"{name} serves on {url}, pid {address['pid']}" if serves else f"{name} is not running"]
    if current:
        seq = f", release {current.release_seq}" if current.release_seq else ""
        lines.append(
            f"runs {current.bundle[:12]} of {current.update_id}{seq} since {current.since:%Y-%m-%d %H:%M:%S} UTC"
        )
    else:
        lines.append("runs nothing")
    lines += slots
    if serves and address.get("runs_program_as"):
        lines.append(address["runs_program_as"])
    if agent:
        lines.append(f"its agent, {'last' if serves else 'when it last ran'}: {agent}")
    if clock:
        lines.append(f"{clock}; one of the two is wrong")
    lines += _last_change(operation) if operation else []
    if held:
        lines.append(f"lent to {held.holder} ({held.who}: {held.why}) until {held.expires:%H:%M:%S} UTC at the latest")
    return serves, lines


def _slots(db: Database) -> Iterator[str]:
    """Say of each slot its port, what runs there, and whether the traffic goes there."""
    traffic = direction(db)
    for name, port in zip(SLOTS, traffic.ports if traffic else (), strict=False):
        assert traffic is not None
        row = Place(name).row(db)
        runs = row is not None and ProcessRef(row["pid"], row["created"]).process() is not None
        what = f"{row['release'][:12]}, pid {row['pid']}" if row is not None and runs else "nothing runs"
        if name == traffic.slot:
            what += (
                ", has the traffic" if traffic.applied else ", is to have the traffic: the proxy is not reloaded yet"
            )
        elif runs and traffic.idle_until is not None:
            what += f", is kept for another {max(traffic.idle_until - uptime(), 0):.0f} s"
        elif runs:
            what += ", is being checked"
        yield f"slot {name}, port {port}: {what}"


def _last_change(operation: Operation) -> list[str]:
    reason = f": {operation.reason}" if operation.reason else ""
    lines = [f"last change: {operation.id} {operation.status}{reason}"]
    return [*lines, f"its migrate step: {operation.migration.words}"] if operation.migration else lines


def wait_until_it_serves(data: Path, seconds: float) -> None:
    """Wait until the node of `data` serves, as it does once it has written down its address; or for `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not _serves(data):
        time.sleep(_LOOK_EVERY)


def _serves(data: Path) -> bool:
    """Tell whether the process that wrote down its address lives, and holds the lock."""
    try:
        pid = int(read_json(data / ADDRESS_FILE, limit=STATE_LIMIT)["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return psutil.pid_exists(pid) and is_held(data / LOCK_FILE)


def is_held(path: Path) -> bool:
    """Tell whether a node holds its lock, which is the file `path`."""
    try:
        with FileLock(path, timeout=0, mode=0o600):
            return False
    except Timeout:
        return True
