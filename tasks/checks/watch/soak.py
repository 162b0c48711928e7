"""Soaks the program in light load for a while, and watches its health, its answers, and what it comes to hold.

What grows with the time and not with the requests, such as a job that never ends what it begins, shows itself only
here: the medians of three thirds of the time, each above the one before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median_low

from ashat.protocol.probes import ProcessProbe
from tasks.checks.kit.base import CheckContext, Finding, one_line
from tasks.checks.kit.http import NoAnswerError, Web
from tasks.checks.watch.growth import MIB

REQUEST_SECONDS = 0.5
HEALTH_SECONDS = 2.0
ANSWER_SECONDS = 10.0
SAMPLES = 30
TELLING = 9
_LEAST = {"processes": 4, "threads": 6, "open_files": 6, "memory_bytes": 16 * MIB}
_SAYS = {"processes": "processes", "threads": "threads", "open_files": "open files", "memory_bytes": "memory"}


@dataclass
class Soaked:
    """What was seen over `seconds`: the node's counts in turn, and what failed."""

    seconds: float = 0.0
    requests: int = 0
    failed: int = 0
    failure: str = ""
    looks: int = 0
    unhealthy: int = 0
    illness: str = ""
    counts: list[ProcessProbe] = field(default_factory=list)

    def series(self, name: str) -> list[int]:
        """List one quantity over the time."""
        return [getattr(each, name) for each in self.counts]


def soak(context: CheckContext, web: Web, paths: Sequence[str], seconds: float) -> Soaked:
    """Ask for `paths` in turn, two a second, for `seconds`; look at the program's health and processes meanwhile."""
    soaked, began = Soaked(), time.monotonic()
    next_health = next_count = 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        if elapsed >= next_health:
            next_health = elapsed + HEALTH_SECONDS
            _look_at_health(context, soaked)
        if elapsed >= next_count:
            next_count = elapsed + max(seconds / SAMPLES, REQUEST_SECONDS)
            probe = context.public.probe_process()
            soaked.counts += [probe] if probe.bundle else []
        _ask(web, paths[soaked.requests % len(paths)], soaked)
        context.sleep(max(min(REQUEST_SECONDS, seconds - (time.monotonic() - began)), 0.0))
    soaked.seconds = time.monotonic() - began
    return soaked


def _look_at_health(context: CheckContext, soaked: Soaked) -> None:
    probe = context.public.probe_health()
    soaked.looks += 1
    if not probe.healthy:
        soaked.unhealthy += 1
        soaked.illness = one_line(probe.detail) or f"status {probe.status}"


def _ask(web: Web, path: str, soaked: Soaked) -> None:
    soaked.requests += 1
    try:
        answer = web.ask(path, seconds=ANSWER_SECONDS)
        trouble = "" if 200 <= answer.status < 300 else f"status {answer.status}"
    except NoAnswerError as error:
        trouble = str(error)
    if trouble:
        soaked.failed += 1
        soaked.failure = f"{path}: {trouble}"


def soak_findings(soaked: Soaked, error_per_mille: int) -> Iterator[Finding]:
    """Find what was ill, what failed more often than `error_per_mille`, and what grew."""
    over = f"over {soaked.seconds:.0f} s of light load"
    if soaked.unhealthy:
        text = f"{soaked.unhealthy} of {soaked.looks} looks {over} were not healthy; the last: {soaked.illness}"
        yield Finding("high", text, "soak")
    if soaked.failed * 1000 > error_per_mille * soaked.requests:
        text = f"{soaked.failed} of {soaked.requests} requests {over} failed; the last: {one_line(soaked.failure)}"
        yield Finding("high", text, "soak")
    for name, least in _LEAST.items():
        grown = grows(soaked.series(name), least)
        if grown:
            by = f"{grown / MIB:.0f} MiB" if name == "memory_bytes" else str(grown)
            yield Finding("medium", f"{_SAYS[name]} grew by {by} {over}, without an end: is it a leak?", "growth", name)


def grows(counts: Sequence[int], least: int) -> int:
    """Compute by how much the last third's median is above the first's, if that is `least` or more, a tenth or more,
    and each third brought its share; else 0."""
    if len(counts) < TELLING:
        return 0
    third = len(counts) // 3
    first, second, last = (median_low(part) for part in (counts[:third], counts[third:-third], counts[-third:]))
    grown = last - first
    telling = grown >= max(least, first // 10) and min(second - first, last - second) >= grown / 4
    return grown if telling else 0


def soak_figures(soaked: Soaked) -> dict[str, int]:
    """Return the figures of the soak; none where there was none."""
    if not soaked.requests:
        return {}
    return {
        "soak_ms": round(soaked.seconds * 1000),
        "soak_requests": soaked.requests,
        "soak_failed": soaked.failed,
        "soak_looks": soaked.looks,
        "soak_unhealthy": soaked.unhealthy,
    }
