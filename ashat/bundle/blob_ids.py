"""What git would call the bytes that were packed, remembered by their sha256, since that never changes.

One file a source directory, `<ASHAT_HOME>/digests/*.blobs`: after its first line, pairs of a sha256 and a blob's id,
and at its end the sha256 of all that. Losing it costs that the files are read once more.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from ashat.bundle.git_objects import POINTER_LIMIT, is_lfs_pointer
from ashat.bundle.manifest import FileEntry
from ashat.bundle.pack import Packed
from ashat.common.files import read_bounded, replace_file

FILE_LIMIT: Final = 16 * 1024 * 1024
_FORMAT = b"ashat-blobs/1 %s\n"
_THREADS = min(os.cpu_count() or 1, 4)


class BlobIds:
    """The ids that a repository of `object_format` (`sha1`, `sha256`) gives to bytes. `save` keeps what was learnt."""

    def __init__(self, file: Path, object_format: str = "sha1") -> None:
        self._file = file
        self._algorithm = object_format
        self._head = _FORMAT % object_format.encode()
        self._width = 32 + hashlib.new(object_format, usedforsecurity=False).digest_size
        self._known = self._load()
        self._used: dict[bytes, bytes] = {}

    @classmethod
    def for_source(cls, home: Path, source: Path, object_format: str = "sha1") -> BlobIds:
        """Open what is known of the files of directory `source`, under `home`."""
        name = hashlib.sha256(os.fsencode(source.resolve())).hexdigest()[:32]
        return cls(home / "digests" / f"{name}.blobs", object_format)

    def learn(self, packed: Packed, files: Iterable[FileEntry]) -> list[str]:
        """Learn the ids of `files` of `packed`, reading those whose bytes are not known; the paths of those that are
        Git LFS pointers.

        Raises:
            SourceChangedError: a file is not what was packed.
        """
        unknown = {}
        pointers: list[str] = []
        listed = list(files)
        for file in listed:
            digest = bytes.fromhex(file.sha256)
            if digest in self._known:
                self._used[digest] = self._known[digest]
            else:
                unknown[digest] = file
        with ThreadPoolExecutor(max_workers=_THREADS) as threads:
            found = threads.map(lambda file: self._id(packed, file), unknown.values())
            for digest, blob in zip(unknown, found, strict=True):
                if blob is not None:
                    self._used[digest] = blob
        pointers += [file.path for file in listed if bytes.fromhex(file.sha256) not in self._used]
        return pointers

    def of(self, file: FileEntry) -> str:
        """Return the id of a file that was learnt."""
        return self._used[bytes.fromhex(file.sha256)].hex()

    def of_link(self, target: str) -> str:
        """Compute the id of a symbolic link to `target`."""
        content = os.fsencode(target)
        return hashlib.new(self._algorithm, b"blob %d\0%s" % (len(content), content), usedforsecurity=False).hexdigest()

    def save(self) -> None:
        """Write what is known of the files that were asked for; the others are gone from the source."""
        if self._used == self._known:
            return
        most = (FILE_LIMIT - len(self._head) - 32) // self._width
        content = self._head + b"".join(digest + blob for digest, blob in list(self._used.items())[:most])
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._file, content + hashlib.sha256(content).digest(), mode=0o600, durable=False)

    def _id(self, packed: Packed, file: FileEntry) -> bytes | None:
        """What git calls the file's bytes; None where they are a pointer, which is looked at each time."""
        made = hashlib.new(self._algorithm, b"blob %d\0" % file.size, usedforsecurity=False)
        for digest, size in file.objects():
            content = packed.read_object(digest)
            if size <= POINTER_LIMIT and not file.parts and is_lfs_pointer(content):
                return None
            made.update(content)
        return made.digest()

    def _load(self) -> dict[bytes, bytes]:
        """What the file holds; nothing if it cannot be read, is too large, or not whole."""
        try:
            raw = read_bounded(self._file, FILE_LIMIT)
        except OSError:
            return {}
        content, seal = raw[:-32], raw[-32:]
        if not content.startswith(self._head) or hashlib.sha256(content).digest() != seal:
            return {}
        starts = range(len(self._head), len(content) - self._width + 1, self._width)
        return {content[at : at + 32]: content[at + 32 : at + self._width] for at in starts}
