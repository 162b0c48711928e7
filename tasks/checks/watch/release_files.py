"""Finds what became of a release's files on the server's disk, as its node compared them with the manifest.

Rules: `file-changed`, `file-missing`, `file-mode`, `file-extra`, and `file-unseen` for what was not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ashat.protocol.probes import ListedPaths, ReleaseProbe
from tasks.checks.kit.base import Finding, Severity, one_line

SHOWN = 5


class _Kind(NamedTuple):
    field: str
    severity: Severity
    rule: str
    says: str


_KINDS = (
    _Kind("changed", "high", "file-changed", "{} not as in the manifest: {}"),
    _Kind("missing", "high", "file-missing", "{} missing that the manifest names: {}"),
    _Kind("modes", "high", "file-mode", "{} not of the mode that it should have: {}"),
    _Kind(
        "extra", "medium", "file-extra", "{} written beside the release's files: {}; let the program write elsewhere"
    ),
)


def file_findings(start: ReleaseProbe | None, end: ReleaseProbe | None, bundle: str) -> Iterator[Finding]:
    """Find how the files differed at the start of the verification, and at its end."""
    looks = {"at the start": start, "at the end": end}
    if start is None or end is None:
        yield Finding("medium", "its node tells nothing of files: update it", "file-unseen", unseen=True)
    for when, probe in looks.items():
        if probe is not None:
            yield from _unseen(when, probe, bundle)
    for kind in _KINDS:
        found = {when: getattr(probe, kind.field) for when, probe in looks.items() if probe is not None}
        yield from _differing(kind, {when: paths for when, paths in found.items() if paths.count})
    if end is not None and end.cached.count:
        kept = f"{end.cached.count} of Python's caches of its modules lie in the release's directory"
        yield Finding("low", kept, "file-extra", count=end.cached.count)


def _differing(kind: _Kind, found: Mapping[str, ListedPaths]) -> Iterator[Finding]:
    if not found:
        return
    most = max(paths.count for paths in found.values())
    names = list(dict.fromkeys(name for paths in found.values() for name in sorted(paths.names)))
    shown = ", ".join(names[:SHOWN]) + (f" and {most - SHOWN} more" if most > SHOWN else "")
    counted = "1 path was" if most == 1 else f"{most} paths were"
    text = one_line(kind.says.format(counted, shown))
    yield Finding(kind.severity, f"{' and '.join(found)} {text}", kind.rule, names[0], count=most)


def _unseen(when: str, probe: ReleaseProbe, bundle: str) -> Iterator[Finding]:
    if probe.bundle is None:
        why = one_line(probe.detail) or "no reason given"
        yield Finding("medium", f"{when} no file was looked at: {why}", "file-unseen", unseen=True)
    elif probe.bundle != bundle:
        yield Finding("high", f"{when} the files on the server were those of {probe.bundle[:12]}, not {bundle[:12]}")
    if probe.left or (probe.bundle is not None and not probe.walked):
        left = f"{when} {probe.left} files, and what lies beside them, were not looked at"
        text = f"{left} in {probe.ms / 1000:.0f} s: verify again when the server has less to do"
        yield Finding("medium", text, "file-unseen", unseen=True, count=max(probe.left, 1))
    if probe.unread.count:
        names = one_line(", ".join(sorted(probe.unread.names)[:SHOWN]))
        text = f"{when} the node could not read {probe.unread.count} paths: {names}"
        yield Finding("medium", text, "file-unseen", unseen=True, count=probe.unread.count)


def file_figures(probe: ReleaseProbe | None, prefix: str) -> dict[str, int]:
    """Return the figures of one look, each named with `prefix`; none where the node told nothing."""
    if probe is None or probe.bundle is None:
        return {}
    kinds = ("changed", "missing", "modes", "extra", "cached", "unread")
    figures = {f"{prefix}files_{kind}": getattr(probe, kind).count for kind in kinds}
    return {f"{prefix}files_compared": probe.files, f"{prefix}files_left": probe.left, **figures}
