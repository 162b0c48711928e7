"""Opens files that hold others, within bounds: zip (jar, wheel, nupkg), tar, and what gzip, bzip2, xz, zstd, zlib made.

A file is known by its content, not by its name; a zip may have anything before it. What cannot be opened, or not to the
end, is named with its reason, so that nobody takes it for searched.
"""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from backports import zstd

from tasks.checks.scan.streams import PDF, PNG, pdf_streams, png_texts

OPENED_LIMIT = 256 * 1024 * 1024
MEMBER_LIMIT = 64 * 1024 * 1024
MEMBERS_LIMIT = 50_000
DEPTH_LIMIT = 4
CHUNK = 256 * 1024

_GZIP = b"\x1f\x8b\x08"
_FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"MSCF": "a cabinet file",
    b"\xed\xab\xee\xdb": "an RPM package",
    b"!<arch>\ndebian-binary": "a Debian package",
    b"070701": "a cpio archive",
}
_UNREADABLE = (
    EOFError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    zstd.ZstdError,
)


@dataclass
class Opening:
    """What may still be opened of one file, and what was not opened, by its place inside, with the reason."""

    left: int = OPENED_LIMIT
    members: int = MEMBERS_LIMIT
    unopened: dict[str, str] = field(default_factory=dict)

    def refuse(self, place: str, why: str) -> None:
        """Note that what is at `place` was not opened; the first hundred are kept."""
        if len(self.unopened) < 100:
            self.unopened.setdefault(place, why)


_Reader = Callable[[bytes, Opening, str], Iterator[tuple[str, bytes]]]


def members(content: bytes, opening: Opening, place: str = "", depth: int = 0) -> Iterator[tuple[str, bytes]]:
    """List what is in `content`, and in that, each with its place, such as `app.jar!config/x.yml`.

    A file that holds no others lists nothing. `place` is where `content` itself is.
    """
    if kind := next((kind for magic, kind in _FOREIGN.items() if content.startswith(magic)), ""):
        opening.refuse(place, f"{kind}, which is not opened")
        return
    if (reader := _reader_of(content)) is None:
        return
    if depth >= DEPTH_LIMIT:
        opening.refuse(place, f"archives in archives more than {DEPTH_LIMIT} deep")
        return
    try:
        for name, inner in reader(content, opening, place):
            inside = f"{place}!{name}" if name else place
            yield inside, inner
            yield from members(inner, opening, inside, depth + 1)
    except _UNREADABLE as error:
        opening.refuse(place, f"it cannot be read to its end ({type(error).__name__})")


def holds_others(head: bytes) -> bool:
    """Tell whether a file that begins with `head` holds others, as far as its beginning says."""
    return head.startswith((b"PK\x03\x04", *_FOREIGN)) or _reader_of(head) is not None


def _reader_of(content: bytes) -> _Reader | None:
    head = content[:8]
    if head.startswith(_GZIP):
        return _gzip
    if head.startswith(b"BZh") and content[4:10] == b"1AY&SY":
        return _bzip2
    if head.startswith(b"\xfd7zXZ\0"):
        return _xz
    if head.startswith(b"(\xb5/\xfd"):
        return _zstandard
    if head.startswith((PDF, PNG)):
        return _streams
    if content[257:262] == b"ustar":
        return _tar
    if head.startswith((b"x\x01", b"x\x5e", b"x\x9c", b"x\xda")) and int.from_bytes(head[:2], "big") % 31 == 0:
        return _zlib
    if b"PK\x05\x06" in content[-65_557:]:
        return _zip
    return None


def _zip(content: bytes, opening: Opening, place: str) -> Iterator[tuple[str, bytes]]:
    if content.count(b"PK\x01\x02") > MEMBERS_LIMIT:
        opening.refuse(place, f"more than {MEMBERS_LIMIT} files inside")
        return
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            where = f"{place}!{info.filename}"
            if not _counted(opening, place):
                return
            if info.flag_bits & 1:
                opening.refuse(where, "it is encrypted")
                continue
            try:
                with archive.open(info) as file:
                    inner = _taken(file.read, opening, where)
            except _UNREADABLE as error:
                opening.refuse(where, f"it cannot be read ({type(error).__name__})")
                continue
            yield info.filename, inner


