"""Read zips, wheels and tars into a spool: every entry is judged, and none is written under its own name.

https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT says what a zip is, and
https://packaging.python.org/en/latest/specifications/binary-distribution-format/ what a wheel.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

from ashat.bundle.artifacts.spool import Budget, Contents, Spool, pieces, read_fully, tree_path
from ashat.bundle.artifacts.streams import BLOCK, BROKEN, TarStream, damaged, decompressed
from ashat.bundle.rules import PATH_BYTES, Kind
from ashat.errors import BundleError

CENTRAL_LIMIT: Final = 32 * 1024**2
RECORD_LIMIT: Final = 32 * 1024**2
_ENCRYPTED = 0x1
_UNIX = 3
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


def unpack_zip(file: BinaryIO, name: str, spool: Spool, budget: Budget) -> Contents:
    """Read a zip.

    Raises:
        BundleError: it is damaged, cut off, or exceeds a bound of the whole. What is wrong with an entry is noted.
    """
    contents = Contents()
    try:
        archive = zipfile.ZipFile(cast(BinaryIO, _Bounded(file, name)))
    except (*_BROKEN, ValueError, OSError) as error:
        raise damaged(name, error) from None
    with archive:
        for info in archive.infolist():
            budget.count_entry()
            _take_zipped(archive, info, name, contents, spool, budget)
    return contents


class _Bounded(io.RawIOBase):
    """A zip's file of which no more than `CENTRAL_LIMIT` bytes are read at once, as its list of entries is."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = 0) -> int:
        if whence == 0 and position < 0:
            raise zipfile.BadZipFile("an entry lies before the beginning")
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size if 0 <= size <= CENTRAL_LIMIT else CENTRAL_LIMIT + 1)
        if len(content) > CENTRAL_LIMIT:
            raise BundleError(f"{self._name} lists its entries in more than {CENTRAL_LIMIT} bytes; push a part of it.")
        return content


def _take_zipped(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, contents: Contents, spool: Spool, budget: Budget
) -> None:
    # Before Python cut it at a NUL, which hides what comes behind.
    path, mode = tree_path(info.orig_filename), _mode(info)
    if info.orig_filename.endswith("/"):
        contents.directories.add(path)
    elif info.flag_bits & _ENCRYPTED:
        contents.refuse(Kind.ENCRYPTED, path, "is encrypted; make the archive without a password.")
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        contents.refuse(Kind.METHOD, path, "is compressed in a way that is not read; make the archive with deflate.")
    elif mode and not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        contents.special(path)
    elif contents.takes(path, info.file_size):
        unzipped = _unzipped(archive, info, name, budget)
        if stat.S_ISLNK(mode):
            target = b"".join(part[: 2 * PATH_BYTES] for part in unzipped)
            contents.links[path] = target.decode("utf-8", "surrogateescape")
        else:
            contents.files[path] = spool.add(unzipped, executable=bool(mode & stat.S_IXUSR))


def _mode(info: zipfile.ZipInfo) -> int:
    """The kind and permissions of an entry, 0 where its maker knew none."""
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    return mode | stat.S_IFREG if mode and not stat.S_IFMT(mode) else mode


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, budget: Budget) -> Iterator[bytes]:
    budget.read(info.compress_size)
    try:
        entry = archive.open(info)
    except (*_BROKEN, ValueError) as error:
        raise damaged(name, error) from None
    with entry:
        found = pieces(cast(BinaryIO, entry))
        while True:
            try:
                piece = next(found, None)
            except _BROKEN as error:
                raise damaged(name, error) from None
            if piece is None:
                return
            budget.unpack(len(piece))
            yield piece


