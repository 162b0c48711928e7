"""Read one image, or another artifact, of an OCI image layout: blobs by their digests, layers one over the other.

https://github.com/opencontainers/image-spec (image-layout.md, layer.md) says what these are; what ORAS writes has a
file or a packed directory in each layer, under the name in an annotation.
"""

from __future__ import annotations

import hashlib
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ashat.bundle.artifacts.archives import unpack_tar
from ashat.bundle.artifacts.spool import Budget, Contents, Spool, SpooledFile, ancestors, pieces
from ashat.bundle.pack import changed
from ashat.bundle.rules import Kind, Refusal, Refusals
from ashat.common.documents import load_json
from ashat.common.text import first_misfit, printable
from ashat.errors import BundleError, UsageError

LAYOUT: Final = "oci-layout"
DOCUMENT_LIMIT: Final = 4 * 1024**2
MANIFESTS_LIMIT: Final = 1000
LAYERS_LIMIT: Final = 1000
_INDEX_DEPTH = 4
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_REF, _TITLE = "org.opencontainers.image.ref.name", "org.opencontainers.image.title"
_UNPACK = "io.deis.oras.content.unpack"
_INDEX_TYPES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_TAR = re.compile(r"[./]tar([.+](gzip|zstd))?$")
_NAMES_SHOWN = 10


class _Part(BaseModel):
    """What of a document is read here; implementations ignore what they do not know, as the specification says."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Platform(_Part):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class Descriptor(_Part):
    """A blob as another document names it: `digest` is `sha256:` and 64 digits, `size` in bytes."""

    media_type: str = Field(default="", alias="mediaType")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)
    annotations: dict[str, str] = Field(default_factory=dict)
    platform: _Platform | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What a person may call it: its tag, its platform, its digest."""
        found = self.platform
        platform = "/".join(filter(None, (found.os, found.architecture, found.variant))) if found else ""
        return tuple(filter(None, (self.annotations.get(_REF, ""), platform, self.digest)))

    @property
    def attests(self) -> bool:
        """Whether it is no image but a statement about one, as BuildKit puts beside it."""
        return self.annotations.get("vnd.docker.reference.type") == "attestation-manifest"


class _Layout(_Part):
    version: Literal["1.0.0"] = Field(alias="imageLayoutVersion")


class _Index(_Part):
    manifests: list[Descriptor] = Field(max_length=MANIFESTS_LIMIT)


class _Manifest(_Part):
    schema_version: Literal[2] = Field(alias="schemaVersion")
    config: Descriptor
    layers: list[Descriptor] = Field(max_length=LAYERS_LIMIT)


Document = TypeVar("Document", bound=_Part)


class Blobs(ABC):
    """The files of a layout."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Open the file `path` of the layout.

        Raises:
            OSError: there is none.
        """


class DirectoryBlobs(Blobs):
    """A layout that is a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, path: str) -> BinaryIO:
        """Open the file `path` of it; raises as `Blobs.open`."""
        return (self._root / path).open("rb")


class SpooledBlobs(Blobs):
    """A layout that came in a tar, whose files lie in a spool."""

    def __init__(self, files: Mapping[str, SpooledFile], spool: Spool) -> None:
        self._files = files
        self._spool = spool

    def open(self, path: str) -> BinaryIO:
        """Open the file `path` of it; raises as `Blobs.open`."""
        file = self._files.get(path)
        if file is None:
            raise FileNotFoundError(path)
        return cast(BinaryIO, io.BufferedReader(_Slice(self._spool, file)))


class _Slice(io.RawIOBase):
    """A file of the spool, to be read once."""

    def __init__(self, spool: Spool, file: SpooledFile) -> None:
        self._spool = spool
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next; how many bytes."""
        content = self._spool.read(self._file.offset + self._at, min(len(buffer), self._file.size - self._at))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


class _Hashed(io.RawIOBase):
    """A blob as it is read, hashed on the way."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next; how many bytes."""
        content = self._raw.read(len(buffer))
        self._hash.update(content)
        buffer[: len(content)] = content
        return len(content)

    def digest(self) -> str:
        """Read the rest; the digest of all."""
        for piece in pieces(self._raw):
            self._hash.update(piece)
        return f"sha256:{self._hash.hexdigest()}"


