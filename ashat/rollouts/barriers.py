"""Find the releases over which a Mainframe gets to a release that cannot be installed from every version.

A release may say from which versions it can be installed (its `origins`); one that says nothing is installed from any.
A Mainframe further behind is led over stepping stones, in order, and skips none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from ashat.common.text import cut, printable
from ashat.errors import PolicyError

_NAMED = 5
WHY_LENGTH = 500


class Release(NamedTuple):
    """Name a release by its version; `origins` are the versions from which it can be installed, None any."""

    version: str
    origins: frozenset[str] | None = None


class DeadEnd(NamedTuple):
    """Say why no path leads to a release."""

    why: str


def path(known: Iterable[Release], current: str | None, to: str) -> list[str] | DeadEnd:
    """Return the versions to install one after the other, the last one `to`, on what runs `current`.

    `known` are the releases from the oldest to the newest; each step is to a newer one. Of several ways it is the one
    with the fewest steps, and of these the one over the newest releases. It is empty where `to` runs already. `current`
    is None on a Mainframe that runs nothing, which begins with a release without origins.

    Raises:
        PolicyError: barriers lead in a circle; one line that names it.
    """
    releases = {release.version: release for release in known}
    order = {version: place for place, version in enumerate(releases)}
    if current == to:
        return []
    if to not in releases:
        return DeadEnd(f"The release {printable(to)} is not known here.")
    refuse_circle(releases.values())
    runs = -1 if current is None else order.get(current, -1)
    if order[to] < runs:
        return DeadEnd(f"The release {printable(to)} is older than {printable(current or '')}: that way is a rollback.")
    onward, queue = {to: ""}, deque([to])
    while queue:
        version = queue.popleft()
        origins = releases[version].origins
        if origins is None or current in origins:
            return list(_steps(onward, version))
        earlier = [each for each in origins if runs < order.get(each, -1) < order[version] and each not in onward]
        for origin in sorted(earlier, key=order.__getitem__, reverse=True):
            onward[origin] = version
            queue.append(origin)
    return DeadEnd(_why(releases, onward, current, to))


def why_barred(release: Release, current: str) -> str:
    """Say why a release cannot be installed on what runs the version `current` ("": one that is not known); "" where it
    can. The same version may always be installed again."""
    if release.origins is None or current == release.version or current in release.origins:
        return ""
    named = sorted(release.origins)
    origins = ", ".join(printable(each) for each in named[:_NAMED]) + (" …" if len(named) > _NAMED else "")
    runs = f"runs {printable(current)}" if current else "runs a release that names no version"
    return cut(f"{printable(release.version)} is installed only from {origins}, and this Mainframe {runs}", WHY_LENGTH)


def refuse_circle(releases: Iterable[Release]) -> None:
    """Refuse releases of which none of several can be installed before another.

    Raises:
        PolicyError: there is such a circle; one line that names it.
    """
    graph = {release.version: release.origins or frozenset() for release in releases}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: Sequence[str] = error.args[1]
        named = " -> ".join(printable(version) for version in circle[: _NAMED + 1])
        more = " -> …" if len(circle) > _NAMED + 1 else ""
        raise PolicyError(
            f"The barriers lead in a circle: {named}{more}. Change from which versions one is installed."
        ) from None


def _steps(onward: Mapping[str, str], version: str) -> Iterable[str]:
    """Walk from `version` to the end."""
    while version:
        yield version
        version = onward[version]


def _why(releases: Mapping[str, Release], reached: Iterable[str], current: str | None, to: str) -> str:
    """Say where the search for a path ended: at a release that is installed only from what cannot be reached."""
    runs = f"From {printable(current)}" if current else "Onto a Mainframe that runs nothing"
    asked = sorted({origin for version in reached for origin in releases[version].origins or ()} - set(releases))
    first = list(reached)[-1]
    origins = ", ".join(printable(each) for each in sorted(releases[first].origins or ())[:_NAMED]) or "no version"
    text = f"{runs} no path leads to {printable(to)}: {printable(first)} is installed only from {origins}."
    if asked:
        text += f" Not known here: {', '.join(printable(each) for each in asked[:_NAMED])}."
    return text
