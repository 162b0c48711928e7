"""From a source tree to a bundle: read every file, hash it, and keep the way back to its bytes.

Left out: anything named `.git` and directories named `__pycache__`, wherever they are, with the directories that hold
nothing else, such as those that a change of branch leaves. Nothing else is left out
silently; what a bundle cannot hold is refused by name, all of it at once. A tree that changes while it is packed, or
between packing and sending, is refused too, so that a bundle is always the tree as it stood at one moment.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from ashat.bundle.git_objects import POINTER_LIMIT, SUBMODULE, Blobs, TreeFile, is_lfs_pointer, tree_files
from ashat.bundle.manifest import EXECUTABLE_MODE, FILE_MODE, PART_SIZE, FileEntry, Manifest
from ashat.bundle.rules import PATH_BYTES, Kind, LinkEntry, Refusal, Refusals, path_refusal, shown, tree_refusals
from ashat.bundle.stat_cache import FileState, StatCache
from ashat.errors import BundleError, SourceChangedError

LEFT_OUT = (".git", "__pycache__")
_PIECE = 256 * 1024
_THREADS = min(os.cpu_count() or 1, 4)
_OPEN = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_KINDS = (
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
    windows_names: bool = True,
) -> Packed:
    """Pack the tree in directory `root` into a bundle.

    `cache` spares the reading of files that have not changed since it saw them. `progress` is called, from several
    threads, with the bytes hashed so far. With `windows_names`, names that Windows cannot hold are refused as well.

    Raises:
        BundleError: there is no such directory, it is empty, or it holds what a bundle cannot; the message names it.
        SourceChangedError: it changed while it was packed.
    """
    root = root.absolute()
    tree = _walk(root)
    tree.require_shippable(windows_names)
    if not tree.states:
        raise BundleError(f"{root} holds no file to ship.")
    hashed = _hash_all(root, tree.states, cache, progress or (lambda _: None))
    _refuse_changes(tree.seen(), _walk(root).seen())
    if cache is not None:
        cache.save()
    files = (FileEntry(path, state.size, tree.modes[path], *hashed[path]) for path, state in tree.states.items())
    return PackedDirectory(root, tree.manifest(files), tree.states)


def digests_of(pieces: Iterable[bytes | memoryview]) -> tuple[str, tuple[str, ...]]:
    """Hash a file, and its parts of `PART_SIZE` if there are several; it comes in pieces, none within two parts."""
    whole = part = hashlib.sha256()
    parts: list[str] = []
    size = 0
    for piece in pieces:
        if size and size % PART_SIZE == 0:
            parts.append(part.hexdigest())
            part = hashlib.sha256()
        whole.update(piece)
        if part is not whole:
            part.update(piece)
        size += len(piece)
    return whole.hexdigest(), (*parts, part.hexdigest()) if parts else ()


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


def pack_git_ref(repo: Path, ref: str, *, windows_names: bool = True) -> Packed:
    """Pack the tree of commit `ref` into a bundle, below directory `repo` if that is not the top of its repository.

    The blobs are taken as they are: no filter runs, no end of line is converted.

    Raises:
        UsageError: git is missing, `repo` is no repository, `ref` names no commit.
        BundleError: the tree is empty, or it holds a submodule, a Git LFS pointer, or what else a bundle cannot; the
            message names it.
    """
    found = [file for file in tree_files(repo, ref) if "__pycache__" not in file.path.split("/")[:-1]]
    blobs = Blobs(repo)
    try:
        tree = _Tree(links=[_blob_link(blobs, file) for file in found if file.link])
        for path in (file.path for file in found if file.mode == SUBMODULE):
            text = f"{shown(path)} is a git submodule; a bundle holds files only. Push a checkout instead."
            tree.refusals.add(Refusal(Kind.SUBMODULE, shown(path), text))
        files = {file.path: file for file in found if not file.link and file.mode != SUBMODULE}
        entries = [_blob_entry(blobs, file, tree.refusals) for file in files.values()]
        tree.require_shippable(windows_names, files)
        if not files:
            raise BundleError(f"{repo} at {ref} holds no file to ship.")
        return PackedGit(blobs, tree.manifest(entries), files)
    except BaseException:
        blobs.close()
        raise


def _blob_link(blobs: Blobs, file: TreeFile) -> LinkEntry:
    target, *_ = [part[: 2 * PATH_BYTES] for part in blobs.read(file, PART_SIZE)]
    return LinkEntry(file.path, os.fsdecode(target))


def _blob_entry(blobs: Blobs, file: TreeFile, refusals: Refusals) -> FileEntry:
    """Read what a commit has of a file; a Git LFS pointer in its place is noted in `refusals`."""
    size = 0
    beginning = b""

    def counted() -> Iterator[bytes]:
        nonlocal size, beginning
        for part in blobs.read(file, PART_SIZE):
            beginning = beginning if size else part[:POINTER_LIMIT]
            size += len(part)
            yield part

    whole, parts = digests_of(counted())
    if size <= POINTER_LIMIT and is_lfs_pointer(beginning):
        text = f"{shown(file.path)} is a Git LFS pointer in that commit. Push a checkout instead."
        refusals.add(Refusal(Kind.POINTER, shown(file.path), text))
    return FileEntry(file.path, size, EXECUTABLE_MODE if file.executable else FILE_MODE, whole, parts)


class _Reader:
    """An open file of the source that is, before and after it is read, what it was when the tree was walked."""

    def __init__(self, root: Path, path: str, expected: FileState) -> None:
        self._path = path
        self._expected = expected
        try:
            self._fd = os.open(f"{root}/{path}", _OPEN)
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

    def pieces(self, buffer: memoryview) -> Iterator[memoryview]:
        """Read the whole file into `buffer`, whose size divides `PART_SIZE`, and yield it as often as it is filled."""
        size = self._expected.size
        for offset in range(0, max(size, 1), len(buffer)):
            piece = buffer[: size - offset]
            if os.preadv(self._fd, [piece], offset) != len(piece):
                raise changed(self._path)
            yield piece

    def _check(self) -> None:
        if FileState.of(os.fstat(self._fd)) != self._expected:
            raise changed(self._path)


def changed(path: str) -> SourceChangedError:
    """Make the refusal of a file that is not what it was."""
    return SourceChangedError(f"{path!r} changed while it was packed or sent; push again when the tree is at rest.")


@dataclass
class _Tree:
    """A source as it was walked: each file's mode and state by its path, links, empty directories, and what forbids it
    to be a bundle."""

    modes: dict[str, int] = field(default_factory=dict)
    states: dict[str, FileState] = field(default_factory=dict)
    links: list[LinkEntry] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    refusals: Refusals = field(default_factory=Refusals)

    def require_shippable(self, windows_names: bool, files: Iterable[str] | None = None) -> None:
        """Refuse a tree that a bundle cannot hold; `files` are its files where they are not in `states`.

        Raises:
            BundleError: all that is wrong with it, in a line for each kind.
        """
        paths = self.states if files is None else files
        self.refusals.merge(tree_refusals(paths, self.links, self.directories, windows=windows_names))
        if self.refusals:
            raise BundleError(str(self.refusals), by_kind=True)

    def manifest(self, files: Iterable[FileEntry]) -> Manifest:
        """Make the manifest of a tree that was found shippable."""
        return Manifest.unchecked(files, self.links, self.directories)

    def seen(self) -> dict[str, object]:
        """Everything there is in it, as it was, by its path."""
        return {
            **self.states,
            **{link.path: link.target for link in self.links},
            **{f"{path}/": "" for path in self.directories},
        }


def _walk(root: Path) -> _Tree:
    """Look at everything below `root`; of what a bundle cannot hold, note what and where.

    Raises:
        BundleError: `root` is no directory, or cannot be read.
        SourceChangedError: something went away meanwhile.
    """
    if not root.exists():
        raise BundleError(f"The source {root} does not exist.")
    if not root.is_dir():
        raise BundleError(f"The source {root} is not a directory.")
    tree = _Tree()
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        empty = True
        for entry in _entries(root, prefix, tree.refusals):
            path = prefix + entry.name
            empty = False
            if entry.name == ".git" or (entry.name in LEFT_OUT and entry.is_dir(follow_symlinks=False)):
                continue
            if _look(path, entry, tree):
                waiting.append(path + "/")
        if empty and prefix:
            tree.directories.append(prefix[:-1])
    return tree


def _entries(root: Path, prefix: str, refusals: Refusals) -> list[os.DirEntry[str]]:
    """List a directory by name."""
    try:
        with os.scandir(root / prefix) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:
        raise changed(prefix) from None
    except OSError as error:
        name = prefix or str(root)
        why = "check its permissions" if isinstance(error, PermissionError) else f"{error.strerror}"
        text = f"The directory {shown(name)} cannot be read; {why}."
        if not prefix:
            raise BundleError(text) from None
        refusals.add(Refusal(Kind.UNREADABLE, shown(name), text))
        return []


def _look(path: str, entry: os.DirEntry[str], tree: _Tree) -> bool:
    """Note what lies at `path`; whether it is a directory to go down into."""
    try:
        found = entry.stat(follow_symlinks=False)
        target = os.readlink(entry.path) if stat.S_ISLNK(found.st_mode) else ""
    except (FileNotFoundError, NotADirectoryError):
        raise changed(path) from None
    except OSError as error:
        text = f"{shown(path)} cannot be read; {error.strerror}."
        tree.refusals.add(Refusal(Kind.UNREADABLE, shown(path), text))
        return False
    if stat.S_ISDIR(found.st_mode):
        refusal = path_refusal(f"{path}/x", windows=False)
        if refusal and refusal.kind in (Kind.DEPTH, Kind.LENGTH):
            tree.refusals.add(Refusal(refusal.kind, shown(path), refusal.text))
            return False
        return True
    if stat.S_ISLNK(found.st_mode):
        tree.links.append(LinkEntry(path, target))
    elif stat.S_ISREG(found.st_mode):
        tree.modes[path] = EXECUTABLE_MODE if found.st_mode & stat.S_IXUSR else FILE_MODE
        tree.states[path] = FileState.of(found)
    else:
        kind = next((name for matches, name in _KINDS if matches(found.st_mode)), "no regular file")
        text = f"{shown(path)} is {kind}; a bundle holds regular files only. Remove it or put a file in its place."
        tree.refusals.add(Refusal(Kind.SPECIAL, shown(path), text))
    return False


def _refuse_changes(before: dict[str, object], after: dict[str, object]) -> None:
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
        buffer = memoryview(bytearray(_PIECE))
        while waiting:
            try:
                path = waiting.pop()
            except IndexError:
                return
            at = time.time_ns()
            with _Reader(root, path, states[path]) as reader:
                digests = digests_of(reader.pieces(buffer))
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
