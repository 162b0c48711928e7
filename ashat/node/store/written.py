"""Which files of the releases are still what this node wrote and hashed, by what the filesystem says of them.

A file is known by its inode: its size, its times and its digest, noted when it was written here, or read. Whoever
writes to it changes a time that nobody can set back, so a file whose state is the noted one has the noted bytes, as far
as the filesystem says; bytes that a disk changed by itself are not seen so. The notes hold for one filesystem, and
until the machine starts anew: a loss of power may keep written bytes and lose their times.

One file, `release-files`: records of 64 bytes after a head, and the sha256 of all that. Losing it costs time only.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from ashat.common.files import read_bounded, replace_file

FILE_LIMIT: Final = 64 * 1024 * 1024
_FORMAT = b"ashat-release-files/1\n"
_HEAD = struct.Struct("<Q36s")
_RECORD = struct.Struct("<QQqq32s")
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class _State(NamedTuple):
    """What `stat` says of a file that changes when its bytes do; times are in nanoseconds."""

    size: int
    mtime_ns: int
    ctime_ns: int
    sha256: bytes


class WrittenFiles:
    """The notes on the files of the releases, kept in `file`. Any thread may ask and note."""

    def __init__(self, file: Path, device: int) -> None:
        self._file = file
        self._head = _FORMAT + _HEAD.pack(device, _boot())
        self._lock = threading.Lock()
        self._changed = False
        self._known = self._load()

    def holds(self, found: os.stat_result, sha256: str) -> bool:
        """Tell whether the file that `found` is about is known to have the bytes of that digest."""
        return self._known.get(found.st_ino) == _state(found, sha256)

    def note(self, found: os.stat_result, sha256: str) -> None:
        """Note what a file holds that was written or read just now, and that nobody else could write meanwhile."""
        with self._lock:
            self._known[found.st_ino] = _state(found, sha256)
            self._changed = True

    def unlink(self, path: str) -> None:
        """Remove one name of a file; where others are left, go on knowing it, though its times change.

        Raises:
            OSError: it cannot be removed.
        """
        if (found := os.lstat(path)).st_nlink == 1:
            os.unlink(path)
            with self._lock:
                self._changed = self._known.pop(found.st_ino, None) is not None or self._changed
            return
        fd = os.open(path, getattr(os, "O_PATH", os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            before = os.fstat(fd)
            known = self._known.get(before.st_ino)
            os.unlink(path)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        with self._lock:
            self._known.pop(before.st_ino, None)
            if after.st_nlink and known and known == _state(before, known.sha256.hex()):
                self._known[after.st_ino] = _state(after, known.sha256.hex())
            self._changed = True

    def size_of_all(self) -> int:
        """Count the bytes of the files that are known."""
        return sum(state.size for state in self._known.values())

    def save(self) -> None:
        """Keep the notes; where the disk does not take them, files are read again the next time."""
        if not self._changed:
            return
        records = (_RECORD.pack(inode, *state) for inode, state in self._known.items())
        content = self._head + b"".join(records)
        with suppress(OSError):
            replace_file(self._file, content + hashlib.sha256(content).digest(), mode=0o600, durable=False)
        self._changed = False

    def _load(self) -> dict[int, _State]:
        """What the file holds; nothing where it cannot be read, is not whole, or is of another start or disk."""
        try:
            raw = read_bounded(self._file, FILE_LIMIT)
        except OSError:
            return {}
        content, seal = raw[:-32], raw[-32:]
        body = content[len(self._head) :]
        if not content.startswith(self._head) or len(body) % _RECORD.size or hashlib.sha256(content).digest() != seal:
            return {}
        return {inode: _State(*state) for inode, *state in _RECORD.iter_unpack(body)}


def _state(found: os.stat_result, sha256: str) -> _State:
    return _State(found.st_size, found.st_mtime_ns, found.st_ctime_ns, bytes.fromhex(sha256))


def _boot() -> bytes:
    """The name of this start of the machine; another one each time where the system gives none."""
    try:
        return _BOOT.read_bytes().strip()
    except OSError:
        return os.urandom(18).hex().encode()
