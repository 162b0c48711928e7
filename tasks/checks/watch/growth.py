"""Measures whether a program's threads, files, processes or memory grow with what it is asked, and do not stop.

After a warm-up the program is put under bursts of as many requests each, and its node counts after each. What is warmed
up by then grows no more, or less each time; what leaks grows by as much again. Where something seems to leak, larger
bursts follow, each of twice the requests of the one before: what a garbage collector takes back in the end does not
grow with them. V8 lets its heap grow for some 3,000 requests of Express before it begins to. The source of the idea is
the slope over steady load of soak tests; with few requests a burst, the numbers below say what is too little to tell.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ashat.protocol.probes import ProcessProbe
from tasks.checks.kit.base import CheckContext, Finding
from tasks.checks.kit.http import BODY_LIMIT, Web
from tasks.checks.kit.load import Load

REQUESTS = 100
CONCURRENCY = 4
BURSTS = 3
CONFIRMING = (2, 4)
# Of memory alone, which a garbage collector may take back late.
CONFIRMING_MEMORY = (8, 16, 32)
BURST_SECONDS = 5.0
ANSWER_SECONDS = 10.0
CALM_SECONDS = 0.25
MIB = 1024 * 1024
_MOST_BYTES = 512 * MIB


@dataclass(frozen=True)
class _Quantity:
    """What may leak: the least growth in a burst, and in all, that counts."""

    field: str
    says: str
    least: int
    least_in_all: int


QUANTITIES = (
    _Quantity("processes", "processes", 2, 6),
    _Quantity("threads", "threads", 3, 10),
    _Quantity("open_files", "open files", 3, 10),
    _Quantity("memory_bytes", "memory", MIB // 2, 4 * MIB),
)


@dataclass
class Bursts:
    """What the node counted after each burst, the first being the warm-up's; and how many requests each had."""

    counts: list[ProcessProbe] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    failed: int = 0

    def series(self, name: str) -> list[int]:
        """List one quantity after each burst."""
        return [getattr(each, name) for each in self.counts]

    def leaking(self) -> list[_Quantity]:
        """List what grew by as much again in each burst as in the first."""
        return [each for each in QUANTITIES if leaks(self.series(each.field), self.requests[1:], each)]


def leaks(counts: Sequence[int], requests: Sequence[int], quantity: _Quantity) -> bool:
    """Tell whether `counts`, after each of some bursts of `requests`, grow with the requests and do not stop."""
    grown = [after - before for before, after in pairwise(counts)]
    if len(grown) < BURSTS or min(requests) == 0 or min(grown) < quantity.least or sum(grown) < quantity.least_in_all:
        return False
    rates = [each / asked for each, asked in zip(grown, requests, strict=True)]
    return min(rates[BURSTS - 1 :]) >= sum(rates[: BURSTS - 1]) / (BURSTS - 1) / 2


def measure_bursts(context: CheckContext, web: Web, paths: Sequence[str]) -> Bursts:
    """Put the program under the bursts; fewer where it answers too slowly for one, or its node tells nothing."""
    bursts = Bursts()
    for _ in range(1 + BURSTS):
        if not _burst(context, web, paths, REQUESTS, bursts):
            return bursts
    while (factor := confirming(bursts)) and _burst(context, web, paths, factor * REQUESTS, bursts):
        pass
    return bursts


def confirming(bursts: Bursts) -> int | None:
    """Tell how many times `REQUESTS` the next burst has, that confirms a leak; None where there is nothing to confirm.

    Only memory can be taken back later than after `CONFIRMING`.
    """
    done = len(bursts.counts) - 1 - BURSTS
    leaking, memory = {each.field for each in bursts.leaking()}, bursts.series("memory_bytes")
    factors = CONFIRMING + (CONFIRMING_MEMORY if leaking == {"memory_bytes"} else ())
    if not leaking or memory[-1] - memory[0] > _MOST_BYTES or done >= len(factors):
        return None
    return factors[done]


def _burst(context: CheckContext, web: Web, paths: Sequence[str], requests: int, bursts: Bursts) -> bool:
    budget = context.raos.performance
    concurrency = budget.concurrency if budget else CONCURRENCY
    ends = time.monotonic() + BURST_SECONDS
    samples = web.load(Load(paths, requests, concurrency, ANSWER_SECONDS, BODY_LIMIT, deadline=ends))
    context.sleep(CALM_SECONDS)
    probe = context.public.probe_process()
    if not samples or probe.bundle is None:
        return False
    bursts.counts.append(probe)
    bursts.requests.append(len(samples))
    bursts.failed += sum(bool(sample.error) for sample in samples)
    return True


def growth_findings(bursts: Bursts) -> Iterator[Finding]:
    """Find what leaks."""
    for quantity in bursts.leaking():
        counts, asked = bursts.series(quantity.field), sum(bursts.requests[1:])
        grown = counts[-1] - counts[0]
        by = f"{grown / MIB:.0f} MiB" if quantity.field == "memory_bytes" else str(grown)
        text = f"{quantity.says} grew by {by} over {asked} requests, in each of {len(counts) - 1} bursts: is it a leak?"
        yield Finding("medium", text, "growth", quantity.field)


def growth_figures(bursts: Bursts) -> dict[str, int]:
    """Return by how much each quantity grew over the bursts, in 1/1000 a request."""
    asked = sum(bursts.requests[1:])
    if not asked:
        return {}
    figures = {"burst_requests": asked, "burst_failed": bursts.failed}
    for quantity in QUANTITIES:
        counts = bursts.series(quantity.field)
        scale, unit = (1, "bytes") if quantity.field == "memory_bytes" else (1000, "per_mille")
        name = quantity.field.removesuffix("_bytes")
        figures[f"{name}_a_request_{unit}"] = round(scale * (counts[-1] - counts[0]) / asked)
    return figures
