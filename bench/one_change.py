"""What one changed file of a large tree costs a node: seconds of the switch, and disk, as a multiple of what changed.

The push keeps what changed in the store, the switch in the release's directory; each is measured. The program's user
is another one than the node's where this runs as root, so that files may be shared by name; on a filesystem that clones
they are shared in any case.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ashat.bundle.pack import pack_directory
from ashat.bundle.stat_cache import StatCache
from ashat.client.node import NodeClient
from ashat.client.transfer import push_bundle
from ashat.node.store.releases import Releases
from ashat.node.store.store import Store
from ashat.protocol.messages import Decision, OperationRequest

FILE_BYTES = 4_000_000


def make_large_tree(root: Path, size: int) -> None:
    """Write a tree of `size` bytes, in files of 4 MB, none like another."""
    root.mkdir(parents=True)
    for number in range(max(size // FILE_BYTES, 2)):
        directory = root / "Modules" / f"Module{number // 50:03d}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file{number:05d}").write_bytes(os.urandom(FILE_BYTES))


def program_user(directory: Path) -> str:
    """Name a user as whom a program in `directory` could run that is not ours; "" where this is not root, or where
    nobody else gets there."""
    reached = all(place.stat().st_mode & stat.S_IXOTH for place in (directory, *directory.resolve().parents))
    return pwd.getpwuid(65534).pw_name if reached and os.geteuid() == 0 else ""


def clones(directory: Path) -> bool:
    """Tell whether the filesystem of `directory` clones files."""
    with Store(directory / "probe" / "store") as store:
        return Releases(directory / "probe", store).shares_blocks


def switch_after_one_change(
    node: NodeClient, source: Path, cache: Path, data: Path, settle: Callable[[], None]
) -> dict[str, float]:
    """Push the tree and switch to it, change one file, and do it again; `data` is the node's data directory.

    Returns the seconds of both switches, as the node tells its steps, and the disk that the second push and the second
    switch took, as multiples of the bytes that changed.
    """
    running = _push(node, source, cache)
    first = _switch(node, running, None, 1)
    changed = next(path for path in sorted(source.rglob("file*")) if path.is_file())
    changed.write_bytes(os.urandom(FILE_BYTES))
    settle()
    before = _used(data)
    bundle = _push(node, source, cache)
    settle()
    pushed = _used(data)
    second = _switch(node, bundle, running, 2)
    settle()
    return {
        "first switch": first,
        "switch": second,
        "disk of the push": (pushed - before) / FILE_BYTES,
        "disk of the switch": (_used(data) - pushed) / FILE_BYTES,
    }


def _push(node: NodeClient, source: Path, cache: Path) -> str:
    with pack_directory(source, cache=StatCache(cache)) as packed:
        push_bundle(node.transport, packed)
        return packed.manifest.digest


def _switch(node: NodeClient, bundle: str, running: str | None, number: int) -> float:
    named = f"one-change-{number}"
    decision = Decision(
        id=named,
        decision="approve",
        update_id=named,
        attempt=1,
        bundle=bundle,
        evidence="0" * 64,
        target="bench",
        expected_current=running,
        release_seq=number,
        approver="bench",
        at=datetime.now(UTC),
    )
    request = OperationRequest(
        action="promote", bundle=bundle, expected_current=running, update_id=named, attempt=1, decision=decision
    )
    node.start_operation(named, request)
    operation = node.wait_operation(named, timeout=600)
    if operation.status != "succeeded":
        raise SystemExit(f"The switch failed: {operation.reason}")
    return sum(step.seconds for step in operation.steps)


def _used(data: Path) -> int:
    """Count the bytes of the disk below `data`: each file once, however many names it has, and shared blocks once."""
    os.sync()
    if clones(data.parent):
        disk = os.statvfs(data)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    found = {(info.st_dev, info.st_ino): info.st_blocks * 512 for path in data.rglob("*") if (info := path.lstat())}
    return sum(found.values())
