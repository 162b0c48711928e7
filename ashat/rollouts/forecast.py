"""Forecast how many Mainframes a bad release breaks before a policy stops it.

The plan is played many times, each time with Mainframes that break by chance, each alike and on its own: so many of a
wave as a binomial draw says. Counts are drawn, never single Mainframes, so that the time does not grow with the fleet.

The worst is assumed where the order is open. A wave without a limit `at_once` reaches all its members before the first
answers; under a limit, the next round is out when one is judged. Where there are many rounds, it is judged only each
time that an eighth more has answered. So fewer break in truth, by as much as answers come before others ask.

Counted is what a Mainframe itself reports as failed. Whom the policy rolls back runs well again, and is counted still.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from ashat.rollouts.decide import failures_stop
from ashat.rollouts.policy import RolloutPolicy

RATES = (1, 5, 20)
PERCENTILE = 95
_FEWEST_RUNS = 200
_MOST_RUNS = 2000
_JUDGED = 80_000  # so many times may all runs of a rate together be judged
_STEP = 8
_EXACT_BELOW = 10


class Forecast(NamedTuple):
    """Hold what a release breaks that breaks `rate` percent of all Mainframes.

    `expected` Mainframes on average and, in 95 of 100 cases, at most `at_most` break before it stops, which it does in
    `stops` of 100 cases; `wave` is the index of the wave in which it usually stops, None where it seldom does.
    `unstopped` would break if nothing stopped it.
    """

    rate: int
    expected: int
    at_most: int
    stops: int
    wave: int | None
    unstopped: int


class _Play(NamedTuple):
    """Hold how one play ended: how many broke, and in which wave it stopped; None where everybody got it."""

    broken: int
    stopped: int | None


def forecast(policy: RolloutPolicy, sizes: Sequence[int], rates: Sequence[int] = RATES) -> tuple[Forecast, ...]:
    """Forecast a rollout over waves of those sizes for each rate of defects, in percent.

    The same policy and sizes give the same figures: they seed the chance.
    """
    looks = sum(len(_looks(size, policy.at_once)) for size in sizes)
    runs = max(_FEWEST_RUNS, min(_MOST_RUNS, _JUDGED // max(1, looks)))
    return tuple(_forecast(policy, sizes, rate, runs) for rate in rates)


def _forecast(policy: RolloutPolicy, sizes: Sequence[int], rate: int, runs: int) -> Forecast:
    random = Random(f"{policy.digest} {','.join(map(str, sizes))} {rate}")  # noqa: S311 - a simulation, no secret
    game = _Game(policy, sizes, rate / 100, random)
    plays = sorted((game.play() for _ in range(runs)), key=lambda play: play.broken)
    stopped = sorted(play.stopped for play in plays if play.stopped is not None)
    return Forecast(
        rate,
        round(sum(play.broken for play in plays) / runs),
        plays[math.ceil(runs * PERCENTILE / 100) - 1].broken,
        round(100 * len(stopped) / runs),
        stopped[len(stopped) // 2] if 2 * len(stopped) >= runs else None,
        round(sum(sizes) * rate / 100),
    )


class _Game:
    """Play one policy over waves of given sizes, with one rate of defects."""

    def __init__(self, policy: RolloutPolicy, sizes: Sequence[int], rate: float, random: Random) -> None:
        self._policy, self._sizes, self._rate, self._random = policy, sizes, rate, random
        self._rounds = [_looks(size, policy.at_once) for size in sizes]

    def play(self) -> _Play:
        """Play the rollout once."""
        broken, first = 0, 0
        if self._policy.waves == "sequential":
            broken, first, over = self._play_test()
            if over:
                return _Play(broken, first)
        for index in range(first, len(self._sizes)):
            failed, stopped = self._play_wave(index)
            broken += failed
            if stopped:
                return _Play(broken, index)
        return _Play(broken, None)

    def _play_wave(self, index: int) -> tuple[int, bool]:
        """Play a wave; return how many broke, and whether that stopped it."""
        size, failed, before = self._sizes[index], 0, 0
        for answered, started in self._rounds[index]:
            failed += self._breaks(answered - before)
            before = answered
            if failures_stop(self._policy, failed, answered, size):
                return failed + self._breaks(started - answered), True
        return failed, False

    def _play_test(self) -> tuple[int, int, bool]:
        """Play the waves of a sequential test; return how many broke, in which wave it ended or goes on, and whether it
        ended there."""
        test, sizes, last = self._policy.sequential, self._sizes, len(self._sizes) - 1
        failed, answered, through, index = 0, 0, 0, 0
        while index < last:
            reached = sum(sizes[index : through + 1])
            failed += self._breaks(reached)
            answered += reached
            index = through + 1
            verdict = test.verdict(answered - failed, failed)
            if verdict == "good":
                # The waves that the test did not need get it together with the rest.
                return failed + self._breaks(sum(sizes[index:last])), last, False
            if verdict == "bad":
                return failed, through, True
            if not any(sizes[index:]):
                return failed, last, False
            through = min(last - 1, through + max(1, -(-test.missing(answered - failed, failed) // test.sizes()[1])))
        return failed, last - 1, True

    def _breaks(self, count: int) -> int:
        """Draw how many of `count` Mainframes break."""
        return _binomial(self._random, count, self._rate)


def _looks(size: int, at_once: int) -> list[tuple[int, int]]:
    """Return when a wave is judged: how many have answered then, and how many have started."""
    if not at_once or at_once >= size:
        return [(size, size)] if size else []
    looks, answered = [], 0
    while answered < size:
        rounds = max(1, answered // (_STEP * at_once))
        answered = min(size, answered + rounds * at_once)
        looks.append((answered, min(size, answered + at_once)))
    return looks


def _binomial(random: Random, count: int, rate: float) -> int:
    """Draw how often of `count` times something of probability `rate` occurs.

    Where few are expected, by the gaps between them, which is exact (L. Devroye, Non-Uniform Random Variate Generation,
    1986, X.4.3); otherwise by the normal approximation with Cornish and Fisher's correction for skewness.
    """
    mean = count * rate
    if count <= 0 or rate <= 0:
        return 0
    if rate >= 1:
        return count
    if min(mean, count - mean) < _EXACT_BELOW:
        found, place, log = 0, 0, math.log1p(-rate)
        while True:
            place += 1 + int(math.log(1.0 - random.random()) / log)
            if place > count:
                return found
            found += 1
    deviation, z = math.sqrt(mean * (1 - rate)), random.gauss(0, 1)
    drawn = math.floor(mean + deviation * z + (1 - 2 * rate) * (z * z - 1) / 6 + 0.5)
    return min(count, max(0, drawn))
