"""Releases as directories: built beside the running one from the store, and made current by one symlink.

`releases/DIGEST` holds a bundle's files as copies (clones where the filesystem shares blocks until a write), so a
program that writes into its own release cannot reach the store. A directory that differs from its manifest is never
repaired in place: the release is built again under its next name, `releases/DIGEST.N`, and the other one goes at the
next pruning. `current` is a relative link to one of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.common.files import sync_directory, sync_filesystem
from ashat.errors import IntegrityError
from ashat.node.store.store import Store
from ashat.protocol.messages import TreeFile

WORKERS = 4
_NAME = re.compile(r"[0-9a-f]{64}(\.[0-9]+)?")
_BLOCK = 1024 * 1024
_FICLONERANGE = 0x4020940D  # <linux/fs.h>: _IOW(0x94, 13, struct file_clone_range)
EXTRA_SHOWN = 1000
_BUILDING = ".building-"
_DOOMED = ".doomed-"


@dataclass(frozen=True, slots=True)
class Release:
    """A bundle as a directory."""

    bundle: str
    path: Path


@dataclass(frozen=True)
class TreeState:
    """A release directory as it lies on disk: the files its manifest names and that are there, and `extra` paths."""

    files: dict[str, TreeFile] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)

    def matches(self, manifest: Manifest) -> bool:
        """Tell whether exactly the manifest's files are there, each with its bytes and mode."""
        return not self.extra and self.files == {
            file.path: TreeFile(sha256=file.sha256, mode=file.mode, size=file.size) for file in manifest.files
        }


class Releases:
    """The release directories of one node, below its data directory. One thread at a time may change them."""

    def __init__(self, data: Path, store: Store) -> None:
        self._store = store
        self._root = data / "releases"
        self._link = data / "current"
        self._root.mkdir(mode=0o755, exist_ok=True)

    @cached_property
    def shares_blocks(self) -> bool:
        """Tell whether a copy of a file shares its blocks here, and so takes no room."""
        try:
            with TemporaryFile(dir=self._root) as source, TemporaryFile(dir=self._root) as target:
                source.write(bytes(_BLOCK))
                source.flush()
                return _clone(source.fileno(), target.fileno(), 0)
        except OSError:
            return False

    def linked(self) -> Release | None:
        """Return the release that `current` points at; None where it points at none of ours or is not there."""
        try:
            target = os.readlink(self._link)
        except OSError:
            return None
        name = os.path.basename(target)
        return Release(name.partition(".")[0], self._root / name) if _NAME.fullmatch(name) else None

    def materialise(self, bundle: str) -> Release:
        """Make the bundle a directory that was checked against its manifest just now, byte for byte, and is durable.

        Raises:
            NotStoredError: the store lacks it or one of its objects.
            IntegrityError: the store returned other bytes than it was given.
            OSError: it cannot be written.
        """
        manifest = self._store.manifest(bundle)
        existing = self.directories(bundle)
        for path in existing:
            if read_tree(path, manifest).matches(manifest):
                return Release(bundle, path)
        numbers = (int(path.name.partition(".")[2] or 0) for path in existing)
        number = max(numbers, default=-1) + 1
        path = self._root / (f"{bundle}.{number}" if number else bundle)
        self._build(manifest, path)
        return Release(bundle, path)

    def unverified(self, bundle: str) -> Release | None:
        """Find the bundle's directory as it lies there, the current one first; None where there is none."""
        return next((Release(bundle, path) for path in self.directories(bundle)), None)

    def link(self, release: Release | None) -> None:
        """Make `release` the current one, durably; None: nothing is current."""
        if release is not None and release == self.linked():
            pass  # which a full disk must not forbid
        elif release is None:
            self._link.unlink(missing_ok=True)
        else:
            temporary = self._link.with_name(f".current-{secrets.token_hex(8)}")
            temporary.symlink_to(os.path.join(self._root.name, release.path.name), target_is_directory=True)
            temporary.replace(self._link)
        sync_directory(self._link.parent)

    def prune(self, keep: Iterable[str], count: int) -> None:
        """Delete all but one directory each of the current bundle, of those in `keep`, and of the newest up to `count`.

        Raises:
            OSError: something could not be deleted; the rest is kept for the next time.
        """
        linked = self.linked()
        wanted = set(keep)
        kept: set[str] = set()
        for path in self._newest_first(linked):
            bundle = path.name.partition(".")[0]
            needed = bundle in wanted or len(kept | wanted) < count
            if bundle not in kept and (needed or (linked is not None and path == linked.path)):
                kept.add(bundle)
            else:
                path.rename(self._root / f"{_DOOMED}{secrets.token_hex(8)}")
        for path in list(self._root.iterdir()):
            if path.name.startswith((_BUILDING, _DOOMED)):
                shutil.rmtree(path)

    def _newest_first(self, linked: Release | None) -> list[Path]:
        found = [path for path in self._root.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (linked is None or path != linked.path, -path.stat().st_mtime))

    def directories(self, bundle: str) -> list[Path]:
        """List the bundle's directories as they lie there, the current one first, then the newest."""
        return [path for path in self._newest_first(self.linked()) if path.name.partition(".")[0] == bundle]

    def _build(self, manifest: Manifest, path: Path) -> None:
        building = self._root / f"{_BUILDING}{secrets.token_hex(8)}"
        root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _make_directories(building, manifest)
            files = iter(manifest.files)
            with ThreadPoolExecutor(WORKERS) as pool:
                for share in [pool.submit(self._copy_share, files, building) for _ in range(WORKERS)]:
                    share.result()
            sync_filesystem(root_fd)
            building.rename(path)
            os.fsync(root_fd)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        finally:
            os.close(root_fd)

    def _copy_share(self, files: Iterator[FileEntry], root: Path) -> None:
        block = memoryview(bytearray(_BLOCK))
        for file in files:
            self._copy(file, root / file.path, block)

    def _copy(self, file: FileEntry, path: Path, block: memoryview) -> None:
        whole = hashlib.sha256()
        offset = 0
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, file.mode)
        with open(fd, "r+b", buffering=0) as target:
            os.fchmod(fd, file.mode)
            for digest, size in file.objects():
                with open(self._store.path(digest), "rb", buffering=0) as source:
                    cloned = _clone(source.fileno(), fd, offset)
                    reader = target if cloned else source
                    while count := reader.readinto(block):
                        whole.update(block[:count])
                        if not cloned:
                            _write_all(fd, block[:count])
                offset += size
                target.seek(offset)
        if whole.hexdigest() != file.sha256:
            for digest, _ in file.objects():
                self._store.verify(digest)
            raise IntegrityError(
                f"The store holds damaged bytes for {file.path!r}; push the release again.", digest=file.sha256
            )


