"""Digests remembered by what `stat` says of a file, as git's index does, so that an unchanged tree is not read again.

One JSON file a source directory, under `<ASHAT_HOME>/digests/`. Losing it costs a re-hash, nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ashat.common.canonical_json import is_digest
from ashat.common.documents import load_json
from ashat.common.files import read_bounded, replace_file
from ashat.errors import DocumentError

FORMAT = "ashat-digests/1"
FILE_LIMIT = 32 * 1024 * 1024
TOO_YOUNG_NS = 2_000_000_000

Digests = tuple[str, tuple[str, ...]]


class FileState(NamedTuple):
    """What `stat` says of a file that changes when its bytes do; times are in nanoseconds."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """Return the state of the file that `found` is about."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class StatCache:
    """The digests of the files of one source directory. `save` writes what was learnt."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[str, list[Any]] = _load(file)
        self._used: dict[str, list[Any]] = {}
        self._learnt = False

    @classmethod
    def for_source(cls, home: Path, source: Path) -> StatCache:
        """Open the cache of directory `source`, under `home`."""
        name = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:32]
        return cls(home / "digests" / f"{name}.json")

    def get(self, path: str, state: FileState) -> Digests | None:
        """Return the digests of file `path` if it is still in `state`: of the whole, and of its parts."""
        entry = self._known.get(path)
        if entry is None or tuple(entry[:4]) != state:
            return None
        self._used[path] = entry
        return entry[4], tuple(entry[5:])

    def put(self, path: str, state: FileState, digests: Digests, hashed_at_ns: int) -> None:
        """Remember digests taken at `hashed_at_ns`. A file that changed in the 2 s before could change again within
        its filesystem's clock tick, so it is not trusted."""
        if hashed_at_ns - max(state.mtime_ns, state.ctime_ns) < TOO_YOUNG_NS:
            return
        self._used[path] = [*state, digests[0], *digests[1]]
        self._learnt = True

    def save(self) -> None:
        """Write what is known of the files that were asked for or put; the others are gone from the source."""
        if not self._learnt and len(self._used) == len(self._known):
            return
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = {"format": FORMAT, "files": self._used}
        replace_file(self._file, json.dumps(document, separators=(",", ":")).encode(), mode=0o600, durable=False)


def _load(file: Path) -> dict[str, list[Any]]:
    """What the file holds; nothing if it cannot be read, is too large, or not whole: it is a cache."""
    try:
        raw = read_bounded(file, FILE_LIMIT)
        # A list for each file of a tree, each longer than this: what has more was not written here.
        document = load_json(raw, limit=FILE_LIMIT) if 32 * (raw.count(b"[") + raw.count(b"{")) <= len(raw) else None
    except (OSError, DocumentError):
        return {}
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        return {}
    files = document.get("files")
    if not isinstance(files, dict) or not all(_plausible(entry) for entry in files.values()):
        return {}
    return files


def _plausible(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) >= 5 and all(is_digest(text) for text in entry[4:])
