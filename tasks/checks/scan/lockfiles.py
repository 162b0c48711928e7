"""Reads which packages a bundle is built from, as its own lock files and metadata declare them.

Read are, by their names: requirements files of pip, pylock.toml, uv.lock, poetry.lock and the METADATA of installed
Python packages; `*.deps.json` of .NET; package-lock.json, npm-shrinkwrap.json and node_modules/.package-lock.json.
Nothing is installed, resolved or asked for: what names no exact version is reported as such.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.parser import BytesHeaderParser
from posixpath import dirname, join, normpath
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, canonicalize_version

from ashat.bundle.manifest import FileEntry
from ashat.common.documents import load_json, load_toml
from tasks.checks.kit.base import CheckContext, Finding, one_line
from tasks.checks.scan.versions import Ecosystem, is_version

FILE_LIMIT = 8 * 1024 * 1024
TOTAL_LIMIT = 128 * 1024 * 1024
PACKAGES_LIMIT = 20_000
LINES_LIMIT = 100_000
REQUIREMENT_LIMIT = 4_096
NAMES_SHOWN = 5

_NAME = re.compile(r"(@[\w.~-]{1,214}/)?[\w.~-]{1,214}", re.ASCII)
_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION = re.compile(r"\s--?[A-Za-z].*$")
_EDITABLE = re.compile(r"(-e|--editable)[\s=]*+\S+://")
_INCLUDE = re.compile(r"(?:-[rc]\s*|--(?:requirement|constraint)[\s=]+)(.+)")
_METADATA = re.compile(r"(^|/)[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO)$")
_REQUIREMENTS = re.compile(r"(^|/)(requirements/[^/]+|([^/]*[-_.])?requirements([-_.][^/]*)?)\.txt$", re.IGNORECASE)


@dataclass(frozen=True, order=True)
class Package:
    """A package at an exact version. `ecosystem` is OSV's word for where it comes from."""

    ecosystem: Ecosystem
    name: str
    version: str


@dataclass
class Declared:
    """The declared packages, each with the first file that declares it.

    `loose` are, by file, what has no exact version; `unreadable` says by file why it could not be read; `included`
    are the files that others name.
    """

    packages: dict[Package, str] = field(default_factory=dict)
    loose: dict[str, list[tuple[Ecosystem, str]]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    included: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, ecosystem: Ecosystem, name: str, version: str | None) -> None:
        """Add what the file at `path` declares; without an exact version it is loose."""
        if version and _NAME.fullmatch(name) and is_version(ecosystem, version):
            if len(self.packages) < PACKAGES_LIMIT:
                self.packages.setdefault(_spelled(ecosystem, name, version), path)
            else:
                self.unreadable[path] = f"the bundle declares more than {PACKAGES_LIMIT} packages"
        else:
            self.loose.setdefault(path, []).append((ecosystem, name))

    def findings(self) -> Iterator[Finding]:
        """Name what cannot be looked up for want of a version or a readable file. Rules: `unpinned`, `unreadable`."""
        exact = {(package.ecosystem, canonicalize_name(package.name)) for package in self.packages}
        for path, items in sorted(self.loose.items()):
            names = sorted(
                {one_line(name, 60) for ecosystem, name in items if (ecosystem, canonicalize_name(name)) not in exact}
            )
            if names:
                shown = ", ".join(names[:NAMES_SHOWN])
                shown += f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
                text = f"{one_line(path)} gives no exact version of {shown}: what will run there cannot be looked up"
                yield Finding("medium", text, "unpinned", path)
        for path, why in sorted(self.unreadable.items()):
            text = f"{one_line(path)}: {why}; what it declares was not looked up"
            yield Finding("medium", text, "unreadable", path)


_Reader = Callable[[str, bytes, Declared], None]


def declared_packages(context: CheckContext) -> Declared:
    """Read every file of the bundle that declares packages, a file at a time."""
    found = Declared()
    _read(context, [(file, reader) for file in context.manifest.files if (reader := _reader_of(file.path))], found)
    known = {file.path for file in context.manifest.files if _reader_of(file.path)}
    while included := {path: origin for path, origin in found.included.items() if path not in known}:
        known |= included.keys()
        there = [file for path in sorted(included) if (file := context.manifest.by_path.get(path))]
        for path in sorted(included.keys() - {file.path for file in there}):
            shown = "a file from an address" if ":/" in path else f"{one_line(path, 80)}, which is not in the bundle"
            found.unreadable[included[path]] = f"it includes {shown}"
        _read(context, [(file, _requirements) for file in there], found)
    return found


def _read(context: CheckContext, files: list[tuple[FileEntry, _Reader]], found: Declared) -> None:
    wanted, total = [], 0
    for file, reader in files:
        total += file.size
        if file.size > FILE_LIMIT:
            found.unreadable[file.path] = f"over {FILE_LIMIT // 1024 // 1024} MB"
        elif total > TOTAL_LIMIT:
            found.unreadable[file.path] = f"beyond {TOTAL_LIMIT // 1024 // 1024} MB of such files"
        elif file.size:
            wanted.append((file, reader))
    contents = context.public.files_bytes([file for file, _ in wanted]) if wanted else iter(())
    for (file, reader), content in zip(wanted, contents, strict=True):
        context.left()
        read_declaration(file.path, content, found, reader)


