"""Reads a release's directory as it lies on disk, to be compared with its manifest."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ashat.bundle.manifest import Manifest
from ashat.node.store.written import WrittenFiles
from ashat.protocol.messages import Tree, TreeFile

WORKERS: Final = 4
BLOCK: Final = 256 * 1024
EXTRA_SHOWN: Final = 1000
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True)
class TreeState:
    """A release directory as it lies on disk: what its manifest names and is there, and `extra` paths."""

    files: dict[str, TreeFile] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)

    def matches(self, manifest: Manifest) -> bool:
        """Tell whether exactly what the manifest names is there, each file with its bytes and mode."""
        return not self.extra and self.as_message(None).listing == manifest.listing

    def as_message(self, bundle: str | None) -> Tree:
        """Write it as it is told to who asks for the tree of `bundle`."""
        return Tree(
            bundle=bundle,
            files=dict(sorted(self.files.items())),
            links=dict(sorted(self.links.items())),
            directories=sorted(self.directories),
            extra=self.extra,
        )


def read_tree(root: Path, manifest: Manifest, notes: WrittenFiles | None = None) -> TreeState:
    """Read the directory `root` as it lies on disk, every file of `manifest` hashed, but for those that `notes` say
    are untouched. Links are not followed.

    Raises:
        OSError: a file or directory cannot be read.
    """
    found = TreeState()
    to_hash = list(_walk(str(root), manifest, notes, found))
    found.extra[:] = sorted(found.extra)[:EXTRA_SHOWN]
    waiting = iter(to_hash)
    with ThreadPoolExecutor(WORKERS) as pool:
        for share in [pool.submit(_hash_files, waiting, str(root), found) for _ in range(WORKERS)]:
            share.result()
    return found


def sha256_of(fd: int, block: memoryview) -> str:
    """Hash what is left of an open file, read through `block`.

    Raises:
        OSError: it cannot be read.
    """
    whole = hashlib.sha256()
    while count := os.readv(fd, (block,)):
        whole.update(block[:count])
    return whole.hexdigest()


def _walk(root: str, manifest: Manifest, notes: WrittenFiles | None, found: TreeState) -> Iterator[str]:
    """Look at every entry below `root`, and yield the paths of the files that have to be hashed."""
    empty, waiting = set(manifest.directories), [""]
    while waiting:
        place = waiting.pop()
        bare = True
        with os.scandir(f"{root}/{place}") as entries:
            for entry in entries:
                bare, path = False, f"{place}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{path}/")
                elif path in manifest.by_path and entry.is_file(follow_symlinks=False):
                    if not _is_known(entry, path, manifest, notes, found):
                        yield path
                elif path in manifest.targets and entry.is_symlink():
                    found.links[path] = os.readlink(entry.path)
                else:
                    found.extra.append(path)
        if place[:-1] in empty:
            found.directories.append(place[:-1])
        elif bare and place:
            found.extra.append(place)


def _is_known(
    entry: os.DirEntry[str], path: str, manifest: Manifest, notes: WrittenFiles | None, found: TreeState
) -> bool:
    """Tell whether the notes say that a file is untouched, and add it then to what was found."""
    if notes is None:
        return False
    info, expected = entry.stat(follow_symlinks=False), manifest.by_path[path].sha256
    if not stat.S_ISREG(info.st_mode) or not notes.holds(info, expected):
        return False
    found.files[path] = TreeFile(sha256=expected, mode=stat.S_IMODE(info.st_mode), size=info.st_size)
    return True


def _hash_files(paths: Iterator[str], root: str, found: TreeState) -> None:
    block = memoryview(bytearray(BLOCK))
    for path in paths:
        fd = os.open(f"{root}/{path}", _OPEN)
        try:
            info = os.fstat(fd)
            digest = sha256_of(fd, block)
        finally:
            os.close(fd)
        found.files[path] = TreeFile(sha256=digest, mode=stat.S_IMODE(info.st_mode), size=info.st_size)
