"""Log files that are cut at 16 MiB: those that we write, and those that a program started by us keeps open."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

FILE_BYTES = 16 * 1024 * 1024


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
        self._open()

    def append(self, line: bytes) -> None:
        """Hand `line` to the system, without waiting for the disk.

        Raises:
            OSError: it was not taken.
        """
        with self._lock:
            if self._size + len(line) > FILE_BYTES:
                self._rotate()
            self._size += os.write(self._fd, line)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        """Open the file, and end the line that a loss of power tore."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._size += os.write(self._fd, b"\n")

    def _rotate(self) -> None:
        for number in range(self._files - 2, -1, -1):
            path = _numbered(self._path, number)
            if path.exists():
                os.replace(path, _numbered(self._path, number + 1))
        before = self._fd
        self._open()
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
    """Copy a full log to `<name>.1` and empty it, since its writer keeps it open for appending.

    It is emptied also where there is no room for the copy; what cannot be done is said in our log.
    """
    copy = _numbered(path, 1)
    try:
        if path.stat().st_size <= FILE_BYTES:
            return
        try:
            shutil.copyfile(path, copy)
        except OSError as error:
            log.warning("%s is emptied without a copy: %s", path, error.strerror)
            copy.unlink(missing_ok=True)
        os.truncate(path, 0)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s is not cut: %s", path, error.strerror)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path
