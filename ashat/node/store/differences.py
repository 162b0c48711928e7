"""Compare a release directory with its manifest, within a time: what was done to the files that a program runs from."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.common.text import cut, printable
from ashat.node.store.trees import BLOCK, WORKERS
from ashat.protocol.probes import ListedPaths, ReleaseProbe

NAMES = 20
_WIDTH = 300
_LOOSE = stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID
_CACHES = "__pycache__"
_KINDS = ("changed", "missing", "modes", "extra", "cached", "unread")


def compare_release(root: Path, manifest: Manifest, seconds: float) -> ReleaseProbe:
    """Look at everything below `root`, every file hashed, for as long as `seconds`; links are not followed.

    What it does not come to is counted as `left`, and what it may not read as `unread`. What Python keeps of the
    manifest's modules, `__pycache__/*.pyc`, counts as `cached`, and not as extra.
    """
    began = time.monotonic()
    comparison = _Comparison(root, manifest, began + seconds)
    comparison.walk()
    with ThreadPoolExecutor(WORKERS) as pool:
        files = iter(comparison.to_hash)
        for share in [pool.submit(comparison.hash_files, files) for _ in range(WORKERS)]:
            share.result()
    return comparison.as_probe(round((time.monotonic() - began) * 1000))


class _Comparison:
    """What was found so far; the threads that hash share it."""

    def __init__(self, root: Path, manifest: Manifest, ends: float) -> None:
        self._root = root
        self._manifest = manifest
        self._ends = ends
        self._folders = frozenset(manifest.folders)
        self._unseen = {*manifest.by_path, *manifest.targets, *manifest.directories}
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {kind: [] for kind in _KINDS}
        self._closed: list[str] = []
        self._lock = threading.Lock()
        self._walked = False
        self._hashed = self._unhashed = self._bytes = 0
        self.to_hash: list[FileEntry] = []

    def walk(self) -> None:
        """Look at every entry below the root, and collect the files that have to be hashed."""
        waiting = ["."]
        while waiting:
            if time.monotonic() > self._ends:
                return
            waiting += self._look_into(waiting.pop())
        self._walked = True
        hidden = tuple("" if place == "." else f"{place}/" for place in self._closed)
        for path in sorted(self._unseen):
            if not path.startswith(hidden):
                self._note("missing", path)

    def _look_into(self, place: str) -> list[str]:
        """Compare what lies in one directory, and return the directories in it."""
        inner: list[str] = []
        try:
            with os.scandir(self._root / place) as entries:
                for entry in entries:
                    path = entry.name if place == "." else f"{place}/{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        inner.append(path)
                    self._look_at(path, entry)
                    if time.monotonic() > self._ends:
                        break
        except OSError:
            self._closed.append(place)
            self._note("unread", f"{place}/")
        return inner

    def _look_at(self, path: str, entry: os.DirEntry[str]) -> None:
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
            file, target = self._manifest.by_path.get(path), self._manifest.targets.get(path)
            self._unseen.discard(path)
            if file is not None and stat.S_ISREG(mode):
                self.to_hash.append(file)
                if stat.S_IMODE(mode) != file.mode:
                    self._note("modes", path)
            elif target is not None and stat.S_ISLNK(mode):
                if os.readlink(entry.path) != target:
                    self._note("changed", path)
            elif path in self._folders and stat.S_ISDIR(mode):
                if mode & _LOOSE:
                    self._note("modes", f"{path}/")
            elif file is not None or target is not None or path in self._folders:
                self._note("changed", path)
            else:
                shown = f"{path}/" if stat.S_ISDIR(mode) else path
                self._note("cached" if self._is_cache(path, mode) else "extra", shown)
        except FileNotFoundError:
            pass  # it has gone since it was listed; if the manifest names it, it is missing
        except OSError:
            self._note("unread", path)

    def _is_cache(self, path: str, mode: int) -> bool:
        """Tell whether Python wrote that of one of the manifest's own modules, as PEP 3147 names it."""
        *above, folder, name = ["", *path.split("/")]
        if stat.S_ISDIR(mode):
            return name == _CACHES and ("/".join([*above, folder][1:]) or ".") in self._folders
        module = "/".join([*above[1:], f"{name.partition('.')[0]}.py"])
        return folder == _CACHES and name.endswith(".pyc") and module in self._manifest.by_path

    def hash_files(self, files: Iterator[FileEntry]) -> None:
        """Hash the next file, until none is left or the time is over."""
        block = memoryview(bytearray(BLOCK))
        for file in files:
            try:
                state = self._is_as_before(file, block)
            except OSError:
                with self._lock:
                    self._unhashed += 1
                self._note("unread", file.path)
                continue
            if state is None:
                return
            if not state:
                self._note("changed", file.path)
            with self._lock:
                self._hashed += 1
                self._bytes += file.size

    def _is_as_before(self, file: FileEntry, block: memoryview) -> bool | None:
        """Tell whether a file has the manifest's bytes; None where the time is over before that is known."""
        whole = hashlib.sha256()
        fd = os.open(f"{self._root}/{file.path}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if os.fstat(fd).st_size != file.size:
                return False
            while True:
                if time.monotonic() > self._ends:
                    return None
                count = os.readv(fd, (block,))
                if not count:
                    return whole.hexdigest() == file.sha256
                whole.update(block[:count])
        finally:
            os.close(fd)

    def _note(self, kind: str, path: str) -> None:
        with self._lock:
            self._counts[kind] += 1
            if len(self._names[kind]) < NAMES:
                self._names[kind].append(cut(printable(path), _WIDTH))

    def as_probe(self, milliseconds: int) -> ReleaseProbe:
        """Write down what was found."""
        late = len(self.to_hash) - self._hashed - self._unhashed + (0 if self._walked else len(self._unseen))
        found = {kind: ListedPaths(count=self._counts[kind], names=self._names[kind]) for kind in _KINDS}
        whole = ReleaseProbe(files=self._hashed, bytes=self._bytes, left=late, walked=self._walked, ms=milliseconds)
        return whole.model_copy(update=found)
