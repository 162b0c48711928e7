"""The p values of three one-sided tests: Mann and Whitney's, Student's and Fisher's.

Each is a textbook formula over the standard library's `erfc` and `comb`; SciPy, whose three functions these replace,
takes 114 MB and more than a second to import. tests/unit/checks/test_significance.py holds them against its values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

EXACT_UP_TO = 8


def mann_whitney(new: Sequence[float] | Floats, old: Sequence[float] | Floats) -> tuple[float, float]:
    """Test whether `new` is longer than `old`: how likely such ranks are where it is not, and Cliff's delta.

    The p value is exact where either series has at most `EXACT_UP_TO` values and none occurs twice; otherwise it is
    that of the normal approximation, corrected for ties and continuity.
    """
    import numpy as np

    _, rank_of, counts = np.unique(np.concatenate([new, old]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[rank_of]
    n, m = len(new), len(old)
    u = float(np.sum(ranks[:n])) - n * (n + 1) / 2
    delta = 2 * u / (n * m) - 1
    if min(n, m) <= EXACT_UP_TO and len(counts) == n + m:
        ways = _ways_to_rank(n, m)
        return sum(ways[round(u) :]) / sum(ways), delta
    both = n + m
    ties = float(np.sum(counts.astype(float) ** 3 - counts)) / (both * (both - 1))
    variance = n * m / 12 * (both + 1 - ties)
    if variance <= 0:
        return 1.0, delta
    return math.erfc((u - n * m / 2 - 0.5) / math.sqrt(2 * variance)) / 2, delta


def student(t: float, freedom: int) -> float:
    """Compute how likely it is that Student's t, with a whole number of degrees of freedom, exceeds `t`.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, series = cosine if odd else 1.0, 0.0
    for step in range(1 + odd, freedom, 2):
        series += term
        term *= cosine**2 * step / (step + 1)
    within = 2 / math.pi * (angle + sine * series) if odd else sine * series
    return max(0.0, (1 - within) / 2)


def fisher(new: int, new_of: int, old: int, old_of: int) -> float:
    """Compute how likely at least `new` failures of `new_of` are, where both fail alike: Fisher's exact test."""
    failed, both = new + old, new_of + old_of
    ways = term = math.comb(failed, new) * math.comb(both - failed, new_of - new)
    for n in range(new + 1, min(failed, new_of) + 1):
        term = term * (failed - n + 1) * (new_of - n + 1) // (n * (both - failed - new_of + n))
        ways += term
    return ways / math.comb(both, new_of)


def _ways_to_rank(n: int, m: int) -> list[int]:
    """Count the orders of `n` new and `m` old values that give each U: the coefficients of a Gaussian binomial."""
    few, many = sorted((n, m))
    ways = [1] + [0] * (n * m)
    for i in range(1, few + 1):
        for u in range(n * m, many + i - 1, -1):
            ways[u] -= ways[u - many - i]
        for u in range(i, n * m + 1):
            ways[u] += ways[u - i]
    return ways
