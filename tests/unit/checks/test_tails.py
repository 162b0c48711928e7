"""The slowest answers of two releases, on made-up times: what is said of a tail, and what is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tasks.checks.kit.growth import changed_sizes, grown_memory, grown_start
from tasks.checks.kit.samples import Block, Sample
from tasks.checks.kit.statistics import Limits, Times
from tasks.checks.kit.tails import compare_tails, ratio_interval, too_thin

LIMITS = Limits(slower_percent=20, significance_per_mille=10, budget_us=100_000)
PATHS = {"/a": 2000, "/b": 6000, "/c": 30_000}
Change = Callable[[np.random.Generator, np.ndarray], np.ndarray]


def as_it_is(draw: np.random.Generator, times: np.ndarray) -> np.ndarray:
    return times


def stragglers(draw: np.random.Generator, times: np.ndarray) -> np.ndarray:
    return np.where(draw.random(len(times)) < 0.04, times * 20, times)


def longer_tail(draw: np.random.Generator, times: np.ndarray) -> np.ndarray:
    return np.where(times > np.quantile(times, 0.93), times * 2, times)


def block(draw: np.random.Generator, change: Change = as_it_is, *, count: int = 280, only: str = "") -> Times:
    """A block of lognormal times; `change` makes those of `only` slower, or of all paths."""
    factor, times = draw.lognormal(0, 0.02), {}
    for path, typical in PATHS.items():
        drawn = typical * factor * draw.lognormal(0, 0.3, count)
        times[path] = (change(draw, drawn) if only in ("", path) else drawn).astype(int).tolist()
    return times


def compared(seed: int, change: Change = as_it_is, *, runs: int = 4, only: str = "") -> dict[tuple[str, str], str]:
    """What is said of each tail of a release with `change`, in four runs of each release, as in doubt."""
    draw = np.random.default_rng(seed)
    new, old = [block(draw, change, only=only) for _ in range(runs)], [block(draw) for _ in range(runs)]
    return {(each.path, each.statistic): each.verdict for each in compare_tails(new, old, LIMITS)}


def test_two_runs_of_one_release_have_the_same_tails() -> None:
    assert sum(set(compared(seed, runs=2).values()) != {"same"} for seed in range(20)) <= 1


def test_one_answer_in_25_that_takes_long_is_caught_where_the_median_is_as_before() -> None:
    assert all(compared(seed, stragglers, runs=2)["", "p99"] != "same" for seed in range(8)), "measured again, then"
    found = [compared(seed, stragglers) for seed in range(8)]
    assert all(verdicts["", "p99"] == "slower" for verdicts in found)
    assert all(verdicts["", "p95"] == "same" for verdicts in found)
    assert all(verdicts["/c", "over"] == "slower" for verdicts in found), "600 ms, of 100 ms allowed"
    assert all(verdicts["/a", "over"] == "same" for verdicts in found), "40 ms"


def test_a_longer_tail_of_one_path_is_named() -> None:
    found = [compared(seed, longer_tail, only="/b") for seed in range(8)]
    assert all(verdicts["/b", "p95"] == "slower" for verdicts in found)
    assert all(verdicts[path, "p95"] == "same" for verdicts in found for path in ("/a", "/c"))


def test_a_tail_that_got_shorter_is_no_finding() -> None:
    draw = np.random.default_rng(1)
    new, old = [block(draw) for _ in range(2)], [block(draw, stragglers) for _ in range(2)]
    assert {each.verdict for each in compare_tails(new, old, LIMITS)} == {"same"}


def test_a_host_that_is_busy_for_a_moment_makes_no_slower_tail() -> None:
    """A burst that delays a tenth of one block of the new release in a row: its host's doing, not its own."""
    for seed in range(5):
        draw = np.random.default_rng(seed)
        new, old = [block(draw) for _ in range(2)], [block(draw) for _ in range(2)]
        for times in new[0].values():
            burst = slice(100, 130)
            times[burst] = [us * 20 for us in times[burst]]  # type: ignore[index]
        assert "slower" not in {each.verdict for each in compare_tails(new, old, LIMITS)}


def test_what_was_measured_too_little_is_not_compared_and_named() -> None:
    draw = np.random.default_rng(2)
    some, few = [block(draw, count=60) for _ in range(2)], [block(draw, count=20) for _ in range(2)]
    assert too_thin(some, some) == {"p99": dict.fromkeys(PATHS, 120)}
    assert {each.statistic for each in compare_tails(some, some, LIMITS)} == {"p95", "over"}
    assert too_thin(some, few).keys() == {"p95", "p99", "over"}
    assert compare_tails(few, few, LIMITS)[0].path == "", "all together are enough"
    assert compare_tails([], few, LIMITS) == []
    assert too_thin([], few) == {}


