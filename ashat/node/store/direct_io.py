"""Page-aligned memory for one object each, and writing an object's file past the page cache.

`O_DIRECT` leaves the page cache to the program that the node runs. It needs memory, offsets and lengths aligned to the
disk's blocks; where a filesystem does not know it, the same bytes go through the page cache.
"""

from __future__ import annotations

import mmap
import os
import threading

from ashat.protocol.messages import OBJECT_LIMIT

DIRECT_MIN = 256 * 1024
_BLOCK = 4096
_IDLE = 4
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_DIRECT = getattr(os, "O_DIRECT", 0)


class BufferPool:
    """Buffers of 4 MiB, kept for reuse: a fresh one costs a page fault for every 4 KiB."""

    def __init__(self) -> None:
        self._idle: list[memoryview] = []
        self._lock = threading.Lock()

    def take(self) -> memoryview:
        """Take a buffer; what it holds is left from its last use."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return memoryview(mmap.mmap(-1, OBJECT_LIMIT))

    def give_back(self, buffer: memoryview) -> None:
        """Hand a buffer back; the caller keeps no view of it."""
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(buffer)


def write_new_file(path: str, buffer: memoryview, size: int) -> None:
    """Write the first `size` bytes of `buffer` (from a `BufferPool`) to a new read-only file.

    Raises:
        OSError: it could not be written; no file is left.
    """
    try:
        if not (_DIRECT and size >= DIRECT_MIN and _write_direct(path, buffer, size)):
            _write(os.open(path, _CREATE, 0o444), buffer[:size])
    except OSError:
        if os.path.exists(path):
            os.unlink(path)
        raise


def _write_direct(path: str, buffer: memoryview, size: int) -> bool:
    """The same past the page cache; False, and no file, where the filesystem cannot."""
    padded = -(-size // _BLOCK) * _BLOCK
    buffer[size:padded] = bytes(padded - size)
    try:
        fd = os.open(path, _CREATE | _DIRECT, 0o444)
    except OSError:
        return False
    try:
        written = os.write(fd, buffer[:padded])
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        os.unlink(path)
        return False
    os.close(fd)
    if written < padded:
        os.unlink(path)
        return False
    return True


def _write(fd: int, content: memoryview) -> None:
    try:
        while content:
            content = content[os.write(fd, content) :]
    finally:
        os.close(fd)