def read_declaration(path: str, content: bytes, found: Declared, reader: _Reader | None = None) -> None:
    """Add to `found` what one file declares, read by `reader`, or as its name says."""
    reader = reader or _reader_of(path)
    if reader is None:
        return
    try:
        reader(path, content, found)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        found.unreadable[path] = f"not as such a file should be ({type(error).__name__}: {one_line(error, 80)})"


def _reader_of(path: str) -> _Reader | None:
    name = path.rpartition("/")[2]
    if _METADATA.search(path):
        return _metadata
    if name in ("package-lock.json", "npm-shrinkwrap.json", ".package-lock.json"):
        return _npm
    if name.endswith(".deps.json"):
        return _dotnet
    if name in ("uv.lock", "poetry.lock") or re.fullmatch(r"pylock(\.[^.]+)?\.toml", name):
        return _toml
    return _requirements if _REQUIREMENTS.search(path) else None


def _requirements(path: str, content: bytes, found: Declared) -> None:
    """https://pip.pypa.io/en/stable/reference/requirements-file-format/"""
    lines = re.sub(r"\\\r?\n", " ", content.decode("utf-8-sig")).splitlines()
    if len(lines) > LINES_LIMIT:
        raise ValueError(f"{len(lines)} lines; at most {LINES_LIMIT} are read")
    for line in lines:
        text = _COMMENT.sub("", line).strip()
        if include := _INCLUDE.match(text):
            found.included.setdefault(normpath(join(dirname(path), include[1].strip())), path)
        elif text and (not text.startswith("-") or _EDITABLE.match(text)):
            _requirement(path, _OPTION.sub("", text), found)


def _requirement(path: str, text: str, found: Declared) -> None:
    try:
        wanted = Requirement(text if len(text) <= REQUIREMENT_LIMIT else "")
    except InvalidRequirement:
        # An address may hold a credential, so it is not shown.
        found.add(path, "PyPI", "what comes from an address" if "://" in text else text, None)
        return
    exact = [each.version for each in wanted.specifier if each.operator in ("==", "===")]
    found.add(path, "PyPI", wanted.name, exact[0] if len(exact) == 1 else None)


def _toml(path: str, content: bytes, found: Declared) -> None:
    """Add the packages that come from an index; the project itself and what comes from a directory are none."""
    document = load_toml(content, limit=FILE_LIMIT)
    for item in [*document.get("package", ()), *document.get("packages", ())]:
        source = item.get("source", {})
        local = {"editable", "virtual", "directory", "path"} & (source.keys() | item.keys())
        if local or source.get("type") in ("directory", "file"):
            continue
        elsewhere = {"git", "url", "vcs", "archive"} & (source.keys() | item.keys()) and "registry" not in source
        foreign = elsewhere and source.get("type") != "legacy"
        found.add(path, "PyPI", str(item["name"]), None if foreign else item.get("version"))


def _metadata(path: str, content: bytes, found: Declared) -> None:
    """https://packaging.python.org/en/latest/specifications/core-metadata/, of which two headers are needed."""
    headers = BytesHeaderParser().parsebytes(re.split(rb"\r?\n\r?\n", content, maxsplit=1)[0])
    if headers["Name"] is None:
        raise ValueError("no header Name")
    found.add(path, "PyPI", str(headers["Name"]).strip(), str(headers["Version"] or "").strip())


def _dotnet(path: str, content: bytes, found: Declared) -> None:
    """https://github.com/dotnet/sdk/blob/main/documentation/specs/runtime-configuration-file.md"""
    for key, item in load_json(content, limit=FILE_LIMIT)["libraries"].items():
        if item.get("type") == "package":
            name, _, version = key.partition("/")
            found.add(path, "NuGet", name, version)


def _npm(path: str, content: bytes, found: Declared) -> None:
    """https://docs.npmjs.com/cli/configuring-npm/package-lock-json: `packages` since version 2, before that a tree."""
    document = load_json(content, limit=FILE_LIMIT)
    if "packages" in document:
        for key, item in document["packages"].items():
            _, inside, name = key.rpartition("node_modules/")
            if inside and not item.get("link"):
                found.add(path, "npm", item.get("name") or name, item.get("version"))
        return
    left: list[dict[str, Any]] = [document.get("dependencies", {})]
    while left:
        for name, item in left.pop().items():
            left.append(item.get("dependencies", {}))
            version = str(item.get("version", ""))
            if alias := re.fullmatch(r"npm:(.+)@([^@]+)", version):
                found.add(path, "npm", alias[1], alias[2])
            elif not version.startswith("file:"):
                found.add(path, "npm", name, version)


def _spelled(ecosystem: Ecosystem, name: str, version: str) -> Package:
    """Make the package, in the one spelling under which OSV keeps those of PyPI; the others have one anyway."""
    if ecosystem == "PyPI":
        return Package(ecosystem, canonicalize_name(name), canonicalize_version(version, strip_trailing_zero=False))
    return Package(ecosystem, name, version)
