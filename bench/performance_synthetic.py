"""Made-up releases on made-up hosts, put through the real performance check: how often it is wrong, in seconds.

`bench/performance_check.py --synthetic` runs it. A trial does what the rehearsal does: blocks of both releases in turn,
and as many again where those seem to differ; then the check. The times are lognormal about each path's own median, with
a slow drift from one answer to the next, now and then a hiccup, and by block a factor of its own, as each start of a
process has one. On the busy host the level goes up and down from block to block, and bursts delay many answers in a
row. Its figures follow what blocks of the sample program showed on two processors at a load average of 3 to 5: from
block to block, medians from 2.5 to 5.4 ms, and 95th percentiles from 1.4 to 2.7 times the median.
"""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ashat.raos_toml.schema import PerformanceSection
from tasks.checks import CheckContext, run_check
from tasks.checks.kit.samples import Block, Rehearsal, Sample, Which
from tasks.checks.performance import PATH_REQUESTS, PerformanceCheck, blocks_needed, limits_of

Times = np.ndarray[Any, np.dtype[np.float64]]
Change = Callable[[np.random.Generator, int, Times], Times]
BUDGET_MS = 250
ALARMS, CAUGHT = 0.05, 0.95


@dataclass(frozen=True)
class Host:
    """How blocks of one release differ, how the host's level varies meanwhile (deviations of logarithms), how often a
    burst begins at an answer, and how many answers it lasts."""

    name: str
    blocks: float
    level: float
    bursts: float
    burst_answers: int
    busy_per_mille: int


@dataclass(frozen=True)
class Scenario:
    """A change of the new release, `paths` of it, on a host; `caught` is whether it should fail, else it should not."""

    name: str
    host: Host
    paths: int
    change: Change
    caught: bool


def unchanged(draw: np.random.Generator, path: int, times: Times) -> Times:
    """Change nothing."""
    return times


def median_30(draw: np.random.Generator, path: int, times: Times) -> Times:
    """Make every answer 30 % slower."""
    return times * 1.3


def one_path_30(draw: np.random.Generator, path: int, times: Times) -> Times:
    """Make the answers of one path 30 % slower."""
    return times * 1.3 if path == 1 else times


def stragglers(draw: np.random.Generator, path: int, times: Times) -> Times:
    """Make 4 % of the answers take 20 times as long."""
    return np.where(draw.random(len(times)) < 0.04, times * 20, times)


def one_path_straggles(draw: np.random.Generator, path: int, times: Times) -> Times:
    """Make 4 % of the answers of one path take 20 times as long."""
    return stragglers(draw, path, times) if path == 1 else times


def p95_doubled(draw: np.random.Generator, path: int, times: Times) -> Times:
    """Make the slowest 8 % take twice as long, so that the 95th percentile doubles and the median stays."""
    return np.where(times > np.quantile(times, 0.92), times * 2, times)


QUIET = Host("quiet", blocks=0.02, level=0.01, bursts=0, burst_answers=0, busy_per_mille=20)
BUSY = Host("busy", blocks=0.06, level=0.25, bursts=1 / 400, burst_answers=60, busy_per_mille=500)
SCENARIOS = (
    Scenario("A/A, 3 paths", QUIET, 3, unchanged, caught=False),
    Scenario("A/A, 10 paths", QUIET, 10, unchanged, caught=False),
    Scenario("A/A, 3 paths, busy host", BUSY, 3, unchanged, caught=False),
    Scenario("A/A, 10 paths, busy host", BUSY, 10, unchanged, caught=False),
    Scenario("30 % slower", QUIET, 3, median_30, caught=True),
    Scenario("4 % at 20 times the time", QUIET, 3, stragglers, caught=True),
    Scenario("4 % of one path of ten at 20 times the time", QUIET, 10, one_path_straggles, caught=True),
    Scenario("one path of ten 30 % slower", QUIET, 10, one_path_30, caught=True),
    Scenario("p95 doubled", QUIET, 3, p95_doubled, caught=True),
)


def report(context: CheckContext, trials: int, named: str = "") -> dict[str, Any]:
    """Run every scenario whose name has `named` in it `trials` times; count the outcomes, and tell what is reached."""
    rows = []
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for number, scenario in enumerate(SCENARIOS):
            if named not in scenario.name:
                continue
            found = Counter(pool.map(partial(_trial, context, number), range(trials), chunksize=4))
            rows.append(_row(scenario, found, trials))
    return {"trials": trials, "scenarios": rows, "reached": all(row["reached"] for row in rows)}


