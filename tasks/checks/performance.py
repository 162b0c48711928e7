"""Checks how long answers take under load, and how many fail, by the budgets of raos.toml and the previous release."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from ashat.raos_toml.schema import PerformanceSection
from ashat.verification.policy import Policy
from tasks.checks.kit.base import TEXT_LIMIT, Check, CheckContext, CheckResult, Finding, one_line
from tasks.checks.kit.http import Web
from tasks.checks.kit.samples import Rehearsal, Sample, Which
from tasks.checks.kit.statistics import OVERALL, Failures, Limits, Slowdown, compare_failures, compare_times

ANSWER_SECONDS = 10.0
BLOCK_SECONDS = 15.0
BLOCKS = 2
CONFIRMING_BLOCKS = 4
WARM_UP = 20

Samples = Sequence[Sample]
_BOTH: tuple[Which, Which] = ("new", "old")


class PerformanceCheck(Check):
    """Compares what the rehearsal measured of both releases; measures the new one itself where there was none.

    Over a budget is a failure. So is being slower, or failing more often, than the release before, where that is
    certain (`tasks.checks.kit.statistics` says when); where it is not, the answer is inconclusive. A first release has
    no baseline: whatever else the result says, it says that, and its figure `baseline_requests` is 0.
    """

    name = "performance"
    title = "Performance"
    version = "3"
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
            tuple(block.samples for block in context.rehearsal.of("new")) or _measure(context, budget),
            tuple(block.samples for block in context.rehearsal.of("old")),
        )
        inputs, series = _inputs(budget, limits), measured.series(budget.paths)
        none = _no_baseline(context, measured)
        new = measured.all_new
        short = [block for block in measured.new if len(block) < share_of(budget)]
        if short or not new:
            wanted = len(measured.new) * share_of(budget)
            text = f"only {len(new)} of {wanted} requests ended, at {BLOCK_SECONDS:g} s for {share_of(budget)} of them"
            figures = {"requests": len(new), "baseline_requests": len(measured.all_old)}
            result = self.conclude("", [Finding("high", text)], inputs=inputs, figures=figures, series=series)
            return _marked(result, none)
        figures = measure(new)
        slowdowns = compare_times([times_of(block) for block in measured.new], measured.times_before(), limits)
        failures = compare_failures(counts_of(new), counts_of(measured.all_old), limits)
        findings = [*_over_budget(budget, new, figures), *_worse(slowdowns, failures, limits)]
        findings += [*_not_compared(budget.paths, measured), *_caps(asked, budget)]
        figures |= {"baseline_requests": len(measured.all_old), **_figures_before(measured, slowdowns)}
        good = (
            f"p95 {figures['p95_us'] / 1000:.1f} ms of {budget.p95_ms} ms allowed, "
            f"{figures['errors']} of {len(new)} requests failed{_against_before(slowdowns)}"
        )
        unclear = _unclear(context, measured, slowdowns)
        if unclear and not any(finding.severity == "high" for finding in findings):
            return self.inconclusive(unclear, findings, inputs=inputs, figures=figures, series=series)
        return _marked(self.conclude(good, findings, inputs=inputs, figures=figures, series=series), none)


def measure_block(web: Web, budget: PerformanceSection) -> tuple[Sample, ...]:
    """Put one block of load on the program that runs now: a warm-up that does not count, then this block's share.

    The load is closed: `budget.concurrency` requests are under way, and each that ends is followed by the next.
    Fewer samples come back where they take longer than `BLOCK_SECONDS`, the warm-up included.
    """
    share = share_of(budget)
    warm_up = max(WARM_UP, 2 * len(budget.paths), share // 4)
    return tuple(
        web.load(
            budget.paths, share, budget.concurrency, ANSWER_SECONDS, warm_up=warm_up, within=BLOCK_SECONDS
        )
    )  # fmt: skip


def share_of(budget: PerformanceSection) -> int:
    """Compute the requests of one block: each release gets `budget.requests` in `BLOCKS` blocks, or twice that."""
    return math.ceil(budget.requests / BLOCKS)


def limits_of(budget: PerformanceSection, policy: Policy) -> Limits:
    """Read from raos.toml and the policy which slowdown is still accepted."""
    return Limits(_capped(budget, policy).slower_percent, policy.significance_per_mille)


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
    slowdowns = compare_times([times_of(block) for block in new], [times_of(block) for block in old], limits)
    return BLOCKS if all(slowdown.verdict == "same" for slowdown in slowdowns) else CONFIRMING_BLOCKS


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

    new: tuple[Samples, ...]
    old: tuple[Samples, ...]

    @property
    def all_new(self) -> list[Sample]:
        return list(chain.from_iterable(self.new))

    @property
    def all_old(self) -> list[Sample]:
        return list(chain.from_iterable(self.old))

    def times_before(self) -> list[dict[str, list[int]]]:
        return [times_of(block) for block in self.old]

    def series(self, paths: Sequence[str]) -> dict[str, list[int]]:
        """List all that was measured: `..._path` counts in the paths of raos.toml, `..._failed` is 1 where one did."""
        index = {path: number for number, path in enumerate(paths)}
        series: dict[str, list[int]] = {}
        for name, blocks, samples in (("new", self.new, self.all_new), ("old", self.old, self.all_old)):
            if blocks:
                series[f"{name}_us"] = [sample.us for sample in samples]
                series[f"{name}_path"] = [index.get(sample.path, -1) for sample in samples]
                series[f"{name}_failed"] = [int(bool(sample.error)) for sample in samples]
                series[f"{name}_block_requests"] = [len(block) for block in blocks]
        return series


def _measure(context: CheckContext, budget: PerformanceSection) -> tuple[Samples, ...]:
    with Web(context) as web:
        return tuple(measure_block(web, budget) for _ in range(BLOCKS))


def _inputs(budget: PerformanceSection, limits: Limits) -> dict[str, object]:
    return {
        "paths": budget.paths,
        "requests": budget.requests,
        "concurrency": budget.concurrency,
        "p95_limit_ms": budget.p95_ms,
        "error_limit_per_mille": budget.error_rate,
        "slower_limit_percent": limits.slower_percent,
        "slower_floor_us": limits.floor_us,
        "significance_per_mille": limits.significance_per_mille,
        "block_requests": share_of(budget),
        "block_limit_ms": round(BLOCK_SECONDS * 1000),
        "answer_limit_ms": round(ANSWER_SECONDS * 1000),
    }


def _figures_before(measured: _Measured, slowdowns: Sequence[Slowdown]) -> dict[str, int]:
    """Compute the figures of the previous release; shares are per mille, and negative where the new one is better."""
    if not measured.all_old:
        return {}
    figures = {f"old_{name}": value for name, value in measure(measured.all_old).items()}
    if slowdowns:
        overall = slowdowns[0]
        figures["slower_per_mille"] = round((overall.ratio - 1) * 1000)
        figures["cliffs_delta_per_mille"] = round(overall.delta * 1000)
        figures["p_per_million"] = math.ceil(overall.p * 1_000_000)
        figures["p_blocks_per_million"] = math.ceil(overall.p_blocks * 1_000_000)
        if math.isfinite(overall.error):
            figures["standard_error_per_mille"] = round((overall.error - 1) * 1000)
            figures["drift_per_mille"] = round((overall.drift - 1) * 1000)
    return figures


def _over_budget(budget: PerformanceSection, samples: Samples, figures: Mapping[str, int]) -> Iterator[Finding]:
    if figures["error_per_mille"] > budget.error_rate:
        last = next(sample for sample in reversed(samples) if sample.error)
        yield Finding(
            "high",
            f"{figures['errors']} of {len(samples)} requests failed, {budget.error_rate} in 1000 are allowed; "
            f"the last: {last.path}: {last.error}",
        )
    if figures["p95_us"] > budget.p95_ms * 1000:
        by_path = {path: [each for each in samples if each.path == path] for path in {each.path for each in samples}}
        worst, path = max((measure(some)["p95_us"], path) for path, some in by_path.items())
        yield Finding(
            "high",
            f"p95 is {figures['p95_us'] / 1000:.1f} ms, {budget.p95_ms} ms are allowed; "
            f"the slowest is {path} at {worst / 1000:.1f} ms",
        )


def _worse(slowdowns: Sequence[Slowdown], failures: Sequence[Failures], limits: Limits) -> Iterator[Finding]:
    for slowdown in slowdowns:
        if slowdown.verdict == "slower":
            yield Finding(
                "high",
                f"{_takes(slowdown)}: {_ms(slowdown.new_us)} in the median instead of {_ms(slowdown.old_us)}, "
                f"{limits.slower_percent} % are allowed",
            )
    for each in failures:
        if each.more:
            where = f" at {each.path}" if each.path != OVERALL else ""
            yield Finding(
                "high",
                f"more requests fail than before{where}: {each.new} of {each.new_of} instead of "
                f"{each.old} of {each.old_of}",
            )


def _not_compared(paths: Sequence[str], measured: _Measured) -> Iterator[Finding]:
    if not measured.old:
        return
    answered = {sample.path for sample in measured.all_old if not sample.error}
    for path in dict.fromkeys(paths):
        if path not in answered:
            yield Finding("low", f"{path} was not compared: the release before did not answer it")


def _against_before(slowdowns: Sequence[Slowdown]) -> str:
    if not slowdowns:
        return ""
    overall = slowdowns[0]
    change = _percent(overall.ratio)
    than = f"{abs(change)} % {'slower' if change > 0 else 'faster'} than" if change else "as quick as"
    return f"; {than} before ({_ms(overall.new_us)} in the median, before {_ms(overall.old_us)})"


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


def _unclear(context: CheckContext, measured: _Measured, slowdowns: Sequence[Slowdown]) -> str:
    """Say why the comparison is unclear; "" where it is clear, or there was no previous release."""
    if measured.old and not slowdowns:
        return "nothing to compare with: the release before answered none of the paths in every run"
    if not measured.old and context.previous is not None and context.policy.rehearses:
        return "nothing to compare with: the rehearsal measured nothing of the release before"
    doubtful = [slowdown for slowdown in slowdowns if slowdown.verdict == "unclear"]
    if not doubtful:
        return ""
    slowdown = doubtful[0]
    seems = f"it seems that {_takes(slowdown)}"
    if not math.isfinite(slowdown.error):
        return f"too little to tell: {seems}, but one release was measured only once"
    noise = max(_percent(slowdown.error), _percent(slowdown.drift))
    return f"too noisy to tell: {seems}, but one and the same release varies by {noise} %"


def _takes(slowdown: Slowdown) -> str:
    what, change = "an answer" if slowdown.path == OVERALL else slowdown.path, _percent(slowdown.ratio)
    return f"{what} takes {abs(change)} % {'less' if change < 0 else 'longer'} than before"


def _percent(ratio: float) -> int:
    return round((ratio - 1) * 100)


def _ms(us: float) -> str:
    return f"{us / 1000:.1f} ms" if us >= 10_000 else f"{us / 1000:.2f} ms"
