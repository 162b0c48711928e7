"""One file that holds the records of a home or of a node: a gzipped tar whose first entry lists the others.

`backup.json` has the format, what it is a backup of, when and by which version it was made, whether secrets are in it,
and each file's size, mode and sha256. It is written beside its name and renamed, mode 0600; it is read into an empty
directory, and whoever reads it puts nothing in place before all of it was held against that list.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import secrets
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ashat import __version__
from ashat.bundle.artifacts.spool import Budget, pieces
from ashat.bundle.artifacts.streams import TarStream, decompressed
from ashat.bundle.rules import path_refusal, shown
from ashat.common.canonical_json import canonical_json
from ashat.common.documents import load_json
from ashat.common.files import make_directory, sync_directory
from ashat.common.shortage import shortage
from ashat.common.text import first_misfit
from ashat.errors import BackupError, BundleError, UsageError

HEADER: Final = "backup.json"
HEADER_LIMIT: Final = 16 * 1024**2
FILES_LIMIT: Final = 100_000
_FORMAT_BEFORE: Final = "ashat-backup/"
_FORMAT: Final = "ashat-backup/1"
_LEVEL = 1

Kind = Literal["home", "node"]
_READERS = {"home": "deploy restore", "node": "ashat-node restore"}


class BackedUpFile(BaseModel):
    """A file of a backup: its size in bytes, its permissions and its sha256."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(ge=0)
    mode: int = Field(ge=0, le=0o777)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Header(BaseModel):
    """What a backup says of itself. `facts` are what its kind adds, such as the schema of the ledger in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["ashat-backup/1"] = _FORMAT
    kind: Kind
    version: str = Field(max_length=100)
    made_at: AwareDatetime
    secrets: bool
    facts: dict[str, str | int] = Field(default_factory=dict, max_length=100)
    files: dict[str, BackedUpFile] = Field(max_length=FILES_LIMIT)

    @property
    def size(self) -> int:
        """How many bytes its files have."""
        return sum(file.size for file in self.files.values())


def is_private_key(path: Path) -> bool:
    """Tell whether a file holds a private key in PEM."""
    with path.open("rb") as file:
        return b"PRIVATE KEY-----" in file.read(4096)


def files_below(directory: Path) -> Iterator[str]:
    """Yield the path of each regular file below `directory`, from there; links are not followed."""
    for above, names, files in os.walk(directory):
        names.sort()
        for name in sorted(files):
            path = Path(above) / name
            if path.is_file() and not path.is_symlink():
                yield str(path.relative_to(directory))


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy the SQLite database `source` as it is at one moment, while others write to it, into the new file `target`.

    Raises:
        BackupError: it is no database, or damaged.
    """
    target.touch(mode=0o600)
    try:
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as found,
            closing(sqlite3.connect(target)) as copy,
        ):
            found.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            found_wrong = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        if lack := shortage(error, target.parent):
            raise BackupError(str(lack)) from None
        raise BackupError(f"{source} cannot be copied: {error}.") from None
    if found_wrong != "ok":
        raise BackupError(f"{source} is damaged: {str(found_wrong)[:200]}.")


