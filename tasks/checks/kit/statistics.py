"""Decides whether the new release is slower than the previous one, or fails more often: pure statistics, no I/O.

Two releases are measured in turn, in several blocks each. Within a block many requests are timed, so that a rank test
over them finds differences of a percent or two; but blocks of one and the same release differ by more than that,
because a process starts with another memory layout, the host does something else for a second, a clock speed changes.
A test that takes every request for an independent one would call that a difference. So a release is called slower
only where all of this holds:

- the Mann-Whitney U test says that it is no accident of the requests (corrected for several paths by Holm's method);
- the slowdown (Hodges and Lehmann's shift: the median of the ratios of every new time to every old one) exceeds what
  is allowed, and the floor below;
- every block of the new release is slower than every block of the old one, and a t test over the blocks' medians says
  that this is no accident of the blocks;
- the slowdown is at least twice what the stretches of one block differ by, since a host that is busy now and then shows
  it there, too, even where two blocks happen to be alike.

Where the slowdown exceeds what is allowed but the rest does not bear it out, or where it would with its standard error
added, the answer is "unclear". (One path among several, asked too seldom for a test to say anything, is not: all of
them together speak for it.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

from tasks.checks.kit.significance import fisher, mann_whitney, student

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Verdict = Literal["same", "slower", "unclear"]
Times = Mapping[str, Sequence[int]]
OVERALL = ""
MIN_TIMES = 8
STRETCHES = 4
BLOCK_LEVEL = 0.05
DRIFTS = 2.0
_QUANTILES = 200
_NOTHING = 1e-9
# Of a normal distribution: the distance of its quartiles in deviations, the variance of the median in that of the mean.
_QUARTILES = 1.349
_MEDIAN_ERROR = math.pi / 2


@dataclass(frozen=True)
class Limits:
    """The slowdown that is still accepted, and how certain a larger one must be.

    `slower_percent` is the slowdown, `significance_per_mille` the level of the tests. `floor_us` is a difference in
    microseconds that nobody notices and no clock of a busy host tells from nothing: waking a sleeping thread takes
    from 50 to 100 us, and as long again when its processor was asleep, so that an endpoint that answers within a
    millisecond is easily "20 % slower" while nothing was changed. `growth_percent` is by how much the tails may grow
    (`tasks.checks.kit.tails`), where `slower_percent` is not more; `budget_us` the budget of one answer, 0: none;
    `block_level` the level of the t test over blocks.
    """

    slower_percent: int
    significance_per_mille: int
    floor_us: int = 150
    growth_percent: int = 50
    budget_us: int = 0
    block_level: float = BLOCK_LEVEL


@dataclass(frozen=True)
class Slowdown:
    """The new release's times against the old one's, on one path, or on all (`path` is "").

    `ratio` is the slowdown as a factor (1.3: takes 30 % longer), `us` the same in microseconds. `error` is its
    standard error over the blocks, as a factor, infinite where either was measured in one block only, and `p_blocks`
    the p value of the t test over them; `agree` says that each new block is slower than each old one; `drift` by what
    factor the stretches of a block differ, more than so few requests explain. `p` is the p value of the one-sided
    Mann-Whitney test over the requests, `delta` Cliff's delta: the chance that a new time is longer than an old one,
    less that of the opposite, from -1 to 1.
    """

    path: str
    old_us: float
    new_us: float
    ratio: float
    us: float
    error: float
    drift: float
    agree: bool
    p_blocks: float
    p: float
    delta: float
    verdict: Verdict = "same"


@dataclass(frozen=True)
class Failures:
    """How many requests failed, of how many, on one path, or on all (`path` is ""); `p` is of Fisher's exact test."""

    path: str
    new: int
    new_of: int
    old: int
    old_of: int
    p: float
    more: bool = False


