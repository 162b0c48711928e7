"""Decides whether the slowest answers of the new release are slower than before, or more of them: pure, no I/O.

A release may answer as quickly as before in the median while one answer in 25 takes seconds. So these are compared, of
each path and of all together: the 95th and the 99th percentile, and the share of answers over the budget.

Answers are no independent draws, since a host that is busy for a moment delays many in a row. So what is shuffled and
drawn again are stretches of consecutive answers, not answers (the block bootstrap: Carlstein, 1986; Kuensch, 1989).

- Chance: of the slowest answers of both releases together, how many are the new one's? That is the quantile test, made
  for a change of a small part only (Johnson, Verrill and Moore, Biometrics 43, 1987), with its distribution by
  permutation of the stretches. How many are the slowest is half, once and 2.5 times what lies beyond the percentile, as
  it depends on the change which of them tells most. All statistics of all paths are shuffled together, and each is held
  against the largest of a shuffle, which corrects for their number (Westfall and Young, Resampling-Based Multiple
  Testing, 1993). A p value counts the arrangement that was seen, and so is never 0 (Phipson and Smyth, 2010).
- Size: the ratio of the percentiles, with a bootstrap interval over blocks and, in those, stretches (Davison and
  Hinkley, Bootstrap Methods and their Application, 1997, 3.8).

A tail is called slower only where chance is ruled out, the ratio exceeds what is allowed, its whole interval lies above
1, and every block of the new release is slower than every block of the old one, which a t test over the blocks bears
out. Where it exceeds what is allowed and is no chance of the answers, but the blocks do not bear that out for certain
(at `TAIL_BLOCK_LEVEL`), the answer is "unclear"; where they do not even hint at it (at `DOUBT_LEVEL`), it is the same.

The draws are seeded from the times themselves: who has the evidence finds the same figures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tasks.checks.kit.statistics import OVERALL, Limits, Times, Verdict, over_blocks, units_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Statistic = Literal["p50", "p95", "p99", "over"]
STRETCHES = 10
SHUFFLES = 1999
DRAWS = 600
ENOUGH: Mapping[Statistic, int] = {"p95": 100, "p99": 500, "over": 100}
"""How many answers each release must have given for five of them to lie beyond the percentile."""
MORE_OVER = 0.01
TAIL_BLOCK_LEVEL = 0.01
DOUBT_LEVEL = 0.1
HINT_LEVEL = 0.25
_BEYOND = (0.5, 1, 2.5)
_QUANTILES: Mapping[Statistic, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_FLOORS = 2
_GRID = 1001
_ROUNDING = 1e-9
_INTERVAL = (0.025, 0.975)


@dataclass(frozen=True)
class TailChange:
    """One statistic of the new release against the old one's, on one path, or on all (`path` is "").

    `old` and `new` are microseconds, or shares of all answers where the statistic is `over`. `ratio` is the change as
    a factor, from `low` to `high` with 95 % confidence (the difference of the shares for `over`). `p` is corrected for
    all statistics and paths; `agree` says that each new block is worse than each old one; `spread` is by what factor
    the blocks of one release differ; `hint` that it exceeds what is allowed, though maybe by chance, so that measuring
    more would tell.
    """

    path: str
    statistic: Statistic
    old: float
    new: float
    ratio: float
    low: float
    high: float
    p: float
    agree: bool
    spread: float
    verdict: Verdict = "same"
    hint: bool = False


@dataclass(frozen=True)
class _Stretched:
    """The times of one path, or of all: by block and in it by stretch, both releases, in microseconds."""

    path: str
    new: tuple[tuple[Floats, ...], ...]
    old: tuple[tuple[Floats, ...], ...]

    def of(self, blocks: Sequence[Sequence[Floats]]) -> Floats:
        """Join the times of some blocks."""
        import numpy as np

        return np.concatenate([part for block in blocks for part in block])

    @property
    def count(self) -> int:
        """How many times the release has that has fewer."""
        return min(sum(len(part) for block in blocks for part in block) for blocks in (self.new, self.old))


def compare_tails(new: Sequence[Times], old: Sequence[Times], limits: Limits) -> list[TailChange]:
    """Compute and judge the tails over all paths and on each; a block has the microseconds of each of its paths.

    A statistic is left out where a release has fewer than `ENOUGH` answers for it; `too_thin` says which. The share
    over the budget is compared where `limits.budget_us` is not 0.
    """
    relative, raw = (list(_stretched(new, old, raw=each)) for each in (False, True))
    wanted = [
        (times, statistic)
        for statistic in ENOUGH
        if statistic != "over" or limits.budget_us
        for times in (raw if statistic == "over" else relative)
        if times.count >= ENOUGH[statistic]
    ]
    if not wanted:
        return []
    seed = _seed(new, old)
    p_values = _chances(wanted, limits, seed)
    return [_judged(times, what, p, limits, seed) for (times, what), p in zip(wanted, p_values, strict=True)]


def too_thin(new: Sequence[Times], old: Sequence[Times]) -> dict[Statistic, dict[str, int]]:
    """List by statistic the paths with too few answers to compare it, and how many the release with fewer gave."""
    counts = {times.path: times.count for times in _stretched(new, old) if times.path != OVERALL}
    return {
        statistic: thin
        for statistic, enough in ENOUGH.items()
        if (thin := {path: count for path, count in counts.items() if count < enough})
    }


def ratio_interval(new: Sequence[Times], old: Sequence[Times], path: str, statistic: Statistic) -> tuple[float, float]:
    """Estimate from where to where the ratio of a percentile lies, with 95 % confidence."""
    times = next((times for times in _stretched(new, old) if times.path == path), None)
    return _interval(times, _QUANTILES[statistic], _seed(new, old)) if times else (0.0, math.inf)


def _stretched(new: Sequence[Times], old: Sequence[Times], *, raw: bool = False) -> Iterator[_Stretched]:
    """Cut the paths that every block has into stretches, all of them together first, where there are several.

    All together count as multiples of their path's median, so that quick and slow paths weigh the same; as they are if
    `raw`.
    """
    import numpy as np

    units, whole = units_of(new, old)
    parts = {
        path: [
            tuple(tuple(np.array_split(np.maximum(np.asarray(block[path], float), 1), STRETCHES)) for block in blocks)
            for blocks in (new, old)
        ]
        for path in units
    }
    if len(units) > 1:
        weights = {path: 1.0 if raw else whole / unit for path, unit in units.items()}
        together = [
            tuple(
                tuple(
                    np.concatenate([parts[path][which][block][part] * weight for path, weight in weights.items()])
                    for part in range(STRETCHES)
                )
                for block in range(len(blocks))
            )
            for which, blocks in enumerate((new, old))
        ]
        yield _Stretched(OVERALL, *together)
    for path, (ours, theirs) in parts.items():
        yield _Stretched(path, ours, theirs)


def _seed(new: Sequence[Times], old: Sequence[Times]) -> int:
    """Derive the seed of the draws from the times, which stand in the evidence."""
    import numpy as np

    whole = hashlib.sha256()
    for blocks in (new, old):
        for block in blocks:
            for path in sorted(block):
                whole.update(path.encode() + b"\0" + np.asarray(block[path], dtype="<i8").tobytes())
    return int.from_bytes(whole.digest()[:8])


def _chances(wanted: Sequence[tuple[_Stretched, Statistic]], limits: Limits, seed: int) -> list[float]:
    """Compute the one-sided p values of all statistics by permutation of the stretches, corrected for their number."""
    import numpy as np

    first = wanted[0][0]
    ours, theirs = (len(blocks) * STRETCHES for blocks in (first.new, first.old))
    columns = [[*_counted(times, statistic, limits)] for times, statistic in wanted]
    over, counts = (np.column_stack([pair[which] for some in columns for pair in some]) for which in (0, 1))
    chosen = np.zeros((SHUFFLES + 1, ours + theirs))
    chosen[:, :ours] = 1
    np.random.default_rng(seed).permuted(chosen[1:], axis=1, out=chosen[1:])
    seen, asked = chosen @ over, chosen @ counts
    more = seen / np.maximum(asked, 1) - (over.sum(axis=0) - seen) / np.maximum(counts.sum(axis=0) - asked, 1)
    deviation = more[1:].std(axis=0)
    scaled = np.divide(more, deviation, out=np.zeros_like(more), where=deviation > 0)
    largest = scaled[1:].max(axis=1)
    p_values = iter([float(1 + np.count_nonzero(largest >= one)) / (SHUFFLES + 1) for one in scaled[0]])
    return [min(next(p_values) for _ in some) for some in columns]


def _counted(times: _Stretched, statistic: Statistic, limits: Limits) -> Iterator[tuple[list[float], list[int]]]:
    """Count by stretch the answers over each line that the statistic is tested at, one at the line as half, and all."""
    import numpy as np

    parts = [part for blocks in (times.new, times.old) for block in blocks for part in block]
    counts = [len(part) for part in parts]
    if statistic == "over":
        lines = [float(limits.budget_us)]
    else:
        beyond = [share * (1 - _QUANTILES[statistic]) for share in _BEYOND]
        pooled = np.concatenate(parts)
        lines = [_percentile(pooled, 1 - each) for each in beyond]
    ordered = [np.sort(part) for part in parts]
    for line in lines:
        upto = [np.searchsorted(part, line, side) for side in ("left", "right") for part in ordered]
        over = [
            count - float(low + high) / 2 for count, low, high in zip(counts, upto, upto[len(parts) :], strict=False)
        ]
        yield over, counts


def _judged(times: _Stretched, statistic: Statistic, p: float, limits: Limits, seed: int) -> TailChange:
    import numpy as np

    ours, theirs = times.of(times.new), times.of(times.old)
    by_block = [[times.of([block]) for block in blocks] for blocks in (times.new, times.old)]
    if statistic == "over":
        new, old = (float(np.mean(some > limits.budget_us)) for some in (ours, theirs))
        blocks = [[float(np.mean(some > limits.budget_us)) for some in some_blocks] for some_blocks in by_block]
        ratio, exceeds = new - old, new - old >= MORE_OVER
    else:
        quantile = _QUANTILES[statistic]
        new, old = _percentile(ours, quantile), _percentile(theirs, quantile)
        blocks = [[math.log(_percentile(some, quantile)) for some in some_blocks] for some_blocks in by_block]
        ratio = new / old
        allowed = 1 + max(limits.slower_percent, limits.growth_percent) / 100
        exceeds = ratio > allowed and new - old > _FLOORS * limits.floor_us
    agree = min(blocks[0]) > max(blocks[1])
    error, p_blocks, spread = over_blocks(*blocks)
    low, high = ratio - 2 * error, ratio + 2 * error
    if statistic != "over":
        low, high = _interval(times, _QUANTILES[statistic], seed) if exceeds else (0.0, math.inf)
    certain = (
        agree and p_blocks <= min(TAIL_BLOCK_LEVEL, limits.block_level) and low > (0 if statistic == "over" else 1)
    )
    verdict: Verdict = "same"
    if (
        exceeds
        and p <= limits.significance_per_mille / 1000
        and (certain or p_blocks <= DOUBT_LEVEL or not error < math.inf)
    ):
        verdict = "slower" if certain else "unclear"
    hint = exceeds and p <= HINT_LEVEL
    return TailChange(times.path, statistic, old, new, ratio, low, high, p, agree, math.exp(spread), verdict, hint)


def _interval(times: _Stretched, quantile: float, seed: int) -> tuple[float, float]:
    """Draw blocks, and of each its stretches, again and again; return where 95 % of the percentiles' ratios lie."""
    import numpy as np

    draw = np.random.default_rng(seed)
    ours, theirs = (_drawn(blocks, quantile, draw) for blocks in (times.new, times.old))
    low, high = np.quantile(ours / theirs, _INTERVAL)
    return float(low), float(high)


