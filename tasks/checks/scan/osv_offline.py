"""Reads advisories from a copy of OSV's database on this machine, for operators who ask nobody outside.

A copy is one of the zips that OSV publishes for each ecosystem (`PyPI/all.zip`), or a directory of such zips and of
JSON records. It is read through once, a record at a time: only those that name one of the packages are parsed.
"""

from __future__ import annotations

import re
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from ashat.common.documents import load_json
from ashat.common.files import read_bounded
from tasks.checks.kit.base import one_line
from tasks.checks.scan.osv import AdvisoriesUnknownError, Advisory
from tasks.checks.scan.packages import Package

SECONDS = 300.0
RECORD_BYTES = 4 * 1024 * 1024
FRESH = timedelta(days=30)
_FIELD = re.compile(rb'"(name|ecosystem|modified)"\s*:\s*"((?:[^"\\]++|\\.)*+)"')
_BETWEEN = re.compile(r"[-_.]+")


@dataclass
class Copy:
    """What a copy holds: `found` for the packages asked about, and how new and whole it is.

    `modified` is when its newest record was last changed, None where no record says.
    """

    found: dict[Package, list[Advisory]] = field(default_factory=dict)
    records: int = 0
    ecosystems: set[str] = field(default_factory=set)
    modified: datetime | None = None

    def stale(self, now: datetime) -> bool:
        """Tell whether the copy is so old that what became known since may matter."""
        return self.modified is None or now - self.modified > FRESH


def read_copy(path: str, packages: Sequence[Package], seconds: float = SECONDS) -> Copy:
    """Read what the copy at `path` knows of `packages`.

    Raises:
        AdvisoriesUnknownError: there is none, it cannot be read within `seconds`, or it holds nothing about an
            ecosystem of theirs.
    """
    if not path:
        raise AdvisoriesUnknownError("the policy names no file: set osv_file to a copy of OSV's database")
    deadline = time.monotonic() + seconds
    copy, newest = Copy(), ""
    names: dict[str, list[Package]] = {}
    for package in packages:
        names.setdefault(_loosely(package.name), []).append(package)
    try:
        for where, raw in _records(Path(path).expanduser()):
            if time.monotonic() > deadline:
                raise AdvisoriesUnknownError(f"{path} could not be read within {seconds:g} s")
            copy.records += 1
            newest = max(newest, _consider(copy, where, raw, names))
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise AdvisoriesUnknownError(f"{path} cannot be read: {one_line(why, 120)}") from None
    if lacking := sorted({package.ecosystem for package in packages} - copy.ecosystems):
        raise AdvisoriesUnknownError(f"{path} holds no advisory for {', '.join(lacking)}")
    copy.modified = _moment(newest)
    return copy


def _records(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every record below `path`, with its place."""
    if path.is_dir():
        for inner in sorted(path.rglob("*")):
            if inner.suffix in (".json", ".zip") and inner.is_file():
                yield from _records(inner)
    elif path.suffix == ".json":
        yield str(path), read_bounded(path, RECORD_BYTES)
    else:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.filename.endswith(".json"):
                    continue
                if info.file_size > RECORD_BYTES:
                    raise AdvisoriesUnknownError(f"{path} holds more than {RECORD_BYTES} bytes as {info.filename}")
                yield f"{path}: {info.filename}", archive.read(info)


def _consider(copy: Copy, where: str, raw: bytes, names: dict[str, list[Package]]) -> str:
    """Keep the record if it affects one of the packages; return when it was last changed."""
    modified, concerned = "", []
    for key, value in _FIELD.findall(raw):
        if key == b"modified":
            modified = max(modified, value.decode("utf-8", "replace"))
            continue
        text = _text(value)
        if key == b"ecosystem":
            copy.ecosystems.add(text)
        elif packages := names.get(_loosely(text)):
            concerned += [package for package in packages if package not in concerned]
    if concerned:
        try:
            advisory = Advisory.model_validate_json(raw)
            for package in concerned:
                if advisory.affects(package):
                    copy.found.setdefault(package, []).append(advisory)
        except ValidationError:
            raise AdvisoriesUnknownError(f"{where} is no OSV record") from None
        except ValueError as error:
            raise AdvisoriesUnknownError(f"{where} cannot be matched: {one_line(error, 120)}") from None
    return modified


def _text(value: bytes) -> str:
    plain = value.decode("utf-8", "replace")
    try:
        return str(load_json(f'"{plain}"', limit=RECORD_BYTES)) if "\\" in plain else plain
    except ValueError:
        return plain


def _loosely(name: str) -> str:
    """Fold the spellings of a package's name, in any ecosystem, into one."""
    return _BETWEEN.sub("-", name).casefold()


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
