"""Objects from a node, or from where it says that they are, as they come and verified."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import httpx

from ashat.client.elsewhere import Elsewhere, Feed, Part, Tell
from ashat.client.http import Transport, up_to
from ashat.client.pace import Pace
from ashat.errors import IntegrityError, NodeRefusedError
from ashat.protocol.compression import ZSTD, Decompressor
from ashat.protocol.frames import FrameDecoder, frames_size
from ashat.protocol.messages import FOLLOWS, OBJECTS_AT, REDIRECTS_HEADER, ObjectsAt

ADDRESS_LIMIT = 16 * 1024


def fetch_part(source: Transport, part: Part, feed: Feed, tell: Tell, elsewhere: Elsewhere | None = None) -> None:
    """Fetch objects and `feed` them as frames, from `elsewhere` if `source` says so, and from itself what does not come
    from there.

    Raises:
        IntegrityError: `source` sent more than it was asked for.
        NodeError: as `Transport.request`.
    """
    if elsewhere and elsewhere.follows():
        with _asking(source, part, follow=True) as response:
            address = _address_in(source, response)
            if address is None:
                feed(counted(response, tell, part, source.name, source.pace))
                return
        left = elsewhere.move(address, part, feed, tell)
        if not left:
            return
        part = part._replace(batch=left)
    with fetching(source, part) as response:
        feed(counted(response, tell, part, source.name, source.pace))


@contextmanager
def fetching(source: Transport, part: Part) -> Iterator[httpx.Response]:
    """Ask `source` itself for objects, as frames; or for the rest of one.

    Raises:
        NodeError: as `Transport.request`.
    """
    with _asking(source, part, follow=False) as response:
        yield response


@contextmanager
def _asking(source: Transport, part: Part, *, follow: bool) -> Iterator[httpx.Response]:
    digests = [digest for digest, _ in part.batch]
    asked = {REDIRECTS_HEADER: FOLLOWS} if follow else {}
    if not part.begun:
        asked |= {"Accept-Encoding": ZSTD} if part.compress else {}
        path = f"{part.prefix}/objects/fetch"
        with source.stream("POST", path, json={"digests": digests}, headers=asked) as response:
            yield response
        return
    asked["Range"] = f"bytes={part.begun}-"
    passed = (HTTPStatus.TEMPORARY_REDIRECT,) if follow else ()
    with source.stream("GET", f"{part.prefix}/objects/{digests[0]}", passed=passed, headers=asked) as response:
        if response.status_code not in (HTTPStatus.PARTIAL_CONTENT, *passed):
            raise NodeRefusedError(f"{source.name} does not send the part that it was asked for.", server=source.name)
        yield response


def _address_in(source: Transport, response: httpx.Response) -> str | None:
    """Read where the objects are; None: they come with this answer.

    Raises:
        NodeRefusedError: it cannot be read.
    """
    if response.status_code == HTTPStatus.TEMPORARY_REDIRECT:
        return str(response.headers.get("location", ""))
    if response.headers.get("content-type", "").partition(";")[0].strip() != OBJECTS_AT:
        return None
    return source.read(ObjectsAt, up_to(response, ADDRESS_LIMIT)).address


def counted(response: httpx.Response, tell: Tell, part: Part, name: str, pace: Pace | None = None) -> Iterator[bytes]:
    """Yield the answer as it comes.

    Raises:
        IntegrityError: it is longer than what was asked for.
    """
    left = part.batch[0][1] - part.begun if part.begun else frames_size(size for _, size in part.batch)
    chunks = pace.keep(response.iter_raw()) if pace else response.iter_raw()
    if response.headers.get("content-encoding", "") == ZSTD:
        chunks = Decompressor(left).feed(chunks)
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise IntegrityError(f"{name} sent more than it was asked for.")
        tell(len(chunk))
        yield chunk


def verified(chunks: Iterator[bytes], batch: list[tuple[str, int]], name: str) -> Iterator[bytes]:
    """Pass `chunks` on only while they are the frames of `batch`, each matching its digest."""
    decoder, hashing = FrameDecoder(), hashlib.sha256()
    expected = iter(batch)
    for chunk in chunks:
        for piece in decoder.feed(chunk):
            if piece.offset == 0 and (piece.digest, piece.size) != next(expected, None):
                raise IntegrityError(f"{name} sent an object that was not asked for.", digest=piece.digest)
            hashing.update(piece.data)
            if piece.last:
                check_digest(hashing.hexdigest(), piece.digest, name)
                hashing = hashlib.sha256()
        yield chunk
    decoder.finish()


def check_digest(actual: str, digest: str, name: str) -> None:
    """Compare the digest of what came with that of what was asked for.

    Raises:
        IntegrityError: they differ.
    """
    if actual != digest:
        raise IntegrityError(f"{name} sent bytes that do not match {digest}.", digest=digest)
