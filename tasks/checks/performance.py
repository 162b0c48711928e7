"""Checks how long answers take under load, and how many fail, by the budgets of raos.toml and the previous release."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import median_low

from ashat.raos_toml.schema import PerformanceSection
from ashat.verification.policy import Policy
from tasks.checks.kit import performance_words as words
from tasks.checks.kit.base import TEXT_LIMIT, Check, CheckContext, CheckResult, Finding, one_line
from tasks.checks.kit.growth import changed_sizes, grown_memory, grown_start, sizes_of
from tasks.checks.kit.host import BUSY_PER_MILLE, busy_over, busy_per_mille
from tasks.checks.kit.http import BODY_LIMIT, Web
from tasks.checks.kit.load import Load
from tasks.checks.kit.samples import Block, Rehearsal, Sample, Which
from tasks.checks.kit.statistics import Failures, Limits, Slowdown, Times, compare_failures, compare_times
from tasks.checks.kit.tails import ENOUGH, TailChange, compare_tails, ratio_interval, too_thin

ANSWER_SECONDS = 10.0
BLOCK_SECONDS = 15.0
BLOCKS = 2
CONFIRMING_BLOCKS = 4
BUSY_BLOCK_LEVEL = 0.005
WARM_UP = 20
PATH_REQUESTS = math.ceil(1.1 * ENOUGH["p99"] / BLOCKS)
"""Of each path in a block, where there is time: enough for the 99th percentile, though some requests fail."""

Samples = Sequence[Sample]
_BOTH: tuple[Which, Which] = ("new", "old")


class PerformanceCheck(Check):
    """Compares what the rehearsal measured of both releases; measures the new one itself where there was none.

    Over a budget is a failure. So is being slower in the median or in the tail, or failing more often, than the release
    before, where that is certain (`tasks.checks.kit.statistics` and `tails` say when); where it is not, the answer is
    inconclusive. So it is over a budget on a host that others keep busy, unless the release before was within it.
    A first release has no baseline: whatever else the result says, it says that, and `baseline_requests` is 0.
    """

    name = "performance"
    title = "Performance"
    version = "4"
    order = 50
    alone = True

    def run(self, context: CheckContext) -> CheckResult:
        """Compare with the budgets and, where it was measured too, with the previous release."""
        asked = context.raos.performance
        if asked is None:
            return self.inconclusive("raos.toml has no [performance], so nothing was measured")
        budget = _capped(asked, context.policy)
        limits = limits_of(budget, context.policy)
        measured = _Measured(
            tuple(context.rehearsal.of("new")) or _measure(context, budget), tuple(context.rehearsal.of("old"))
        )
        if measured.on_busy_host:
            limits = replace(limits, block_level=BUSY_BLOCK_LEVEL)
        inputs, series = _inputs(budget, limits), measured.series(budget.paths)
        late = list(_late(budget, measured))
        compared = None if measured.ended_early(share_of(budget)) else _Compared.of(measured, limits)
        figures = _figures(measured, compared, budget)
        findings = [*_failing(budget, measured, figures), *late, *_caps(asked, budget)]
        if compared:
            findings += [*compared.findings(measured, limits), *_grown(measured, limits)]
            findings += _not_compared(budget.paths, measured)
        doubts = list(_doubts(context, measured, compared))
        if late and _by_the_host(measured, budget):
            doubts.insert(0, words.busy_budget(late, measured.busy_per_mille))
            findings = [replace(each, severity="low") if each in late else each for each in findings]
        none = _no_baseline(context, measured)
        if doubts and not any(finding.severity == "high" for finding in findings):
            return _marked(self.inconclusive(doubts[0], findings, inputs=inputs, figures=figures, series=series), none)
        good = words.good(budget, figures, compared.slowdowns if compared else ())
        return _marked(self.conclude(good, findings, inputs=inputs, figures=figures, series=series), none)


def measure_block(web: Web, which: Which, budget: PerformanceSection, policy: Policy) -> Block:
    """Put one block of load on the program that runs now: a warm-up that does not count, then this block's share.

    The load is closed: `budget.concurrency` requests are under way, and each that ends is followed by the next.
    Fewer samples come back where the share takes longer than `BLOCK_SECONDS`, the warm-up included. After the share
    come more, up to `PATH_REQUESTS` of each path, as long as the policy's time for the check gives each block.
    """
    busy, share, began = busy_per_mille(), share_of(budget), time.monotonic()
    load = Load(
        budget.paths,
        share,
        budget.concurrency,
        ANSWER_SECONDS,
        BODY_LIMIT,
        warm_up=max(WARM_UP, 2 * len(budget.paths), share // 4),
        deadline=began + BLOCK_SECONDS,
        more=max(0, PATH_REQUESTS * len(set(budget.paths)) - share),
        more_until=began + policy.limit_of(PerformanceCheck.name) / (2 * CONFIRMING_BLOCKS),
    )
    return Block(which, tuple(web.load(load)), busy)


def share_of(budget: PerformanceSection) -> int:
    """Compute the requests of one block: each release gets `budget.requests` in `BLOCKS` blocks, or twice that."""
    return math.ceil(budget.requests / BLOCKS)


def limits_of(budget: PerformanceSection, policy: Policy) -> Limits:
    """Read from raos.toml and the policy which slowdown is still accepted."""
    return Limits(
        _capped(budget, policy).slower_percent,
        policy.significance_per_mille,
        growth_percent=policy.max_growth_percent,
        budget_us=budget.p95_ms * 1000,
    )


def _capped(budget: PerformanceSection, policy: Policy) -> PerformanceSection:
    """Lower the budget to what the policy allows."""
    return budget.model_copy(
        update={
            "slower_percent": min(budget.slower_percent, policy.max_slower_percent),
            "error_rate": min(budget.error_rate, policy.max_error_rate),
        }
    )


def _caps(asked: PerformanceSection, budget: PerformanceSection) -> Iterator[Finding]:
    for name in ("slower_percent", "error_rate"):
        wanted, allowed = getattr(asked, name), getattr(budget, name)
        if wanted != allowed:
            yield Finding("low", f"raos.toml has {name} = {wanted}, the policy allows {allowed}: that counts")


def blocks_needed(rehearsal: Rehearsal, budget: PerformanceSection, limits: Limits) -> int:
    """Compute how many blocks each release needs: `BLOCKS` while both seem alike, else `CONFIRMING_BLOCKS`.

    On a host that is busy now and then, two blocks of each can look as if the new release were slower: of the six
    orders that four blocks of the same release can have, one puts both new ones last. Of the seventy that eight can
    have, one puts all four there. So a slowdown, or the doubt about one, is measured once more before it counts.
    """
    new, old = ([block.samples for block in rehearsal.of(which)] for which in _BOTH)
    cut_off = any(len(block) < share_of(budget) for block in (*new, *old))
    if cut_off or min(len(new), len(old)) < BLOCKS:
        return BLOCKS
    ours, theirs = ([times_of(block) for block in blocks] for blocks in (new, old))
    verdicts = {slowdown.verdict for slowdown in compare_times(ours, theirs, limits)}
    verdicts |= {"unclear" if tail.hint else tail.verdict for tail in compare_tails(ours, theirs, limits)}
    return BLOCKS if verdicts <= {"same"} else CONFIRMING_BLOCKS


def percentile(ordered: Sequence[int], percent: int) -> int:
    """Find the nearest-rank percentile of values in ascending order: the smallest that `percent` % are not above."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def measure(samples: Samples) -> dict[str, int]:
    """Compute the figures of a run; the error rate is rounded up, so that one failure is never none."""
    times = sorted(sample.us for sample in samples)
    errors = sum(1 for sample in samples if sample.error)
    return {
        "requests": len(samples),
        "errors": errors,
        "error_per_mille": -(-errors * 1000 // len(samples)),
        "p50_us": percentile(times, 50),
        "p95_us": percentile(times, 95),
        "p99_us": percentile(times, 99),
        "max_us": times[-1],
    }


def times_of(samples: Samples) -> dict[str, list[int]]:
    """Collect the times of the requests that went well, by path."""
    times: dict[str, list[int]] = {}
    for sample in samples:
        if not sample.error:
            times.setdefault(sample.path, []).append(sample.us)
    return times


def counts_of(samples: Samples) -> dict[str, tuple[int, int]]:
    """Count how many requests failed, of how many, by path."""
    counts: dict[str, tuple[int, int]] = {}
    for sample in samples:
        failed, asked = counts.get(sample.path, (0, 0))
        counts[sample.path] = (failed + bool(sample.error), asked + 1)
    return counts


@dataclass(frozen=True)
class _Measured:
    """The blocks of both releases, each in the order in which they ran."""

    new: tuple[Block, ...]
    old: tuple[Block, ...]

    @property
    def all_new(self) -> list[Sample]:
        return list(chain.from_iterable(block.samples for block in self.new))

    @property
    def all_old(self) -> list[Sample]:
        return list(chain.from_iterable(block.samples for block in self.old))

    @property
    def busy_per_mille(self) -> int | None:
        """How busy the host was with other things, in the mean of the blocks; None: not known."""
        return busy_over((*self.new, *self.old))

    def ended_early(self, share: int, *, old: bool = False) -> bool:
        """Tell whether a block of the new release, or the old one, was cut off before its share ended."""
        blocks = self.old if old else self.new
        return not self.all_new or any(len(block.samples) < share for block in blocks)

    @property
    def on_busy_host(self) -> bool:
        """Tell whether others took so much of the host that times say little."""
        return (self.busy_per_mille or 0) >= BUSY_PER_MILLE

    def times(self) -> tuple[list[Times], list[Times]]:
        """The times of both releases, by block and path."""
        return [times_of(block.samples) for block in self.new], [times_of(block.samples) for block in self.old]

    def series(self, paths: Sequence[str]) -> dict[str, list[int]]:
        """List all that was measured: `..._path` counts in the paths of raos.toml, `..._failed` is 1 where one did.

        The series `..._by_path` have a figure of each path of raos.toml, in their order; 0: none of its answers counts.
        """
        index = {path: number for number, path in enumerate(paths)}
        series: dict[str, list[int]] = {}
        for name, blocks, samples in (("new", self.new, self.all_new), ("old", self.old, self.all_old)):
            if not blocks:
                continue
            series[f"{name}_us"] = [sample.us for sample in samples]
            series[f"{name}_path"] = [index.get(sample.path, -1) for sample in samples]
            series[f"{name}_failed"] = [int(bool(sample.error)) for sample in samples]
            series[f"{name}_block_requests"] = [len(block.samples) for block in blocks]
            series |= _by_path(name, samples, paths)
            for key, values in (
                ("start_ms", [block.start_ms for block in blocks]),
                ("memory_bytes", [block.memory_bytes for block in blocks]),
                ("busy_per_mille", [block.busy_per_mille for block in blocks]),
            ):
                known = [value for value in values if value is not None]
                series |= {f"{name}_{key}": known} if known else {}
        return series


def _by_path(name: str, samples: Samples, paths: Sequence[str]) -> dict[str, list[int]]:
    times, sizes = times_of(samples), sizes_of(samples)
    series = {
        f"{name}_by_path_p{percent}_us": [percentile(sorted(times.get(path, [0])), percent) for path in paths]
        for percent in (50, 95, 99)
    }
    return series | {f"{name}_by_path_bytes": [median_low(sizes.get(path, [0])) for path in paths]}


@dataclass(frozen=True)
class _Compared:
    """What came of comparing both releases; empty where there is no old one."""

    slowdowns: Sequence[Slowdown]
    tails: Sequence[TailChange]
    failures: Sequence[Failures]

    @classmethod
    def of(cls, measured: _Measured, limits: Limits) -> _Compared:
        times = measured.times()
        failures = compare_failures(counts_of(measured.all_new), counts_of(measured.all_old), limits)
        return cls(compare_times(*times, limits), compare_tails(*times, limits), failures)

    def findings(self, measured: _Measured, limits: Limits) -> Iterator[Finding]:
        """Find what is worse than before, for certain, and what was measured too little to tell."""
        times = measured.times()
        for slowdown in self.slowdowns:
            if slowdown.verdict == "slower":
                interval = ratio_interval(*times, slowdown.path, "p50")
                yield Finding("high", words.slower(slowdown, interval, limits))
        yield from self._of_tails(limits)
        for each in self.failures:
            if each.more:
                yield Finding("high", words.fails_more(each))
        for statistic, paths in too_thin(*times).items():
            if statistic != "over":
                text = words.too_thin(statistic, paths)
                yield Finding("low", text, rule="too-few-answers", unseen=True, count=len(paths))

    def _of_tails(self, limits: Limits) -> Iterator[Finding]:
        """Find the tails that grew by more than the median of their path did, where that one is a finding itself."""
        slower = {slowdown.path: slowdown.ratio for slowdown in self.slowdowns if slowdown.verdict == "slower"}
        for tail in self.tails:
            more = tail.ratio > slower.get(tail.path, 1) * (1 + limits.growth_percent / 100)
            if tail.verdict == "slower" and (more or tail.statistic == "over"):
                yield Finding("high", words.slower_tail(tail, limits))
            elif tail.verdict == "same" and tail.hint:
                yield Finding("low", words.chance_tail(tail))


def _grown(measured: _Measured, limits: Limits) -> Iterator[Finding]:
    """Find what takes more than before besides time under load, and answers of another size."""
    percent, blocks = limits.growth_percent, (measured.new, measured.old)
    for growth in (grown_start(*blocks, percent), grown_memory(*blocks, percent)):
        if growth:
            yield Finding("medium", words.grown(growth, percent))
    for growth in changed_sizes(measured.all_new, measured.all_old, percent):
        yield Finding("medium", words.other_size(growth))


def _measure(context: CheckContext, budget: PerformanceSection) -> tuple[Block, ...]:
    with Web(context) as web:
        return tuple(measure_block(web, "new", budget, context.policy) for _ in range(BLOCKS))


def _inputs(budget: PerformanceSection, limits: Limits) -> dict[str, object]:
    return {
        "paths": budget.paths,
        "requests": budget.requests,
        "concurrency": budget.concurrency,
        "p95_limit_ms": budget.p95_ms,
        "error_limit_per_mille": budget.error_rate,
        "slower_limit_percent": limits.slower_percent,
        "slower_floor_us": limits.floor_us,
        "growth_limit_percent": limits.growth_percent,
        "significance_per_mille": limits.significance_per_mille,
        "block_requests": share_of(budget),
        "path_requests": PATH_REQUESTS,
        "block_limit_ms": round(BLOCK_SECONDS * 1000),
        "answer_limit_ms": round(ANSWER_SECONDS * 1000),
    }


def _figures(measured: _Measured, compared: _Compared | None, budget: PerformanceSection) -> dict[str, int]:
    """Compute the figures of both releases; shares are per mille, and negative where the new one is better."""
    new, old = measured.all_new, measured.all_old
    figures = {"requests": len(new), "baseline_requests": len(old)}
    if measured.busy_per_mille is not None:
        figures["host_busy_per_mille"] = measured.busy_per_mille
    if compared is None:
        return figures
    figures |= measure(new) | {"over_budget": _over(new, budget)}
    if old:
        figures |= {f"old_{name}": value for name, value in measure(old).items()}
        figures["old_over_budget"] = _over(old, budget)
    if compared.tails:
        figures["p_tails_per_million"] = math.ceil(min(tail.p for tail in compared.tails) * 1_000_000)
    if compared.slowdowns:
        overall = compared.slowdowns[0]
        figures["slower_per_mille"] = round((overall.ratio - 1) * 1000)
        figures["cliffs_delta_per_mille"] = round(overall.delta * 1000)
        figures["p_per_million"] = math.ceil(overall.p * 1_000_000)
        figures["p_blocks_per_million"] = math.ceil(overall.p_blocks * 1_000_000)
        if math.isfinite(overall.error):
            figures["standard_error_per_mille"] = round((overall.error - 1) * 1000)
            figures["drift_per_mille"] = round((overall.drift - 1) * 1000)
    return figures


def _over(samples: Samples, budget: PerformanceSection) -> int:
    return sum(sample.us > budget.p95_ms * 1000 for sample in samples if not sample.error)


def _late(budget: PerformanceSection, measured: _Measured) -> Iterator[Finding]:
    """Find that the new release was slower than its budget."""
    samples, share = measured.all_new, share_of(budget)
    if measured.ended_early(share):
        wanted = len(measured.new) * share
        text = f"only {len(samples)} of {wanted} requests ended, at {BLOCK_SECONDS:g} s for {share} of them"
        yield Finding("high", text)
        return
    p95 = measure(samples)["p95_us"]
    if p95 > budget.p95_ms * 1000:
        by_path = {path: [each for each in samples if each.path == path] for path in {each.path for each in samples}}
        worst, path = max((measure(some)["p95_us"], path) for path, some in by_path.items())
        yield Finding(
            "high",
            f"p95 is {p95 / 1000:.1f} ms, {budget.p95_ms} ms are allowed; "
            f"the slowest is {path} at {worst / 1000:.1f} ms",
        )


def _by_the_host(measured: _Measured, budget: PerformanceSection) -> bool:
    """Tell whether a busy host may be why the new release is late: where the one before was late as well."""
    old = measured.all_old
    if not old:
        return False
    late_before = measured.ended_early(share_of(budget), old=True) or measure(old)["p95_us"] > budget.p95_ms * 1000
    return measured.on_busy_host and late_before


def _failing(budget: PerformanceSection, measured: _Measured, figures: Mapping[str, int]) -> Iterator[Finding]:
    """Find that more requests failed than the budget allows."""
    if figures.get("error_per_mille", 0) > budget.error_rate:
        last = next(sample for sample in reversed(measured.all_new) if sample.error)
        yield Finding(
            "high",
            f"{figures['errors']} of {figures['requests']} requests failed, {budget.error_rate} in 1000 are allowed; "
            f"the last: {last.path}: {last.error}",
        )


def _not_compared(paths: Sequence[str], measured: _Measured) -> Iterator[Finding]:
    if not measured.old:
        return
    answered = {sample.path for sample in measured.all_old if not sample.error}
    for path in dict.fromkeys(paths):
        if path not in answered:
            yield Finding("low", f"{path} was not compared: the release before did not answer it")


def _no_baseline(context: CheckContext, measured: _Measured) -> str:
    """Say why there is nothing to compare with; "" where there is something or should be."""
    if measured.old:
        return ""
    if context.same_before:
        return "this very bundle ran here before"
    if context.previous is None:
        return "nothing ran here before"
    return "" if context.policy.rehearses else "the policy rehearses no way back"


def _marked(result: CheckResult, none: str) -> CheckResult:
    """Add to the result that there was no baseline, whatever else it says."""
    if not none:
        return result
    mark = f"no baseline: {none}"
    seen = one_line(result.seen, 2 * TEXT_LIMIT - len(mark) - 2)
    return replace(result, seen=f"{seen}; {mark}", findings=(*result.findings, Finding("low", mark)))


def _doubts(context: CheckContext, measured: _Measured, compared: _Compared | None) -> Iterator[str]:
    """Say why the comparison is unclear; nothing where it is clear, or there was no previous release."""
    if compared is None:
        return
    if measured.old and not compared.slowdowns:
        yield "nothing to compare with: the release before answered none of the paths in every run"
    if not measured.old and context.previous is not None and context.policy.rehearses:
        yield "nothing to compare with: the rehearsal measured nothing of the release before"
    for slowdown in compared.slowdowns:
        if slowdown.verdict == "unclear":
            yield words.unclear(slowdown, measured.busy_per_mille)
    for tail in compared.tails:
        if tail.verdict == "unclear":
            yield words.unclear_tail(tail, measured.busy_per_mille)
