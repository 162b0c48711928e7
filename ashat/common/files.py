"""Files that a crash leaves old or new, and reads that never take more than a file may have."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path


def read_bounded(path: Path, limit: int) -> bytes:
    """Read the file `path` whole, but never more than `limit` bytes.

    Raises:
        OSError: it cannot be read, or has more than `limit` bytes; `strerror` says which.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
    return content


def _libc_syncfs() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is not None:
        function.argtypes = [ctypes.c_int]
        function.restype = ctypes.c_int
    return function


_SYNCFS = _libc_syncfs()


def sync_filesystem(fd: int) -> None:
    """Wait until everything written to the filesystem of `fd` is on its disk; elsewhere than on Linux, every disk.

    Linux 5.8 and later report here a write that failed since `fd` was opened, so open it before writing.

    Raises:
        OSError: the disk refused some of it; what was written since the last call may be lost.
    """
    if _SYNCFS is None:
        os.sync()
    elif _SYNCFS(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def open_files_as(user: int, group: int) -> None:
    """From here on, have this thread open files with that user's rights only. Linux; elsewhere nothing is changed.

    Raises:
        OSError: the system did not do so.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    libc.setfsgid(group)
    libc.setfsuid(user)
    if libc.setfsuid(-1) != user:  # it returns what was, and says nothing else
        raise OSError(errno.EPERM, f"no file can be opened as the user {user}")


def sync_directory(path: Path) -> None:
    """Wait until the names in directory `path` are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Make `path` hold `content`: at any instant, and after a crash, it holds the old bytes or the new, all of them.

    Without `durable` nothing waits for the disk, and a crash may lose or truncate the file: for caches only.

    Raises:
        OSError: it could not be written; the old file stands and no other is left behind.
    """
    staging = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(staging, path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def create_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Make `path` hold `content`, durably, where there is no such file: it appears with all its bytes, or not at all.

    Raises:
        FileExistsError: something has that name; it is left as it is.
        OSError: it could not be written; nothing is left behind.
    """
    staging = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A rename would replace; a link fails where the name is taken, however close the race.
        os.link(staging, path)
    finally:
        staging.unlink(missing_ok=True)
    sync_directory(path.parent)


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """Make directory `path` and those above it that are missing, so that a loss of power does not take them back.

    Raises:
        OSError: one could not be made.
    """
    if path.is_dir():
        return
    make_directory(path.parent, mode=mode)
    path.mkdir(mode=mode, exist_ok=True)
    sync_directory(path.parent)
