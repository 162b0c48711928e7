"""Files that a new release shares with the releases before it, so that what did not change takes no time and no room.

A filesystem that clones (btrfs, xfs) shares blocks until somebody writes. Elsewhere a file gets one more name, but only
where the program cannot write to it: it runs as another user (`[app] user`), and the file is the node's own and nobody
else's to write. Otherwise the file is copied, so that a program that writes its own files changes no other release, nor
the store.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from pathlib import Path

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.node.store.written import WrittenFiles

MARK = ".shared"
_FICLONE = 0x40049409  # <linux/fs.h>: _IOW(0x94, 9, int)
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Means(Enum):
    """How a file may be shared."""

    COPY = "copy"
    CLONE = "clone"
    LINK = "link"


class Shared:
    """The files of releases that lie there, for one new release to share; `written` says which are what they were."""

    def __init__(self, means: Means, written: WrittenFiles) -> None:
        self._means = means
        self._written = written
        self._lock = threading.Lock()
        self._places: dict[tuple[str, int], str] = {}

    def offer(self, root: Path, manifest: Manifest) -> None:
        """Offer the files of a release that lies in `root`; those offered before come first."""
        for file in manifest.files if self._means is not Means.COPY else ():
            if file.size:
                self._places.setdefault((file.sha256, file.mode), f"{root}/{file.path}")

    def offers_all(self, manifest: Manifest) -> bool:
        """Tell whether every file of `manifest` that can be shared is offered."""
        return all((file.sha256, file.mode) in self._places for file in manifest.files if file.size)

    def give(self, file: FileEntry, target: Path) -> bool:
        """Make `target` one of the files offered, if one is what `file` is; False where it has to be written.

        Raises:
            OSError: the target cannot be made.
        """
        place = self._places.get((file.sha256, file.mode))
        if place is None:
            return False
        try:
            fd = os.open(place, _OPEN)
        except OSError:
            return False
        try:
            with self._lock:  # since each new name changes a time of the file
                return (
                    self._link(fd, place, file, target) if self._means is Means.LINK else self._clone(fd, file, target)
                )
        finally:
            os.close(fd)

    def _link(self, fd: int, place: str, file: FileEntry, target: Path) -> bool:
        found = os.fstat(fd)
        if not is_ours_alone(found, file.mode) or not self._is_known(fd, found, file):
            return False
        try:
            os.link(place, target, follow_symlinks=False)
        except OSError:
            return False
        after = os.fstat(fd)
        if not os.path.samestat(after, os.lstat(target)):
            target.unlink()
            return False
        self._written.note(after, file.sha256)
        return True

    def _is_known(self, fd: int, found: os.stat_result, file: FileEntry) -> bool:
        """Whether the file has the bytes; it is read where that is not known."""
        if self._written.holds(found, file.sha256):
            return True
        if found.st_size != file.size:
            return False
        with open(fd, "rb", closefd=False) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256

    def _clone(self, fd: int, file: FileEntry, target: Path) -> bool:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or not self._written.holds(found, file.sha256):
            return False
        made = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, file.mode)
        try:
            os.fchmod(made, file.mode)
            with suppress(OSError):
                fcntl.ioctl(made, _FICLONE, fd)
                if self._written.holds(os.fstat(fd), file.sha256):
                    self._written.note(os.fstat(made), file.sha256)
                    return True
            target.unlink()
            return False
        finally:
            os.close(made)


def is_ours_alone(found: os.stat_result, mode: int) -> bool:
    """Tell whether a file is a regular one that only this process's user may write, and that has just this mode."""
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == mode


def separate(roots: Iterable[Path]) -> None:
    """Give every file below `roots` that has other names a copy of its own, each in one step.

    Raises:
        OSError: one cannot be copied.
    """
    for root in roots:
        for directory, _, names in os.walk(root):
            for name in names:
                path = Path(directory, name)
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                    copy = path.with_name(f".{secrets.token_hex(8)}")
                    shutil.copyfile(path, copy)
                    copy.chmod(stat.S_IMODE(found.st_mode))
                    copy.replace(path)