def test_the_size_of_a_change_comes_with_its_interval() -> None:
    draw = np.random.default_rng(3)
    new, old = [block(draw, stragglers) for _ in range(4)], [block(draw) for _ in range(4)]
    (tail,) = (each for each in compare_tails(new, old, LIMITS) if (each.path, each.statistic) == ("/b", "p99"))
    assert tail.low < tail.ratio < tail.high
    assert tail.low > 5
    assert tail.p <= 0.001
    low, high = ratio_interval(new, old, "/b", "p50")
    assert low < 1.05 < 1.2 > high
    assert ratio_interval(new, old, "/nowhere", "p50") == (0.0, float("inf"))


def test_the_same_times_give_the_same_figures() -> None:
    draw = np.random.default_rng(4)
    new, old = [block(draw, longer_tail) for _ in range(2)], [block(draw) for _ in range(2)]
    assert compare_tails(new, old, LIMITS) == compare_tails(new, old, LIMITS)


def test_one_run_of_a_release_proves_nothing() -> None:
    draw = np.random.default_rng(5)
    new, old = [block(draw, stragglers, count=600)], [block(draw, count=600) for _ in range(2)]
    assert "slower" not in {each.verdict for each in compare_tails(new, old, LIMITS)}
    assert "unclear" in {each.verdict for each in compare_tails(new, old, LIMITS)}


def test_what_raos_toml_allows_of_the_median_it_allows_of_the_tails() -> None:
    draw = np.random.default_rng(6)
    new, old = [block(draw, lambda _, times: times * 2) for _ in range(2)], [block(draw) for _ in range(2)]
    tolerant = replace(LIMITS, slower_percent=200, budget_us=0)
    assert {each.verdict for each in compare_tails(new, old, tolerant)} == {"same"}


def test_equal_times_are_no_difference() -> None:
    same: list[Times] = [{"/": [5000] * 600}] * 2
    assert {(each.verdict, each.p) for each in compare_tails(same, same, LIMITS)} == {("same", 1.0)}
    slower: list[Times] = [{"/": [9000] * 600}] * 2
    assert {each.verdict for each in compare_tails(slower, same, replace(LIMITS, budget_us=0))} == {"slower"}


def test_as_many_requests_as_raos_toml_allows_take_less_than_a_second() -> None:
    draw = np.random.default_rng(7)
    blocks = [
        {f"/{n}": (3000 * draw.lognormal(0, 0.4, 157) * factor).astype(int).tolist() for n in range(32)}
        for factor in (2, 2, 1, 1)
    ]
    began = time.process_time()
    assert compare_tails(blocks[:2], blocks[2:], LIMITS)
    assert time.process_time() - began < 1


def blocks(*figures: tuple[int | None, int | None]) -> list[Block]:
    return [Block("new", (), start_ms=start, memory_bytes=memory) for start, memory in figures]


def test_a_longer_start_and_more_memory_count_where_every_look_shows_it() -> None:
    mib = 1024 * 1024
    old = blocks((1000, 100 * mib), (1100, 110 * mib))
    slow = grown_start(blocks((3000, None), (2900, None)), old, 50)
    assert slow is not None
    assert (slow.old, slow.new, slow.percent) == (1000, 2900, 190)
    assert grown_start(blocks((3000, None), (1050, None)), old, 50) is None, "once only"
    assert grown_start(blocks((1900, None), (1900, None)), old, 50) is None, "less than a second"
    assert grown_start(blocks((3000, None), (2900, None)), old, 1000) is None, "allowed"
    assert grown_start(blocks((3000, None)), blocks((None, None)), 50) is None, "not known"
    more = grown_memory(blocks((None, 300 * mib), (None, 310 * mib)), old, 50)
    assert more is not None
    assert more.percent == 200
    assert grown_memory(blocks((None, 120 * mib), (None, 125 * mib)), old, 5) is None, "less than anybody minds"


@pytest.mark.parametrize(("size", "told"), [(20_000, True), (500, True), (9000, False), (11_000, False)])
def test_answers_of_another_size_are_told(size: int, told: bool) -> None:
    new = [Sample("/a", 1, "", size), Sample("/b", 1, "", 700), Sample("/a", 1, "status 500", 3)]
    old = [Sample("/a", 1, "", 10_000), Sample("/b", 1, "", 10), Sample("/gone", 1, "", 10)]
    found = [(each.what, each.old, each.new) for each in changed_sizes(new, old, 50)]
    assert found == ([("/a", 10_000, size)] if told else [])
