"""The content store of a node: objects by their sha256, and the manifests (bundles) made of them.

    objects/ab/cdef...   whole, durable objects, named by their sha256
    staging/DIGEST.N     whole, verified objects that no acknowledged manifest has made durable yet
    bundles/DIGEST       manifests; one is there only when all its objects are in `objects/`, on the disk

An object is written only once it is complete in memory and its bytes match its digest, and it keeps its staging name
until a manifest that names it is put: then one `syncfs` makes all of them durable, and only after that are they
renamed. So a cut upload resumes from `staging/`, and what a crash tore there fails its digest when the store is next
opened. Renaming first would let a loss of power leave torn objects under names that say "here".
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from ashat.bundle.manifest import Manifest
from ashat.bundle.parsed import ParsedManifests
from ashat.common.canonical_json import is_digest
from ashat.common.clocks import written_at
from ashat.common.failpoints import fault_point
from ashat.common.files import sync_directory, sync_filesystem
from ashat.common.shortage import Kind, reason, shortage
from ashat.errors import IntegrityError, ManifestError, NotStoredError, ObjectsMissingError, StoreError, StoreFullError
from ashat.node.store.direct_io import BufferPool, write_new_file
from ashat.node.store.staging import Staged, Staging
from ashat.node.store.upload import Incoming
from ashat.protocol.messages import StoreState

GRACE = 3600.0


@dataclass(frozen=True)
class Swept:
    """What `gc` removed; `bytes` are those of the objects."""

    bundles: int
    objects: int
    bytes: int


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Let what the disk of `where` refuses be a `StoreFullError` or a `StoreError`."""
    try:
        yield
    except OSError as error:
        lack = shortage(error, where)
        if lack and lack.kind is Kind.FULL:
            raise StoreFullError(str(lack)) from error
        raise StoreError(str(lack or f"{where} cannot be written: {reason(error, where)}.")) from error


