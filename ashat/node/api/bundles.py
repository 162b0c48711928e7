"""The calls of `docs/node-api.md`, "Moving bytes": thin routes around the store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import ClientDisconnect

from ashat.errors import IntegrityError
from ashat.node.api.declared import BYTES, DOCUMENT, OBJECT, OBJECTS, refused
from ashat.node.core.errors import ApiError
from ashat.node.store.room import Room
from ashat.node.store.store import Store
from ashat.node.store.upload import Incoming
from ashat.protocol.compression import ZSTD, Decompressor, accepts_zstd, compressed, pays
from ashat.protocol.frames import frame_header, frames_size
from ashat.protocol.messages import FRAMES, OBJECT_LIMIT, REQUEST_LIMIT, Digest, Message, RoomRequest, Scope

Require = Callable[[Scope], Callable[..., Any]]
Decode = Callable[[Iterable[bytes]], Iterable[bytes]]

STALL_SECONDS = 60.0
_RECEIVE_BATCH = 2 * 1024 * 1024
_SEND_CHUNK = 1024 * 1024
_READ_AHEAD = 8
_UPLOADS = 8
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,7})-([0-9]{1,7})/([0-9]{1,7})")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class _ObjectName(StringConvertor):
    """The digest of an object in an address, where two calls have names of their own."""

    regex = "(?!(?:missing|fetch)$)[^/]+"


register_url_convertor("object", _ObjectName())


class DigestList(Message):
    """The objects that a call is about, and the bundle that they are to be sent for."""

    digests: Annotated[list[Digest], Field(max_length=200_000)]
    bundle: Digest | None = None


class MissingObjects(Message):
    """Those of the objects asked that are not here, in order; of which of them a beginning is, of so many bytes; and
    how a request with objects may be encoded."""

    missing: list[Digest]
    begun: dict[Digest, int] = Field(default_factory=dict)
    encodings: list[str] = Field(default_factory=lambda: [ZSTD])


class Received(Message):
    """What came of an upload: objects that came, that were new, and bytes of the first."""

    received: int
    stored: int
    bytes: int


class StoredBundle(Message):
    """A bundle that is durable here."""

    bundle: Digest
    files: int
    bytes: int


def transfer_router(store: Store, room: Room, require: Require) -> APIRouter:
    """Make the routes; `require(scope)` is the dependency that refuses who may not."""
    router = APIRouter(prefix="/v1", tags=["Moving bytes"])
    push, read = [Depends(require(Scope.PUSH))], [Depends(require(Scope.READ))]
    uploads = _Uploads()
    _add_room(router, store, room, push)
    _add_bundles(router, store, push, read)

    @router.post("/objects/missing", dependencies=push)
    def missing(asked: DigestList) -> MissingObjects:
        """Which of these objects would have to be sent."""
        if asked.bundle:
            store.claim(asked.bundle, asked.digests)
        lacking = store.missing(asked.digests)
        return MissingObjects.model_construct(missing=lacking, begun=store.beginnings(lacking))

    @router.post("/objects", dependencies=push, responses=refused(415), openapi_extra=_body(FRAMES))
    async def receive(request: Request) -> Received:
        """Objects, as frames."""
        _check_type(request)
        async with uploads.one():
            return await receive_objects(store, request)

    @router.put(
        "/objects/{digest:object}", dependencies=push, responses=refused(409), openapi_extra=_body(BYTES) | _REST
    )
    async def rest(digest: Digest, request: Request) -> Received:
        """The rest of an object whose beginning is here; `Content-Range` says from where on."""
        first, size = _content_range(request)
        async with uploads.one():
            return await receive_objects(store, request, rest_of=(digest, size, first))

    @router.post("/objects/fetch", dependencies=read, response_class=StreamingResponse, responses=OBJECTS)
    async def fetch(asked: DigestList, request: Request) -> Response:
        """The objects asked for, as frames, in order."""
        return await objects_response(store, asked.digests, request)

    @router.get("/objects/{digest:object}", dependencies=read, response_class=Response, responses=OBJECT)
    def one_object(digest: Digest, request: Request) -> Response:
        """One object's bytes."""
        return object_response(store, digest, request)

    return router


def _add_bundles(router: APIRouter, store: Store, push: list[Any], read: list[Any]) -> None:
    @router.put(
        "/bundles/{digest}",
        dependencies=push,
        status_code=201,
        responses={200: {"model": StoredBundle, "description": "It was here"}, **refused(409)},
        openapi_extra=_body("application/json"),
    )
    async def put_bundle(digest: Digest, request: Request, response: Response) -> StoredBundle:
        """Keep a bundle, whose objects are all here; when this answers it is durable."""
        raw = await _whole_body(request)
        manifest, new = await asyncio.to_thread(store.put_manifest, raw, digest)
        response.status_code = 201 if new else 200
        return StoredBundle(bundle=digest, files=len(manifest.files), bytes=manifest.size)

    @router.get("/bundles/{digest}", dependencies=read, response_class=Response, responses=DOCUMENT)
    def bundle(digest: Digest, request: Request) -> Response:
        """A bundle's manifest."""
        return manifest_response(store, digest, request)


