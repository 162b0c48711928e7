"""Searches every file of a bundle for credentials and keys, in whatever it holds them.

Rules, by path: `secret`, `password`, `key-file`, `changed-package`; `unsearched` for what could not be opened.
Contents that were searched before, and had nothing, are not fetched again; new ones come first. What is left when the
time is over is counted, and the search says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ashat.bundle.manifest import FileEntry, Manifest
from tasks.checks.kit.base import CheckContext, Finding, OutOfTimeError, one_line
from tasks.checks.scan.containers import Opening, holds_others, members
from tasks.checks.scan.credentials import BY_NAME, OVERLAP, Secret, find_secrets
from tasks.checks.scan.key_files import environment_file, key_in, named
from tasks.checks.scan.searched import Searched
from tasks.checks.scan.vendored import Vendored, changed_package, vendored_files

HELD_LIMIT = 64 * 1024 * 1024
BATCH_BYTES = 4 * 1024 * 1024
BATCH_FILES = 512
RESERVED_SECONDS = 10.0
SHARE = 0.25
FILES_A_SECOND = 2_000
BYTES_A_SECOND = 8 * 1024 * 1024
LINES_SHOWN = 3
_OF_TESTS = re.compile(
    r"(^|/)(tests?|__tests__|specs?|fixtures|testdata|test-data)/|(^|/)(test_[^/]*|conftest)\.py$|[._-](test|spec)s?\.\w{1,4}$"
)
FILES_SHOWN = 3


@dataclass
class Found:
    """What is in one file: credentials by place, keys by place, and what could not be opened, with the reason."""

    secrets: list[tuple[str, Secret]] = field(default_factory=list)
    keys: list[tuple[str, str]] = field(default_factory=list)
    unopened: dict[str, str] = field(default_factory=dict)

    @property
    def nothing(self) -> bool:
        """Whether the file was looked at to its end and had nothing."""
        return not (self.secrets or self.keys or self.unopened)


@dataclass
class Scan:
    """What was searched: files and bytes now, files `before`, and what was not: `late` files, for want of time."""

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    size: int = 0
    before: int = 0
    late: int = 0
    late_bytes: int = 0
    unopened: int = 0
    published: dict[str, int] = field(default_factory=dict)
    tests: dict[str, int] = field(default_factory=dict)

    @property
    def searched_shown(self) -> str:
        """The files that were searched, in words."""
        before = f" ({self.before} of them before, by the same rules)" if self.before else ""
        return f"{self.files + self.before} files{before}"


def more_seconds(manifest: Manifest) -> float:
    """Compute the seconds that a search of the bundle may take beyond what any check may: twice what it took here."""
    return len(manifest.files) / FILES_A_SECOND + manifest.size / BYTES_A_SECOND


def search_for_secrets(context: CheckContext, memory: Searched | None = None) -> Scan:
    """Search each distinct content once, in batches, so that memory stays at a few times the largest file held."""
    scan, memory = Scan(), memory or Searched()
    vendored = vendored_files(context)
    scan.findings += vendored.findings(context.manifest)
    wanted = _wanted(context, vendored)
    known = memory.clean([file.sha256 for file in wanted])
    scan.before = sum(file.sha256 in known for file in wanted)
    left = [file for file in wanted if file.sha256 not in known]
    clean: list[str] = []
    try:
        for batch in _batches(left):
            for file, content in _contents(context, batch):
                _time_left(context)
                if _search(context, file, content, vendored, scan):
                    clean.append(file.sha256)
    except (OutOfTimeError, TimeoutError):
        scan.late = len(left) - scan.files
        scan.late_bytes = sum(file.size for file in left) - scan.size
    memory.remember(clean)
    scan.findings += _published(scan)
    return scan


def _time_left(context: CheckContext) -> float:
    seconds = context.left() - min(RESERVED_SECONDS, context.time_limit * SHARE)
    if seconds <= 0:
        raise OutOfTimeError("the time for the search is over")
    return seconds


def _wanted(context: CheckContext, vendored: Vendored) -> list[FileEntry]:
    """List a file of each content: what is new first, and files of nobody's package before those of one."""
    old = {file.sha256 for file in context.previous.files} if context.previous else set()
    ranked = sorted(context.manifest.files, key=lambda file: (file.sha256 in old, vendored.packaged(file.path)))
    distinct: dict[tuple[str, bool], FileEntry] = {}
    for file in ranked:
        if file.size:
            distinct.setdefault((file.sha256, environment_file(file.path)), file)
    return list(distinct.values())


def _batches(files: Sequence[FileEntry]) -> Iterator[list[FileEntry]]:
    batch: list[FileEntry] = []
    size = 0
    for file in files:
        if batch and (len(batch) == BATCH_FILES or size + file.size > min(BATCH_BYTES, HELD_LIMIT)):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch


def _contents(context: CheckContext, batch: Sequence[FileEntry]) -> Iterator[tuple[FileEntry, bytes | None]]:
    """Fetch the files of a batch; one that is too large to be held comes alone, as None."""
    if batch[0].size > HELD_LIMIT:
        yield batch[0], None
        return
    yield from zip(batch, context.public.files_bytes(batch), strict=True)


