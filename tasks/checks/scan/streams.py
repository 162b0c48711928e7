"""Opens the deflated parts of files that are no archives: the streams of a PDF, and the texts of a PNG."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

PNG = b"\x89PNG\r\n\x1a\n"
PDF = b"%PDF-"
STREAM_LIMIT = 16 * 1024 * 1024
STREAMS_LIMIT = 20_000
_PICTURE = re.compile(rb"/Subtype\s{0,4}/Image|/Length1\b|/FontFile")


def pdf_streams(content: bytes) -> Iterator[bytes]:
    """List the deflated streams of a PDF, but those of pictures and fonts."""
    view, position, end = memoryview(content), 0, 0
    for _ in range(STREAMS_LIMIT):
        position = content.find(b"stream", position) + len(b"stream")
        if end < position:
            end = content.find(b"endstream", position)
        if position < len(b"stream") or end < 0:
            return
        kind = content[max(0, position - 400) : position]
        kind = kind[kind.rfind(b"obj") + 1 :]
        start = position + (content[position : position + 2] == b"\r\n") + 1
        if kind.endswith(b"endstream") or b"Flate" not in kind or _PICTURE.search(kind):
            continue
        if inner := inflated(view[start:end]):
            yield inner


def png_texts(content: bytes) -> Iterator[bytes]:
    """List the compressed texts of a PNG (zTXt and iTXt)."""
    position = len(PNG)
    for _ in range(STREAMS_LIMIT):
        length, kind = int.from_bytes(content[position : position + 4], "big"), content[position + 4 : position + 8]
        data = content[position + 8 : position + 8 + length]
        if kind == b"zTXt":
            yield inflated(data.partition(b"\0")[2][1:])
        elif kind == b"iTXt" and data.partition(b"\0")[2][:1] == b"\1":
            yield inflated(data.partition(b"\0")[2][2:].split(b"\0", 2)[-1])
        position += length + 12
        if not length and kind in (b"IEND", b""):
            return


def inflated(stream: bytes | memoryview) -> bytes:
    """Decompress a zlib stream to `STREAM_LIMIT` bytes at most; b"" where it is none."""
    try:
        return zlib.decompressobj().decompress(stream, STREAM_LIMIT)
    except zlib.error:
        return b""