def compare_times(new: Sequence[Times], old: Sequence[Times], limits: Limits) -> list[Slowdown]:
    """Compute and judge the slowdown over all paths and on each; a block has the microseconds of each of its paths.

    A path counts by itself where every block has `MIN_TIMES` of it, and among all where every block has any. The
    slowdown over all comes first; there is none where no path is left.
    """
    units, whole = units_of(new, old)
    if not units:
        return []
    slowdowns = [_slowdown(OVERALL, new, old, units, whole)]
    if len(units) > 1:
        for path, unit in units.items():
            if min(len(block[path]) for block in (*new, *old)) >= MIN_TIMES:
                slowdowns.append(_slowdown(path, new, old, {path: unit}, unit))
    certain = holm([slowdown.p for slowdown in slowdowns], limits.significance_per_mille / 1000)
    return [
        _with_verdict(slowdown, limits, significant=sure) for slowdown, sure in zip(slowdowns, certain, strict=True)
    ]


def units_of(new: Sequence[Times], old: Sequence[Times]) -> tuple[dict[str, float], float]:
    """Compute the old release's median time of each path that every block has, and of all of those together."""
    blocks = [*new, *old]
    shared = sorted(path for path in set().union(*blocks) if all(block.get(path) for block in blocks))
    if not new or not old or not shared:
        return {}, 1.0
    units = {path: max(1.0, _median([us for block in old for us in block[path]])) for path in shared}
    return units, max(1.0, _median([us for block in old for path in shared for us in block[path]]))


