"""Log files that are cut at 16 MiB: those that we write, and those that a program started by us keeps open."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ashat.common.shortage import reason

log = logging.getLogger(__name__)

FILE_BYTES = 16 * 1024 * 1024
_BLOCK = 1024 * 1024


class RotatedFile:
    """A log of lines that becomes `<name>.1` when it is full, that one `<name>.2`, and so on: `files` in all.

    A `logging.handlers.RotatingFileHandler` takes eleven times as long for a line (22 and 2 us of processor time), and
    each request waits for one.
    """

    def __init__(self, path: Path, files: int) -> None:
        self._path = path
        self._files = files
        self._lock = threading.Lock()
        self._fd, self._size = -1, 0
        with suppress(OSError):  # `append` says why
            self._open()

    def append(self, line: bytes) -> None:
        """Hand `line` to the system, whole or not at all, without waiting for the disk.

        Raises:
            OSError: it was not taken.
        """
        with self._lock:
            if self._fd < 0:
                self._open()
            if self._size + len(line) > FILE_BYTES:
                self._rotate()
            written = os.write(self._fd, line)
            if written < len(line):
                os.ftruncate(self._fd, self._size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += written

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        """Open the file, and end the line that a loss of power tore."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._fd, self._size = fd, os.fstat(fd).st_size
        if self._size and os.pread(fd, 1, self._size - 1) != b"\n":
            with suppress(OSError):
                self._size += os.write(fd, b"\n")

    def _rotate(self) -> None:
        """Begin the next file; where the disk takes none, this one begins anew."""
        before = self._fd
        try:
            for number in range(self._files - 2, -1, -1):
                path = _numbered(self._path, number)
                if path.exists():
                    os.replace(path, _numbered(self._path, number + 1))
            self._open()
        except OSError:
            os.ftruncate(before, 0)
            self._size = 0
            if not self._path.exists():
                with suppress(OSError):
                    os.replace(_numbered(self._path, 1), self._path)
        else:
            os.close(before)


def newest_first(path: Path, files: int) -> Iterator[bytes]:
    """Read the lines of a `RotatedFile`, the newest first."""
    for number in range(files):
        try:
            content = _numbered(path, number).read_bytes()
        except FileNotFoundError:
            continue
        yield from reversed(content.splitlines())


def rotate_in_place(path: Path) -> None:
    """Keep the newest 16 MiB of a full log as `<name>.1` and empty it, since its writer keeps it open for appending.

    It is emptied also where there is no room for the copy. Nothing is raised: what cannot be done is said in our log.
    """
    try:
        if path.stat().st_size <= FILE_BYTES:
            return
    except OSError:
        return
    try:
        _copy_end(path, _numbered(path, 1))
    except OSError as error:
        log.warning("%s is emptied without a copy: %s", path, reason(error))
    try:
        os.truncate(path, 0)
    except OSError as error:
        log.warning("%s is not cut: %s", path, reason(error))


def _copy_end(path: Path, copy: Path) -> None:
    """Copy the last 16 MiB of `path`; where that fails no copy is left.

    Raises:
        OSError: it failed.
    """
    with suppress(OSError):
        copy.unlink()  # whose room it may need
    try:
        with open(path, "rb") as source, open(copy, "wb") as target:
            source.seek(-FILE_BYTES, os.SEEK_END)
            left = FILE_BYTES
            while left and (block := source.read(min(left, _BLOCK))):
                left -= target.write(block)
    except OSError:
        with suppress(OSError):
            copy.unlink()
        raise


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path