def _tar(content: bytes, opening: Opening, place: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
        for info in archive:
            if not _counted(opening, place):
                return
            if info.isfile() and (file := archive.extractfile(info)) is not None:
                yield info.name, _taken(file.read, opening, f"{place}!{info.name}")


def _gzip(content: bytes, opening: Opening, place: str) -> Iterator[tuple[str, bytes]]:
    """Decompress each of the streams that follow one another; what is none from its first bytes on is no gzip."""
    found, rest = bytearray(), content
    while rest.startswith(_GZIP):
        stream = zlib.decompressobj(31)
        before = len(found)
        try:
            rest = _inflate(stream, rest, found, opening, place)
        except zlib.error:
            if len(found) > before or before:
                opening.refuse(place, "it cannot be read to its end")
            break
    opening.left -= len(found)
    yield from [("", bytes(found))] if found else []


def _inflate(stream: zlib._Decompress, rest: bytes, found: bytearray, opening: Opening, place: str) -> bytes:
    while rest and not stream.eof:
        found += stream.decompress(rest, CHUNK)
        rest = stream.unconsumed_tail
        if not _room(len(found), opening, place):
            return b""
    if not stream.eof:
        opening.refuse(place, "it ends before its end")
    return stream.unused_data.lstrip(b"\0")


def _zlib(content: bytes, opening: Opening, place: str) -> Iterator[tuple[str, bytes]]:
    """Decompress a stream that is one from its beginning to its end; two bytes at a beginning say little."""
    found, stream = bytearray(), zlib.decompressobj()
    try:
        _inflate(stream, content, found, opening, place)
    except zlib.error:
        return
    opening.left -= len(found)
    yield "", bytes(found)


def _streams(content: bytes, opening: Opening, place: str) -> Iterator[tuple[str, bytes]]:
    """Open the deflated parts of a PDF or PNG, as long as there is room."""
    for number, inner in enumerate(png_texts(content) if content.startswith(PNG) else pdf_streams(content), 1):
        opening.left -= len(inner)
        if not _counted(opening, place) or not _room(0, opening, place):
            return
        yield f"stream {number}", inner


def _bzip2(content: bytes, opening: Opening, place: str) -> Iterator[tuple[str, bytes]]:
    with bz2.BZ2File(io.BytesIO(content)) as file:
        yield "", _taken(file.read, opening, place)


def _xz(content: bytes, opening: Opening, place: str) -> Iterator[tuple[str, bytes]]:
    file = lzma.LZMADecompressor(memlimit=MEMBER_LIMIT * 2)
    found = bytearray(file.decompress(content, CHUNK))
    while not file.eof and not file.needs_input and _room(len(found), opening, place):
        found += file.decompress(b"", CHUNK)
    opening.left -= len(found)
    yield "", bytes(found)


def _zstandard(content: bytes, opening: Opening, place: str) -> Iterator[tuple[str, bytes]]:
    options = {int(zstd.DecompressionParameter.window_log_max): 26}
    with zstd.ZstdFile(io.BytesIO(content), options=options) as file:
        yield "", _taken(file.read, opening, place)


def _taken(read: Callable[[int], bytes], opening: Opening, place: str) -> bytes:
    """Read to the end, or to what may be opened."""
    found = bytearray()
    while piece := read(CHUNK):
        found += piece
        if not _room(len(found), opening, place):
            break
    opening.left -= len(found)
    return bytes(found)


def _room(size: int, opening: Opening, place: str) -> bool:
    if size > MEMBER_LIMIT:
        opening.refuse(place, f"what is over {MEMBER_LIMIT // 1024 // 1024} MB of it, unpacked")
    elif size > opening.left:
        opening.refuse(place, f"what is over {OPENED_LIMIT // 1024 // 1024} MB of the file, unpacked")
    else:
        return True
    return False


def _counted(opening: Opening, place: str) -> bool:
    opening.members -= 1
    if opening.members < 0:
        opening.refuse(place, f"more than {MEMBERS_LIMIT} files inside")
    return opening.members >= 0
