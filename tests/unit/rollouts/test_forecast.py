"""The forecast: held against an exact calculation, the same each time, and fast whatever the fleet's size."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from statistics import fmean, pvariance

import pytest

from ashat.rollouts.cohorts import expected_sizes
from ashat.rollouts.decide import Complete, OpenNext, Pause, Rollout, WaveCounts, decide, failures_stop
from ashat.rollouts.forecast import Forecast, _binomial, forecast
from ashat.rollouts.policy import RolloutPolicy, WaveRule

TEN = RolloutPolicy(
    waves=(
        *(WaveRule(name=f"w{n}", percent=share) for n, share in enumerate((1, 2, 5, 10, 10, 10, 10, 10, 10))),
        WaveRule(name="rest", rest=True),
    )
)


def after(broken: dict[int, float], count: int, rate: float) -> dict[int, float]:
    """The distribution of broken Mainframes when `count` more had it, one by one."""
    for _ in range(count):
        more: dict[int, float] = defaultdict(float)
        for number, likely in broken.items():
            more[number] += likely * (1 - rate)
            more[number + 1] += likely * rate
        broken = more
    return broken


def exactly(policy: RolloutPolicy, sizes: Sequence[int], rate: float) -> tuple[dict[int, float], float]:
    """The exact distribution of how many break, and how likely it stops, where a wave has at most eight rounds."""
    ended: dict[int, float] = defaultdict(float)
    stopped, going = 0.0, {0: 1.0}
    for size in sizes:
        state: dict[tuple[int, int], float] = {(before, 0): likely for before, likely in going.items()}
        step = policy.at_once or size
        for done in range(0, size, step):
            answered, onward = min(size, done + step), defaultdict(float)
            for (before, failed), likely in state.items():
                for now, then in after({failed: likely}, answered - done, rate).items():
                    if not failures_stop(policy, now, answered, size):
                        onward[before, now] += then
                        continue
                    stopped += then
                    for end, ending in after({now: then}, min(step, size - answered), rate).items():
                        ended[before + end] += ending
            state = onward
        going = defaultdict(float)
        for (before, failed), likely in state.items():
            going[before + failed] += likely
    for broken, likely in going.items():
        ended[broken] += likely
    return ended, stopped


@pytest.mark.parametrize("at_once", [0, 5, 8])
@pytest.mark.parametrize("rate", [1, 5, 20])
def test_it_agrees_with_the_exact_calculation(at_once: int, rate: int) -> None:
    policy, sizes = RolloutPolicy(at_once=at_once), [5, 16, 39]
    told, stopped = exactly(policy, sizes, rate / 100)
    assert math.isclose(sum(told.values()), 1)
    mean = sum(broken * likely for broken, likely in told.items())
    deviation = math.sqrt(sum((broken - mean) ** 2 * likely for broken, likely in told.items()))
    (found,) = forecast(policy, sizes, [rate])
    assert abs(found.expected - mean) <= 0.5 + 4 * deviation / math.sqrt(2000)
    assert abs(found.stops - 100 * stopped) <= 0.5 + 400 * math.sqrt(stopped * (1 - stopped) / 2000)
    below = sum(likely for broken, likely in told.items() if broken < found.at_most)
    until = sum(likely for broken, likely in told.items() if broken <= found.at_most)
    assert below <= 0.95 + 0.02
    assert until >= 0.95 - 0.02


def test_nothing_stops_what_everybody_gets_at_once() -> None:
    for found in forecast(RolloutPolicy.all_at_once(), [10_000]):
        assert (found.stops, found.wave, found.unstopped) == (0, None, 100 * found.rate)
        assert abs(found.expected - found.unstopped) < 0.05 * found.unstopped
        assert found.at_most > found.expected


def test_waves_stop_a_bad_release_after_a_handful() -> None:
    bad = forecast(TEN, expected_sizes(TEN, 100_000))[2]
    assert bad.rate == 20
    assert bad.stops == 100
    assert bad.wave == 0
    assert bad.at_most < 100 < bad.unstopped == 20_000


def test_a_sequential_test_needs_few_to_tell() -> None:
    policy = RolloutPolicy(waves="sequential")
    good, unacceptable, bad = forecast(policy, expected_sizes(policy, 100_000))
    assert good.stops <= 8
    assert unacceptable.stops >= 92
    assert bad.stops == 100
    assert bad.at_most < 40
    small = forecast(policy, [3, *[0] * 19])
    assert [each.unstopped for each in small] == [0, 0, 1]


def test_the_same_plan_has_the_same_forecast_and_no_fleet_none() -> None:
    sizes = expected_sizes(TEN, 5_000)
    assert forecast(TEN, sizes) == forecast(TEN, sizes)
    assert forecast(TEN, [0] * 10, [5]) == (Forecast(5, 0, 0, 0, None, 0),)


@pytest.mark.parametrize("at_once", [0, 1, 100])
def test_it_takes_no_longer_for_a_large_fleet(at_once: int) -> None:
    policy = TEN.model_copy(update={"at_once": at_once})
    began = time.process_time()
    forecast(policy, expected_sizes(policy, 100_000))
    # 0.2 s is usual; this bounds what it does, on whatever machine.
    assert time.process_time() - began < 2


@pytest.mark.parametrize(("count", "rate"), [(5, 0.2), (40, 0.05), (99, 0.1), (300, 0.05), (10_000, 0.2), (50, 0.95)])
def test_a_draw_is_binomial(count: int, rate: float) -> None:
    random = Random(7)
    drawn = [_binomial(random, count, rate) for _ in range(20_000)]
    variance = count * rate * (1 - rate)
    assert abs(fmean(drawn) - count * rate) < 5 * math.sqrt(variance / 20_000)
    assert abs(pvariance(drawn) / variance - 1) < 0.06
    assert min(drawn) >= 0
    assert max(drawn) <= count
    for few in range(int(count * rate) + 1):
        exact = (
            sum(math.comb(count, k) * rate**k * (1 - rate) ** (count - k) for k in range(few + 1)) if count < 99 else 0
        )
        if exact:
            seen = sum(each <= few for each in drawn) / 20_000
            assert abs(seen - exact) < 0.02


def test_a_draw_at_the_ends() -> None:
    assert [_binomial(Random(1), *what) for what in ((0, 0.5), (7, 0.0), (7, 1.0))] == [0, 0, 7]


def played(policy: RolloutPolicy, sizes: Sequence[int], rate: float, random: Random) -> tuple[int, bool]:
    """How many break, and whether it stops, where `decide` sees each wave when all its members have answered."""
    moment, waves = datetime(2026, 11, 30, tzinfo=UTC), list[WaveCounts]()
    through = 0
    while True:
        for size in sizes[len(waves) : through + 1]:
            failed = sum(random.random() < rate for _ in range(size))
            waves.append(WaveCounts(succeeded=size - failed, failed=failed))
        decision = decide(policy, Rollout(waves, sum(sizes[len(waves) :]), moment), moment)
        if isinstance(decision, OpenNext):
            through = decision.through
            continue
        assert isinstance(decision, Complete | Pause)
        return sum(wave.failed for wave in waves), isinstance(decision, Pause)


@pytest.mark.parametrize("rate", [1, 5, 20])
@pytest.mark.parametrize(
    ("policy", "fleet"),
    [
        (RolloutPolicy(at_once=0), 300),
        (RolloutPolicy(at_once=0, success_percent=0, failure_percent=3, failure_least=2), 120),
        (RolloutPolicy(at_once=0, waves="sequential"), 400),
        (RolloutPolicy(at_once=0, waves="sequential"), 90),
    ],
)
def test_it_agrees_with_rollouts_that_are_decided_one_by_one(policy: RolloutPolicy, fleet: int, rate: int) -> None:
    sizes, random, runs = expected_sizes(policy, fleet), Random(2026), 400
    plays = [played(policy, sizes, rate / 100, random) for _ in range(runs)]
    (found,) = forecast(policy, sizes, [rate])
    broken = [broken for broken, _ in plays]
    stops = sum(stopped for _, stopped in plays) / runs
    chance = math.sqrt(1 / runs + 1 / 2000)
    assert abs(found.expected - fmean(broken)) <= 0.5 + 4 * math.sqrt(pvariance(broken)) * chance
    assert abs(found.stops / 100 - stops) <= 0.005 + 4 * math.sqrt(max(stops * (1 - stops), 0.01)) * chance
