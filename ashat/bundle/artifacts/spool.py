"""Keep the files of an artifact in one temporary file, within bounds; no name that it gives ever reaches a disk.

What an artifact holds is noted with what is wrong with it, path by path, so that the part of it that is pushed is
judged at the end, all of it at once, by the rules of every tree.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final, NamedTuple

from ashat.bundle.manifest import EXECUTABLE_MODE, FILE_MODE, FileEntry, Manifest
from ashat.bundle.pack import LEFT_OUT, Packed, Place, digests_of
from ashat.bundle.rules import PATH_BYTES, Kind, LinkEntry, Refusal, Refusals, shown, tree_refusals
from ashat.errors import BundleError

TOTAL_LIMIT: Final = 16 * 1024**3
FILE_LIMIT: Final = 8 * 1024**3
ENTRIES_LIMIT: Final = 500_000
RATIO: Final = 200
RATIO_FROM: Final = 256 * 1024**2
PIECE: Final = 256 * 1024


class Budget:
    """How much may still be unpacked of an artifact: `TOTAL_LIMIT` bytes, and beyond `RATIO_FROM` only `ratio` times as
    many as were read for it (None: any)."""

    def __init__(self, ratio: int | None = RATIO) -> None:
        self._ratio = ratio
        self._read = self._unpacked = self._entries = 0

    def read(self, size: int) -> None:
        """Count `size` bytes of the artifact as it lies there."""
        self._read += size

    def unpack(self, size: int) -> None:
        """Count `size` bytes that came out of it.

        Raises:
            BundleError: they are more than anybody means.
        """
        self._unpacked += size
        if self._unpacked > TOTAL_LIMIT:
            raise BundleError(f"The artifact unpacks to more than {TOTAL_LIMIT} bytes; push a part of it.")
        if self._ratio and self._unpacked > max(RATIO_FROM, self._ratio * self._read):
            raise BundleError(
                f"The artifact unpacks to more than {self._ratio} times its {self._read} bytes, as archives do that "
                "are made to fill disks; unpack it yourself and push the directory, if it is meant."
            )

    def count_entry(self) -> None:
        """Count one more entry.

        Raises:
            BundleError: there are more than `ENTRIES_LIMIT`.
        """
        self._entries += 1
        if self._entries > ENTRIES_LIMIT:
            raise BundleError(f"The artifact has more than {ENTRIES_LIMIT} entries; push a part of it.")


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """A file's bytes in the spool, from `offset`, with its digests as of `FileEntry`."""

    offset: int
    size: int
    executable: bool
    sha256: str
    parts: tuple[str, ...]


class Spool:
    """The temporary file that holds the bytes of every file, one after the other. Close it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._end = 0

    def add(self, pieces: Iterable[bytes], *, executable: bool) -> SpooledFile:
        """Keep a file, which comes in `pieces` of `PIECE` bytes but the last.

        Raises:
            OSError: the disk refused it.
        """
        start = self._end

        def kept() -> Iterator[bytes]:
            for piece in pieces:
                self._file.write(piece)
                self._end += len(piece)
                yield piece

        self._file.seek(start)
        whole, parts = digests_of(kept())
        self._file.flush()
        return SpooledFile(start, self._end - start, executable, whole, parts)

    def read(self, offset: int, size: int) -> bytes:
        """Read `size` bytes from `offset`; any thread may ask."""
        content = os.pread(self._file.fileno(), size, offset)
        if len(content) != size:
            raise BundleError("The temporary file of the unpacked artifact is shorter than it was; push again.")
        return content

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


class _Wrong(NamedTuple):
    path: str
    refusal: Refusal


@dataclass
class Contents:
    """What an artifact, or one layer of an image, holds, by path; `wrong` is what a bundle cannot hold of it.

    `whiteouts` are the paths that a layer takes away from those below it, `opaque` the directories that it empties.
    """

    files: dict[str, SpooledFile] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    whiteouts: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    wrong: list[_Wrong] = field(default_factory=list)

    def refuse(self, kind: Kind, path: str, said: str) -> None:
        """Note that a bundle cannot hold what is at `path`; `said` follows its name in a sentence."""
        self.wrong.append(_Wrong(path, Refusal(kind, shown(path), f"{shown(path)} {said}")))

    def takes(self, path: str, size: int = 0) -> bool:
        """Whether an entry of `size` bytes at `path` can be kept; if not, it is noted why."""
        if len(os.fsencode(path)) > PATH_BYTES:
            self.refuse(Kind.LENGTH, path, f"is more than {PATH_BYTES} bytes long.")
        elif path in self.files or path in self.links:
            self.refuse(Kind.TWICE, path, "is named twice.")
        elif size > FILE_LIMIT:
            self.refuse(Kind.SIZE, path, f"has {size} bytes unpacked; a file of an artifact has at most {FILE_LIMIT}.")
        else:
            return True
        return False

    def special(self, path: str) -> None:
        """Note a device, a pipe or a socket."""
        self.refuse(Kind.SPECIAL, path, "is a device, a pipe or a socket; a bundle holds regular files only.")


def tree_path(name: str) -> str:
    """The path that an entry's name means: without `./` before it and `/` behind it; "" for the top itself."""
    while name.startswith("./"):
        name = name[2:].lstrip("/") if name != "./" else ""
    return "" if name == "." else name.rstrip("/") or name


