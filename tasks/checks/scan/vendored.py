"""Tells which files of a bundle belong to packages that others published, and whether they are as those came.

What the lists prove: a RECORD of a wheel and a Debian package's md5sums name the digests of the files beside them, so a
file that differs was changed after its package was installed. They lie in the bundle themselves, and whoever changes a
file can change the list with it; npm keeps the digests of archives only, not of files. So no list spares a file the
search for credentials. It tells only who wrote a file: what merely may be a credential, in a package's own code or
documentation, is for the record and not for a person to look at.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from posixpath import dirname, join, normpath
from typing import TypeVar

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.common.documents import load_json
from ashat.errors import DocumentError
from tasks.checks.kit.base import CheckContext, Finding, one_line

LIST_LIMIT = 8 * 1024 * 1024
LISTS_LIMIT = 128 * 1024 * 1024
ROWS_LIMIT = 100_000
NAMES_SHOWN = 3

_Row = TypeVar("_Row")
_LIST = re.compile(
    r"(^|/)([^/]+\.dist-info/RECORD|node_modules/\.package-lock\.json|var/lib/dpkg/info/[^/]+\.md5sums)$"
)
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass
class Vendored:
    """What the lists of a bundle say. `sha256` and `md5` are the digests that they give, by path; `packages` the
    directories of packages whose files have no digests; `listed` the list that names a file, by path."""

    sha256: dict[str, str] = field(default_factory=dict)
    md5: dict[str, str] = field(default_factory=dict)
    packages: set[str] = field(default_factory=set)
    listed: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def changed(self, file: FileEntry, content: bytes | None = None) -> bool:
        """Tell whether `file` has other bytes than its package's list says; md5 needs the `content`."""
        if digest := self.sha256.get(file.path):
            return digest != file.sha256
        if content is not None and (digest := self.md5.get(file.path)):
            return digest != hashlib.md5(content, usedforsecurity=False).hexdigest()
        return False

    def published(self, file: FileEntry, content: bytes) -> bool:
        """Tell whether `file` belongs to a package that others published, and is not known to be changed."""
        if file.path in self.sha256 or file.path in self.md5:
            return not self.changed(file, content)
        return self.packaged(file.path)

    def packaged(self, path: str) -> bool:
        """Tell whether a list names `path`, or the package in whose directory it is."""
        if path in self.listed:
            return True
        parent = dirname(path)
        while parent:
            if parent in self.packages:
                return True
            if parent.endswith("/node_modules"):
                return False
            parent = dirname(parent)
        return False

    def findings(self, manifest: Manifest) -> Iterator[Finding]:
        """Name the packages with files that are not as their list says, and lists that cannot be read.

        Rules: `changed-package`, `unreadable`.
        """
        changed: dict[str, list[str]] = {}
        for path in self.sha256:
            file = manifest.by_path.get(path)
            if file is not None and self.changed(file):
                changed.setdefault(self.listed[path], []).append(path)
        for origin, paths in sorted(changed.items()):
            yield changed_package(origin, paths)
        for path, why in sorted(self.unreadable.items()):
            text = f"{one_line(path)}: {why}; which files are as published is not known from it"
            yield Finding("medium", text, "unreadable", path)


def changed_package(origin: str, paths: list[str]) -> Finding:
    """Make the finding that files of a package are not as `origin`, its list, says."""
    shown = ", ".join(one_line(path, 80) for path in paths[:NAMES_SHOWN])
    more = f" and {len(paths) - NAMES_SHOWN} more" if len(paths) > NAMES_SHOWN else ""
    text = f"{shown}{more}: changed since the package was installed ({one_line(origin, 120)}): see by whom, and why"
    return Finding("medium", text, "changed-package", paths[0])


def vendored_files(context: CheckContext) -> Vendored:
    """Read every list of a package's files that the bundle has, a list at a time."""
    found, wanted, total = Vendored(), [], 0
    for file in context.manifest.files:
        if _LIST.search(file.path):
            total += file.size
            if file.size > LIST_LIMIT or total > LISTS_LIMIT:
                found.unreadable[file.path] = f"over {(LIST_LIMIT if file.size > LIST_LIMIT else LISTS_LIMIT) >> 20} MB"
            elif file.size:
                wanted.append(file)
    for file, content in zip(wanted, context.public.files_bytes(wanted) if wanted else (), strict=True):
        context.left()
        read_list(file.path, content, found)
    return found


def read_list(path: str, content: bytes, found: Vendored) -> None:
    """Add to `found` what the list at `path` says."""
    try:
        if path.endswith("/RECORD"):
            _record(path, content, found)
        elif path.endswith(".md5sums"):
            _md5sums(path, content, found)
        else:
            _npm(path, content, found)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError, csv.Error, DocumentError) as error:
        found.unreadable[path] = f"not as such a list should be ({type(error).__name__})"


def _record(path: str, content: bytes, found: Vendored) -> None:
    """https://packaging.python.org/en/latest/specifications/recording-installed-packages/"""
    base = dirname(dirname(path))
    for row in _rows(csv.reader(content.decode("utf-8").splitlines())):
        if not row or not row[0]:
            continue
        name = normpath(join(base, row[0]))
        found.listed.setdefault(name, path)
        algorithm, _, digest = row[1].partition("=") if len(row) > 1 else ("", "", "")
        if algorithm == "sha256" and name != path:
            found.sha256[name] = base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()


def _md5sums(path: str, content: bytes, found: Vendored) -> None:
    """https://manpages.debian.org/bookworm/dpkg-dev/deb-md5sums.5: digest, two spaces, path below the root."""
    root = path.rpartition("var/lib/dpkg/info/")[0]
    for line in _rows(content.decode("utf-8").splitlines()):
        digest, _, name = line.partition("  ")
        if _MD5.fullmatch(digest):
            inner = normpath(join(root, name))
            found.md5[inner] = digest
            found.listed.setdefault(inner, path)


def _npm(path: str, content: bytes, found: Vendored) -> None:
    """https://docs.npmjs.com/cli/configuring-npm/package-lock-json#hidden-lockfiles"""
    base = dirname(dirname(path))
    packages: Mapping[str, dict[str, object]] = load_json(content, limit=LIST_LIMIT)["packages"]
    for name, item in packages.items():
        if (item.get("integrity") or item.get("inBundle")) and not item.get("link"):
            found.packages.add(normpath(join(base, name)))


def _rows(rows: Iterable[_Row]) -> Iterator[_Row]:
    for number, row in enumerate(rows):
        if number >= ROWS_LIMIT:
            raise ValueError(f"more than {ROWS_LIMIT} rows")
        yield row
