"""Compares versions as each ecosystem orders them: PEP 440 for PyPI, Semantic Versioning for npm, NuGet's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, get_args

from packaging.utils import canonicalize_name
from packaging.version import Version
from semver import Version as SemanticVersion
from univers.nuget import InvalidNuGetVersion
from univers.nuget import Version as NuGetVersion

Ecosystem = Literal["PyPI", "npm", "NuGet"]
ECOSYSTEMS: tuple[Ecosystem, ...] = get_args(Ecosystem)
_LENGTH_LIMIT = 128
_read_nuget: Callable[[str], Any] = NuGetVersion.from_string


@lru_cache(maxsize=4096)
def parse_version(ecosystem: Ecosystem, text: str) -> Any:
    """Parse a version into a value that compares with others of the same ecosystem.

    Raises:
        ValueError: the text is no version there.
    """
    if len(text) > _LENGTH_LIMIT:
        raise ValueError(f"no version: {len(text)} characters")
    if ecosystem == "PyPI":
        return Version(text)
    if ecosystem == "npm":
        return SemanticVersion.parse(text.removeprefix("v"), optional_minor_and_patch=True)
    try:
        parsed: Any = _read_nuget(text)
    except InvalidNuGetVersion as error:
        raise ValueError(str(error)) from None
    if parsed is None:
        raise ValueError("no version: it is empty")
    return parsed


def is_version(ecosystem: Ecosystem, text: object) -> bool:
    """Tell whether `text` is one exact version there."""
    try:
        parse_version(ecosystem, text if isinstance(text, str) else "")
    except ValueError:
        return False
    return True


def same_name(ecosystem: Ecosystem, one: str, other: str) -> bool:
    """Tell whether two spellings name one package: npm minds capitals, NuGet does not, PyPI folds more (PEP 503)."""
    if ecosystem == "PyPI":
        return canonicalize_name(one) == canonicalize_name(other)
    return one == other if ecosystem == "npm" else one.casefold() == other.casefold()
