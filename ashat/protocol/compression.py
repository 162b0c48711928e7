"""Compress objects on their way over a slow line (RFC 8878), and decompress what came, within bounds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Final

from ashat.errors import FrameError, FrameTooLargeError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ZSTD: Final = "zstd"
_WINDOW_LOG = 23  # RFC 9659: a content encoding's window has at most 8 MiB
_PIECE = 1024 * 1024
_SAMPLE = 256 * 1024
_WORTH = 0.9


def accepts_zstd(accept_encoding: str) -> bool:
    """Tell whether whoever sent that header (RFC 9110, 12.5.3) reads zstd."""
    return any(offered.strip().lower() == ZSTD for offered in accept_encoding.split(","))


def pays(sample: bytes) -> bool:
    """Tell whether bytes like `sample` get smaller by more than a tenth."""
    sample = sample[:_SAMPLE]
    return len(zstd.compress(sample, level=1)) < _WORTH * len(sample)


def compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield `chunks` compressed, each so that it can be decompressed as soon as it is there: a line may be cut."""
    compressor = zstd.ZstdCompressor()
    for chunk in chunks:
        if piece := compressor.compress(chunk, mode=compressor.FLUSH_BLOCK):
            yield piece
    yield compressor.flush()


class Decompressor:
    """Decompresses a stream to at most `limit` bytes, in pieces of 1 MiB and with a window of 8 MiB."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._zstd = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})

    def feed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield what the next bytes of the stream decompress to.

        Raises:
            FrameError: it is no zstd, or goes on after its end.
            FrameTooLargeError: there is more than the limit.
        """
        for chunk in chunks:
            rest = chunk
            while rest or not (self._zstd.needs_input or self._zstd.eof):
                try:
                    piece = self._zstd.decompress(rest, _PIECE)
                except EOFError:
                    raise FrameError("The stream of objects goes on after the end of its one zstd frame.") from None
                except zstd.ZstdError as error:
                    raise FrameError(f"The stream of objects is no zstd: {str(error).rstrip('.')}.") from None
                rest = b""
                self._left -= len(piece)
                if self._left < 0:
                    raise FrameTooLargeError(f"The stream of objects decompresses to more than {self._limit} bytes.")
                if piece:
                    yield piece

    def finish(self) -> None:
        """Say that the stream ended.

        Raises:
            FrameError: it ended too early, or too late.
        """
        if not self._zstd.eof or self._zstd.unused_data:
            raise FrameError("The compressed stream of objects ends too early or too late; send it again.")
