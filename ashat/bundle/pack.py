"""From a source tree to a bundle: read every file, hash it, and keep the way back to its bytes.

Left out: anything named `.git` and directories named `__pycache__`, wherever they are. Nothing else is left out
silently; what a bundle cannot hold is refused by name. A tree that changes while it is packed, or between packing and
sending, is refused too, so that a bundle is always the tree as it stood at one moment.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

from ashat.bundle.git import Blobs, TreeFile, tree_files
from ashat.bundle.manifest import EXECUTABLE_MODE, FILE_MODE, PART_SIZE, FileEntry, Manifest
from ashat.bundle.stat_cache import FileState, StatCache
from ashat.errors import BundleError, ManifestError, SourceChangedError

LEFT_OUT = (".git", "__pycache__")
_THREADS = min(os.cpu_count() or 1, 4)
_OPEN = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISCHR, "a device file"),
    (stat.S_ISBLK, "a device file"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class Place(NamedTuple):
    """Where an object's bytes are in the source: `size` bytes from `offset` of file `path`."""

    path: str
    offset: int
    size: int


class Packed(ABC):
    """A bundle whose objects can still be read from its source. Close it, or use it in a `with` block."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self._places = {
            digest: Place(file.path, index * PART_SIZE, size)
            for file in manifest.files
            for index, (digest, size) in enumerate(file.objects())
        }

    def path_of(self, digest: str) -> str:
        """Find a file that holds the object."""
        return self._places[digest].path

    def read_object(self, digest: str) -> bytes:
        """Read the object's bytes (at most 4 MiB); any thread may ask.

        Raises:
            SourceChangedError: the file is not what was packed; the message names it.
        """
        return self._read(self._places[digest])

    def read_file(self, path: str) -> bytes:
        """Read a whole file's bytes.

        Raises:
            KeyError: the bundle has no such file.
            SourceChangedError: as `read_object`.
        """
        objects = [digest for digest, _ in self.manifest.by_path[path].objects()]
        return b"".join(self.read_object(digest) for digest in objects)

    def stream_object(self, digest: str, chunk: int) -> Iterator[bytes]:
        """Yield the object's bytes, at most `chunk` at a time; raises as `read_object`."""
        return self._stream(self._places[digest], chunk)

    @abstractmethod
    def _read(self, place: Place) -> bytes: ...

    def _stream(self, place: Place, chunk: int) -> Iterator[bytes]:
        content = self._read(place)
        for start in range(0, place.size, chunk):
            yield content[start : start + chunk]

    def close(self) -> None:  # noqa: B027
        """Let go of the source."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PackedDirectory(Packed):
    """A bundle packed from a directory, which must stay as it is until its objects are sent."""

    def __init__(self, root: Path, manifest: Manifest, states: dict[str, FileState]) -> None:
        super().__init__(manifest)
        self._root = root
        self._states = states

    def _read(self, place: Place) -> bytes:
        with _Reader(self._root, place.path, self._states[place.path]) as reader:
            return reader.read(place.offset, place.size)

    def _stream(self, place: Place, chunk: int) -> Iterator[bytes]:
        with _Reader(self._root, place.path, self._states[place.path]) as reader:
            for start in range(0, place.size, chunk):
                yield reader.read(place.offset + start, min(chunk, place.size - start))


def pack_directory(
    root: Path,
    *,
    cache: StatCache | None = None,
    progress: Callable[[int], None] | None = None,
) -> Packed:
    """Pack the tree in directory `root` into a bundle.

    `cache` spares the reading of files that have not changed since it saw them. `progress` is called, from several
    threads, with the bytes hashed so far.

    Raises:
        BundleError: there is no such directory, it is empty, or it holds what a bundle cannot; the message names it.
        SourceChangedError: it changed while it was packed.
    """
    root = root.absolute()
    modes, states = _walk(root)
    if not states:
        raise BundleError(f"{root} holds no file to ship.")
    hashed = _hash_all(root, states, cache, progress or (lambda _: None))
    _refuse_changes(root, states, _walk(root)[1])
    if cache is not None:
        cache.save()
    files = (FileEntry(path, states[path].size, modes[path], *hashed[path]) for path in states)
    return PackedDirectory(root, manifest_of(files), states)


def manifest_of(files: Iterable[FileEntry]) -> Manifest:
    """Make a manifest of the source's files.

    Raises:
        BundleError: they break a bundle rule; the message names the rule and the path.
    """
    try:
        return Manifest.from_files(files)
    except ManifestError as error:
        raise BundleError(str(error)) from None


def digests_of(chunks: Iterable[bytes]) -> tuple[str, tuple[str, ...]]:
    """Hash a file that comes in chunks of `PART_SIZE` (the last may be less), and its parts, if there are several."""
    whole = hashlib.sha256()
    parts: list[str] = []
    for chunk in chunks:
        whole.update(chunk)
        parts.append(hashlib.sha256(chunk).hexdigest() if parts or len(chunk) == PART_SIZE else "")
    if len(parts) < 2:
        return whole.hexdigest(), ()
    return whole.hexdigest(), tuple(parts)


class PackedGit(Packed):
    """A bundle packed from a commit. Files over 4 MiB are spooled to a temporary file, one at a time, to be sent."""

    def __init__(self, blobs: Blobs, manifest: Manifest, files: dict[str, TreeFile]) -> None:
        super().__init__(manifest)
        self._blobs = blobs
        self._files = files
        self._lock = threading.Lock()
        self._spooled: TreeFile | None = None
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115

    def close(self) -> None:
        """End git and remove the spool."""
        self._spool.close()
        self._blobs.close()

    def _read(self, place: Place) -> bytes:
        file = self._files[place.path]
        with self._lock:
            if self.manifest.by_path[place.path].size <= PART_SIZE:
                return b"".join(self._blobs.read(file, PART_SIZE))
            if self._spooled != file:
                self._spooled = None
                self._spool.seek(0)
                self._spool.truncate()
                self._spool.writelines(self._blobs.read(file, PART_SIZE))
                self._spooled = file
            self._spool.seek(place.offset)
            return self._spool.read(place.size)


def pack_git_ref(repo: Path, ref: str) -> Packed:
    """Pack the tree of commit `ref` into a bundle, below directory `repo` if that is not the top of its repository.

    The blobs are taken as they are: no filter runs, no end of line is converted.

    Raises:
        UsageError: git is missing, `repo` is no repository, `ref` names no commit.
        BundleError: the tree is empty, or it holds a symbolic link, a submodule, a Git LFS pointer, or what else a
            bundle cannot; the message names it.
    """
    found = {file.path: file for file in tree_files(repo, ref) if "__pycache__" not in file.path.split("/")[:-1]}
    blobs = Blobs(repo)
    try:
        entries = [_blob_entry(blobs, file) for file in found.values()]
        return PackedGit(blobs, manifest_of(entries), found)
    except BaseException:
        blobs.close()
        raise


def _blob_entry(blobs: Blobs, file: TreeFile) -> FileEntry:
    size = 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for part in blobs.read(file, PART_SIZE):
            size += len(part)
            yield part

    whole, parts = digests_of(counted())
    return FileEntry(file.path, size, EXECUTABLE_MODE if file.executable else FILE_MODE, whole, parts)


class _Reader:
    """An open file of the source that is, before and after it is read, what it was when the tree was walked."""

    def __init__(self, root: Path, path: str, expected: FileState) -> None:
        self._path = path
        self._expected = expected
        try:
            self._fd = os.open(root / path, _OPEN)
        except PermissionError:
            raise BundleError(f"{path!r} cannot be read; its permissions do not allow it.") from None
        except OSError:
            raise changed(path) from None

    def __enter__(self) -> Self:
        self._check()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        try:
            if error is None:
                self._check()
        finally:
            os.close(self._fd)

    def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset`."""
        content = os.pread(self._fd, size, offset)
        if len(content) != size:
            raise changed(self._path)
        return content

    def parts(self) -> Iterator[bytes]:
        """Yield the whole file, a part at a time."""
        for offset in range(0, max(self._expected.size, 1), PART_SIZE):
            yield self.read(offset, min(PART_SIZE, self._expected.size - offset))

    def _check(self) -> None:
        if FileState.of(os.fstat(self._fd)) != self._expected:
            raise changed(self._path)