def _drawn(blocks: Sequence[Sequence[Floats]], quantile: float, draw: np.random.Generator) -> Floats:
    """Compute the percentile of `DRAWS` draws from a release, each by how often it has each stretch."""
    import numpy as np

    number = len(blocks)
    often = draw.multinomial(number, [1 / number] * number, size=DRAWS)
    weights = np.hstack(
        [draw.multinomial(often[:, block] * STRETCHES, [1 / STRETCHES] * STRETCHES) for block in range(number)]
    ).astype(float)
    parts = [np.sort(part) for block in blocks for part in block]
    grid = np.unique(np.quantile(np.concatenate(parts), np.linspace(0, 1, _GRID), method="inverted_cdf"))
    below = np.array([np.searchsorted(part, grid, side="right") for part in parts], dtype=float)
    counts = np.array([len(part) for part in parts], dtype=float)
    reached = weights @ below >= quantile * (weights @ counts)[:, None]
    found: Floats = grid[reached.argmax(axis=1)]
    return found


def _percentile(times: Floats, quantile: float) -> float:
    """Find the nearest-rank percentile: the smallest time that so large a share of all is not above."""
    import numpy as np

    rank = max(0, math.ceil(quantile * len(times) - _ROUNDING) - 1)
    return float(np.partition(times, rank)[rank])
