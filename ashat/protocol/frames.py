"""Frames: how objects travel in batches (`docs/node-api.md`, "Moving bytes").

A frame is 32 bytes (the object's sha256, raw), 8 bytes (its length, big-endian), then the object's bytes. Nothing
here touches a socket or a file, and nothing holds more of an object than the caller fed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ashat.errors import FrameError, FrameTooLargeError
from ashat.protocol.messages import FRAME_HEADER, OBJECT_LIMIT

_DIGEST_BYTES = 32


class Piece(NamedTuple):
    """Some bytes of one object: `data` stands at `offset` of its `size` bytes. An empty object is one empty piece."""

    digest: str
    size: int
    offset: int
    data: memoryview

    @property
    def last(self) -> bool:
        """Whether the object ends with this piece."""
        return self.offset + len(self.data) == self.size


def frame_header(digest: str, size: int) -> bytes:
    """Make the 40 bytes that go before an object of `size` bytes."""
    return bytes.fromhex(digest) + size.to_bytes(FRAME_HEADER - _DIGEST_BYTES, "big")


def frames_size(sizes: Iterable[int]) -> int:
    """Count the bytes that objects of these sizes take as frames."""
    return sum(FRAME_HEADER + size for size in sizes)


class FrameDecoder:
    """Takes a stream of frames apart as it comes, however it is cut."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._digest = ""
        self._size = 0
        self._offset = 0

    @property
    def within(self) -> tuple[str, int]:
        """The object that the stream stands within, and how many of its bytes came; 0 between two objects."""
        return self._digest, self._offset if len(self._header) == FRAME_HEADER else 0

    def resume(self, digest: str, size: int, offset: int) -> None:
        """Begin within an object of `size` bytes: those after the first `offset` are fed next.

        Raises:
            FrameTooLargeError: it has more than 4 MiB.
        """
        self._header[:] = frame_header(digest, size)
        self._begin()
        self._offset = offset

    def feed(self, chunk: bytes | memoryview) -> Iterator[Piece]:
        """Yield the pieces of objects that `chunk` holds, as views of it. Exhaust it before feeding more.

        Raises:
            FrameTooLargeError: a frame announces more than 4 MiB.
        """
        view = memoryview(chunk)
        while view:
            if len(self._header) < FRAME_HEADER:
                wanted = FRAME_HEADER - len(self._header)
                self._header += view[:wanted]
                view = view[wanted:]
                if len(self._header) < FRAME_HEADER:
                    return
                self._begin()
                if not view and self._size:
                    return
            data = view[: self._size - self._offset]
            view = view[len(data) :]
            offset, self._offset = self._offset, self._offset + len(data)
            if self._offset == self._size:
                self._header.clear()
            yield Piece(self._digest, self._size, offset, data)

    def finish(self) -> None:
        """Say that the stream ended.

        Raises:
            FrameError: it ended within a frame.
        """
        if self._header:
            raise FrameError("The stream of objects ends within a frame; send the missing objects again.")

    def _begin(self) -> None:
        self._digest = self._header[:_DIGEST_BYTES].hex()
        self._size = int.from_bytes(self._header[_DIGEST_BYTES:], "big")
        self._offset = 0
        if self._size > OBJECT_LIMIT:
            raise FrameTooLargeError(
                f"The frame of {self._digest} announces {self._size} bytes; an object has at most {OBJECT_LIMIT}."
            )