def ancestors(path: str) -> Iterator[str]:
    """Yield the directories above `path`, the nearest first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


class PackedArtifact(Packed):
    """A bundle packed from an artifact; its bytes are in a temporary file until it is closed."""

    def __init__(self, spool: Spool, manifest: Manifest, offsets: dict[str, int]) -> None:
        super().__init__(manifest)
        self._spool = spool
        self._offsets = offsets

    def close(self) -> None:
        """Remove the temporary file."""
        self._spool.close()

    def _read(self, place: Place) -> bytes:
        return self._spool.read(self._offsets[place.path] + place.offset, place.size)


def pack_contents(
    contents: Contents,
    spool: Spool,
    *,
    name: str,
    subdirectory: str = "",
    windows_names: bool = True,
    check: Callable[[Contents], None] | None = None,
) -> Packed:
    """Make a bundle of what artifact `name` holds below `subdirectory` ("": all of it).

    `check` may note what else is wrong with it.

    Raises:
        BundleError: that is empty, or holds what a bundle cannot; the message names it.
    """
    if check is not None:
        check(contents)
    part = _below(contents, subdirectory.strip("/")) if subdirectory.strip("/") else contents
    links = [LinkEntry(path, target) for path, target in part.links.items() if not _left_out(path)]
    files = {path: file for path, file in part.files.items() if not _left_out(path)}
    directories = _empty_directories(part)
    refusals = Refusals()
    for wrong in part.wrong:
        refusals.add(wrong.refusal)
    refusals.merge(tree_refusals(files, links, directories, windows=windows_names))
    if refusals:
        raise BundleError(str(refusals), by_kind=True)
    if not files:
        raise BundleError(f"{name} holds no file to ship{f' in {subdirectory}' if subdirectory else ''}.")
    entries = (
        FileEntry(path, file.size, EXECUTABLE_MODE if file.executable else FILE_MODE, file.sha256, file.parts)
        for path, file in files.items()
    )
    manifest = Manifest.unchecked(entries, links, directories)
    return PackedArtifact(spool, manifest, {path: file.offset for path, file in files.items()})


def _below(contents: Contents, directory: str) -> Contents:
    """What lies below `directory`, by its path from there."""
    start = f"{directory}/"
    cut = len(start)
    return Contents(
        {path[cut:]: file for path, file in contents.files.items() if path.startswith(start)},
        {path[cut:]: target for path, target in contents.links.items() if path.startswith(start)},
        {path[cut:] for path in contents.directories if path.startswith(start)},
        wrong=[wrong for wrong in contents.wrong if wrong.path.startswith(start) or wrong.path == directory],
    )


def _left_out(path: str) -> bool:
    """Whether no bundle holds what is at `path`, as the packer of directories has it."""
    names = path.split("/")
    return ".git" in names or any(name in LEFT_OUT for name in names[:-1])


def _empty_directories(contents: Contents) -> list[str]:
    full = {above for path in (*contents.files, *contents.links, *contents.directories) for above in ancestors(path)}
    return [
        path
        for path in sorted(contents.directories - full)
        if not any(name in LEFT_OUT for name in path.split("/")) and path
    ]


def pieces(stream: BinaryIO, size: int | None = None) -> Iterator[bytes]:
    """Yield what `stream` holds, `size` bytes at most, in pieces of `PIECE` bytes but the last."""
    left = size
    while left is None or left > 0:
        wanted = PIECE if left is None else min(PIECE, left)
        piece = read_fully(stream, wanted)
        if piece:
            yield piece
        if len(piece) < wanted:
            return
        left = None if left is None else left - len(piece)


def read_fully(stream: BinaryIO, size: int) -> bytes:
    """Read `size` bytes, fewer only at the end of `stream`."""
    parts = []
    while size:
        part = stream.read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
