"""Tell what a machine lacks when it refuses a write: room, inodes, quota, a disk that may be written, descriptors."""

from __future__ import annotations

import errno
import os
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """What may be lacking; the value is the code of a node's answer."""

    FULL = "disk_full"
    READ_ONLY = "disk_read_only"
    OPEN = "too_many_open"
    FAILED = "disk_failed"


@dataclass(frozen=True, slots=True)
class Shortage:
    """What is lacking: `words` is a phrase such as "the disk of /data is full", `advice` what to do about it."""

    kind: Kind
    words: str
    advice: str

    def __str__(self) -> str:
        return f"{self.words[0].upper()}{self.words[1:]}; {self.advice}."


_ROOM, _INODES, _READ_ONLY, _OPEN, _FAILED = "room", "inodes", "read-only", "open", "failed"
_SHORTAGES = {
    _ROOM: Shortage(Kind.FULL, "the disk{of} is full", "make room and try again"),
    _INODES: Shortage(Kind.FULL, "the disk{of} holds as many files as it can: no inode is left", "delete some files"),
    "quota": Shortage(Kind.FULL, "the quota of the disk{of} is used up", "make room and try again"),
    _READ_ONLY: Shortage(Kind.READ_ONLY, "the disk{of} is read-only", "mount it for writing and try again"),
    _OPEN: Shortage(Kind.OPEN, "this process has as many files open as it may", "raise its limit (ulimit -n)"),
    "all open": Shortage(Kind.OPEN, "this machine has as many files open as it may", "close some and try again"),
    _FAILED: Shortage(Kind.FAILED, "the disk{of} failed (Input/output error)", "the system's log says more"),
}
_BY_NUMBER = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: "quota",
    errno.EROFS: _READ_ONLY,
    errno.EMFILE: _OPEN,
    errno.ENFILE: "all open",
    errno.EIO: _FAILED,
}
_SQLITE_CODE = 0xFF  # what is above it tells more about the same failure


def shortage(error: BaseException, where: Path | None = None) -> Shortage | None:
    """Find what the machine lacked when `error` was raised, by it or by what caused it; None where that is not why.

    `where` is on the disk that was written, where that is known.
    """
    cause: BaseException | None = error
    while cause is not None:
        if name := _name(cause, where):
            found = _SHORTAGES[name]
            return Shortage(found.kind, found.words.format(of=f" of {where}" if where else ""), found.advice)
        cause = cause.__cause__
    return None


def reason(error: Exception, where: Path | None = None) -> str:
    """Say in a phrase why `error` came: what the machine lacks, the system's words and the file, or its own words."""
    if isinstance(error, OSError | sqlite3.Error) and (lack := shortage(error, where)):
        return lack.words
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _name(error: BaseException, where: Path | None) -> str:
    if isinstance(error, OSError):
        name = _BY_NUMBER.get(error.errno or 0, "")
        return (_seen(where) or name) if name == _ROOM and where else name
    origin = getattr(error, "orig", None) or error  # SQLAlchemy's errors hold the driver's
    code = getattr(origin, "sqlite_errorcode", 0) if isinstance(origin, sqlite3.Error) else 0
    match code & _SQLITE_CODE:
        case sqlite3.SQLITE_FULL:
            return _ROOM
        case sqlite3.SQLITE_READONLY:
            return _READ_ONLY
        case sqlite3.SQLITE_IOERR:  # which it is for a full disk, too, where WAL's shared memory is to be made
            return (_seen(where) or _FAILED) if where else ""
        case sqlite3.SQLITE_CANTOPEN:
            return _seen(where) if where else ""
    return ""


def _seen(where: Path) -> str:
    """What the disk of `where`, or this process, is out of now."""
    try:
        disk = os.statvfs(where)
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return _BY_NUMBER.get(error.errno or 0, "")
    if disk.f_flag & os.ST_RDONLY:
        return _READ_ONLY
    if disk.f_files and not disk.f_favail:
        return _INODES
    return "" if disk.f_bavail else _ROOM
