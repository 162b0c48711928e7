"""Points out packages whose name is one letter from a widely known one: such names are made to be mistyped."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.checks.kit.base import Finding, one_line
from tasks.checks.scan.packages import Declared
from tasks.checks.scan.popular import POPULAR, REAL
from tasks.checks.scan.versions import Ecosystem, folded_name

SHORTEST = 5


def lookalikes(declared: Declared) -> Iterator[Finding]:
    """Make a finding for each package with such a name. Rule: `lookalike`, path: the package's name."""
    names = {(each.ecosystem, each.name): place for each, place in sorted(declared.packages.items())}
    for place, items in sorted(declared.loose.items()):
        for item in items:
            names.setdefault(item, place)
    for (ecosystem, name), place in names.items():
        if known := resembled(ecosystem, name):
            text = (
                f"{one_line(name, 60)} of {one_line(place, 80)} is one letter from {known}, which is widely known: "
                "see that it is meant"
            )
            yield Finding("medium", text, "lookalike", name)


def resembled(ecosystem: Ecosystem, name: str) -> str:
    """Find the widely known name that `name` is one letter from; "" where there is none, or `name` is known itself.

    One letter is added, missing or another, or two have changed places.
    """
    popular, own = _index(ecosystem), folded_name(ecosystem, name)
    if own in POPULAR.get(ecosystem, ()) or own in REAL.get(ecosystem, ()) or len(own) > 100:
        return ""
    near = {known for short in _shortened(own) for known in popular.get(short, ()) if _one_letter(own, known)}
    return min(near, default="")


_indexes: dict[str, dict[str, list[str]]] = {}


def _index(ecosystem: Ecosystem) -> dict[str, list[str]]:
    """Index the known names of an ecosystem by what is left of them without one letter."""
    if ecosystem not in _indexes:
        index: dict[str, list[str]] = {}
        for name in sorted(POPULAR.get(ecosystem, ())):
            if len(name) >= SHORTEST:
                for short in _shortened(name):
                    index.setdefault(short, []).append(name)
        _indexes[ecosystem] = index
    return _indexes[ecosystem]


def _shortened(name: str) -> set[str]:
    return {name} | {name[:at] + name[at + 1 :] for at in range(len(name))}


def _one_letter(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    at = next((n for n, char in enumerate(short) if char != long[n]), len(short))
    if len(short) < len(long):
        return len(short) + 1 == len(long) and short[at:] == long[at + 1 :]
    swapped = short[at : at + 2] == long[at : at + 2][::-1] and short[at + 2 :] == long[at + 2 :]
    return short[at + 1 :] == long[at + 1 :] or swapped