@dataclass(frozen=True)
class Image:
    """What an image holds, the digest of its manifest, and those of the indexes that name it, without `sha256:`."""

    contents: Contents
    digest: str
    size: int
    named_by: tuple[str, ...]


def read_image(blobs: Blobs, name: str, ref: str, spool: Spool, budget: Budget) -> Image:
    """Read the image that `ref` (a tag, a platform or a digest; "": the only one) names of the layout `name`.

    Raises:
        BundleError: the layout is no sound one, or blobs are not what their digests say; the message names them all.
        UsageError: `ref` names none, or it is needed; the message lists what there is.
    """
    _parsed(_Layout, _document(blobs, LAYOUT, name), f"{name}/{LAYOUT}")
    index = _parsed(_Index, _document(blobs, "index.json", name), f"{name}/index.json")
    chosen, above = _choose(list(_images(blobs, index, name)), ref, name)
    manifest = _parsed(_Manifest, _verified_document(blobs, chosen, name), f"{name}: the manifest {chosen.digest}")
    _verify(blobs, [manifest.config, *manifest.layers], name)
    contents = Contents()
    for layer in manifest.layers:
        _apply(contents, _layer(blobs, layer, name, spool, budget))
    size = chosen.size + manifest.config.size + sum(layer.size for layer in manifest.layers)
    digests = (chosen.digest, *above)
    hexes = tuple(digest.removeprefix("sha256:") for digest in digests)
    return Image(contents, hexes[0], size, hexes[1:])


def _images(
    blobs: Blobs, index: _Index, name: str, above: tuple[str, ...] = ()
) -> Iterator[tuple[Descriptor, tuple[str, ...]]]:
    """Yield each image of an index, and of the indexes in it, with the digests of the indexes over it."""
    if len(above) >= _INDEX_DEPTH:
        raise BundleError(f"{name} has indexes in indexes, more than {_INDEX_DEPTH} deep.")
    for found in index.manifests:
        if found.media_type in _INDEX_TYPES:
            inner = _parsed(_Index, _verified_document(blobs, found, name), f"{name}: the index {found.digest}")
            tag = {_REF: found.annotations[_REF]} if _REF in found.annotations else {}
            for image, over in _images(blobs, inner, name, (*above, found.digest)):
                yield image.model_copy(update={"annotations": tag | image.annotations}), over
        elif not found.attests:
            yield found, above


def _choose(
    images: list[tuple[Descriptor, tuple[str, ...]]], ref: str, name: str
) -> tuple[Descriptor, tuple[str, ...]]:
    fitting = {image.digest: (image, above) for image, above in images if not ref or ref in image.names or ref in above}
    if len(fitting) == 1:
        return next(iter(fitting.values()))
    if len(images) > MANIFESTS_LIMIT:
        raise BundleError(f"{name} names more than {MANIFESTS_LIMIT} images.")
    listed = [" ".join(image.names) for image, _ in images[:_NAMES_SHOWN]]
    more = f" and {len(images) - _NAMES_SHOWN} more" if len(images) > _NAMES_SHOWN else ""
    there = printable(f"{', '.join(listed) or 'none'}{more}")
    said = f"has {len(fitting)} images called {ref!r}" if ref else f"has {len(images)} images"
    raise UsageError(f"{name} {said}; say which one with --ref, by its tag, its platform or its digest: {there}.")


def _document(blobs: Blobs, path: str, name: str) -> bytes:
    try:
        with blobs.open(path) as file:
            return file.read(DOCUMENT_LIMIT + 1)
    except OSError as error:
        raise BundleError(f"{name} is no OCI image layout that can be read: {path}: {_why(error)}.") from None


def _verified_document(blobs: Blobs, descriptor: Descriptor, name: str) -> bytes:
    if descriptor.size > DOCUMENT_LIMIT:
        raise BundleError(
            f"{name}: {descriptor.digest} has {descriptor.size} bytes; at most {DOCUMENT_LIMIT} are read."
        )
    content = _document(blobs, _path_of(descriptor), name)
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != descriptor.digest:
        raise BundleError(f"{name}: {descriptor.digest} is not what its digest says; build or fetch the image again.")
    return content


def _parsed(kind: type[Document], content: bytes, what: str) -> Document:
    try:
        return kind.model_validate(load_json(content, limit=DOCUMENT_LIMIT))
    except ValidationError as error:
        raise BundleError(f"{what} cannot be read: {first_misfit(error)}.") from None
    except ValueError as error:
        raise BundleError(f"{what} cannot be read: {error}.") from None


