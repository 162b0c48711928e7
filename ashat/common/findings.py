"""What a look at an installation finds: a line for each thing, what to do about it, and an end of it all.

`deploy doctor` and `ashat-node check` are made of this. A look changes nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ashat.common.shortage import reason
from ashat.errors import AshatError

Verdict = Literal["ok", "warning", "wrong", "not looked at"]
MARKS: dict[Verdict, str] = {"ok": "✅", "warning": "⚠️", "wrong": "❌", "not looked at": "➖"}
LOW_BYTES = 1_000_000_000
LEAST_BYTES = 64 * 1024 * 1024
_LEAST_INODES = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, what was seen, and what to do about it."""

    what: str
    verdict: Verdict
    seen: str
    todo: str = ""


class Look(NamedTuple):
    """A look at something: what it is called if it comes to no end, and what yields the findings."""

    what: str
    findings: Callable[[], Iterable[Finding]]


class _Looking(threading.Thread):
    """A look under way. It holds up nobody who ends."""

    def __init__(self, look: Look) -> None:
        super().__init__(name=f"look at {look.what}", daemon=True)
        self._look = look
        self._found: list[Finding] = []

    def run(self) -> None:
        """Look, and keep what is found as it comes."""
        what = self._look.what
        try:
            for finding in self._look.findings():
                self._found.append(finding)
        except AshatError as error:
            self._found.append(Finding(what, "wrong", str(error)))
        except OSError as error:
            self._found.append(Finding(what, "wrong", f"it cannot be looked at: {reason(error)}"))
        except Exception as error:  # noqa: BLE001  one look that fails keeps nobody from the others
            self._found.append(Finding(what, "wrong", f"looking at it failed: {type(error).__name__}: {error}"))

    def found(self, seconds: float) -> list[Finding]:
        """Return what was found so far; a look that goes on is wrong, too."""
        goes_on, found = self.is_alive(), list(self._found)
        if goes_on:
            found.append(Finding(self._look.what, "wrong", f"the look at it did not end within {seconds:g} s"))
        return found


def look_at_all(looks: Sequence[Look], seconds: float) -> list[Finding]:
    """Look at everything at once, for `seconds` at most; the findings are in the order of the looks."""
    looking = [_Looking(look) for look in looks]
    for thread in looking:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in looking:
        thread.join(max(deadline - time.monotonic(), 0.0))
    return [finding for thread in looking for finding in thread.found(seconds)]


def is_wrong(findings: Iterable[Finding]) -> bool:
    """Tell whether anything is wrong."""
    return any(finding.verdict == "wrong" for finding in findings)


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Yield a line for each finding, what to do below it, and the sum."""
    for finding in findings:
        yield f"{MARKS[finding.verdict]} {finding.what}: {finding.seen}"
        if finding.todo:
            yield f"   → {finding.todo}"
    yield ", ".join(f"{count} {verdict}" for verdict, count in _counts(findings).items() if count)


def as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Make what `--json` prints."""
    return {"wrong": is_wrong(findings), "counts": _counts(findings), "findings": [asdict(f) for f in findings]}


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    return {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in MARKS}


def look_at_disk(what: str, directory: Path) -> Iterator[Finding]:
    """Look at the room on the disk of `directory`, or of the nearest directory above it that there is."""
    there = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(there).free
    inodes = os.statvfs(there)
    seen = f"{free / 1e9:.1f} GB free in {there}"
    if free < LEAST_BYTES:
        yield Finding(what, "wrong", seen, "make room there; nothing can be kept")
    elif inodes.f_files and inodes.f_favail < _LEAST_INODES:
        yield Finding(what, "wrong", f"{inodes.f_favail} inodes free in {there}", "remove files there")
    elif free < LOW_BYTES:
        yield Finding(what, "warning", seen, "make room before the next release")
    else:
        yield Finding(what, "ok", seen)


def look_at_private(what: str, paths: Iterable[Path], *, mask: int = 0o077) -> Iterator[Finding]:
    """Look whether others may do with files what `mask` has of their modes; one that is not there is left out."""
    closed = 0
    for path in paths:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            continue
        if mode & mask:
            todo = f"chmod {mode & ~mask:o} {path}; where others did read a secret there, make another"
            yield Finding(what, "wrong", f"others may use {path} (mode {mode:04o})", todo)
        else:
            closed += 1
    if closed:
        yield Finding(what, "ok", f"{closed} closed to others")