def changed(path: str) -> SourceChangedError:
    """Make the refusal of a file that is not what it was."""
    return SourceChangedError(f"{path!r} changed while it was packed or sent; push again when the tree is at rest.")


def _walk(root: Path) -> tuple[dict[str, int], dict[str, FileState]]:
    """Every file's mode and state by its path. Refuses, by name, what a bundle cannot hold."""
    if not root.exists():
        raise BundleError(f"The source {root} does not exist.")
    if not root.is_dir():
        raise BundleError(f"The source {root} is not a directory.")
    modes: dict[str, int] = {}
    states: dict[str, FileState] = {}
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            entries = sorted(os.scandir(root / prefix), key=lambda entry: entry.name)
        except PermissionError:
            raise BundleError(f"The directory {prefix or str(root)!r} cannot be read; check its permissions.") from None
        except FileNotFoundError:
            raise changed(prefix) from None
        for entry in entries:
            path = prefix + entry.name
            if entry.name == ".git" or (entry.name in LEFT_OUT and entry.is_dir(follow_symlinks=False)):
                continue
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                raise changed(path) from None
            if stat.S_ISDIR(found.st_mode):
                waiting.append(path + "/")
                continue
            _refuse_kind(path, found.st_mode)
            modes[path] = EXECUTABLE_MODE if found.st_mode & stat.S_IXUSR else FILE_MODE
            states[path] = FileState.of(found)
    return modes, states


def _refuse_kind(path: str, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for matches, name in _KINDS if matches(mode)), "no regular file")
    raise BundleError(f"{path!r} is {kind}; a bundle holds regular files only. Remove it or put a file in its place.")


def _refuse_changes(root: Path, before: dict[str, FileState], after: dict[str, FileState]) -> None:
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) != after.get(path):
            raise changed(path)


def _hash_all(
    root: Path,
    states: dict[str, FileState],
    cache: StatCache | None,
    progress: Callable[[int], None],
) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The digests of every file: from the cache, or read in a few threads (sha256 runs beside Python)."""
    known = {path: found for path, state in states.items() if cache and (found := cache.get(path, state))}
    waiting = [path for path in states if path not in known]
    lock = threading.Lock()
    done = sum(states[path].size for path in known)

    def work() -> None:
        nonlocal done
        while waiting:
            try:
                path = waiting.pop()
            except IndexError:
                return
            at = time.time_ns()
            with _Reader(root, path, states[path]) as reader:
                digests = digests_of(reader.parts())
            with lock:
                known[path] = digests
                if cache is not None:
                    cache.put(path, states[path], digests, at)
                done += states[path].size
                progress(done)

    with ThreadPoolExecutor(max_workers=_THREADS) as threads:
        for future in [threads.submit(work) for _ in range(_THREADS)]:
            future.result()
    return known
