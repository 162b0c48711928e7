"""One upload into a store: frames come in, verified objects are staged."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol, Self

from ashat.errors import StoreFullError
from ashat.node.store.direct_io import BufferPool
from ashat.protocol.frames import FrameDecoder, Piece


class ObjectStore(Protocol):
    """What an upload needs of a store: buffers to fill, and a place for what they hold."""

    buffers: BufferPool

    def add(self, digest: str, buffer: memoryview, size: int) -> bool:
        """Keep the object that is the first `size` bytes of `buffer`; whether it is new here."""
        ...

    def discard(self, digests: Iterable[str]) -> None:
        """Drop objects that were only staged."""
        ...


class Incoming:
    """Feed it a request's bytes as they come, from one thread at a time; use it in a `with` block.

    `received` counts the objects that came whole, `stored` those that were new, `size` the bytes of the received.
    Whatever way the block is left, the object it ends within is dropped and the whole ones stay for the next try;
    a full disk drops all that the request brought.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.received = 0
        self.size = 0
        self._store = store
        self._decoder = FrameDecoder()
        self._buffer = store.buffers.take()
        self._stored: list[str] = []
        self._feeding = threading.Lock()

    @property
    def stored(self) -> int:
        """How many objects were new."""
        return len(self._stored)

    def feed(self, chunks: Iterable[bytes]) -> None:
        """Take the next bytes of the stream; hashes and writes each object that they complete.

        Raises:
            FrameTooLargeError, IntegrityError, StoreFullError: nothing of that frame is kept.
        """
        with self._feeding:
            for chunk in chunks:
                for piece in self._decoder.feed(chunk):
                    self._take(piece)

    def finish(self) -> None:
        """Say that the stream ended.

        Raises:
            FrameError: it ended within a frame.
        """
        self._decoder.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        with self._feeding:
            self._store.buffers.give_back(self._buffer)
        if isinstance(error, StoreFullError):
            self._store.discard(self._stored)

    def _take(self, piece: Piece) -> None:
        self._buffer[piece.offset : piece.offset + len(piece.data)] = piece.data
        if not piece.last:
            return
        if self._store.add(piece.digest, self._buffer, piece.size):
            self._stored.append(piece.digest)
        self.received += 1
        self.size += piece.size