def read_tree(root: Path, manifest: Manifest) -> TreeState:
    """Read the directory `root` as it lies on disk, every file of `manifest` hashed. Links are not followed.

    Raises:
        OSError: a file or directory cannot be read.
    """
    named: list[str] = []
    extra: list[str] = []
    expected = manifest.by_path
    for directory, folders, names in os.walk(root, onerror=_reraise):
        links = [name for name in folders if os.path.islink(os.path.join(directory, name))]
        for name in [*names, *links]:
            full = os.path.join(directory, name)
            path = os.path.relpath(full, root).replace(os.sep, "/")
            plain = stat.S_ISREG(os.lstat(full).st_mode)
            (named if plain and path in expected else extra).append(path)
    with ThreadPoolExecutor(WORKERS) as pool:
        states = pool.map(lambda path: _file_state(root / path), named)
        return TreeState(dict(zip(named, states, strict=True)), sorted(extra)[:EXTRA_SHOWN])


def _file_state(path: Path) -> TreeFile:
    with open(path, "rb") as file:
        info = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return TreeFile(sha256=digest, mode=stat.S_IMODE(info.st_mode), size=info.st_size)


def _make_directories(root: Path, manifest: Manifest) -> None:
    parents = {parent for file in manifest.files for parent in PurePosixPath(file.path).parents}
    for parent in sorted(parents):
        path = root / parent
        path.mkdir()
        path.chmod(0o755)


def _clone(source: int, target: int, offset: int) -> bool:
    """Share the source's blocks at `offset` of the target, where the filesystem can: ioctl_ficlonerange(2)."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("=qQQQ", source, 0, 0, offset))
    except OSError:
        return False
    return True


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _reraise(error: OSError) -> None:
    raise error