def unpack_tar(raw: BinaryIO, name: str, spool: Spool, budget: Budget, *, whole: bool = False) -> Contents:
    """Read a tar, compressed or not; `whole` as of `TarStream`.

    Raises:
        BundleError: it is damaged, cut off, or exceeds a bound of the whole. What is wrong with an entry is noted.
    """
    contents = Contents()
    stream = TarStream(decompressed(raw), name, budget, whole=whole)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:", errors="surrogateescape") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]
                budget.count_entry()
                _take_member(archive, member, stream, contents, spool)
                stream.headers_begin()
    except (tarfile.TarError, EOFError, RecursionError, OverflowError, ValueError) as error:
        raise damaged(name, error) from None
    if stream.ended_with != bytes(BLOCK):
        raise damaged(name, EOFError("its end is missing"))
    stream.drain()
    return contents


def _take_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, stream: TarStream, contents: Contents, spool: Spool
) -> None:
    path = tree_path(member.name)
    if member.isdir():
        contents.directories.add(path)
    elif not (member.isreg() or member.issym() or member.islnk()):
        contents.special(path)
    elif not contents.takes(path, member.size):
        return
    elif member.issym():
        contents.links[path] = member.linkname
    elif member.islnk():
        _take_hard_link(path, tree_path(member.linkname), contents)
    else:
        stream.data_begins()
        entry = archive.extractfile(member)
        assert entry is not None
        with entry:
            kept = spool.add(pieces(cast(BinaryIO, entry), member.size), executable=bool(member.mode & stat.S_IXUSR))
        if kept.size != member.size:
            raise EOFError("a file ends early")
        contents.files[path] = kept


def _take_hard_link(path: str, target: str, contents: Contents) -> None:
    """A hard link is the file once more, if that came before it; to a symbolic link it is that link once more."""
    if target in contents.files:
        contents.files[path] = contents.files[target]
    elif target in contents.links:
        contents.links[path] = contents.links[target]
    else:
        said = f"is a hard link to {target[:80]!r}, which is not in the archive before it; ship the file itself."
        contents.refuse(Kind.LEAVING, path, said)


def check_record(contents: Contents, spool: Spool) -> None:
    """Hold a wheel against its RECORD; what does not fit is noted in `contents`.

    Raises:
        BundleError: it has no RECORD that can be read, or more than one.
    """
    found = [path for path in contents.files if path.endswith(".dist-info/RECORD") and path.count("/") == 1]
    if len(found) != 1:
        raise BundleError(f"The wheel has {len(found)} files RECORD in a .dist-info directory; it must have one.")
    place = contents.files[found[0]]
    if place.size > RECORD_LIMIT:
        raise BundleError(f"The wheel's RECORD has {place.size} bytes; at most {RECORD_LIMIT} are read.")
    try:
        rows = list(csv.reader(io.StringIO(spool.read(place.offset, place.size).decode("utf-8"), newline="")))
        listed = {row[0]: row[1] for row in rows if row}
    except (UnicodeDecodeError, csv.Error, IndexError) as error:
        raise BundleError(f"The wheel's RECORD cannot be read: {str(error)[:120]}.") from None
    signatures = {f"{found[0]}{end}" for end in ("", ".jws", ".p7s")}
    for path, file in contents.files.items():
        if path not in signatures and _recorded(listed.get(path, "")) != file.sha256:
            contents.refuse(Kind.DIGEST, path, "is not what the wheel's RECORD says; build or fetch the wheel again.")
    for path in listed.keys() - contents.files.keys():
        contents.refuse(Kind.DIGEST, path, "is in the wheel's RECORD and not in the wheel; build or fetch it again.")


def _recorded(words: str) -> str:
    """The sha256 in hexadecimal that a line of RECORD names; "" where it names none."""
    algorithm, _, value = words.partition("=")
    try:
        return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex() if algorithm == "sha256" else ""
    except (binascii.Error, ValueError):
        return ""


def is_tar(start: BinaryIO, name: str) -> bool:
    """Tell whether a tar, compressed or not, begins in `start`, by its first header's checksum.

    Raises:
        BundleError: it is compressed, and damaged.
    """
    try:
        header = read_fully(decompressed(start), BLOCK)
        tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except BROKEN as error:
        raise damaged(name, error) from None
    except (tarfile.HeaderError, ValueError):
        return False
    return True