def _search(context: CheckContext, file: FileEntry, content: bytes | None, vendored: Vendored, scan: Scan) -> bool:
    """Search one file, and add what is found; tell whether it had nothing."""
    found = (
        examine(file.path, content, lambda: _time_left(context))
        if content is not None
        else _examine_parts(context, file)
    )
    scan.files += 1
    scan.size += file.size
    if content is not None and file.path in vendored.md5 and vendored.changed(file, content):
        scan.findings.append(changed_package(vendored.listed[file.path], [file.path]))
    published = content is not None and not found.nothing and vendored.published(file, content)
    scan.unopened += len(found.unopened)
    scan.findings += _findings(file.path, found, published=published)
    if not published and of_tests(file.path) and (usual := sum(_usual(secret) for _, secret in found.secrets)):
        scan.tests[file.path] = usual
    if published and (unsure := sum(not secret.sure for _, secret in found.secrets)):
        scan.published[file.path] = unsure
    return found.nothing


def examine(path: str, content: bytes, left: Callable[[], float]) -> Found:
    """Look for credentials and keys in `content`, the file at `path`, and in whatever it holds.

    `left` gives the seconds that are left, and raises `OutOfTimeError` where there are none.
    """
    found, opening = Found(), Opening()
    _look(path, content, found, left)
    for place, inner in members(content, opening, path):
        if place != path and named(place.rpartition("!")[2]):
            found.keys.append((place, "a file that holds credentials or history, by its name"))
        _look(place, inner, found, left)
    found.unopened = opening.unopened
    return found


def _look(place: str, content: bytes, found: Found, left: Callable[[], float]) -> None:
    if key := key_in(content):
        found.keys.append((place, key))
    for secret in find_secrets(content, seconds=left()):
        sure = secret.sure or (environment_file(place) and secret.kind == BY_NAME)
        found.secrets.append((place, replace(secret, sure=sure)))


def _examine_parts(context: CheckContext, file: FileEntry) -> Found:
    """Search a file that is too large to be held, part by part with an overlap; what it may hold is not opened."""
    found, lines, before = Found(), 0, b""
    for digest, size in file.objects():
        part = replace(file, size=size, sha256=digest, parts=())
        content = before + next(iter(context.public.files_bytes([part])))
        for secret in find_secrets(content, seconds=_time_left(context)):
            found.secrets.append((file.path, replace(secret, line=secret.line + lines)))
        if not before and holds_others(content):
            found.unopened[file.path] = f"over {HELD_LIMIT // 1024 // 1024} MB, so it was searched but not opened"
        before = content[-OVERLAP:]
        lines += content.count(b"\n") - before.count(b"\n")
    found.secrets = list(dict.fromkeys(found.secrets))
    return found


def _findings(path: str, found: Found, *, published: bool) -> Iterator[Finding]:
    for place, key in found.keys:
        where = (
            f"{one_line(place)} is {key}" if "by its name" not in key else f"{one_line(place)} is in the bundle: {key}"
        )
        yield Finding("high", f"{where}: take it out, and replace what it opens", "key-file", path)
    unsure: dict[tuple[str, str], list[int]] = {}
    for place, secret in found.secrets:
        if secret.sure:
            text = f"{one_line(place)}, line {secret.line}: {secret.shown}: take it out and revoke it"
            yield Finding("high", text, "secret", path)
        elif not (published or (_usual(secret) and of_tests(path))):
            unsure.setdefault((place, secret.shown), []).append(secret.line)
    for (place, kind), lines in unsure.items():
        where = f"{one_line(place)}, {_lines(lines)}"
        yield Finding(
            "medium",
            f"{where}: this may be a credential ({kind}): look, and take it out if it is one",
            "password",
            path,
        )
    for place, why in found.unopened.items():
        text = f"{one_line(place)} was not opened: {why}: see for yourself that it holds no credentials, and allow it"
        yield Finding("low" if published else "medium", text, "unsearched", path)


def of_tests(path: str) -> bool:
    """Tell whether the file at `path` is one of tests, by its name or its directory."""
    return bool(_OF_TESTS.search(path))


def _usual(secret: Secret) -> bool:
    return secret.usual and not secret.sure


def _lines(lines: Sequence[int]) -> str:
    if len(lines) == 1:
        return f"line {lines[0]}"
    shown = ", ".join(str(line) for line in lines[:LINES_SHOWN])
    return f"lines {shown}" + (f" and {len(lines) - LINES_SHOWN} more" if len(lines) > LINES_SHOWN else "")


def _published(scan: Scan) -> Iterator[Finding]:
    """Say for the record what may be credentials in files of packages that others published, and of tests."""
    for places, whose in ((scan.published, "packages that others published"), (scan.tests, "tests")):
        if not places:
            continue
        paths = sorted(places)
        shown = ", ".join(one_line(path, 80) for path in paths[:FILES_SHOWN])
        more = f" and {len(paths) - FILES_SHOWN} more files" if len(paths) > FILES_SHOWN else ""
        total = sum(places.values())
        text = f"{total} places in {whose} look like passwords, as examples do: {shown}{more}"
        yield Finding("low", text)
