"""Puts into words what the performance check found: which path, which statistic, before and now, and how certain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ashat.raos_toml.schema import PerformanceSection
from tasks.checks.kit.base import Finding
from tasks.checks.kit.growth import Growth
from tasks.checks.kit.host import busy_in_words
from tasks.checks.kit.statistics import OVERALL, Failures, Limits, Slowdown
from tasks.checks.kit.tails import ENOUGH, Statistic, TailChange

_NAMED = 5


def good(budget: PerformanceSection, figures: Mapping[str, int], slowdowns: Sequence[Slowdown]) -> str:
    """Sum up a release that keeps its budgets."""
    if "p95_us" not in figures:
        return "nothing was measured"
    text = (
        f"p95 {figures['p95_us'] / 1000:.1f} ms of {budget.p95_ms} ms allowed, "
        f"{figures['errors']} of {figures['requests']} requests failed"
    )
    if not slowdowns:
        return text
    overall = slowdowns[0]
    change = _percent(overall.ratio)
    than = f"{abs(change)} % {'slower' if change > 0 else 'faster'} than" if change else "as quick as"
    tail = f"p99 {_ms(figures['p99_us'])}, before {_ms(figures['old_p99_us'])}"
    return f"{text}; {than} before ({_ms(overall.new_us)} in the median, before {_ms(overall.old_us)}; {tail})"


def slower(slowdown: Slowdown, interval: tuple[float, float], limits: Limits) -> str:
    """Say that a release is slower in the median, and by how much, with the ratio's interval of 95 % confidence."""
    return (
        f"{_takes(slowdown)}: {_ms(slowdown.new_us)} in the median instead of {_ms(slowdown.old_us)}, "
        f"{_times(slowdown.ratio, *interval)}, {limits.slower_percent} % are allowed"
    )


def slower_tail(tail: TailChange, limits: Limits) -> str:
    """Say that the slowest answers take longer, or that more are over the budget."""
    allowed = max(limits.slower_percent, limits.growth_percent)
    if tail.statistic == "over":
        return _more_over(tail, limits.budget_us)
    return (
        f"{_where(tail)}{tail.statistic} is {_ms(tail.new)} instead of {_ms(tail.old)}, "
        f"{_times(tail.ratio, tail.low, tail.high)}, {allowed} % more are allowed"
    )


def fails_more(failures: Failures) -> str:
    """Say that more requests fail than before."""
    where = f" at {failures.path}" if failures.path != OVERALL else ""
    return (
        f"more requests fail than before{where}: {failures.new} of {failures.new_of} instead of "
        f"{failures.old} of {failures.old_of}"
    )


def too_thin(statistic: Statistic, paths: Mapping[str, int]) -> str:
    """Say which paths gave too few answers to compare a statistic."""
    named = ", ".join(f"{path} ({count})" for path, count in list(paths.items())[:_NAMED])
    rest = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return (
        f"{statistic} is not compared, at too few answers, of {named}{rest}: {ENOUGH[statistic]} of each release are "
        "needed; raise [performance] requests, or the policy's time limit of performance"
    )


def grown(growth: Growth, percent: int) -> str:
    """Say that the start takes longer, or that more memory is taken."""
    if growth.what == "start":
        text = f"the program took {growth.new / 1000:.1f} s to start instead of {growth.old / 1000:.1f} s"
    else:
        mib = 1024 * 1024
        text = f"the program has {growth.new // mib} MiB of memory after the load instead of {growth.old // mib} MiB"
    return f"{text}, {growth.percent} % more, {percent} % are allowed"


def other_size(growth: Growth) -> str:
    """Say that the answers of a path have more bytes than before, or fewer."""
    return f"{growth.what}: an answer has {growth.new} bytes instead of {growth.old}, in the median"


def unclear(slowdown: Slowdown, busy_per_mille: int | None) -> str:
    """Say that it cannot be told whether a release is slower in the median."""
    seems = f"it seems that {_takes(slowdown)}"
    if not math.isfinite(slowdown.error):
        return f"too little to tell: {seems}, but one release was measured only once"
    noise = max(_percent(slowdown.error), _percent(slowdown.drift))
    return (
        f"too noisy to tell: {seems}, but one and the same release varies by {noise} %{busy_in_words(busy_per_mille)}"
    )


def unclear_tail(tail: TailChange, busy_per_mille: int | None) -> str:
    """Say that it cannot be told whether the slowest answers take longer."""
    if tail.statistic == "over":
        seems, varies = "it seems that more answers are over the budget", "the runs of one and the same release differ"
    else:
        seems = f"it seems that {_where(tail)}{tail.statistic} is {_percent(tail.ratio)} % more than before"
        varies = f"one and the same release varies by {_percent(tail.spread)} %"
    if not math.isfinite(tail.spread):
        return f"too little to tell: {seems}, but one release was measured only once"
    return f"too noisy to tell: {seems}, but {varies}{busy_in_words(busy_per_mille)}"


def chance_tail(tail: TailChange) -> str:
    """Say that the slowest answers took longer, which may be chance."""
    if tail.statistic == "over":
        return f"{tail.path or 'all paths'}: more answers were over the budget, which may be chance"
    change = f"{_where(tail)}{tail.statistic} was {_ms(tail.new)} instead of {_ms(tail.old)}, which may be chance"
    varies = f": one and the same release varies by {_percent(tail.spread)} %" if math.isfinite(tail.spread) else ""
    return change + varies


def busy_budget(missed: Sequence[Finding], busy_per_mille: int | None) -> str:
    """Say that budgets were missed, maybe because of the host and not of the release."""
    return f"too noisy to tell: {missed[0].text}{busy_in_words(busy_per_mille)}"


def _more_over(tail: TailChange, budget_us: int) -> str:
    where = tail.path or "all paths"
    return (
        f"{where}: {100 * tail.new:.1f} % of the answers take longer than {budget_us // 1000} ms instead of "
        f"{100 * tail.old:.1f} % ({100 * tail.low:.1f} to {100 * tail.high:.1f} % more)"
    )


def _where(tail: TailChange) -> str:
    return f"{tail.path}: " if tail.path != OVERALL else ""


def _takes(slowdown: Slowdown) -> str:
    what, change = "an answer" if slowdown.path == OVERALL else slowdown.path, _percent(slowdown.ratio)
    return f"{what} takes {abs(change)} % {'less' if change < 0 else 'longer'} than before"


def _times(ratio: float, low: float, high: float) -> str:
    return f"{ratio:.2f} times ({low:.2f} to {high:.2f})"


def _percent(ratio: float) -> int:
    return round((ratio - 1) * 100) if math.isfinite(ratio) else 0


def _ms(us: float) -> str:
    return f"{us / 1000:.1f} ms" if us >= 10_000 else f"{us / 1000:.2f} ms"
