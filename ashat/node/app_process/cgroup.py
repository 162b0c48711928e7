"""A control group for the program, below the node's own, where whoever started the node delegated that to it.

systemd does so with `Delegate=yes` and marks the directory, as https://systemd.io/CGROUP_DELEGATION describes. Nowhere
else is it ours to make one, writable or not. The kernel ends all that is in a group at once, whatever it has become.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("ashat.node")

_MARKS = ("trusted.delegate", "user.delegate")
_KILL_SECONDS = 5.0


def program_group(name: str) -> Path | None:
    """Find the control group `name` below this process's own (cgroup v2), made or not; None where none is delegated."""
    if not sys.platform.startswith("linux"):
        return None
    own = _own_group()
    return own / name if own is not None and _is_delegated(own) and (own / "cgroup.kill").exists() else None


def make_group(group: Path | None) -> Path | None:
    """Make it, if it is not there; None where that cannot be done, which the log says."""
    if group is None:
        return None
    try:
        group.mkdir(exist_ok=True)
    except OSError as error:
        log.warning("the program runs without a control group of its own: %s", error.strerror)
        return None
    return group


def end_group(group: Path | None) -> None:
    """End every process in it, and remove it."""
    if group is None or not group.exists():
        return
    deadline = time.monotonic() + _KILL_SECONDS
    try:
        (group / "cgroup.kill").write_text("1")
        while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        group.rmdir()
    except OSError as error:
        log.warning("the program's control group %s cannot be emptied: %s", group, error.strerror)


def _own_group() -> Path | None:
    try:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    root = next((Path(fields[4]) for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"), None)
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    return root / path if root is not None and path is not None else None


def _is_delegated(group: Path) -> bool:
    for mark in _MARKS:
        with suppress(OSError):
            if os.getxattr(group, mark) == b"1":
                return True
    return False
