"""Moving bundles between a source, nodes and stores. To resume any of it is to call it again."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx

from ashat.bundle.manifest import Manifest
from ashat.bundle.pack import Packed, changed
from ashat.client.http import Transport
from ashat.common.failpoints import fault_point
from ashat.errors import (
    IntegrityError,
    NodeConflictError,
    NodeRefusedError,
    ObjectsMissingError,
)
from ashat.protocol.frames import FrameDecoder, frame_header, frames_size
from ashat.protocol.messages import FRAMES, REQUEST_LIMIT

BATCH_BYTES = 16 * 1024 * 1024
BATCH_OBJECTS = 4096
CONNECTIONS = 3
# A manifest is answered when every byte is on the disk, which may be a slow one.
COMMIT_TIMEOUT = 600.0
_ASK_AT_ONCE = 20_000
_CHUNK = 256 * 1024

Progress = Callable[[int, int], None]
Batch = list[tuple[str, int]]
Tell = Callable[[int], None]
Move = Callable[[Batch, Tell], None]


class Upload(Protocol):
    """What takes a stream of frames apart and keeps its objects."""

    def feed(self, chunks: Iterable[bytes]) -> None: ...
    def finish(self) -> None: ...


class BundleStore(Protocol):
    """Where a bundle is pulled to; `ashat.node.store.store.Store` is one."""

    def missing(self, digests: Iterable[str]) -> list[str]: ...
    def receive(self) -> AbstractContextManager[Upload]: ...
    def put_manifest(self, raw: bytes, digest: str) -> object: ...


@dataclass(frozen=True)
class TransferReport:
    """What a transfer did: `bytes_total` of the bundle's files, `bytes_sent` of the objects that had to move."""

    bundle: str
    files: int
    bytes_total: int
    bytes_sent: int
    objects_sent: int
    seconds: float


def missing(transport: Transport, digests: Iterable[str]) -> list[str]:
    """List those of `digests` that the node does not hold, in order.

    Raises:
        NodeError: as `Transport.request`.
    """
    asked = list(dict.fromkeys(digests))
    found: list[str] = []
    for start in range(0, len(asked), _ASK_AT_ONCE):
        some = asked[start : start + _ASK_AT_ONCE]
        answer = transport.json("POST", "/v1/objects/missing", json={"digests": some}).get("missing")
        if not isinstance(answer, list) or not set(some).issuperset(answer):
            raise NodeRefusedError(f"{transport.name} answers, but not as an ASHAT node does.", server=transport.name)
        found += answer
    return found


def push_bundle(
    transport: Transport, packed: Packed, *, progress: Progress | None = None, connections: int = CONNECTIONS
) -> TransferReport:
    """Send what the node lacks of a bundle, then its manifest. On return every byte is durable there.

    `progress` is called, from several threads, with the bytes sent so far and to be sent in all.

    Raises:
        SourceChangedError: a file is not what was packed.
        NodeError: as `Transport.request`; what was sent whole is kept there, so calling again goes on from there.
    """

    def send(batch: Batch, tell: Tell) -> None:
        try:
            _post_frames(transport, batch, _packed_frames(packed, batch, tell))
        except NodeRefusedError as error:
            if error.body.get("error") == "digest_mismatch" and error.body.get("digest") in packed.manifest.objects:
                raise changed(packed.path_of(str(error.body["digest"]))) from error
            raise

    return _fill_node(transport, packed.manifest, send, progress, connections)


def relay_bundle(
    source: Transport,
    target: Transport,
    digest: str,
    *,
    progress: Progress | None = None,
    connections: int = CONNECTIONS,
) -> TransferReport:
    """Copy a bundle from one node to another through this process, which holds a chunk at a time and verifies it.

    Raises:
        IntegrityError: the source sent other bytes than the bundle names.
        NodeError: as `Transport.request`, of either.
    """

    def send(batch: Batch, tell: Tell) -> None:
        with fetching(source, batch, "/v1") as response:
            _post_frames(target, batch, verified(_counted(response, tell, batch, source.name), batch, source.name))

    return _fill_node(target, fetch_manifest(source, digest), send, progress, connections)


