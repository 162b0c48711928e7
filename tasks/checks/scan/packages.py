"""What a bundle is built from: its packages, where each is declared, and what could not be read or told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from packaging.utils import canonicalize_name, canonicalize_version

from tasks.checks.kit.base import Finding, one_line
from tasks.checks.scan.versions import ADVISED, Ecosystem, folded_name, is_version

PACKAGES_LIMIT = 20_000
LOOSE_LIMIT = 20_000
UNREAD_LIMIT = 2_000
NAMES_SHOWN = 12

_PART = r"[\w.~+-]{1,214}"
_PLAIN = re.compile(rf"(@{_PART}/)?{_PART}", re.ASCII)
_NAMES = {
    "Go": re.compile(r"[\w.~!+-]+(/[\w.~!+-]+){0,30}", re.ASCII),
    "Maven": re.compile(rf"{_PART}:{_PART}", re.ASCII),
    "Packagist": re.compile(rf"{_PART}/{_PART}", re.ASCII),
}
# A commit, or a digest.
_FIXED = re.compile(r"(?<![0-9a-f])[0-9a-f]{40}(?:[0-9a-f]{24})?(?![0-9a-f])|sha(?:256|384|512)[=:-]")
_ELSEWHERE = "what comes from an address"


@dataclass(frozen=True, order=True)
class Package:
    """A package at an exact version. `ecosystem` is OSV's word for where it comes from, where OSV has one."""

    ecosystem: Ecosystem
    name: str
    version: str