class Store:
    """A content store in directory `root`, for one process at a time and any number of its threads."""

    def __init__(self, root: Path, *, windows_names: bool = True) -> None:
        """Open the store, or make it; whole objects of an interrupted upload are taken up, torn ones removed.

        With `windows_names`, it takes no manifest with names that Windows cannot hold.

        Raises:
            StoreError: another process has it open, or the directory cannot be used.
        """
        self.root = root
        self._windows_names = windows_names
        self.buffers = BufferPool()
        self._objects = str(root / "objects")
        self._bundles = root / "bundles"
        self._lock = threading.Lock()
        self._commit_lock = threading.Lock()
        self._totals: tuple[int, int] | None = None
        self._parsed = ParsedManifests()
        self._file_lock = FileLock(root / "lock", timeout=0, thread_local=False)
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file_lock.acquire()
            self._make_directories()
            self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            self._staging = Staging(str(root / "staging"), self._is_stored)
        except Timeout:
            raise StoreError(f"{root} is in use by another process; a store belongs to one node.") from None
        except OSError as error:
            self._file_lock.release()
            raise StoreError(f"The store {root} cannot be opened: {reason(error, root)}.") from error

    def close(self) -> None:
        """Let another process open it. What is staged stays."""
        os.close(self._fd)
        self._file_lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Objects

    def missing(self, digests: Iterable[str]) -> list[str]:
        """List those of `digests` that the store does not hold whole, in order, each once.

        A staged object counts as held: its bytes were verified, and `put_manifest` makes it durable.
        """
        return [digest for digest in dict.fromkeys(digests) if not self.has(digest)]

    def lacking(self, manifest: Manifest) -> list[str]:
        """List the objects of `manifest` that are not here durably, and of the size that it says."""
        return [digest for digest, size in manifest.objects.items() if not self._has_whole(digest, size)]

    def has(self, digest: str) -> bool:
        """Tell whether the store holds the object whole."""
        return self._staging.has(digest) or self._is_stored(digest)

    def receive(self) -> Incoming:
        """Open an upload to feed a stream of frames to, in a `with` block."""
        return Incoming(self)

    def add(self, digest: str, buffer: memoryview, size: int) -> bool:
        """Keep the object that is the first `size` bytes of `buffer` (one of `buffers`).

        Returns whether it is new here. It is staged: durable once a manifest that names it is put.

        Raises:
            IntegrityError: the bytes do not match `digest`; nothing is kept.
            StoreFullError: the disk is full; nothing is kept.
        """
        if hashlib.sha256(buffer[:size]).hexdigest() != digest:
            raise IntegrityError(f"The bytes received for {digest} do not match it; send them again.", digest=digest)
        if self.has(digest):
            return False
        path = self._staging.new_path(digest)
        with disk_errors(self.root):
            write_new_file(path, buffer, size)
        return self._staging.keep(digest, Staged(path, size))

    def discard(self, digests: Iterable[str]) -> None:
        """Drop objects that are still staged; those that a manifest is about to commit stay."""
        self._staging.discard(digests)

    def beginnings(self, digests: Iterable[str]) -> dict[str, int]:
        """Count what is here of those of `digests` that were cut: an upload may go on after so many bytes."""
        return {digest: held for digest in digests if (held := self._staging.beginning(digest))}

    def keep_beginning(self, digest: str, content: memoryview) -> None:
        """Keep the first bytes of an object, so that it need not be sent again from its beginning; where the disk
        refuses them, they are sent again."""
        with suppress(OSError):
            self._staging.keep_beginning(digest, content)

    def read_beginning(self, digest: str, buffer: memoryview) -> int:
        """Read what was kept of an object into `buffer`; return how many bytes that are, 0 where none can be read."""
        try:
            return self._staging.read_beginning(digest, buffer)
        except OSError:
            return 0

    def drop_beginning(self, digest: str) -> None:
        """Forget what was kept of an object: it is not what its digest says."""
        self._staging.drop_beginning(digest)

    def claim(self, bundle: str, digests: Iterable[str]) -> None:
        """Note that the objects are sent for `bundle`."""
        self._staging.claim(bundle, digests)

    def abandon(self, bundle: str) -> None:
        """Drop what is staged for a bundle that does not come any more, and what is staged for none."""
        self._staging.abandon(bundle)

    def path(self, digest: str) -> Path:
        """Find where a durable object lies. Read it only: it is shared by every bundle that names it.

        Raises:
            NotStoredError: no such object.
        """
        self.size(digest)
        return Path(self._object_path(digest))

    def size(self, digest: str) -> int:
        """Count the bytes of a durable object.

        Raises:
            NotStoredError: no such object.
        """
        try:
            return os.stat(self._object_path(digest)).st_size
        except FileNotFoundError:
            raise NotStoredError(f"There is no object {digest} here.") from None

    def read(self, digest: str) -> bytes:
        """Read a durable object's bytes (at most 4 MiB), verified.

        Raises:
            NotStoredError: no such object.
            IntegrityError: the disk returned other bytes than were stored.
        """
        try:
            with open(self._object_path(digest), "rb", buffering=0) as file:
                content = file.readall()
        except FileNotFoundError:
            raise NotStoredError(f"There is no object {digest} here.") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise IntegrityError(f"The stored object {digest} is damaged; push its release again.", digest=digest)
        return content

    def prefetch(self, digests: Iterable[str]) -> None:
        """Have the kernel fetch durable objects from the disk while something else is done: a hint, no more."""
        if not hasattr(os, "posix_fadvise"):
            return
        for digest in digests:
            with suppress(FileNotFoundError), open(self._object_path(digest), "rb", buffering=0) as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    def verify(self, digest: str) -> bool:
        """Tell whether a durable object is there and its bytes match its digest.

        A damaged one is removed, so that the next push or pull of a bundle that names it brings it back.
        """
        with self._commit_lock:
            return self._verify(digest)

    # Bundles

    def put_manifest(self, raw: bytes, digest: str) -> tuple[Manifest, bool]:
        """Keep the manifest `raw` spells, whose sha256 is `digest`; it and its objects are durable on return.

        Returns the manifest, and whether it is new here.

        Raises:
            IntegrityError: `raw` is not what `digest` names.
            ManifestError: it breaks a bundle rule, or gives a wrong size for an object.
            ObjectsMissingError: objects it names are not here.
            StoreFullError: the disk is full; the staged objects stay.
        """
        if hashlib.sha256(raw).hexdigest() != digest:
            raise IntegrityError(f"The manifest received is not the one that {digest} names.", digest=digest)
        manifest = Manifest.parse(raw, windows_names=self._windows_names)
        with self._commit_lock, disk_errors(self.root):
            taken = self._staging.take(manifest.objects)
            try:
                self._check_complete(manifest, taken)
                new = not self.has_bundle(digest)
                self._commit(raw, digest, taken)
                self._staging.claims_no_more(digest)
            finally:
                self._staging.put_back()
        return manifest, new

    def manifest_bytes(self, digest: str) -> bytes:
        """Read the canonical bytes of a bundle's manifest, verified.

        Raises:
            NotStoredError: no such bundle.
            IntegrityError: the disk returned other bytes than were stored.
        """
        try:
            raw = (self._bundles / digest).read_bytes()
        except FileNotFoundError:
            raise NotStoredError(f"There is no bundle {digest} here.") from None
        if hashlib.sha256(raw).hexdigest() != digest:
            raise IntegrityError(f"The stored manifest {digest} is damaged; push its release again.", digest=digest)
        return raw

    def manifest(self, digest: str) -> Manifest:
        """Read a bundle's manifest; raises as `manifest_bytes` does."""
        return self._parsed.parse(self.manifest_bytes(digest), digest)

    def has_bundle(self, digest: str) -> bool:
        """Tell whether the bundle is here."""
        return (self._bundles / digest).exists()

    def bundles(self) -> list[str]:
        """List the digests of all bundles here, sorted."""
        return sorted(name for name in os.listdir(self._bundles) if is_digest(name))

    # Upkeep

    def rebuild(self) -> bool:
        """Make the store's directories again, where somebody removed them while it was open; whether that was so.

        Raises:
            OSError: they cannot be made.
        """
        if os.path.isdir(f"{self._objects}/ff"):
            return False
        with self._commit_lock:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._make_directories()
            self._staging = Staging(str(self.root / "staging"), self._is_stored)
            self._totals = None
        return True

    def state(self) -> StoreState:
        """Measure how much durable content there is, and how much room. Counted once, then kept up to date."""
        count, size = self._totals or self._count_all()
        return StoreState(objects=count, bytes=size, free_bytes=shutil.disk_usage(self.root).free)

    def gc(self, keep: Iterable[str], *, grace: float = GRACE) -> Swept:
        """Remove the bundles not in `keep`, then every object that no remaining bundle names.

        What was put, or put again, in the last `grace` seconds stays: somebody may be about to use it. An upload that
        counted on an object removed here is told so when it puts its manifest, and sends it.

        Raises:
            IntegrityError: the manifest of a bundle to keep is damaged; nothing is removed.
        """
        wanted = set(keep)
        with self._commit_lock:
            oldest = time.time() - grace
            doomed = [digest for digest in self.bundles() if digest not in wanted and self._put_at(digest) <= oldest]
            remaining = set(self.bundles()) - set(doomed)
            named = {digest for bundle in remaining for digest in self.manifest(bundle).objects}
            for digest in doomed:
                (self._bundles / digest).unlink()
            sync_directory(self._bundles)
            garbage = [(name, size) for name, size, at in self._scan() if name not in named and at <= oldest]
            for name, _ in garbage:
                self._remove_object(name)
        self._staging.sweep()
        return Swept(bundles=len(doomed), objects=len(garbage), bytes=sum(size for _, size in garbage))

    def _make_directories(self) -> None:
        for name in ("objects", "staging", "bundles"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        if not os.path.isdir(f"{self._objects}/ff"):
            for number in range(256):
                os.makedirs(f"{self._objects}/{number:02x}", mode=0o700, exist_ok=True)

    def _object_path(self, digest: str) -> str:
        return f"{self._objects}/{digest[:2]}/{digest[2:]}"

    def _is_stored(self, digest: str) -> bool:
        return os.path.exists(self._object_path(digest))

    def _has_whole(self, digest: str, size: int) -> bool:
        try:
            return self.size(digest) == size or self.verify(digest)
        except NotStoredError:
            return False

    def _verify(self, digest: str) -> bool:
        try:
            self.read(digest)
        except NotStoredError:
            return False
        except IntegrityError:
            self._remove_object(digest)
            return False
        return True

    def _check_complete(self, manifest: Manifest, taken: dict[str, Staged]) -> None:
        missing = []
        for digest, size in manifest.objects.items():
            if digest in taken:
                held = taken[digest].size
            else:
                try:
                    held = self.size(digest)
                except NotStoredError:
                    missing.append(digest)
                    continue
            if held != size and (digest in taken or self._verify(digest)):
                raise ManifestError(f"The manifest says that object {digest} has {size} bytes; it has {held}.")
            if held != size:
                missing.append(digest)
        if missing:
            raise ObjectsMissingError(
                f"The manifest names {len(missing)} objects that are not here; send them first.", missing=missing
            )

    def _commit(self, raw: bytes, digest: str, taken: dict[str, Staged]) -> None:
        """Objects' bytes, then their names, then the manifest's name: each durable before the next begins."""
        target = self._bundles / digest
        if not taken and target.exists() and target.read_bytes() == raw:
            os.utime(target)
            sync_directory(self._bundles)
            return
        staging = self.root / "staging" / f"{digest}.manifest"
        try:
            staging.write_bytes(raw)
            fault_point("store.objects-staged")
            self._sync()
            for name, staged in taken.items():
                os.rename(staged.path, self._object_path(name))
                self._staging.committed(name)
                self._count(1, staged.size)
            fault_point("store.objects-renamed")
            if taken:
                self._sync()
            staging.rename(target)
        finally:
            staging.unlink(missing_ok=True)
        sync_directory(self._bundles)
        fault_point("store.manifest-written")

    def _sync(self) -> None:
        """Make everything written durable. After a failure the page cache may hold bytes that the disk lost."""
        try:
            sync_filesystem(self._fd)
        except OSError:
            self._staging.drop_taken()
            raise

    def _scan(self) -> Iterator[tuple[str, int, float]]:
        """Every durable object: digest, size, when it was committed."""
        for number in range(256):
            prefix = f"{number:02x}"
            with os.scandir(f"{self._objects}/{prefix}") as entries:
                for entry in entries:
                    found = entry.stat()
                    yield prefix + entry.name, found.st_size, written_at(entry.path, found.st_ctime)

    def _put_at(self, bundle: str) -> float:
        path = self._bundles / bundle
        return written_at(path, path.stat().st_mtime)

    def _remove_object(self, digest: str) -> None:
        path = self._object_path(digest)
        size = os.stat(path).st_size
        os.unlink(path)
        self._count(-1, -size)

    def _count_all(self) -> tuple[int, int]:
        with self._commit_lock:
            sizes = [size for _, size, _ in self._scan()]
            with self._lock:
                self._totals = (len(sizes), sum(sizes))
                return self._totals

    def _count(self, objects: int, size: int) -> None:
        with self._lock:
            if self._totals is not None:
                self._totals = (self._totals[0] + objects, self._totals[1] + size)
