"""Look whether a bundle fits on the disk before its first byte comes: its objects, its release directory, a reserve."""

from __future__ import annotations

import os

from ashat.errors import StoreFullError
from ashat.node.store.releases import Releases
from ashat.node.store.store import Store
from ashat.protocol.messages import RoomRequest

RESERVE_BYTES = 16 * 1024 * 1024
RESERVE_FILES = 64
_BLOCK = 4096


class Room:
    """The room on the disk of a store and its releases."""

    def __init__(self, store: Store, releases: Releases) -> None:
        self._store = store
        self._releases = releases

    def require(self, need: RoomRequest) -> None:
        """Refuse what does not fit; what was staged of that bundle, which nothing can use then, is dropped.

        Raises:
            StoreFullError: it does not fit; the message has both figures.
            OSError: the disk cannot be looked at.
        """
        builds = self._releases.unverified(need.bundle) is None
        copies = builds and not self._releases.shares_blocks
        lacking = need.bytes + need.objects * _BLOCK
        # What is lacking here lies in no release either; of the rest, so much may be shared.
        written = max(need.bytes, need.size - self._releases.shareable_bytes) if copies else 0
        release = written + (need.files + need.directories) * _BLOCK if copies else 0
        files = need.objects + (need.files + need.directories if builds else 0) + RESERVE_FILES
        disk = os.statvfs(self._store.root)
        free, needed = disk.f_bavail * disk.f_frsize, lacking + release + RESERVE_BYTES
        where = f"The disk of {self._store.root}"
        if free < needed:
            self._store.abandon(need.bundle)
            raise StoreFullError(
                f"{where} has {_mb(free)} free, and {_mb(needed)} are needed: {_mb(lacking)} for what is lacking, "
                f"{_mb(release)} for the release, {_mb(RESERVE_BYTES)} in reserve; make room and try again."
            )
        if disk.f_files and disk.f_favail < files:
            self._store.abandon(need.bundle)
            raise StoreFullError(
                f"{where} has {disk.f_favail} inodes free, and {files} are needed; delete files and try again."
            )


def _mb(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB"
