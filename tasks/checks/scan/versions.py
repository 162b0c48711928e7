"""Compares versions as each ecosystem orders them: PEP 440, Semantic Versioning, NuGet's, Maven's, RubyGems' own."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, get_args

from packaging.utils import canonicalize_name
from packaging.version import Version
from semver import Version as SemanticVersion
from univers.gem import GemVersion, InvalidVersionError
from univers.maven import Version as MavenVersion
from univers.nuget import InvalidNuGetVersion
from univers.nuget import Version as NuGetVersion

Ecosystem = Literal[
    "PyPI", "npm", "NuGet", "Maven", "Go", "crates.io", "RubyGems", "Packagist", "conda", "Debian", "Alpine"
]
ECOSYSTEMS: tuple[Ecosystem, ...] = get_args(Ecosystem)
# Those whose advisories OSV keeps by name, and whose versions are ordered here. It keeps Debian's by their release.
ADVISED: frozenset[str] = frozenset({"PyPI", "npm", "NuGet", "Maven", "Go", "crates.io", "RubyGems", "Packagist"})
_LENGTH_LIMIT = 128
_read_nuget: Callable[[str], Any] = NuGetVersion.from_string
_read_maven: Callable[[str], Any] = MavenVersion
_read_gem: Callable[[str], Any] = GemVersion
# https://getcomposer.org/doc/articles/versions.md: up to four numbers, a stability, its number.
_COMPOSER = re.compile(
    r"v?(\d{1,9}(?:\.\d{1,9}){0,3})(?:[-._]?(dev|alpha|a|beta|b|rc|patch|pl|p)[-._]?(\d{1,9})?)?(\+\S+)?"
)
_STABILITY = {"dev": 0, "alpha": 1, "a": 1, "beta": 2, "b": 2, "rc": 3, "": 4, "patch": 5, "pl": 5, "p": 5}
_MAVEN = re.compile(r"(?=[^,]*\d)[\w.+-]+|[A-Za-z][\w-]*", re.ASCII)
_PLAIN = re.compile(r"[\w.+~:^!-]*\d[\w.+~:^!-]*", re.ASCII)


@lru_cache(maxsize=4096)
def parse_version(ecosystem: Ecosystem, text: str) -> Any:
    """Parse a version into a value that compares with others of the same ecosystem.

    Raises:
        ValueError: the text is no version there.
    """
    if len(text) > _LENGTH_LIMIT:
        raise ValueError(f"no version: {len(text)} characters")
    return _PARSERS[ecosystem](text)


def _semantic(text: str) -> SemanticVersion:
    return SemanticVersion.parse(text.removeprefix("v"), optional_minor_and_patch=True)


def _nuget(text: str) -> Any:
    try:
        parsed: Any = _read_nuget(text)
    except InvalidNuGetVersion as error:
        raise ValueError(str(error)) from None
    if parsed is None:
        raise ValueError("no version: it is empty")
    return parsed


def _maven(text: str) -> Any:
    if not _MAVEN.fullmatch(text) or not any(char.isdigit() for char in text):
        raise ValueError(f"no version: {text!r}")
    return _read_maven(text)


def _gem(text: str) -> Any:
    try:
        return _read_gem(text) if text.strip() else _refuse(text)
    except InvalidVersionError as error:
        raise ValueError(str(error)) from None


def _composer(text: str) -> tuple[tuple[int, ...], int, int]:
    found = _COMPOSER.fullmatch(text.lower())
    if not found:
        raise ValueError(f"no version: {text!r}")
    numbers = tuple(int(part) for part in found[1].split("."))
    return (*numbers, 0, 0, 0, 0)[:4], _STABILITY[found[2] or ""], int(found[3] or 0)


def _plain(text: str) -> str:
    """Take a version that is only told, not compared."""
    return text if _PLAIN.fullmatch(text) else _refuse(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"no version: {text!r}")


_PARSERS: dict[str, Callable[[str], Any]] = {
    "PyPI": Version,
    "npm": _semantic,
    "Go": _semantic,
    "crates.io": _semantic,
    "NuGet": _nuget,
    "Maven": _maven,
    "RubyGems": _gem,
    "Packagist": _composer,
    "conda": _plain,
    "Debian": _plain,
    "Alpine": _plain,
}


def is_version(ecosystem: Ecosystem, text: object) -> bool:
    """Tell whether `text` is one exact version there."""
    try:
        parse_version(ecosystem, text if isinstance(text, str) else "")
    except ValueError:
        return False
    return True


def folded_name(ecosystem: Ecosystem, name: str) -> str:
    """Fold the spellings of a name into one: npm and Go mind capitals, NuGet does not, PyPI folds more (PEP 503)."""
    if ecosystem == "PyPI":
        return canonicalize_name(name)
    return name.casefold() if ecosystem in ("NuGet", "Packagist") else name


def same_name(ecosystem: Ecosystem, one: str, other: str) -> bool:
    """Tell whether two spellings name one package."""
    return folded_name(ecosystem, one) == folded_name(ecosystem, other)