@contextmanager
def staging_beside(path: Path) -> Iterator[Path]:
    """Make an empty directory, mode 0700, on the disk of `path`, and remove it with what is left in it.

    Raises:
        BackupError: it cannot be made.
    """
    directory = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    try:
        make_directory(path.parent)
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise BackupError(f"Nothing can be written to {path.parent}: {error.strerror}.") from None
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def write_backup(target: Path, staged: Path, kind: Kind, *, with_secrets: bool, facts: dict[str, str | int]) -> Header:
    """Write every file below `staged` into the new backup `target`, mode 0600, durably or not at all.

    Raises:
        UsageError: `target` is there already.
        BackupError: it cannot be written, or there are too many files.
    """
    files = {path: _described(staged / path) for path in files_below(staged)}
    if len(files) > FILES_LIMIT:
        raise BackupError(f"There are {len(files)} files to back up; a backup holds {FILES_LIMIT}.")
    made = datetime.now(UTC).replace(microsecond=0)
    header = Header(kind=kind, version=__version__, made_at=made, secrets=with_secrets, facts=facts, files=files)
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            _write(file, staged, header)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, target)  # a rename would replace what is there
        sync_directory(target.parent)
    except FileExistsError:
        raise UsageError(f"{target} is there already; give the backup another name.") from None
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {shortage(error, target.parent) or error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return header


def _described(path: Path) -> BackedUpFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        found = os.fstat(file.fileno())
    return BackedUpFile(size=found.st_size, mode=found.st_mode & 0o777, sha256=digest)


def _write(file: BinaryIO, staged: Path, header: Header) -> None:
    listed = canonical_json(header.model_dump(mode="json"))
    with (
        gzip.GzipFile(fileobj=file, mode="wb", compresslevel=_LEVEL, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        archive.addfile(_entry(HEADER, len(listed), 0o600), io.BytesIO(listed))
        for path, described in header.files.items():
            with (staged / path).open("rb") as content:
                archive.addfile(_entry(f"files/{path}", described.size, described.mode), content)


def _entry(name: str, size: int, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    return entry


def read_backup(source: Path, into: Path, kind: Kind) -> Header:
    """Read the backup `source` into the empty directory `into`, each file held against the backup's list.

    Raises:
        BackupError: it is damaged, cut off, of another kind, or a newer version wrote it.
        UsageError: there is no such file.
    """
    try:
        file = source.open("rb")
    except OSError as error:
        raise UsageError(f"The backup {source} cannot be read: {error.strerror}.") from None
    with file:
        try:
            return _Reader(file, source, into, kind).read()
        except (tarfile.TarError, BundleError, RecursionError, ValueError, EOFError) as error:
            raise _damaged(source, str(error) or type(error).__name__) from None


def _damaged(source: Path, why: str) -> BackupError:
    return BackupError(f"{source} is no backup that can be read ({why[:200].rstrip('.')}); nothing was changed.")


class _Reader:
    """Reads a backup once, from its beginning to its end."""

    def __init__(self, file: BinaryIO, source: Path, into: Path, kind: Kind) -> None:
        self._source = source
        self._into = into
        self._kind = kind
        self._stream = TarStream(decompressed(file), str(source), Budget(ratio=None))

    def read(self) -> Header:
        with tarfile.open(fileobj=cast(BinaryIO, self._stream), mode="r:") as archive:
            first = archive.next()
            if first is None or first.name != HEADER or first.size > HEADER_LIMIT or not first.isreg():
                raise ValueError(f"it does not begin with {HEADER}")
            header = self._header(b"".join(self._pieces(archive, first)))
            missing = set(header.files)
            while (entry := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]
                path = entry.name.removeprefix("files/")
                if path not in missing or not entry.isreg() or entry.size != header.files[path].size:
                    raise ValueError(f"{shown(entry.name)} is not as the list has it")
                missing.discard(path)
                self._keep(path, header.files[path], self._pieces(archive, entry))
        self._stream.drain()
        if missing:
            raise ValueError(f"{len(missing)} files are missing, such as {shown(min(missing))}")
        return header

    def _pieces(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Iterator[bytes]:
        self._stream.data_begins()
        content = archive.extractfile(entry)
        assert content is not None
        with content:
            yield from pieces(cast(BinaryIO, content), entry.size)
        self._stream.headers_begin()

    def _header(self, raw: bytes) -> Header:
        found = load_json(raw, limit=HEADER_LIMIT)
        form = found.get("format") if isinstance(found, dict) else None
        if isinstance(form, str) and form.startswith(_FORMAT_BEFORE) and form != _FORMAT:
            raise BackupError(
                f"{self._source} was written by a newer version of ASHAT Deploy ({form[:40]}; this one reads "
                f"{_FORMAT}). Upgrade this install; nothing was changed."
            )
        try:
            header = Header.model_validate(found)
        except ValidationError as error:
            raise ValueError(first_misfit(error)) from None
        if header.kind != self._kind:
            reader = _READERS[header.kind]
            raise BackupError(f"{self._source} is the backup of a {header.kind}: {reader} puts it back.")
        if refused := next(filter(None, (path_refusal(path, windows=False) for path in header.files)), None):
            raise ValueError(refused.text)
        return header

    def _keep(self, path: str, described: BackedUpFile, content: Iterator[bytes]) -> None:
        target, digest = self._into / path, hashlib.sha256()
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, described.mode), "wb") as file:
                for piece in content:
                    file.write(piece)
                    digest.update(piece)
                os.fchmod(file.fileno(), described.mode)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            why = shortage(error, self._into) or f"{target} cannot be written: {error.strerror}."
            raise BackupError(f"{why} Nothing was changed.") from None
        if digest.hexdigest() != described.sha256:
            raise ValueError(f"{shown(path)} has other bytes than its sha256 says")


def put_in_place(staged: Path, target: Path) -> None:
    """Let the directory `staged` be `target`, which must not be there or be empty, durably.

    Raises:
        UsageError: something is in `target`.
        BackupError: the system refuses.
    """
    try:
        if target.is_dir():
            target.rmdir()
        staged.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        if target.exists():
            raise UsageError(f"{target} is not empty; nothing was changed.") from None
        raise BackupError(f"{target} cannot be made: {error.strerror}; nothing was changed.") from None
