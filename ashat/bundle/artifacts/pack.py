"""Pack an artifact into a bundle: tell what it is by its bytes, hold it against a digest, unpack it within bounds."""

from __future__ import annotations

import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ashat.bundle.artifacts.archives import check_record, is_tar, unpack_tar, unpack_zip
from ashat.bundle.artifacts.oci import LAYOUT, DirectoryBlobs, Image, SpooledBlobs, layout_in, read_image
from ashat.bundle.artifacts.spool import Budget, Contents, Spool, pack_contents, pieces
from ashat.bundle.artifacts.streams import compression_of
from ashat.bundle.pack import Packed, changed
from ashat.bundle.rules import shown
from ashat.bundle.stat_cache import FileState
from ashat.common.text import printable
from ashat.errors import BundleError, UsageError
from ashat.protocol.origins import Artifact

KINDS: Final = "a .zip, a wheel (.whl), a .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst, or an OCI image layout"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@dataclass(frozen=True)
class Wanted:
    """What of an artifact is to be packed: the image called `ref`, the part below `subdirectory`; and the sha256 that
    it must have ("": any)."""

    ref: str = ""
    subdirectory: str = ""
    digest: str = ""


def is_artifact(path: Path) -> bool:
    """Tell whether `path` is to be unpacked: a file, or a directory that is an OCI image layout."""
    return path.is_file() or ((path / LAYOUT).is_file() and (path / "blobs").is_dir())


def parse_digest(text: str) -> str:
    """Read a sha256, with or without `sha256:` before it, as 64 digits; "" from "".

    Raises:
        UsageError: it is none.
    """
    if not text:
        return ""
    found = _DIGEST.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(f"{text[:80]!r} is no digest: give sha256: and 64 hexadecimal digits.")
    return found[1]


def pack_artifact(path: Path, wanted: Wanted, *, windows_names: bool = True) -> tuple[Packed, Artifact]:
    """Pack the artifact at `path` into a bundle, whose bytes are kept in a temporary file until it is closed.

    Raises:
        BundleError: it is none that can be read, has another digest than is `wanted`, or holds what a bundle cannot;
            the message names it, all of it at once.
        UsageError: it has several images, and `wanted` names none of them.
        SourceChangedError: it changed while it was read.
    """
    spool = Spool()
    try:
        if path.is_dir():
            image = read_image(DirectoryBlobs(path), str(path), wanted.ref, spool, Budget())
            contents, artifact = image.contents, _image(path, image, wanted)
        else:
            contents, artifact = _unpack_file(path, wanted, spool)
        packed = pack_contents(
            contents, spool, name=str(path), subdirectory=wanted.subdirectory, windows_names=windows_names
        )
    except BaseException:
        spool.close()
        raise
    return packed, artifact


def _unpack_file(path: Path, wanted: Wanted, spool: Spool) -> tuple[Contents, Artifact]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise BundleError(f"{path} cannot be read; {error.strerror}.") from None
    with file:
        before = FileState.of(os.fstat(file.fileno()))
        whole = hashlib.sha256()
        for piece in pieces(file):
            whole.update(piece)
        contents, artifact = _unpack_open(file, path, whole.hexdigest(), wanted, spool)
        if FileState.of(os.fstat(file.fileno())) != before:
            raise changed(str(path))
    return contents, artifact


def _unpack_open(file: BinaryIO, path: Path, digest: str, wanted: Wanted, spool: Spool) -> tuple[Contents, Artifact]:
    kind, size, name, budget = _kind(file, path), file.seek(0, io.SEEK_END), str(path), Budget()
    file.seek(0)
    if kind in ("zip", "wheel"):
        _require(digest, (), wanted, name)
        contents = unpack_zip(file, name, spool, budget)
        if kind == "wheel":
            check_record(contents, spool)
    else:
        budget.read(size)
        contents = unpack_tar(file, name, spool, budget)
        if layout_in(contents):
            image = read_image(SpooledBlobs(contents.files, spool), name, wanted.ref, spool, budget)
            return image.contents, _image(path, image, wanted, digest)
        _require(digest, (), wanted, name)
    if wanted.ref:
        raise UsageError(f"{path} is no OCI image layout: --ref names nothing in it.")
    return contents, Artifact(name=_name(path), kind=kind, digest=digest, size=size)


def _kind(file: BinaryIO, path: Path) -> str:
    """What a file is: zip, wheel, tar, or tar and its compression."""
    file.seek(0)
    start = file.read(8)
    file.seek(0)
    if start.startswith(_ZIP):
        return "wheel" if path.suffix.lower() == ".whl" else "zip"
    if is_tar(file, str(path)):
        compression = compression_of(start)
        return f"tar.{compression}" if compression else "tar"
    raise BundleError(f"{path} is nothing that can be pushed: name a directory, {KINDS}.")


def _image(path: Path, image: Image, wanted: Wanted, file_digest: str = "") -> Artifact:
    _require(image.digest, (*image.named_by, file_digest), wanted, str(path))
    return Artifact(name=_name(path), kind="oci", digest=image.digest, size=image.size)


def _name(path: Path) -> str:
    return printable(path.resolve().name)[:255]


def _require(digest: str, others: tuple[str, ...], wanted: Wanted, name: str) -> None:
    """Hold an artifact against the digest that it must have; `others` are such that it may be meant by, too."""
    if wanted.digest and wanted.digest not in (digest, *others):
        raise BundleError(
            f"{shown(name)} is not what was wanted: it is sha256:{digest}, and --digest says sha256:{wanted.digest}. "
            "Fetch or build it again, or find out who changed it."
        )
