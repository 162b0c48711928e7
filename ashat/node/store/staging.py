"""Staged objects: they wait, whole and verified, until a manifest that names them is put.

A staged object is a file `DIGEST.N`. It was written in one go from bytes that matched its digest, but nothing has
waited for the disk yet: what a crash leaves of it is only believed once it is hashed again.

A beginning is a file `DIGEST.part`: the first bytes of an object whose connection was cut. Nobody knows yet whether
they are right; the object's digest says so once the rest is there.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from ashat.common.canonical_json import is_digest
from ashat.common.clocks import written_at
from ashat.protocol.messages import OBJECT_LIMIT

MAX_AGE = 24 * 3600.0
BEGINNINGS = 64
_CLAIMS = 8
_SHORTEST = 16 * 1024
_THREADS = 2
_PART = "part"


@dataclass(frozen=True)
class Staged:
    """A staged object's file, and its size in bytes."""

    path: str
    size: int


class Staging:
    """The staged objects of one store; any thread may ask."""

    def __init__(self, directory: str, is_stored: Callable[[str], bool]) -> None:
        """Adopt the whole objects that an interrupted upload left in `directory`, unless `is_stored` says that the
        store has them by now; remove what is torn, a day old, or no object."""
        self._directory = directory
        self._lock = threading.Lock()
        self._waiting: dict[str, Staged] = {}
        self._taken: dict[str, Staged] = {}
        self._number = 0
        self._beginnings: dict[str, int] = {}
        self._claims: dict[str, set[str]] = {}
        entries = list(os.scandir(directory))
        oldest = time.time() - MAX_AGE
        for entry in [entry for entry in entries if _is_beginning(entry, oldest, is_stored)][:BEGINNINGS]:
            self._beginnings[entry.name.partition(".")[0]] = entry.stat().st_size
            entries.remove(entry)
        with ThreadPoolExecutor(_THREADS) as threads:
            wholes = list(threads.map(lambda entry: _whole(entry, oldest), entries))
        for entry, digest in zip(entries, wholes, strict=True):
            if digest is None or digest in self._waiting or is_stored(digest):
                os.unlink(entry.path)
            else:
                self._waiting[digest] = Staged(entry.path, entry.stat().st_size)
                self._number = max(self._number, int(entry.name.partition(".")[2]))

    def has(self, digest: str) -> bool:
        """Tell whether the object is here. No lock: an object is in one of the two at any instant, see `take`."""
        return digest in self._waiting or digest in self._taken

    def new_path(self, digest: str) -> str:
        """Name a file for the object that no other upload uses."""
        with self._lock:
            self._number += 1
            return f"{self._directory}/{digest}.{self._number}"

    def beginning(self, digest: str) -> int:
        """Count the bytes that are here of an object which did not come whole."""
        return self._beginnings.get(digest, 0)

    def keep_beginning(self, digest: str, content: memoryview) -> None:
        """Keep the first bytes of an object, unless as many are here already, or so few are not worth it. The oldest
        beginning goes where there are too many.

        Raises:
            OSError: they cannot be written; none are kept.
        """
        path = self._part(digest)
        with self._lock:
            if self.has(digest) or len(content) < max(_SHORTEST, self.beginning(digest) + 1):
                return
            self._beginnings.pop(digest, None)
            try:
                with open(path, "wb", buffering=0) as file:
                    file.write(content)
            except OSError:
                self._unlink_part(digest)
                raise
            self._beginnings[digest] = len(content)
            while len(self._beginnings) > BEGINNINGS:
                self._unlink_part(next(iter(self._beginnings)))

    def read_beginning(self, digest: str, buffer: memoryview) -> int:
        """Read what is here of the object into `buffer`; return how many bytes that are."""
        with self._lock:
            if not self.beginning(digest):
                return 0
            with open(self._part(digest), "rb", buffering=0) as file:
                return file.readinto(buffer[: self._beginnings[digest]])

    def drop_beginning(self, digest: str) -> None:
        """Forget the beginning of an object."""
        with self._lock:
            if digest in self._beginnings:
                self._unlink_part(digest)

    def keep(self, digest: str, staged: Staged) -> bool:
        """Take up an object whose file is complete; False, and the file is gone, if another upload was first."""
        with self._lock:
            new = not self.has(digest)
            if new:
                self._waiting[digest] = staged
            if digest in self._beginnings:
                self._unlink_part(digest)
        if not new:
            os.unlink(staged.path)
        return new

    def take(self, digests: Iterable[str]) -> dict[str, Staged]:
        """Take those of the objects that are here, set aside for one commit so that nobody discards them."""
        with self._lock:
            taken = {digest: self._waiting[digest] for digest in digests if digest in self._waiting}
            self._taken = taken
            for digest in taken:
                del self._waiting[digest]
            return dict(taken)

    def committed(self, digest: str) -> None:
        """Note that the object taken has left `directory`."""
        with self._lock:
            del self._taken[digest]

    def put_back(self) -> None:
        """End a commit: what was taken and not committed waits again."""
        with self._lock:
            self._waiting |= self._taken
            self._taken = {}

    def drop_taken(self) -> None:
        """Forget what was taken: its bytes may be lost."""
        with self._lock:
            taken, self._taken = self._taken, {}
        for staged in taken.values():
            os.unlink(staged.path)

    def discard(self, digests: Iterable[str]) -> None:
        """Remove objects that wait; those that are taken stay."""
        with self._lock:
            dropped = [self._waiting.pop(digest) for digest in digests if digest in self._waiting]
        for staged in dropped:
            os.unlink(staged.path)

    def claim(self, bundle: str, digests: Iterable[str]) -> None:
        """Note that the objects are sent for `bundle`; of more than `_CLAIMS` bundles the oldest is forgotten."""
        with self._lock:
            self._claims.setdefault(bundle, set()).update(digests)
            while len(self._claims) > _CLAIMS:
                del self._claims[next(iter(self._claims))]

    def claims_no_more(self, bundle: str) -> None:
        """Note that the bundle is complete."""
        with self._lock:
            self._claims.pop(bundle, None)

    def abandon(self, bundle: str) -> None:
        """Remove what waits, and every beginning, that no other bundle claims."""
        with self._lock:
            self._claims.pop(bundle, None)
            claimed = set[str]().union(*self._claims.values())
            for digest in [digest for digest in self._beginnings if digest not in claimed]:
                self._unlink_part(digest)
            dropped = [digest for digest in self._waiting if digest not in claimed]
        self.discard(dropped)

    def sweep(self) -> None:
        """Remove what an upload left behind a day ago and nobody came back for."""
        oldest = time.time() - MAX_AGE
        with self._lock:
            stale = [digest for digest, staged in self._waiting.items() if _written(staged.path) < oldest]
            for digest in [digest for digest in self._beginnings if _written(self._part(digest)) < oldest]:
                self._unlink_part(digest)
        self.discard(stale)

    def _part(self, digest: str) -> str:
        return f"{self._directory}/{digest}.{_PART}"

    def _unlink_part(self, digest: str) -> None:
        self._beginnings.pop(digest, None)
        with suppress(FileNotFoundError):
            os.unlink(self._part(digest))


def _written(path: str) -> float:
    return written_at(path, os.stat(path).st_mtime)


def _is_beginning(entry: os.DirEntry[str], oldest: float, is_stored: Callable[[str], bool]) -> bool:
    digest, _, end = entry.name.partition(".")
    found = entry.stat()
    fits = is_digest(digest) and end == _PART and 0 < found.st_size < OBJECT_LIMIT
    return fits and written_at(entry.path, found.st_mtime) >= oldest and not is_stored(digest)


def _whole(entry: os.DirEntry[str], oldest: float) -> str | None:
    """The digest of the object that the file holds whole; None where it does not."""
    digest, _, number = entry.name.partition(".")
    if not is_digest(digest) or not number.isdigit() or entry.stat().st_mtime < oldest:
        return None
    with open(entry.path, "rb") as file:
        return digest if hashlib.file_digest(file, "sha256").hexdigest() == digest else None