def _path_of(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}"


def _why(error: OSError) -> str:
    return error.strerror or "it is not there"


def _verify(blobs: Blobs, descriptors: list[Descriptor], name: str) -> None:
    """Hold every blob against its digest and its size, and tell all that do not fit."""
    refusals = Refusals()
    for descriptor in descriptors:
        try:
            with blobs.open(_path_of(descriptor)) as file:
                size, whole = 0, hashlib.sha256()
                for piece in pieces(file, descriptor.size + 1):
                    size += len(piece)
                    whole.update(piece)
        except OSError as error:
            fault = f"cannot be read: {_why(error)}"
        else:
            fits = size == descriptor.size and f"sha256:{whole.hexdigest()}" == descriptor.digest
            fault = "" if fits else "is not what its digest and its size say"
        if fault:
            text = f"{name}: the blob {descriptor.digest} {fault}; build or fetch the image again."
            refusals.add(Refusal(Kind.DIGEST, descriptor.digest, text))
    if refusals:
        raise BundleError(str(refusals), by_kind=True)


def _layer(blobs: Blobs, layer: Descriptor, name: str, spool: Spool, budget: Budget) -> Contents:
    budget.read(layer.size)
    title = layer.annotations.get(_TITLE, "")
    packed = _TAR.search(layer.media_type) and not title
    with blobs.open(_path_of(layer)) as file:
        hashed = _Hashed(file)
        whole = cast(BinaryIO, hashed)
        if packed or (title and layer.annotations.get(_UNPACK) == "true"):
            contents = unpack_tar(whole, f"{name}: the layer {layer.digest}", spool, budget, whole=True)
        elif title:
            contents = _titled(title, layer, whole, spool, budget)
        else:
            kind = printable(layer.media_type)[:100]
            raise BundleError(
                f"{name}: the layer {layer.digest} is of the type {kind!r}: no archive, and no file with a title."
            )
        if hashed.digest() != layer.digest:
            raise changed(_path_of(layer))
    return _whiteouts(contents) if packed else contents


def _titled(title: str, layer: Descriptor, raw: BinaryIO, spool: Spool, budget: Budget) -> Contents:
    """A layer that is one file, under its title."""
    contents = Contents()
    if contents.takes(title, layer.size):
        budget.count_entry()
        budget.unpack(layer.size)
        contents.files[title] = spool.add(pieces(raw, layer.size), executable=False)
    return contents


def _whiteouts(layer: Contents) -> Contents:
    """Take the entries that stand for something removed out of a layer, and note what they remove."""
    for path in [path for path in layer.files if path.rpartition("/")[2].startswith(_WHITEOUT)]:
        directory, _, name = path.rpartition("/")
        del layer.files[path]
        removed = name.removeprefix(_WHITEOUT)
        if name == _OPAQUE:
            layer.opaque.add(directory)
        elif removed in ("", ".", "..") or removed.startswith(_WHITEOUT):
            layer.refuse(Kind.PATH, path, "is a whiteout of nothing that can be there; build the image again.")
        else:
            layer.whiteouts.add(f"{directory}/{removed}" if directory else removed)
    return layer


def _apply(base: Contents, layer: Contents) -> None:
    """Put `layer` over `base`: what it takes away, it takes away of those below, whatever it adds itself."""
    put = layer.files.keys() | layer.links.keys()

    def gone(path: str) -> bool:
        if "" in layer.opaque or path in layer.whiteouts or path in put:
            return True
        return any(each in layer.whiteouts or each in put or each in layer.opaque for each in ancestors(path))

    for path in [path for path in base.files if gone(path) or path in layer.directories]:
        del base.files[path]
    for path in [path for path in base.links if gone(path) or path in layer.directories]:
        del base.links[path]
    base.directories = {path for path in base.directories if not gone(path)} | layer.directories
    base.wrong = [wrong for wrong in base.wrong if not gone(wrong.path)] + layer.wrong
    base.files.update(layer.files)
    base.links.update(layer.links)


def layout_in(contents: Contents) -> bool:
    """Tell whether what came out of a tar is an OCI image layout."""
    return LAYOUT in contents.files and "index.json" in contents.files