def compare_failures(
    new: Mapping[str, tuple[int, int]], old: Mapping[str, tuple[int, int]], limits: Limits
) -> list[Failures]:
    """Test whether more requests fail than before, over all paths and on each, which have (failed, sent), never 0 sent.

    Paths that are not in both, or that the old release never answered well, are left out.
    """
    paths = sorted(path for path in new.keys() & old.keys() if old[path][0] < old[path][1])
    if not paths:
        return []
    counts = {path: (*new[path], *old[path]) for path in paths}
    if len(paths) > 1:
        a, b, c, d = (sum(column) for column in zip(*counts.values(), strict=True))
        counts = {OVERALL: (a, b, c, d), **counts}
    found = [Failures(path, *count, p=fisher(*count)) for path, count in counts.items()]
    certain = holm([each.p for each in found], limits.significance_per_mille / 1000)
    return [
        Failures(f.path, f.new, f.new_of, f.old, f.old_of, f.p, more=sure)
        for f, sure in zip(found, certain, strict=True)
    ]


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Tell which of several tests are significant, with a chance of at most `level` of any false one (Holm, 1979)."""
    certain = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > level / (len(p_values) - rank):
            break
        certain[index] = True
    return certain


def slowdown_ratio(new: Sequence[float] | Floats, old: Sequence[float] | Floats) -> float:
    """Estimate by what factor `new` is longer: Hodges and Lehmann's shift, on logarithms.

    Long series are thinned to quantiles, so that it takes a few milliseconds whatever their length.
    """
    import numpy as np

    pairs = np.subtract.outer(_thinned(new), _thinned(old))
    return math.exp(float(np.median(pairs)))


def _slowdown(
    path: str, new: Sequence[Times], old: Sequence[Times], units: Mapping[str, float], unit: float
) -> Slowdown:
    import numpy as np

    ours, theirs = [_relative(block, units) for block in new], [_relative(block, units) for block in old]
    all_ours, all_theirs = np.concatenate(ours), np.concatenate(theirs)
    ratio = slowdown_ratio(all_ours, all_theirs)
    p, delta = mann_whitney(all_ours, all_theirs)
    medians = [[math.log(_median(block)) for block in blocks] for blocks in (ours, theirs)]
    error, p_blocks, _ = over_blocks(*medians)
    base = unit * _median(all_theirs)
    return Slowdown(
        path=path,
        old_us=base,
        new_us=unit * _median(all_ours),
        ratio=ratio,
        us=base * (ratio - 1),
        error=math.exp(error),
        drift=_drift(new, old, units),
        agree=all(slowdown_ratio(one, other) > 1 for one, other in product(ours, theirs)),
        p_blocks=p_blocks,
        p=p,
        delta=delta,
    )


def over_blocks(new: Sequence[float], old: Sequence[float]) -> tuple[float, float, float]:
    """Compare a statistic that each block has: the difference's standard error, the p value of Student's one-sided t
    test, and the deviation of the blocks of one release."""
    import numpy as np

    if min(len(new), len(old)) < 2:
        return math.inf, 1.0, math.inf
    freedom = len(new) + len(old) - 2
    variance = sum(float(np.var(some)) * len(some) for some in (new, old)) / freedom
    error = math.sqrt(variance * (1 / len(new) + 1 / len(old)))
    more = float(np.mean(new) - np.mean(old))
    if error < _NOTHING:
        return 0.0, 0.0 if more > _NOTHING else 1.0, 0.0
    return error, student(more / error, freedom), math.sqrt(variance)


def _drift(new: Sequence[Times], old: Sequence[Times], units: Mapping[str, float]) -> float:
    """Estimate how much the stretches of a release differ, as a factor: their deviation, less what is due to chance."""
    import numpy as np

    seen, chance = [], []
    for blocks in (new, old):
        parts = [_relative(part, units) for block in blocks for part in _stretches(block, units)]
        if len(parts) > 1:
            seen.append(float(np.var([math.log(_median(part)) for part in parts], ddof=1)))
            chance += [_MEDIAN_ERROR * _error(part) for part in parts]
    if not seen:
        return math.inf
    return math.exp(math.sqrt(max(sum(seen) / len(seen) - sum(chance) / len(chance), 0)))


def _error(times: Floats) -> float:
    """Estimate the variance of the mean of the logarithms of `times` by their quartiles, as if they were normal."""
    import numpy as np

    low, high = np.quantile(np.log(times), (0.25, 0.75))
    return ((float(high) - float(low)) / _QUARTILES) ** 2 / len(times)


def _stretches(block: Times, paths: Iterable[str]) -> list[Times]:
    """Split the block into `STRETCHES` parts, in their order; fewer where a path has not so many times."""
    times = {path: block[path] for path in paths}
    parts = min(STRETCHES, *map(len, times.values()))
    return [
        {path: us[number * len(us) // parts : (number + 1) * len(us) // parts] for path, us in times.items()}
        for number in range(parts)
    ]


def _with_verdict(slowdown: Slowdown, limits: Limits, *, significant: bool) -> Slowdown:
    def exceeds(ratio: float) -> bool:
        return ratio > 1 + limits.slower_percent / 100 and slowdown.old_us * (ratio - 1) > limits.floor_us

    overall = slowdown.path == OVERALL
    certain = (
        significant
        and slowdown.agree
        and slowdown.p_blocks <= limits.block_level
        and slowdown.ratio >= slowdown.drift**DRIFTS
    )
    verdict: Verdict = "same"
    if exceeds(slowdown.ratio) and certain:
        verdict = "slower"
    elif (exceeds(slowdown.ratio) and significant) or (exceeds(slowdown.ratio * slowdown.error) and overall):
        verdict = "unclear"
    return Slowdown(**{**vars(slowdown), "verdict": verdict})


def _relative(block: Times, units: Mapping[str, float]) -> Floats:
    """Convert the block's times to multiples of their path's unit, so that quick and slow paths weigh the same."""
    import numpy as np

    return np.concatenate([np.maximum(np.asarray(block[path], float), 1) / unit for path, unit in units.items()])


def _thinned(times: Sequence[float] | Floats) -> Floats:
    """Take the logarithms of `times`, or `_QUANTILES` quantiles of them."""
    import numpy as np

    logs = np.log(np.asarray(times, dtype=float))
    if len(logs) > _QUANTILES:
        logs = np.quantile(logs, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
    thinned: Floats = logs
    return thinned


def _median(times: Sequence[float] | Floats) -> float:
    import numpy as np

    return float(np.median(times))
