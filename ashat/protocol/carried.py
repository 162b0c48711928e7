"""A release that people carry by hand to a Mainframe: one file with what OMEGA would have answered it on the wire.

The file is one zstd frame (RFC 8878). It decompresses to `MAGIC` and then to frames (`ashat.protocol.frames`), each
some bytes under their sha256: the contents, what OMEGA says (`OmegaWord`) and the manifest, both in parts of 4 MiB, and
the objects. Nothing is believed because it stands in such a file: the digests show that it came whole, and whoever
reads it judges the signatures in it as those that come over the wire.

The way back is a `CarriedReport`, which the Mainframe authenticates by its licence key (HMAC, RFC 2104): OMEGA keeps
the sha256 of that, and nobody between the two does.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, Protocol, TypeVar

from pydantic import Field, ValidationError

from ashat.common.canonical_json import canonical_json
from ashat.common.documents import STATE_LIMIT, load_json
from ashat.common.numbers import LARGEST
from ashat.errors import CarriedFileError, DocumentError, FrameError
from ashat.protocol.compression import Decompressor, compressed
from ashat.protocol.fleet import MainframeReport
from ashat.protocol.frames import FrameDecoder, frame_header
from ashat.protocol.messages import (
    OBJECT_LIMIT,
    Count,
    Digest,
    Line,
    Message,
    Moment,
    Offer,
    SignedCheckpoint,
)

MAGIC: Final = b"ASHAT-CARRIED-1\n"
WORD_LIMIT: Final = 8 * 1024 * 1024
REPORT_LIMIT: Final = STATE_LIMIT
_READ = 256 * 1024
_HASHES = r"^([0-9a-f]{64})*$"
_Model = TypeVar("_Model", bound=Message)


class OmegaWord(Message):
    """What OMEGA says to one Mainframe, whose licence has the id `mainframe`, at `at`.

    `trust` are the files of OMEGA's TUF repository by their names there, whose timestamp ends at `expires`. `log` and
    `changes` are the hashes, in hexadecimal and one after the other, of the events of the ledger's log and of the
    entries of OMEGA's change log, from which any proof of consistency can be made; `checkpoint` is of the latter.
    `runs` is what the Mainframe last reported to run.
    """

    omega: Line
    mainframe: Line = Field(max_length=64)
    name: Line
    at: Moment
    offer: Offer
    runs: Digest | None = None
    trust: dict[str, str] = Field(default_factory=dict)
    expires: Moment | None = None
    log: str = Field(default="", pattern=_HASHES)
    changes: str = Field(default="", pattern=_HASHES)
    checkpoint: SignedCheckpoint | None = None


class Contents(Message):
    """What a file holds: so many bytes of what OMEGA says and of the manifest, and so many `objects` of so many
    `bytes`. What the bundle `left_out` has is not among them."""

    format: Literal[1] = 1
    word: int = Field(ge=1, le=WORD_LIMIT)
    manifest: int = Field(ge=1, le=LARGEST)
    objects: Count
    bytes: Count
    left_out: Digest | None = None


class CarriedReport(Message):
    """What the Mainframe whose licence has the id `mainframe` says it made of a release, written at `written_at`."""

    format: Literal["ashat-carried-report-1"] = "ashat-carried-report-1"
    mainframe: str = Field(max_length=64)
    written_at: Moment
    report: MainframeReport
    mac: Digest

    @classmethod
    def write(cls, key_hash: str, mainframe: str, at: Moment, report: MainframeReport) -> CarriedReport:
        """Write it, authenticated by the sha256 of the licence key, in hexadecimal."""
        bare = cls(mainframe=mainframe, written_at=at, report=report, mac="0" * 64)
        return bare.model_copy(update={"mac": bare._mac(key_hash)})

    def is_by(self, key_hash: str) -> bool:
        """Tell whether whoever has the licence key with that sha256 wrote exactly this."""
        return hmac.compare_digest(self.mac, self._mac(key_hash))

    def _mac(self, key_hash: str) -> str:
        content = canonical_json(self.model_dump(mode="json", exclude={"mac"}))
        return hmac.new(bytes.fromhex(key_hash), content, hashlib.sha256).hexdigest()


def carried_frames(
    contents: Contents, word: bytes, manifest: bytes, objects: Iterable[tuple[str, bytes]]
) -> Iterator[bytes]:
    """Yield the bytes of a file, compressed; `objects` are by their digests."""
    return compressed(_frames(contents, word, manifest, objects))


def _frames(contents: Contents, word: bytes, manifest: bytes, objects: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    yield MAGIC + _frame(contents.model_dump_json().encode())
    for part in (*_parts(word), *_parts(manifest)):
        yield _frame(part)
    for digest, content in objects:
        yield frame_header(digest, len(content)) + content


def _frame(content: bytes) -> bytes:
    return frame_header(hashlib.sha256(content).hexdigest(), len(content)) + content


def _parts(content: bytes) -> list[bytes]:
    return [content[start : start + OBJECT_LIMIT] for start in range(0, len(content), OBJECT_LIMIT)]


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """Read at most `size` bytes; none at the end."""
        ...


class CarriedFile:
    """Reads a file from its beginning, once: the contents and what OMEGA says at once, then `manifest`, then `objects`.
    It holds one object at a time. `name` is what errors call the file.

    Raises:
        CarriedFileError: it is none of ours, was cut, or altered.
        OSError: it cannot be read.
    """

    def __init__(self, file: Readable, name: str, *, manifest_limit: int) -> None:
        self._name = name
        self._zstd = Decompressor(LARGEST)
        self._chunks = self._zstd.feed(iter(lambda: file.read(_READ), b""))
        self._decoder = FrameDecoder()
        first = self._begin()
        self._each = self._read_frames(first)
        self.contents = self._read(Contents, self._next(STATE_LIMIT), STATE_LIMIT)
        if self.contents.manifest > manifest_limit:
            raise self._wrong(f"its manifest has {self.contents.manifest} bytes; at most {manifest_limit} are read")
        self.word = self._read(OmegaWord, self._whole(self.contents.word), WORD_LIMIT)

    def manifest(self) -> bytes:
        """Read the manifest's bytes, which may be another's than the offer names; raises as the class does."""
        return self._whole(self.contents.manifest)

    def objects(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
        """Read the objects, each verified by its digest, and none that is not among `sizes`, or that was there before;
        see that the file then ends. Raises as the class does."""
        seen: set[str] = set()
        total = 0
        for digest, content in self._each:
            if sizes.get(digest) != len(content) or digest in seen:
                raise self._wrong(f"it holds {digest[:12]}, which is no part of the release, or twice")
            seen.add(digest)
            total += len(content)
            yield digest, content
        if (len(seen), total) != (self.contents.objects, self.contents.bytes):
            raise self._wrong(f"it holds {len(seen)} objects of the {self.contents.objects} that it names")

    def _begin(self) -> bytes:
        """Read what all such files begin with; return what follows it."""
        begun = b""
        try:
            for chunk in self._chunks:
                begun += chunk
                if len(begun) >= len(MAGIC):
                    break
        except FrameError:
            begun = b""
        if not begun.startswith(MAGIC):
            raise CarriedFileError(f"{self._name} is no file that deploy export wrote; nothing was changed.")
        return begun[len(MAGIC) :]

    def _read_frames(self, first: bytes) -> Iterator[tuple[str, bytes]]:
        content = bytearray()
        try:
            for chunk in self._all(first):
                for piece in self._decoder.feed(chunk):
                    content += piece.data
                    if piece.last:
                        if hashlib.sha256(content).hexdigest() != piece.digest:
                            raise self._wrong(f"its bytes are not what {piece.digest[:12]} names")
                        yield piece.digest, bytes(content)
                        content.clear()
            self._decoder.finish()
            self._zstd.finish()
        except FrameError as error:
            raise self._wrong(str(error).split(";")[0].rstrip(".")) from None

    def _all(self, first: bytes) -> Iterator[bytes]:
        yield first
        yield from self._chunks

    def _next(self, limit: int) -> bytes:
        _, content = next(self._each, ("", b""))
        if not 0 < len(content) <= limit:
            raise self._wrong("it ends too early, or a part of it is too large")
        return content

    def _whole(self, size: int) -> bytes:
        parts, left = [], size
        while left:
            parts.append(self._next(left))
            left -= len(parts[-1])
        return b"".join(parts)

    def _read(self, kind: type[_Model], raw: bytes, limit: int) -> _Model:
        try:
            return kind.model_validate(load_json(raw, limit=limit))
        except (DocumentError, ValidationError):
            raise self._wrong("it says nothing that this version can read; are both up to date?") from None

    def _wrong(self, why: str) -> CarriedFileError:
        return CarriedFileError(
            f"{self._name} was cut or altered: {why.rstrip('.?')}. Copy it again, or have it exported anew; nothing "
            "was changed."
        )