def pull_bundle(
    transport: Transport,
    digest: str,
    store: BundleStore,
    *,
    prefix: str = "/v1",
    progress: Progress | None = None,
    connections: int = CONNECTIONS,
) -> TransferReport:
    """Fetch what `store` lacks of a bundle, then put its manifest: on return it is durable here.

    `prefix` is `/v1/mainframe` for a Mainframe that asks OMEGA.

    Raises:
        IntegrityError: the node sent other bytes than the bundle names; none of them are kept.
        StoreError: the store cannot take it, such as StoreFullError.
        NodeError: as `Transport.request`; what came whole is kept, so calling again goes on from there.
    """
    manifest = fetch_manifest(transport, digest, prefix=prefix)

    def fetch(batch: Batch, tell: Tell) -> None:
        with store.receive() as incoming, fetching(transport, batch, prefix) as response:
            incoming.feed(_counted(response, tell, batch, transport.name))
            incoming.finish()

    def commit() -> None:
        store.put_manifest(manifest.canonical, digest)

    return _fill(manifest, store.missing, fetch, commit, progress, connections)


def fetch_manifest(transport: Transport, digest: str, *, prefix: str = "/v1") -> Manifest:
    """Fetch a bundle's manifest, verified against its digest.

    Raises:
        IntegrityError: the node sent another manifest.
        ManifestError: it breaks a bundle rule.
        NodeError: as `Transport.request`.
    """
    raw = transport.request("GET", f"{prefix}/bundles/{digest}", limit=REQUEST_LIMIT).content
    if hashlib.sha256(raw).hexdigest() != digest:
        raise IntegrityError(f"{transport.name} sent another manifest than {digest}.", digest=digest)
    return Manifest.parse(raw)


def fetch_objects(transport: Transport, digests: Iterable[str], *, prefix: str = "/v1") -> Iterator[tuple[str, bytes]]:
    """Fetch objects by their digests, in order, each verified.

    Raises:
        IntegrityError: the node sent other bytes, another object, or not all of them.
        NodeError: as `Transport.request`.
    """
    asked = list(digests)
    expected = iter(asked)
    with transport.stream("POST", f"{prefix}/objects/fetch", json={"digests": asked}) as response:
        decoder, content = FrameDecoder(), bytearray()
        for chunk in response.iter_raw():
            for piece in decoder.feed(chunk):
                if piece.offset == 0 and piece.digest != next(expected, None):
                    raise IntegrityError(
                        f"{transport.name} sent an object that was not asked for.", digest=piece.digest
                    )
                content += piece.data
                if piece.last:
                    _check(hashlib.sha256(content).hexdigest(), piece.digest, transport.name)
                    yield piece.digest, bytes(content)
                    content.clear()
        decoder.finish()
    absent = next(expected, None)
    if absent is not None:
        raise IntegrityError(f"{transport.name} did not send {absent}, which was asked for.", digest=absent)


def _fill_node(
    target: Transport, manifest: Manifest, send: Move, progress: Progress | None, connections: int
) -> TransferReport:
    def commit() -> None:
        fault_point("push.objects-sent")
        target.request(
            "PUT",
            f"/v1/bundles/{manifest.digest}",
            content=manifest.canonical,
            headers={"Content-Type": "application/json"},
            timeout=COMMIT_TIMEOUT,
        )

    return _fill(manifest, lambda digests: missing(target, digests), send, commit, progress, connections)


def _fill(
    manifest: Manifest,
    lacking: Callable[[Iterable[str]], list[str]],
    move: Move,
    commit: Callable[[], None],
    progress: Progress | None,
    connections: int,
) -> TransferReport:
    """Move what is lacking until the manifest is taken: an object may have been dropped since it was asked about."""
    started = time.monotonic()
    sizes = manifest.objects
    moved: list[int] = []
    for last in (False, False, True):
        objects = [(digest, sizes[digest]) for digest in lacking(sizes)]
        moved += [size for _, size in objects]
        _in_batches(objects, move, progress, connections)
        try:
            commit()
            break
        except (ObjectsMissingError, NodeConflictError) as error:
            if last or (isinstance(error, NodeConflictError) and error.body.get("error") != "objects_missing"):
                raise
    return TransferReport(
        bundle=manifest.digest,
        files=len(manifest.files),
        bytes_total=manifest.size,
        bytes_sent=sum(moved),
        objects_sent=len(moved),
        seconds=time.monotonic() - started,
    )


