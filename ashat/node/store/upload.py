"""One upload into a store: frames come in, verified objects are staged."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Protocol, Self

from ashat.errors import FrameTooLargeError, IntegrityError, StoreFullError
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

    def keep_beginning(self, digest: str, content: memoryview) -> None:
        """Keep the first bytes of an object for the next try, if there is room."""
        ...

    def read_beginning(self, digest: str, buffer: memoryview) -> int:
        """Read what was kept of an object into `buffer`; how many bytes that are."""
        ...

    def drop_beginning(self, digest: str) -> None:
        """Forget what was kept of an object."""
        ...


# A client sends at most 4,096; an empty object costs more time than its 40 bytes are worth.
OBJECTS_LIMIT = 16_384


class Incoming:
    """Feed it a request's bytes as they come, from one thread at a time; use it in a `with` block.

    `received` counts the objects that came whole, `stored` those that were new, `size` the bytes of the received.
    Whatever way the block is left, the whole objects stay for the next try, and so does the beginning of the one that
    it ends within; a full disk drops all that the request brought.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.received = 0
        self.size = 0
        self._store = store
        self._decoder = FrameDecoder()
        self._buffer = store.buffers.take()
        self._stored: list[str] = []
        self._resumed = ""
        self._feeding = threading.Lock()

    @property
    def stored(self) -> int:
        """How many objects were new."""
        return len(self._stored)

    def resume(self, digest: str, size: int) -> int:
        """Go on within an object of `size` bytes, of which the beginning is here: its rest is fed next.

        Returns how many bytes are here; 0, and frames are to be fed, where none are, or too many.
        """
        held = self._store.read_beginning(digest, self._buffer)
        if not 0 < held < size:
            return 0
        self._decoder.resume(digest, size, held)
        self._resumed = digest
        return held

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
            digest, held = self._decoder.within
            if held and not isinstance(error, StoreFullError):
                self._store.keep_beginning(digest, self._buffer[:held])
            self._store.buffers.give_back(self._buffer)
        if isinstance(error, StoreFullError):
            self._store.discard(self._stored)

    def _take(self, piece: Piece) -> None:
        if self.received >= OBJECTS_LIMIT:
            raise FrameTooLargeError(f"The stream has more than {OBJECTS_LIMIT} objects; send them in several.")
        self._buffer[piece.offset : piece.offset + len(piece.data)] = piece.data
        if not piece.last:
            return
        try:
            new = self._store.add(piece.digest, self._buffer, piece.size)
        except IntegrityError:
            if piece.digest == self._resumed:  # the beginning may have been the wrong part
                self._store.drop_beginning(piece.digest)
            raise
        if new:
            self._stored.append(piece.digest)
        self.received += 1
        self.size += piece.size
