"""A disk of its own for a test: small, and filled or out of inodes when the test says so. It takes root."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

MIB = 1024 * 1024


class SmallDisk:
    """A tmpfs that is mounted on `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"
        self._crowd = path / "crowd"

    @property
    def free(self) -> int:
        """How many bytes anybody may still write."""
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all room but `leave` bytes, as somebody's file."""
        with self._filler.open("ab", buffering=0) as file, _until_no_space():
            while (left := self.free - leave) > 0:
                file.write(bytes(min(left, MIB)))

    def crowd(self) -> None:
        """Take every inode, as somebody's empty files."""
        self._crowd.mkdir(exist_ok=True)
        with _until_no_space():
            for number in count():
                (self._crowd / str(number)).touch()

    def free_again(self) -> None:
        """Give back what `fill` and `crowd` took."""
        self._filler.unlink(missing_ok=True)
        for path in self._crowd.glob("*"):
            path.unlink()

    def remount(self, how: str) -> None:
        """Mount it again, `ro` or `rw`."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True, timeout=30)


@contextmanager
def _until_no_space() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@contextmanager
def small_disk(path: Path, size: int = 100 * MIB, inodes: int = 3000) -> Iterator[SmallDisk]:
    """Mount a disk of `size` bytes and so many inodes on `path` until the block ends."""
    path.mkdir()
    options = f"size={size},nr_inodes={inodes},mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, timeout=30)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=30)
