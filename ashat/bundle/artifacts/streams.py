"""Read compressed streams within bounds: gzip, bzip2, xz and Zstandard, told apart by how they begin."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zlib
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from ashat.bundle.artifacts.spool import Budget
from ashat.errors import BundleError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEADERS_LIMIT: Final = 1024 * 1024
XZ_MEMORY: Final = 256 * 1024**2
ZSTD_WINDOW_LOG: Final = 27
BLOCK: Final = 512
_PIECE = 64 * 1024
BROKEN: Final = (OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError)
_MAGICS = ((b"\x1f\x8b", "gz"), (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "zst"))


def compression_of(start: bytes) -> str:
    """Name the compression of what begins so: gz, bz2, xz, zst; "" where it is none of these."""
    return next((name for magic, name in _MAGICS if start.startswith(magic)), "")


def decompressed(raw: BinaryIO) -> BinaryIO:
    """Open what `raw` holds, decompressed by how it begins; `raw` itself where it is not compressed."""
    buffered = io.BufferedReader(_Unclosed(raw), _PIECE)
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG}
    match compression_of(buffered.peek(8)[:8]):
        case "gz":
            return cast(BinaryIO, gzip.GzipFile(fileobj=buffered))
        case "bz2":
            return cast(BinaryIO, bz2.BZ2File(buffered))
        case "xz":
            return cast(BinaryIO, _XzFile(buffered))
        case "zst":
            return cast(BinaryIO, zstd.ZstdFile(buffered, options=options))
    return buffered


class _Unclosed(io.RawIOBase):
    """A file that is not closed with what reads it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` with what comes next; how many bytes."""
        view = memoryview(buffer)
        content = self._raw.read(len(view))
        view[: len(content)] = content
        return len(content)


class _XzFile(io.RawIOBase):
    """The streams of an xz file, one after the other, with a bound on the decoder's memory; LZMAFile has none."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._decoder: lzma.LZMADecompressor | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` with what comes next; how many bytes, 0 at the end."""
        view = memoryview(buffer)
        while True:
            if self._decoder is None or self._decoder.eof:
                given = self._next_stream()
                if not given:
                    return 0
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
            else:
                given = self._raw.read(_PIECE) if self._decoder.needs_input else b""
                if not given and self._decoder.needs_input:
                    raise EOFError("it ends before its end-of-stream marker")
            if piece := self._decoder.decompress(given, len(view)):
                view[: len(piece)] = piece
                return len(piece)

    def _next_stream(self) -> bytes:
        """What comes after a stream, without the zeros that pad it."""
        given = self._decoder.unused_data if self._decoder else b""
        while True:
            given = given.lstrip(b"\0")
            if given:
                return given
            given = self._raw.read(_PIECE)
            if not given:
                return b""


class TarStream(io.RawIOBase):
    """A decompressed tar that is read once, forwards, and whose headers between two files have a bound.

    tarfile takes it for a file: what it does not read it seeks over. A tar that is known to be `whole`, as a layer by
    its digest, may end right after its last file, as some tools write them: the zeros that end it are then added.
    """

    def __init__(self, stream: BinaryIO, name: str, budget: Budget, *, whole: bool = False) -> None:
        self._stream = stream
        self._name = name
        self._budget = budget
        self._at = 0
        self._headers: int | None = HEADERS_LIMIT
        self._whole = whole
        self._added: int | None = None
        self.ended_with = b""

    def headers_begin(self) -> None:
        """Say that headers are read next: no more than `HEADERS_LIMIT` bytes of them."""
        self.ended_with = b""
        self._headers = HEADERS_LIMIT

    def data_begins(self) -> None:
        """Say that a file's bytes are read next."""
        self._headers = None

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, fewer only at the end.

        Raises:
            BundleError: the stream is damaged or cut off, or a bound is exceeded.
        """
        if self._headers is not None:
            self._headers -= size
            if size < 0 or self._headers < 0:
                raise BundleError(f"{self._name} has headers of more than {HEADERS_LIMIT} bytes for one entry.")
        content = self._take(size)
        if len(content) == BLOCK:
            self.ended_with = content
        return content

    def _take(self, size: int) -> bytes:
        parts = []
        try:
            while size > 0 and (part := self._stream.read(min(size, _PIECE))):
                parts.append(part)
                size -= len(part)
                self._at += len(part)
                self._budget.unpack(len(part))
        except BROKEN as error:
            raise damaged(self._name, error) from None
        if size > 0 and self._whole and self._headers is not None:
            parts.append(self._end(size))
        return b"".join(parts)

    def _end(self, size: int) -> bytes:
        """What is added behind the last file: what fills its block, and two blocks of zeros."""
        if self._added is None:
            self._added = -self._at % BLOCK + 2 * BLOCK
        zeros = bytes(min(size, self._added))
        self._added -= len(zeros)
        self._at += len(zeros)
        return zeros

    def drain(self) -> None:
        """Read what is left, so that a checksum at the end is looked at.

        Raises:
            BundleError: as `read`; or it is something else than zeros.
        """
        while content := self._take(_PIECE):
            if content.strip(b"\0"):
                raise BundleError(f"{self._name} goes on behind the end of its archive; make it anew.")

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at

    def seek(self, position: int, whence: int = 0) -> int:
        """Skip to `position`.

        Raises:
            BundleError: that is before what was read already, as in no sound archive; or as `read`.
        """
        if whence != 0 or position < self._at:
            raise BundleError(f"{self._name} is damaged: an entry lies before the one that it follows.")
        while self._at < position and self._take(min(position - self._at, _PIECE)):
            pass
        return self._at


def damaged(name: str, error: BaseException) -> BundleError:
    """Make the refusal of an artifact that cannot be read to its end."""
    why = str(error).strip().rstrip(".")[:120] or type(error).__name__
    return BundleError(f"{name} is cut off or damaged ({why}); fetch or build it again.")
