"""Releases as directories: built beside the running one from the store, and made current by one symlink.

`releases/DIGEST` holds a bundle's files, as copies or shared with an earlier release where a program that writes into
its own release can reach neither that one nor the store (`ashat.node.store.sharing`). A directory that differs from its
manifest is never repaired in place: the release is built again under its next name, `releases/DIGEST.N`, and the other
one goes at the next pruning. `current` is a relative link to one of them.
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
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.common.files import sync_directory, sync_filesystem
from ashat.errors import IntegrityError, ManifestError, NotStoredError
from ashat.node.store.sharing import MARK, Means, Shared, separate
from ashat.node.store.store import Store
from ashat.node.store.trees import WORKERS, read_tree
from ashat.node.store.written import WrittenFiles

_NAME = re.compile(r"[0-9a-f]{64}(\.[0-9]+)?")
_BLOCK = 1024 * 1024
_FICLONERANGE = 0x4020940D  # <linux/fs.h>: _IOW(0x94, 13, struct file_clone_range)
_BUILDING = ".building-"
_DOOMED = ".doomed-"


@dataclass(frozen=True, slots=True)
class Release:
    """A bundle as a directory."""

    bundle: str
    path: Path


class Releases:
    """The release directories of one node, below its data directory. One thread at a time may change them."""

    def __init__(self, data: Path, store: Store, *, read_only: bool = False) -> None:
        """Open the releases below `data`. With `read_only`, the program runs as a user that cannot write to them.

        Raises:
            OSError: files that may not be shared any more cannot be copied.
        """
        self._store = store
        self._root = data / "releases"
        self._link = data / "current"
        self._written = data / "release-files"
        self._read_only = read_only
        self._root.mkdir(mode=0o755, exist_ok=True)
        if not read_only and (self._root / MARK).exists():
            separate(path for path in self._root.iterdir() if path.is_dir())
            (self._root / MARK).unlink()

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

    @cached_property
    def _means(self) -> Means:
        if self.shares_blocks:
            return Means.CLONE
        return Means.LINK if self._read_only else Means.COPY

    @property
    def shareable_bytes(self) -> int:
        """Count the bytes of the releases' files that a new one may share, at most."""
        return 0 if self._means is Means.COPY else self._notes().size_of_all()

    def _notes(self) -> WrittenFiles:
        return WrittenFiles(self._written, os.stat(self._root).st_dev)

    def linked(self) -> Release | None:
        """Return the release that `current` points at; None where it points at none of ours or is not there."""
        try:
            target = os.readlink(self._link)
        except OSError:
            return None
        name = os.path.basename(target)
        return Release(name.partition(".")[0], self._root / name) if _NAME.fullmatch(name) else None

    def materialise(self, bundle: str) -> Release:
        """Make the bundle a durable directory that is what its manifest says: each file was written from verified bytes
        or read just now, or is as the filesystem says untouched since it was.

        Raises:
            NotStoredError: the store lacks it or one of its objects.
            IntegrityError: the store returned other bytes than it was given.
            OSError: it cannot be written.
        """
        manifest = self._store.manifest(bundle)
        existing = self.directories(bundle)
        notes = self._notes()
        for path in existing:
            if read_tree(path, manifest, notes).matches(manifest):
                return Release(bundle, path)
        numbers = (int(path.name.partition(".")[2] or 0) for path in existing)
        number = max(numbers, default=-1) + 1
        path = self._root / (f"{bundle}.{number}" if number else bundle)
        self._build(manifest, path, notes)
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
        doomed = [path for path in self._root.iterdir() if path.name.startswith((_BUILDING, _DOOMED))]
        if doomed:
            notes = self._notes()
            for path in doomed:
                _remove(path, notes)
            notes.save()

    def _newest_first(self, linked: Release | None) -> list[Path]:
        found = [path for path in self._root.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (linked is None or path != linked.path, -path.stat().st_mtime))

    def directories(self, bundle: str) -> list[Path]:
        """List the bundle's directories as they lie there, the current one first, then the newest."""
        return [path for path in self._newest_first(self.linked()) if path.name.partition(".")[0] == bundle]

    def _build(self, manifest: Manifest, path: Path, notes: WrittenFiles) -> None:
        shared = self._shared(manifest, notes)
        building = self._root / f"{_BUILDING}{secrets.token_hex(8)}"
        root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _make_directories(building, manifest)
            files = iter(manifest.files)
            with ThreadPoolExecutor(WORKERS) as pool:
                for share in [pool.submit(self._fill, files, building, shared, notes) for _ in range(WORKERS)]:
                    share.result()
            # Last, so that nothing is written through one: a manifest names no path below a link.
            for link in manifest.links:
                os.symlink(link.target, building / link.path)
            sync_filesystem(root_fd)
            building.rename(path)
            os.fsync(root_fd)
        except BaseException:
            with suppress(OSError):
                _remove(building, notes)
            raise
        finally:
            os.close(root_fd)
            notes.save()

    def _shared(self, manifest: Manifest, notes: WrittenFiles) -> Shared:
        """Offer what lies in the other releases, the current one first."""
        shared = Shared(self._means, notes)
        if self._means is Means.COPY:
            return shared
        if self._means is Means.LINK:
            (self._root / MARK).touch(mode=0o600)
        for path in self._newest_first(self.linked()):
            with suppress(NotStoredError, IntegrityError, ManifestError):
                shared.offer(path, self._store.manifest(path.name.partition(".")[0]))
            if shared.offers_all(manifest):
                break
        return shared

    def _fill(self, files: Iterator[FileEntry], root: Path, shared: Shared, notes: WrittenFiles) -> None:
        block = memoryview(bytearray(_BLOCK))
        for file in files:
            path = root / file.path
            if not shared.give(file, path):
                notes.note(self._copy(file, path, block), file.sha256)

    def _copy(self, file: FileEntry, path: Path, block: memoryview) -> os.stat_result:
        """Write a file from the store; its state then."""
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
            state = os.fstat(fd)
        if whole.hexdigest() != file.sha256:
            for digest, _ in file.objects():
                self._store.verify(digest)
            raise IntegrityError(
                f"The store holds damaged bytes for {file.path!r}; push the release again.", digest=file.sha256
            )
        return state


def _make_directories(root: Path, manifest: Manifest) -> None:
    for folder in manifest.folders:
        path = root / folder
        path.mkdir()
        path.chmod(0o755)


def _remove(root: Path, notes: WrittenFiles) -> None:
    """Delete a directory; files that other releases share go on being known.

    Raises:
        OSError: something cannot be deleted.
    """
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                notes.unlink(path)
    shutil.rmtree(root)


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