def _in_batches(objects: Batch, move: Move, progress: Progress | None, connections: int) -> None:
    """`move` all objects, in batches, over several connections; the first failure, or Ctrl-C, stops them all."""
    total = sum(size for _, size in objects)
    waiting = list(_batches(objects))
    waiting.reverse()
    lock = threading.Lock()
    stop = threading.Event()
    failures: list[BaseException] = []
    done = 0

    def tell(size: int) -> None:
        nonlocal done
        if stop.is_set():
            raise _StoppedError
        with lock:
            done += size
            if progress:
                progress(min(done, total), total)

    def work() -> None:
        while not stop.is_set():
            with lock:
                if not waiting:
                    return
                batch = waiting.pop()
            try:
                move(batch, tell)
            except BaseException as error:  # noqa: BLE001  # raised below, where the caller is
                failures.append(error)
                stop.set()

    with ThreadPoolExecutor(max_workers=connections) as threads:
        try:
            wait([threads.submit(work) for _ in range(connections)])
        finally:
            stop.set()
    if failures:
        raise failures[0]


class _StoppedError(Exception):
    """Another connection failed first."""


def _batches(objects: Batch) -> Iterator[Batch]:
    batch: Batch = []
    held = 0
    for digest, size in objects:
        if batch and (held + size > BATCH_BYTES or len(batch) >= BATCH_OBJECTS):
            yield batch
            batch, held = [], 0
        batch.append((digest, size))
        held += size
    if batch:
        yield batch


def _post_frames(target: Transport, batch: Batch, frames: Iterator[bytes]) -> None:
    length = frames_size(size for _, size in batch)
    target.request(
        "POST", "/v1/objects", content=frames, headers={"Content-Type": FRAMES, "Content-Length": str(length)}
    )


def _packed_frames(packed: Packed, batch: Batch, tell: Tell) -> Iterator[bytes]:
    """The batch as frames, small objects together in chunks of about 256 KiB."""
    pending: list[bytes] = []
    held = 0
    for digest, size in batch:
        pending.append(frame_header(digest, size))
        for chunk in packed.stream_object(digest, _CHUNK):
            if len(chunk) == _CHUNK:
                yield b"".join(pending)
                yield chunk
                tell(held + len(chunk))
                pending, held = [], 0
                continue
            pending.append(chunk)
            held += len(chunk)
            if held >= _CHUNK:
                yield b"".join(pending)
                tell(held)
                pending, held = [], 0
    if pending:
        yield b"".join(pending)
        tell(held)


@contextmanager
def fetching(source: Transport, batch: Batch, prefix: str) -> Iterator[httpx.Response]:
    """Ask `source` for the objects of `batch`."""
    digests = [digest for digest, _ in batch]
    with source.stream("POST", f"{prefix}/objects/fetch", json={"digests": digests}) as response:
        yield response


def _counted(response: httpx.Response, tell: Tell, batch: Batch, name: str) -> Iterator[bytes]:
    """The answer as it comes, as long as it is not longer than what was asked for."""
    left = frames_size(size for _, size in batch)
    for chunk in response.iter_raw():
        left -= len(chunk)
        if left < 0:
            raise IntegrityError(f"{name} sent more than it was asked for.")
        tell(len(chunk))
        yield chunk


def verified(chunks: Iterator[bytes], batch: Batch, name: str) -> Iterator[bytes]:
    """Pass `chunks` on only while they are the frames of `batch`, each matching its digest."""
    decoder, hashing = FrameDecoder(), hashlib.sha256()
    expected = iter(batch)
    for chunk in chunks:
        for piece in decoder.feed(chunk):
            if piece.offset == 0 and (piece.digest, piece.size) != next(expected, None):
                raise IntegrityError(f"{name} sent an object that was not asked for.", digest=piece.digest)
            hashing.update(piece.data)
            if piece.last:
                _check(hashing.hexdigest(), piece.digest, name)
                hashing = hashlib.sha256()
        yield chunk
    decoder.finish()


def _check(actual: str, digest: str, name: str) -> None:
    if actual != digest:
        raise IntegrityError(f"{name} sent bytes that do not match {digest}.", digest=digest)