def table(found: dict[str, Any]) -> Iterable[str]:
    """Set the report as lines of a table."""
    yield f"{'':<46}{'pass':>6}{'inconclusive':>14}{'fail':>6}"
    for row in found["scenarios"]:
        mark = "" if row["reached"] else "  NOT reached"
        yield f"{row['scenario']:<46}{row['pass']:>6}{row['inconclusive']:>14}{row['fail']:>6}{mark}"
    yield ""
    yield f"{found['trials']} trials each; A/A must not fail in 95 of 100, all others must."


def _row(scenario: Scenario, found: Counter[str], trials: int) -> dict[str, Any]:
    share = found["fail"] / trials
    return {
        "scenario": scenario.name,
        "host": scenario.host.name,
        **{outcome: found[outcome] for outcome in ("pass", "inconclusive", "fail", "warn")},
        "reached": share >= CAUGHT if scenario.caught else share <= ALARMS,
    }


def _trial(context: CheckContext, number: int, seed: int) -> str:
    """Measure and judge a scenario once, as the rehearsal and the check do."""
    scenario = SCENARIOS[number]
    draw = np.random.default_rng([zlib.crc32(scenario.name.encode()), seed])
    paths = [f"/{path}" for path in range(scenario.paths)]
    budget = PerformanceSection(paths=paths, requests=300, p95_ms=BUDGET_MS)
    context = replace(context, raos=context.raos.model_copy(update={"performance": budget}))
    medians, spreads = draw.uniform(1_000, 12_000, scenario.paths), draw.uniform(0.15, 0.4, scenario.paths)
    rehearsal, limits, level = Rehearsal(), limits_of(budget, context.policy), 0.0
    order: tuple[Which, Which] = ("new", "old")
    while len(rehearsal.blocks) < 2 * blocks_needed(rehearsal, budget, limits):
        for which in order:
            level = 0.7 * level + 0.7 * draw.normal(0, scenario.host.level)
            block = _block(draw, scenario, which, paths, np.stack([medians * np.exp(level), spreads]))
            rehearsal = replace(rehearsal, blocks=(*rehearsal.blocks, block))
    return run_check(PerformanceCheck(), replace(context, rehearsal=rehearsal)).outcome


def _block(draw: np.random.Generator, scenario: Scenario, which: Which, paths: list[str], shape: Times) -> Block:
    host, count = scenario.host, PATH_REQUESTS
    whole = draw.lognormal(0, host.blocks) * _delays(draw, host, count * len(paths)).reshape(count, len(paths))
    columns = []
    for path, (median, spread) in enumerate(shape.T):
        own = spread * draw.lognormal(0, host.blocks)
        noise = 0.7 * draw.normal(0, own, count) + 0.7 * _drift(draw, own, count)
        times = median * draw.lognormal(0, host.blocks / 2) * np.exp(noise)
        times = np.where(draw.random(count) < 0.003, times * 4, times)
        times = scenario.change(draw, path, times) if which == "new" else times
        columns.append(times * whole[:, path])
    mixed = np.column_stack(columns).astype(int)
    samples = tuple(Sample(path, int(us), "") for row in mixed for path, us in zip(paths, row, strict=True))
    return Block(which, samples, host.busy_per_mille)


def _drift(draw: np.random.Generator, spread: float, count: int) -> Times:
    """Draw a series in which each value has half of the one before in it."""
    steps, values = draw.normal(0, spread * np.sqrt(0.75), count), np.empty(count)
    last = 0.0
    for index, step in enumerate(steps):
        last = values[index] = 0.5 * last + step
    return values


def _delays(draw: np.random.Generator, host: Host, count: int) -> Times:
    """Draw by what factor the host delays each answer."""
    delays = np.ones(count)
    for start in np.flatnonzero(draw.random(count) < host.bursts):
        burst = slice(start, start + int(draw.exponential(host.burst_answers)) + 1)
        delays[burst] = draw.lognormal(0.5, 0.3) * draw.lognormal(0, 0.4, len(delays[burst]))
    return delays