def _add_room(router: APIRouter, store: Store, room: Room, push: list[Any]) -> None:
    @router.post("/room", dependencies=push, status_code=204)
    def look_for_room(need: RoomRequest) -> None:
        """Whether there is room for what a bundle lacks and for its release."""
        room.require(need)

    @router.delete("/staging/{bundle}", dependencies=push, status_code=204)
    def abandon(bundle: Digest) -> None:
        """Drop what came for a bundle that is not sent any more."""
        store.abandon(bundle)


async def receive_objects(store: Store, request: Request, rest_of: tuple[str, int, int] | None = None) -> Received:
    """Take the frames of `request` into `store`; with `rest_of` (digest, size, offset), the rest of that object.

    What came before a cut or a refusal stays, of the last object its beginning.

    Raises:
        ApiError: another number of bytes is here than `rest_of` says.
    """
    decompressor = _decompressor(request)
    with store.receive() as incoming:
        if rest_of is not None:
            digest, size, offset = rest_of
            held = await asyncio.to_thread(incoming.resume, digest, size)
            if held != offset:
                raise ApiError(409, "wrong_offset", f"{held} bytes of {digest} are here, not {offset}.", begun=held)
        feeder = _Feeder(incoming, decompressor.feed if decompressor else None)
        try:
            async for chunk in _stream(request):
                await feeder.add(chunk)
            await feeder.finish()
        except (ClientDisconnect, TimeoutError):
            await feeder.finish()
            raise ApiError(400, "bad_request", "The upload was cut; ask which objects are missing.") from None
        finally:
            await feeder.settle()
        if decompressor:
            decompressor.finish()
        incoming.finish()
        return Received(received=incoming.received, stored=incoming.stored, bytes=incoming.size)


async def objects_response(store: Store, digests: list[str], request: Request) -> Response:
    """Answer with objects as frames, in order, compressed where that is asked for and pays; 404 names the first that is
    not here, before any byte is sent."""
    sizes = await asyncio.to_thread(lambda: [store.size(digest) for digest in digests])
    chunks = _chunks(store, digests)
    if accepts_zstd(request.headers.get("accept-encoding", "")):
        first = await asyncio.to_thread(next, chunks, b"")
        chunks = chain([first], chunks)
        if await asyncio.to_thread(pays, first):
            encoding = {"Content-Encoding": ZSTD}
            return StreamingResponse(_in_threads(compressed(chunks)), media_type=FRAMES, headers=encoding)
    length = {"Content-Length": str(frames_size(sizes))}
    return StreamingResponse(_in_threads(chunks), media_type=FRAMES, headers=length)


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what is read in a thread.

    Raises:
        NotStoredError, IntegrityError: an object went away or was damaged since it was asked for; the caller can
            only cut the connection, and the client asks again.
    """
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk


def object_response(store: Store, digest: str, request: Request) -> Response:
    """Answer with one object, or the part of it that `Range` asks for; 304 where the client has it."""
    whole = object_answer(store, digest)
    headers = _object_headers(digest)
    if _client_has(request, digest):
        return Response(status_code=304, headers=headers)
    content = whole.body
    asked = byte_range(request, digest, len(content))
    if asked is None:
        return whole
    first, last = asked
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return Response(content[first : last + 1], status_code=206, headers=headers, media_type="application/octet-stream")


def object_answer(store: Store, digest: str) -> Response:
    """Answer with one object, whole."""
    with _damage_is_ours():
        content = store.read(digest)
    return Response(content, headers=_object_headers(digest), media_type="application/octet-stream")


def _object_headers(digest: str) -> dict[str, str]:
    return {"ETag": f'"{digest}"', "Accept-Ranges": "bytes", "Cache-Control": "private, immutable"}


def manifest_response(store: Store, digest: str, request: Request) -> Response:
    """Answer with a bundle's manifest; 304 where the client has it."""
    whole = manifest_answer(store, digest)
    return Response(status_code=304, headers={"ETag": f'"{digest}"'}) if _client_has(request, digest) else whole


def manifest_answer(store: Store, digest: str) -> Response:
    """Answer with a bundle's manifest, whole."""
    with _damage_is_ours():
        raw = store.manifest_bytes(digest)
    return Response(raw, headers={"ETag": f'"{digest}"'}, media_type="application/json")


class _Feeder:
    """Feeds an upload from a thread, some 2 MB at a time, while the next bytes arrive."""

    def __init__(self, incoming: Incoming, decode: Decode | None) -> None:
        self._incoming = incoming
        self._decode = decode or (lambda chunks: chunks)
        self._batch: list[bytes] = []
        self._held = 0
        self._writing: asyncio.Task[None] | None = None

    async def add(self, chunk: bytes) -> None:
        self._batch.append(chunk)
        self._held += len(chunk)
        if self._held >= _RECEIVE_BATCH:
            await self._hand_over()

    async def finish(self) -> None:
        """Have everything hashed and written; raises what that raised."""
        await self._hand_over()
        if self._writing:
            await self._writing

    async def settle(self) -> None:
        """Wait until no thread uses the upload any more."""
        if self._writing:
            await asyncio.gather(self._writing, return_exceptions=True)

    async def _hand_over(self) -> None:
        if self._writing:
            await self._writing
        self._writing = asyncio.create_task(asyncio.to_thread(self._incoming.feed, self._decode(self._batch)))
        self._batch, self._held = [], 0