@dataclass
class Declared:
    """The declared packages, each with the first file that declares it.

    `loose` are, by file, what has no exact version; `unreadable` says by file why it could not be read; `included`
    are the files that others name, by path, each with the file that names it and its reader. `direct` are the files
    that do not say what their packages bring with them, `complete` the ecosystems of which another file says it.
    `development` are the packages that are declared for development only. `unnamed` are jars that do not say what
    they are, `closed` archives that are not opened, and `inner` counts the lock files of the packages themselves.
    `fixed` are, by file, the names of what comes from an address at one commit, or with a digest.
    """

    packages: dict[Package, str] = field(default_factory=dict)
    loose: dict[str, list[tuple[Ecosystem, str]]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    included: dict[str, tuple[str, Reader]] = field(default_factory=dict)
    direct: dict[str, Ecosystem] = field(default_factory=dict)
    complete: set[Ecosystem] = field(default_factory=set)
    development: set[Package] = field(default_factory=set)
    unnamed: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    inner: int = 0
    fixed: dict[str, list[str]] = field(default_factory=dict)
    _loose: int = 0

    def add(self, path: str, ecosystem: Ecosystem, name: object, version: object, *, dev: bool = False) -> None:
        """Add what the file at `path` declares; without an exact version it is loose."""
        name, version = str(name or ""), str(version or "")
        named = _NAMES.get(ecosystem, _PLAIN).fullmatch(name) and len(name) <= 300
        if not named or not is_version(ecosystem, version):
            self._add_loose(path, ecosystem, name)
            return
        package = _spelled(ecosystem, name, version)
        if package not in self.packages and len(self.packages) >= PACKAGES_LIMIT:
            self.leave(path, f"the bundle declares more than {PACKAGES_LIMIT} packages")
            return
        if dev and package not in self.packages:
            self.development.add(package)
        elif not dev:
            self.development.discard(package)
        self.packages.setdefault(package, path)

    def elsewhere(self, path: str, ecosystem: Ecosystem, name: object = "", *, address: str = "") -> None:
        """Add what comes from an address instead of a registry. The address may hold a credential: it is not kept."""
        fixed = self.fixed.setdefault(path, []) if _FIXED.search(address) else []
        if _FIXED.search(address) and len(fixed) < LOOSE_LIMIT:
            fixed.append(str(name or _ELSEWHERE))
            return
        self._add_loose(path, ecosystem, str(name or _ELSEWHERE))

    def leave(self, path: str, why: str) -> None:
        """Note that a file, or a part of it, was not read."""
        if len(self.unreadable) < UNREAD_LIMIT:
            self.unreadable.setdefault(path, why)

    def _add_loose(self, path: str, ecosystem: Ecosystem, name: str) -> None:
        self._loose += 1
        if self._loose > LOOSE_LIMIT:
            self.leave(path, f"the bundle declares more than {LOOSE_LIMIT} packages without an exact version")
        else:
            self.loose.setdefault(path, []).append((ecosystem, name))

    def findings(self) -> Iterator[Finding]:
        """Name what cannot be looked up for want of a version, a reader, or advisories.

        Rules: `unpinned`, `unreadable`, `not-looked-up`.
        """
        yield from self._unpinned()
        for path, why in sorted(self.unreadable.items()):
            text = f"{one_line(path)}: {why}; what it declares was not looked up"
            yield Finding("medium", text, "unreadable", path, unseen=True)
        yield from self._unknown()
        for path, names in sorted(self.fixed.items()):
            text = f"{one_line(path)}: {listed(names)}, from addresses at one commit or digest: not looked up"
            yield Finding("low", text, "not-looked-up", path, unseen=True, count=len(names))
        notes = [
            (
                {path for path, system in self.direct.items() if system not in self.complete},
                "what the packages that it names bring with them was not looked up: a lock file would say",
            ),
            (self.unnamed, "they do not say what they are, so they were not looked up"),
            (self.closed, "such archives are not opened for packages"),
        ]
        for paths, why in notes:
            if paths:
                yield Finding("low", f"{listed(paths)}: {why}", "not-looked-up", unseen=True, count=len(paths))
        if self.inner:
            files = "1 lock file" if self.inner == 1 else f"{self.inner} lock files"
            text = f"{files} inside of packages, which say what their authors used: not read"
            yield Finding("low", text, "not-looked-up", unseen=True, count=self.inner)

    def _unpinned(self) -> Iterator[Finding]:
        exact = {(package.ecosystem, folded_name(package.ecosystem, package.name)) for package in self.packages}
        for path, items in sorted(self.loose.items()):
            names = {one_line(name, 60) for system, name in items if (system, folded_name(system, name)) not in exact}
            if names:
                text = f"{one_line(path)} gives no exact version of {listed(names)}"
                text += ": what will run there cannot be looked up"
                yield Finding("medium", text, "unpinned", path)

    def _unknown(self) -> Iterator[Finding]:
        unknown: dict[str, list[Package]] = {}
        for package in self.packages:
            if package.ecosystem not in ADVISED:
                unknown.setdefault(package.ecosystem, []).append(package)
        for ecosystem, packages in sorted(unknown.items()):
            count = f"{len(packages)} package" + ("" if len(packages) == 1 else "s")
            path = self.packages[min(packages)]
            text = f"{count} of {ecosystem} ({listed(each.name for each in packages)}): no advisories are read for them"
            yield Finding("medium", text, "not-looked-up", path, unseen=True)


Reader = Callable[[str, bytes, Declared], None]


def read_safely(path: str, content: bytes, found: Declared, reader: Reader) -> None:
    """Add what `reader` reads of a file to `found`, or that it is not as its name says."""
    try:
        reader(path, content, found)
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError) as error:
        found.leave(path, f"not as such a file should be ({type(error).__name__}: {one_line(error, 80)})")


def listed(names: Iterable[str]) -> str:
    """List the first of `names` in words, and count the rest."""
    ordered = sorted(set(names))
    shown = ", ".join(one_line(name, 60) for name in ordered[:NAMES_SHOWN])
    return shown + (f" and {len(ordered) - NAMES_SHOWN} more" if len(ordered) > NAMES_SHOWN else "")


def _spelled(ecosystem: Ecosystem, name: str, version: str) -> Package:
    """Make the package in the one spelling under which OSV keeps it."""
    if ecosystem == "PyPI":
        return Package(ecosystem, canonicalize_name(name), canonicalize_version(version, strip_trailing_zero=False))
    if ecosystem == "Packagist":
        return Package(ecosystem, name.lower(), version.removeprefix("v"))
    return Package(ecosystem, name, version.removeprefix("v") if ecosystem in ("Go", "npm") else version)
