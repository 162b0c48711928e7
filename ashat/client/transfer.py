"""Moving bundles between a source, nodes and stores. To resume any of it is to call it again."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol, TypeVar

from ashat.bundle.manifest import MANIFEST_LIMIT, Manifest
from ashat.bundle.pack import Packed, changed
from ashat.bundle.parsed import ParsedManifests
from ashat.client.elsewhere import Batch, Elsewhere, Part, Tell
from ashat.client.fetching import check_digest, counted, fetch_part, fetching, verified
from ashat.client.http import Transport
from ashat.client.line import Line
from ashat.common.failpoints import fault_point
from ashat.errors import (
    BodyTooLargeError,
    IntegrityError,
    NodeConflictError,
    NodeRefusedError,
    NodeUnreachableError,
    ObjectsMissingError,
)
from ashat.protocol.compression import ZSTD, compressed, pays
from ashat.protocol.frames import FrameDecoder, frame_header, frames_size
from ashat.protocol.messages import FRAMES, OBJECT_LIMIT, RoomRequest

BATCH_BYTES = 16 * 1024 * 1024
BATCH_OBJECTS = 4096
# A manifest is answered when every byte is on the disk, which may be a slow one.
COMMIT_TIMEOUT = 600.0
_ASK_AT_ONCE = 20_000
_REFUSALS = 2
_CHUNK = 256 * 1024

# How long to wait, in seconds, before each try to go on with a transfer that was cut, as long as it gets on.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
# How often in a row it may be cut before anything more is there: a cut loses what still lies in sockets.
_IN_VAIN = 3
_SMALLEST_BATCH = 256 * 1024
_PARSED = ParsedManifests()

Progress = Callable[[int, int], None]
RequireRoom = Callable[[RoomRequest], None]
# Moves the objects of a batch; or the rest of its one object, where so many of its bytes moved before.
Move = Callable[[Batch, int, Tell], None]
_Asked = TypeVar("_Asked")


@dataclass(frozen=True)
class Lack:
    """The objects that a receiver lacks, in order, and how many bytes it has of those that were cut."""

    digests: list[str]
    begun: dict[str, int]
    encodings: set[str] = field(default_factory=set, compare=False)


class Upload(Protocol):
    """What takes a stream of frames apart and keeps its objects."""

    def resume(self, digest: str, size: int) -> int: ...
    def feed(self, chunks: Iterable[bytes]) -> None: ...
    def finish(self) -> None: ...


class BundleStore(Protocol):
    """Where a bundle is pulled to; `ashat.node.store.store.Store` is one."""

    def missing(self, digests: Iterable[str]) -> list[str]: ...
    def beginnings(self, digests: Iterable[str]) -> dict[str, int]: ...
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
    """List those of `digests` that the node does not hold, in order; raises as `lacking`."""
    return lacking(transport, digests).digests


def lacking(transport: Transport, digests: Iterable[str], bundle: str | None = None) -> Lack:
    """Ask what the node does not hold of `digests`, which are to be sent for `bundle`.

    Raises:
        NodeError: as `Transport.request`.
    """
    asked = list(dict.fromkeys(digests))
    found = Lack([], {})
    for start in range(0, len(asked), _ASK_AT_ONCE):
        some = asked[start : start + _ASK_AT_ONCE]
        answer = transport.json("POST", "/v1/objects/missing", json={"digests": some, "bundle": bundle})
        absent, begun = answer.get("missing"), answer.get("begun", {})
        if not isinstance(absent, list) or not set(some).issuperset(absent) or not _are_sizes(begun, absent):
            raise NodeRefusedError(f"{transport.name} answers, but not as an ASHAT node does.", server=transport.name)
        found.digests.extend(absent)
        found.begun.update(begun)
        if ZSTD in (answer.get("encodings") or ()):
            found.encodings.add(ZSTD)
    return found


def push_bundle(
    transport: Transport, packed: Packed, *, progress: Progress | None = None, connections: int | None = None
) -> TransferReport:
    """Send what the node lacks of a bundle, then its manifest. On return every byte is durable there.

    `progress` is called, from several threads, with the bytes sent so far and to be sent in all.

    Raises:
        SourceChangedError: a file is not what was packed.
        NodeError: as `Transport.request`; what was sent whole is kept there, so calling again goes on from there.
    """

    def send(batch: Batch, begun: int, tell: Tell) -> None:
        if begun:
            return _put_rest(transport, batch, begun, _rest(packed, batch, begun, tell))
        try:
            return _post_frames(transport, batch, _packed_frames(packed, batch, tell), line)
        except NodeRefusedError as error:
            if error.body.get("error") == "digest_mismatch" and error.body.get("digest") in packed.manifest.objects:
                raise changed(packed.path_of(str(error.body["digest"]))) from error
            raise

    line = Line(transport, connections=connections)
    return _fill_node(transport, packed.manifest, send, progress, line)


def relay_bundle(
    source: Transport,
    target: Transport,
    digest: str,
    *,
    progress: Progress | None = None,
    connections: int | None = None,
) -> TransferReport:
    """Copy a bundle from one node to another through this process, which holds a chunk at a time and verifies it.

    Raises:
        IntegrityError: the source sent other bytes than the bundle names.
        NodeError: as `Transport.request`, of either.
    """

    def send(batch: Batch, begun: int, tell: Tell) -> None:
        part = Part(batch, begun=begun, compress=line.compresses)
        with fetching(source, part) as response:
            chunks = counted(response, tell, part, source.name)
            if begun:
                _put_rest(target, batch, begun, chunks)
            else:
                _post_frames(target, batch, verified(chunks, batch, source.name), line)

    line = Line(source, target, connections=connections)
    return _fill_node(target, fetch_manifest(source, digest), send, progress, line)


def pull_bundle(
    transport: Transport,
    digest: str,
    store: BundleStore,
    *,
    prefix: str = "/v1",
    progress: Progress | None = None,
    elsewhere: Elsewhere | None = None,
    room: RequireRoom = lambda _: None,
) -> TransferReport:
    """Fetch what `store` lacks of a bundle, then put its manifest: on return it is durable here.

    `prefix` is `/v1/mainframe` for a Mainframe that asks OMEGA, and that goes `elsewhere` for objects if OMEGA says so.
    `room` is called with what is needed before the first byte, and raises where there is none. It comes no faster than
    the transport's `pace`, counted as it is on the wire.

    Raises:
        IntegrityError: the node sent other bytes than the bundle names; none of them are kept.
        StoreError: the store cannot take it, such as StoreFullError.
        NodeError: as `Transport.request`; what came whole is kept, so calling again goes on from there.
    """
    manifest = fetch_manifest(transport, digest, prefix=prefix)
    if transport.pace:
        transport.pace.spend(len(manifest.canonical))

    def ask(digests: Iterable[str]) -> Lack:
        absent = store.missing(digests)
        return Lack(absent, store.beginnings(absent))

    def fetch(batch: Batch, begun: int, tell: Tell) -> None:
        with store.receive() as incoming:
            begun = incoming.resume(*batch[0]) if begun else 0
            try:
                fetch_part(transport, Part(batch, prefix, begun, line.compresses), incoming.feed, tell, elsewhere)
                incoming.finish()
            except IntegrityError:
                if not begun:
                    raise  # else the store has forgotten the beginning, and is asked again what is missing

    def commit() -> None:
        store.put_manifest(manifest.canonical, digest)

    line = Line(transport)
    return _fill(manifest, ask, room, fetch, commit, progress, line)


def fetch_manifest(transport: Transport, digest: str, *, prefix: str = "/v1") -> Manifest:
    """Fetch a bundle's manifest, verified against its digest.

    Raises:
        IntegrityError: the node sent another manifest.
        ManifestError: it breaks a bundle rule.
        NodeError: as `Transport.request`.
    """
    raw = transport.request("GET", f"{prefix}/bundles/{digest}", limit=MANIFEST_LIMIT).content
    if hashlib.sha256(raw).hexdigest() != digest:
        raise IntegrityError(f"{transport.name} sent another manifest than {digest}.", digest=digest)
    return _PARSED.parse(raw, digest)


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
                    check_digest(hashlib.sha256(content).hexdigest(), piece.digest, transport.name)
                    yield piece.digest, bytes(content)
                    content.clear()
        decoder.finish()
    absent = next(expected, None)
    if absent is not None:
        raise IntegrityError(f"{transport.name} did not send {absent}, which was asked for.", digest=absent)


def _fill_node(
    target: Transport, manifest: Manifest, send: Move, progress: Progress | None, line: Line
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

    def room(need: RoomRequest) -> None:
        try:
            target.request("POST", "/v1/room", json=need.model_dump())
        except NodeRefusedError as error:
            if error.status not in (404, 405):  # as a node of before answers
                raise

    def ask(digests: Iterable[str]) -> Lack:
        found = lacking(target, digests, manifest.digest)
        line.decompresses = ZSTD in found.encodings
        return found

    return _fill(manifest, ask, room, send, commit, progress, line)


def _fill(
    manifest: Manifest,
    ask: Callable[[Iterable[str]], Lack],
    room: RequireRoom,
    move: Move,
    commit: Callable[[], None],
    progress: Progress | None,
    line: Line,
) -> TransferReport:
    """Move what is lacking until the manifest is taken: an object may have been dropped since it was asked about.

    A transfer that is cut goes on where it was, however often, as long as more is there by and by.
    """
    started = time.monotonic()
    sizes = manifest.objects
    moved: dict[str, int] = {}
    refusals, in_vain, lack = 0, 0, ask(sizes)
    if lack.digests:
        room(room_for(manifest, lack.digests))
    total = least = _left(lack, sizes)
    tell = _tell_all(progress, total)
    while True:
        moved |= {digest: sizes[digest] for digest in lack.digests}
        try:
            _in_batches(_batches(lack, sizes, line), move, tell(_left(lack, sizes)), line)
            commit()
            break
        except (ObjectsMissingError, NodeConflictError) as error:
            refusals += 1
            if refusals > _REFUSALS or (
                isinstance(error, NodeConflictError) and error.body.get("error") != "objects_missing"
            ):
                raise
            lack = ask(sizes)
        except NodeUnreachableError as error:
            lack = _ask_again(lambda: ask(sizes), error, tell(least))
            left = _left(lack, sizes)
            in_vain = in_vain + 1 if left >= least else 0
            if in_vain > _IN_VAIN:
                raise
            least = min(left, least)
    return TransferReport(
        bundle=manifest.digest,
        files=len(manifest.files),
        bytes_total=manifest.size,
        bytes_sent=sum(moved.values()),
        objects_sent=len(moved),
        seconds=time.monotonic() - started,
    )


def room_for(manifest: Manifest, digests: list[str]) -> RoomRequest:
    """Count what the bundle takes of a disk where its objects `digests` are lacking."""
    sizes = manifest.objects
    return RoomRequest(
        bundle=manifest.digest,
        objects=len(digests),
        bytes=sum(sizes[digest] for digest in digests),
        files=len(manifest.files) + len(manifest.links),
        directories=len(manifest.folders),
        size=manifest.size,
    )


def _tell_all(progress: Progress | None, total: int) -> Callable[[int], Tell]:
    """Make, of how many bytes of `total` are left when a part of a transfer begins, what is told how many moved."""

    def of(left: int) -> Tell:
        def tell(moved: int) -> None:
            if progress:
                progress(min(total - left + moved, total), total)

        return tell

    return of


def _ask_again(ask: Callable[[], _Asked], cut: NodeUnreachableError, tell: Tell) -> _Asked:
    """Ask until there is an answer, after a longer pause each time; in the end `cut` is raised."""
    for pause in PAUSES if cut.transient else ():
        tell(0)  # whoever stops the transfer raises there
        time.sleep(pause)
        with suppress(NodeUnreachableError):
            return ask()
    raise cut


def _left(lack: Lack, sizes: Mapping[str, int]) -> int:
    return sum(sizes[digest] for digest in lack.digests) - sum(lack.begun.values())


def _in_batches(batches: list[tuple[Batch, int]], move: Move, moved: Tell, line: Line) -> None:
    """`move` all batches over several connections; the first failure, or Ctrl-C, stops them all.

    Where a proxy takes no request of a batch's size, its halves are moved instead.
    """
    waiting = batches[::-1]
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
            moved(done)

    def work() -> None:
        while not stop.is_set():
            with lock:
                if not waiting:
                    return
                batch, begun = waiting.pop()
            began = time.monotonic()
            try:
                move(batch, begun, tell)
                line.saw(sum(size for _, size in batch) - begun, time.monotonic() - began)
            except BodyTooLargeError as error:
                with lock:
                    waiting.extend(_halves(batch))
                if len(batch) == 1:
                    failures.append(error)
                    stop.set()
            except BaseException as error:  # noqa: BLE001  # raised below, where the caller is
                failures.append(error)
                stop.set()

    with ThreadPoolExecutor(max_workers=line.connections) as threads:
        try:
            wait([threads.submit(work) for _ in range(line.connections)])
        finally:
            stop.set()
    if failures:
        raise failures[0]


def _halves(batch: Batch) -> list[tuple[Batch, int]]:
    middle = len(batch) // 2
    return [(half, 0) for half in (batch[middle:], batch[:middle]) if half]


class _StoppedError(Exception):
    """Another connection failed first."""


def _batches(lack: Lack, sizes: Mapping[str, int], line: Line) -> list[tuple[Batch, int]]:
    """What to move at once: each object that was begun by itself, then the others, enough for every connection; the
    first of them are small, to see how fast the line is."""
    found = [([(digest, sizes[digest])], begun) for digest, begun in lack.begun.items() if begun < sizes[digest]]
    rest = [digest for digest in lack.digests if digest not in lack.begun]
    most = max(min(sum(sizes[digest] for digest in rest) // line.connections, BATCH_BYTES), _SMALLEST_BATCH)
    batch: Batch = []
    held = 0
    for digest in rest:
        limit = most if len(found) >= line.connections else _SMALLEST_BATCH
        if batch and (held + sizes[digest] > limit or len(batch) >= BATCH_OBJECTS):
            found.append((batch, 0))
            batch, held = [], 0
        batch.append((digest, sizes[digest]))
        held += sizes[digest]
    return [*found, (batch, 0)] if batch else found


def _are_sizes(begun: object, absent: list[str]) -> bool:
    return isinstance(begun, dict) and all(
        digest in absent and isinstance(size, int) and 0 < size < OBJECT_LIMIT for digest, size in begun.items()
    )


def _put_rest(target: Transport, batch: Batch, begun: int, rest: Iterator[bytes]) -> None:
    """Send the rest of an object. Where the target's beginning turns out not to be one, it has forgotten it, and is
    asked again what is missing."""
    ((digest, size),) = batch
    headers = {"Content-Range": f"bytes {begun}-{size - 1}/{size}", "Content-Length": str(size - begun)}
    try:
        target.request("PUT", f"/v1/objects/{digest}", content=rest, headers=headers)
    except (NodeConflictError, NodeRefusedError) as error:
        if error.body.get("error") not in ("wrong_offset", "digest_mismatch"):
            raise


def _rest(packed: Packed, batch: Batch, begun: int, tell: Tell) -> Iterator[bytes]:
    """The bytes of the batch's object after the first `begun`."""
    skip = begun
    for chunk in packed.stream_object(batch[0][0], _CHUNK):
        rest, skip = chunk[skip:], max(skip - len(chunk), 0)
        if rest:
            yield rest
            tell(len(rest))


def _post_frames(target: Transport, batch: Batch, frames: Iterator[bytes], line: Line) -> None:
    headers = {"Content-Type": FRAMES}
    if line.compresses and line.decompresses:
        first = next(frames)
        frames = chain([first], frames)
        if pays(first):
            headers["Content-Encoding"] = ZSTD
            target.request("POST", "/v1/objects", content=compressed(frames), headers=headers)
            return
    headers["Content-Length"] = str(frames_size(size for _, size in batch))
    target.request("POST", "/v1/objects", content=frames, headers=headers)


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