class _Uploads:
    """Bounds the memory that uploads take: each holds one object and about 4 MiB of stream."""

    def __init__(self) -> None:
        self._running = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        if self._running >= _UPLOADS:
            raise ApiError(
                503, "busy", f"{_UPLOADS} uploads run already; come back in a second.", headers={"Retry-After": "1"}
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


@contextmanager
def _damage_is_ours() -> Iterator[None]:
    """A stored object that is damaged is this server's fault, not the caller's."""
    try:
        yield
    except IntegrityError as error:
        raise ApiError(500, "internal", str(error)) from error


def _chunks(store: Store, digests: list[str]) -> Iterator[bytes]:
    pending: list[bytes | memoryview] = []
    held = 0
    store.prefetch(digests[:_READ_AHEAD])
    for index, digest in enumerate(digests):
        store.prefetch(digests[index + _READ_AHEAD : index + _READ_AHEAD + 1])
        content = memoryview(store.read(digest))
        pending.append(frame_header(digest, len(content)))
        held += len(pending[-1])
        while content:
            taken = content[: _SEND_CHUNK - held] if held < _SEND_CHUNK else content[:0]
            content = content[len(taken) :]
            pending.append(taken)
            held += len(taken)
            if held >= _SEND_CHUNK:
                yield b"".join(pending)
                pending, held = [], 0
    if pending:
        yield b"".join(pending)


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FRAMES:
        raise ApiError(400, "bad_request", f"Objects are sent as {FRAMES}, not {kind or 'without a content type'}.")


def _decompressor(request: Request) -> Decompressor | None:
    """Make what decodes the request's body, if it is encoded.

    Raises:
        ApiError: 415, it is encoded as nobody here knows.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ZSTD):
        raise ApiError(415, "bad_request", f"Objects may be encoded as {ZSTD}, or not at all.")
    return Decompressor(REQUEST_LIMIT) if encoding == ZSTD else None


async def _stream(request: Request) -> AsyncIterator[bytes]:
    """The request's body, as it comes.

    Raises:
        TimeoutError: nothing came for a minute, so that dead connections do not take up every upload there may be.
    """
    chunks = request.stream()
    while True:
        async with asyncio.timeout(STALL_SECONDS):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        yield chunk


async def _whole_body(request: Request) -> bytes:
    """The request's body, whole.

    Raises:
        ApiError: it was cut.
    """
    try:
        return b"".join([chunk async for chunk in _stream(request)])
    except (ClientDisconnect, TimeoutError):
        raise ApiError(400, "bad_request", "The document was cut; send it again.") from None


def _client_has(request: Request, digest: str) -> bool:
    """Whether the client says that it has what `digest` names (`If-None-Match`)."""
    known = request.headers.get("if-none-match", "")
    return known.strip() == "*" or f'"{digest}"' in known


def byte_range(request: Request, digest: str, size: int) -> tuple[int, int] | None:
    """Read which first and last byte of `digest` are asked for (RFC 9110, 14.2); None for all `size`, and for several
    ranges at once, which are not served.

    Raises:
        ApiError: 416 where there are no such bytes.
    """
    asked = _RANGE.fullmatch(request.headers.get("range", "").strip())
    unless = request.headers.get("if-range", "").strip()
    if not asked or asked.group() == "bytes=-" or (unless and unless != f'"{digest}"'):
        return None
    start, end = asked.groups()
    first = int(start) if start else max(size - int(end), 0)
    last = min(int(end), size - 1) if start and end else size - 1
    if first > last:
        raise ApiError(
            416, "bad_request", f"The object has {size} bytes.", headers={"Content-Range": f"bytes */{size}"}
        )
    return first, last


def _content_range(request: Request) -> tuple[int, int]:
    """The first byte that comes, and how many the object has (RFC 9110, 14.4); it comes to its end."""
    found = _CONTENT_RANGE.fullmatch(request.headers.get("content-range", "").strip())
    first, last, size = (int(number) for number in found.groups()) if found else (0, 0, 0)
    if not 0 < first <= last or last + 1 != size or size > OBJECT_LIMIT:
        raise ApiError(
            400,
            "bad_request",
            "Content-Range must be 'bytes FIRST-LAST/SIZE', from 1 or more to the object's end.",
        )
    return first, size


_REST = {
    "parameters": [
        {
            "name": "Content-Range",
            "in": "header",
            "required": True,
            "description": "From where on the object's rest comes, up to its end.",
            "schema": {"type": "string", "pattern": r"^bytes [1-9][0-9]{0,6}-[1-9][0-9]{0,6}/[1-9][0-9]{0,6}$"},
        }
    ]
}


def _body(media_type: str) -> dict[str, Any]:
    schema = {"type": "object"} if media_type == "application/json" else {"type": "string", "format": "binary"}
    return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}
