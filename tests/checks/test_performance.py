"""Slower than before, or only noise? The statistics on made-up figures, the check on those, and the real program."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.client.node import NodeClient
from ashat.common.canonical_json import canonical_json
from ashat.raos_toml.load import load_raos_toml
from ashat.raos_toml.schema import PerformanceSection, RaosToml
from ashat.verification.policy import Policy
from tasks.checks.kit.base import CheckContext, CheckResult, run_check
from tasks.checks.kit.http import Web
from tasks.checks.kit.samples import Block, Rehearsal, Sample, Which
from tasks.checks.kit.significance import mann_whitney
from tasks.checks.kit.statistics import (
    Limits,
    Slowdown,
    compare_failures,
    compare_times,
    holm,
    slowdown_ratio,
)
from tasks.checks.performance import (
    BLOCKS,
    PerformanceCheck,
    blocks_needed,
    counts_of,
    limits_of,
    measure,
    measure_block,
    percentile,
    share_of,
    times_of,
)
from tests.checks.test_sample import SAMPLE, running

LIMITS = Limits(slower_percent=20, significance_per_mille=10)
PATHS = {"/a": 2000, "/b": 6000, "/c": 30_000}
Times = dict[str, list[int]]

series = st.lists(st.integers(1, 10**7), min_size=1, max_size=30)


def block(
    draw: random.Random,
    factor: float = 1.0,
    noise: float = 0.03,
    *,
    count: int = 100,
    slower: dict[str, float] | None = None,
) -> Times:
    """A block of times, lognormal like real ones; `noise` is by how much whole blocks differ."""
    slower = slower or {}
    factor *= draw.lognormvariate(0, noise)
    return {
        path: [round(typical * factor * slower.get(path, 1) * draw.lognormvariate(0, 0.3)) for _ in range(count)]
        for path, typical in PATHS.items()
    }


def verdicts(runs: int, factor: float, noise: float) -> list[str]:
    """What is said over all paths and any of them, in `runs` runs with blocks that differ by `noise`."""
    found = []
    for seed in range(runs):
        draw = random.Random(seed)
        new, old = ([block(draw, f, noise) for _ in range(2)] for f in (factor, 1.0))
        said = {shift.verdict for shift in compare_times(new, old, LIMITS)}
        found.append("slower" if "slower" in said else "unclear" if "unclear" in said else "same")
    return found


def test_two_runs_of_one_release_are_not_called_slower() -> None:
    assert verdicts(40, 1.0, 0.02).count("same") >= 38
    noisy = verdicts(40, 1.0, 0.3)
    assert noisy.count("slower") <= 2
    assert noisy.count("unclear") >= 20


def test_a_slowdown_of_30_percent_is_caught_where_it_is_quiet_enough_to_see_it() -> None:
    assert verdicts(40, 1.3, 0.02).count("slower") >= 38
    assert verdicts(40, 1.3, 0.3).count("same") <= 6


def test_one_path_that_is_slower_is_named() -> None:
    draw = random.Random(7)
    new = [block(draw, slower={"/b": 1.5}) for _ in range(2)]
    shifts = compare_times(new, [block(draw) for _ in range(2)], LIMITS)
    assert [shift.path for shift in shifts] == ["", "/a", "/b", "/c"]
    assert [shift.path for shift in shifts if shift.verdict == "slower"] == ["/b"]
    (slow,) = (shift for shift in shifts if shift.path == "/b")
    assert slow.ratio == pytest.approx(1.5, rel=0.15)
    assert slow.old_us == pytest.approx(6000, rel=0.15)
    assert slow.p < 0.0001
    assert slow.delta > 0.4


@pytest.mark.parametrize("drift", [1.3, 1 / 1.3])
def test_a_host_that_gets_slower_meanwhile_is_no_slower_release(drift: float) -> None:
    draw = random.Random(2)
    blocks = [block(draw, drift**step) for step in range(4)]
    assert compare_times(blocks[0::2], blocks[1::2], LIMITS)[0].verdict == "unclear"


def test_blocks_that_disagree_are_unclear() -> None:
    draw = random.Random(3)
    new, old = [block(draw, 1.0), block(draw, 2.2)], [block(draw, 1.0), block(draw, 1.05)]
    shift = compare_times(new, old, LIMITS)[0]
    assert (shift.verdict, shift.agree) == ("unclear", False)
    assert shift.ratio > 1.2
    assert shift.p < 0.001


def only(new: Sequence[Sequence[int]], old: Sequence[Sequence[int]], limits: Limits = LIMITS) -> Slowdown:
    (shift,) = compare_times([{"/": times} for times in new], [{"/": times} for times in old], limits)
    return shift


def test_ties_are_no_difference_and_no_obstacle() -> None:
    same = only([[5000] * 50] * 2, [[5000] * 50] * 2)
    assert (same.verdict, same.ratio, same.delta, same.error) == ("same", 1.0, 0.0, 1.0)
    assert same.p >= 0.5
    slower = only([[6500] * 50] * 2, [[5000] * 50] * 2)
    assert (slower.verdict, slower.agree, slower.delta) == ("slower", True, 1.0)
    assert slower.ratio == pytest.approx(1.3)
    assert slower.us == pytest.approx(1500)


def test_what_nobody_notices_is_no_slowdown() -> None:
    quick = [[200 + n % 7 for n in range(100)]] * 2
    half_again = [[300 + n % 7 for n in range(100)]] * 2
    assert only(half_again, quick).verdict == "same"
    assert only(half_again, quick, replace(LIMITS, floor_us=50)).verdict == "slower"


def test_a_few_requests_prove_nothing() -> None:
    assert only([[2000], [2000]], [[1000], [1000]]).verdict == "unclear"
    assert only([[1000], [1000]], [[1000], [1000]]).verdict == "same"


def test_one_run_of_a_release_proves_nothing() -> None:
    for new, old in ((1, 2), (2, 1), (1, 1)):
        shift = only([[2000] * 100] * new, [[1000] * 100] * old)
        assert (shift.verdict, shift.error) == ("unclear", float("inf"))


def test_only_paths_that_every_run_answered_are_compared() -> None:
    full, partial = {"/a": [1000] * 20, "/b": [1000] * 20}, {"/a": [1000] * 20}
    assert [shift.path for shift in compare_times([full, full], [full, partial], LIMITS)] == [""]
    assert compare_times([partial] * 2, [{"/b": [1000]}] * 2, LIMITS) == []
    assert compare_times([full] * 2, [], LIMITS) == []
    assert compare_times([], [], LIMITS) == []
    assert compare_times([full] * 2, [{}, full], LIMITS) == []


@given(st.lists(st.floats(0, 1), max_size=12))
def test_correcting_for_several_tests_only_takes_away(p_values: list[float]) -> None:
    certain = holm(p_values, 0.05)
    for p, sure in zip(p_values, certain, strict=True):
        assert not sure or p <= 0.05
        assert sure or p > 0.05 / len(p_values)
    if any(certain):
        assert max(p for p, sure in zip(p_values, certain, strict=True) if sure) <= min(
            [p for p, sure in zip(p_values, certain, strict=True) if not sure], default=1.0
        )


@given(series, series)
def test_the_effect_is_what_counting_every_pair_says(new: list[int], old: list[int]) -> None:
    pairs = [(x > y) - (x < y) for x in new for y in old]
    p, delta = mann_whitney(new, old)
    assert delta == pytest.approx(sum(pairs) / len(pairs))
    assert 0 <= p <= 1


@given(series, series, st.floats(0.1, 10))
def test_the_shift_is_a_ratio(new: list[int], old: list[int], factor: float) -> None:
    assert slowdown_ratio(new, old) * slowdown_ratio(old, new) == pytest.approx(1)
    assert slowdown_ratio([us * factor for us in old], old) == pytest.approx(factor)


@settings(max_examples=40)
@given(st.lists(series, min_size=2, max_size=3), st.lists(series, min_size=2, max_size=3))
def test_no_release_is_both_slower_and_quicker(new: list[list[int]], old: list[list[int]]) -> None:
    assert {only(new, old).verdict, only(old, new).verdict} != {"slower"}


@settings(max_examples=40)
@given(st.lists(st.tuples(series, st.floats(0, 1)), min_size=2, max_size=3))
def test_a_quicker_release_is_never_called_slower(blocks: list[tuple[list[int], float]]) -> None:
    old = [times for times, _ in blocks]
    new = [[round(us * factor) for us in times] for times, factor in blocks]
    assert only(new, old).verdict != "slower"


def test_failures_are_compared_on_each_path_and_in_all() -> None:
    none, some = {"/a": (0, 100), "/b": (0, 100)}, {"/a": (0, 100), "/b": (12, 100)}
    assert [(each.path, each.more) for each in compare_failures(some, none, LIMITS)] == [
        ("", True),
        ("/a", False),
        ("/b", True),
    ]
    assert not any(each.more for each in compare_failures(none, some, LIMITS))
    assert not any(each.more for each in compare_failures(some, some, LIMITS))
    moved = compare_failures({"/a": (12, 100), "/b": (0, 100)}, some, LIMITS)
    assert [each.path for each in moved if each.more] == ["/a"]
    assert compare_failures({"/a": (100, 100)}, {"/a": (100, 100), "/b": (0, 9)}, LIMITS) == []
    assert compare_failures({}, {}, LIMITS) == []


# The check, on samples that are given.


def raos(**changes: int) -> RaosToml:
    budget = PerformanceSection(paths=list(PATHS), **{"requests": 600, "p95_ms": 250, **changes})
    document = load_raos_toml(b'[raos]\nname = "RaOS"\nversion = "1"\n')
    return document.model_copy(update={"performance": budget})


def entry(content: str) -> Manifest:
    return Manifest.from_files([FileEntry("raos.toml", len(content), 0o644, "ab" * 32)])


def context(*blocks: Block, previous: bool = True, **changes: Any) -> CheckContext:
    manifest = entry("new")
    given: dict[str, Any] = {
        "public": cast(NodeClient, None),
        "app_url": "http://127.0.0.1:9",
        "bundle": manifest.digest,
        "manifest": manifest,
        "raos": raos(),
        "source": lambda path: b"",
        "previous": entry("older") if previous else None,
        "rehearsal": Rehearsal(blocks),
        "time_limit": 30,
    }
    return CheckContext(**{**given, **changes})


def never(number: int) -> bool:
    return False


def always(number: int) -> bool:
    return True


def load(which: Which, draw: random.Random, factor: float = 1.0, failing: Callable[[int], bool] = never) -> Block:
    """A block of samples; those whose number says so failed."""
    paths = block(draw, factor, 0.01)
    mixed = [(path, us) for times in zip(*paths.values(), strict=True) for path, us in zip(paths, times, strict=True)]
    return Block(
        which, tuple(Sample(path, us, "status 500" if failing(n) else "") for n, (path, us) in enumerate(mixed))
    )


def rehearsed(new: float, old: float, seed: int = 5, **changes: Any) -> CheckResult:
    draw = random.Random(seed)
    blocks = [load(which, draw, new if which == "new" else old, never) for which in ("new", "old") * BLOCKS]
    return run_check(PerformanceCheck(), context(*blocks, **changes))


def test_a_release_as_quick_as_before_passes_with_all_its_figures() -> None:
    result = rehearsed(1, 1)
    assert result.outcome == "pass", result.seen
    assert "0 of 600 requests failed" in result.seen
    assert "before (" in result.seen
    assert result.inputs["slower_limit_percent"] == 20
    assert result.inputs["significance_per_mille"] == 10
    assert result.figures["requests"] == result.figures["old_requests"] == 600
    assert abs(result.figures["slower_per_mille"]) < 100
    assert {
        "cliffs_delta_per_mille",
        "p_per_million",
        "standard_error_per_mille",
        "old_p95_us",
    } <= result.figures.keys()
    assert len(result.series["new_us"]) == len(result.series["old_us"]) == 600
    assert list(result.series["new_block_requests"]) == [300, 300]
    assert set(result.series["new_path"]) == {0, 1, 2}
    assert sum(result.series["new_failed"]) == 0
    assert CheckResult.from_json(result.as_json()) == result
    assert canonical_json(result.as_json())


def test_a_slower_release_fails_and_says_by_how_much() -> None:
    result = rehearsed(1.5, 1)
    assert result.outcome == "fail"
    assert result.seen.startswith("an answer takes 5"), result.seen
    assert "20 % are allowed (and 3 more)" in result.seen
    assert rehearsed(1.5, 1, raos=raos(slower_percent=100)).outcome == "pass"
    assert rehearsed(1, 1.5).outcome == "pass"
    assert "% faster than before" in rehearsed(1, 1.5).seen


def test_what_is_too_noisy_is_not_decided() -> None:
    draw = random.Random(6)
    noisy = [load(which, draw, factor, never) for which, factor in zip(("new", "old") * 2, (1, 1, 2, 1), strict=True)]
    result = run_check(PerformanceCheck(), context(*noisy))
    assert result.outcome == "inconclusive"
    assert result.seen.startswith("too noisy to tell: it seems that an answer takes"), result.seen
    assert result.series["new_us"]
    over = run_check(PerformanceCheck(), context(*noisy, raos=raos(p95_ms=1)))
    assert (over.outcome, over.seen.startswith("p95 is ")) == ("fail", True)


def test_a_first_release_has_no_baseline_and_says_so() -> None:
    draw = random.Random(7)
    first = [load("new", draw, failing=never) for _ in range(2)]
    result = run_check(PerformanceCheck(), context(*first, previous=False))
    assert (result.outcome, result.seen.endswith("; no baseline: nothing ran here before")) == ("pass", True)
    assert "old_us" not in result.series
    assert "old_requests" not in result.figures
    unrehearsed = run_check(PerformanceCheck(), context(*first, policy=Policy(rehearses=False)))
    assert (unrehearsed.outcome, "no baseline: the policy rehearses" in unrehearsed.seen) == ("pass", True)
    failed = run_check(PerformanceCheck(), context(*first))
    assert (failed.outcome, "nothing to compare with" in failed.seen) == ("inconclusive", True)
    over = run_check(PerformanceCheck(), context(*first, previous=False, raos=raos(p95_ms=1)))
    assert (over.outcome, over.seen.startswith("p95 is ")) == ("fail", True)
    for marked in (result, unrehearsed, over):
        assert "no baseline: " in marked.seen
        assert marked.figures["baseline_requests"] == 0
        assert any(each.text.startswith("no baseline: ") for each in marked.findings)


def test_the_policy_caps_what_raos_toml_allows() -> None:
    draw = random.Random(9)
    slower = [load(which, draw, 1.5 if which == "new" else 1, never) for which in ("new", "old") * 2]
    lenient = raos(slower_percent=1000, error_rate=1000)
    assert run_check(PerformanceCheck(), context(*slower, raos=lenient)).outcome == "pass"
    strict = Policy(max_slower_percent=20, max_error_rate=5)
    result = run_check(PerformanceCheck(), context(*slower, raos=lenient, policy=strict))
    assert (result.outcome, ", 20 % are allowed (and " in result.seen) == ("fail", True), result.seen
    assert (result.inputs["slower_limit_percent"], result.inputs["error_limit_per_mille"]) == (20, 5)
    told = [each.text for each in result.findings if each.severity == "low"]
    assert "raos.toml has slower_percent = 1000, the policy allows 20: that counts" in told
    failing = [load(which, draw, 1, always) for which in ("new", "old") * 2]
    assert run_check(PerformanceCheck(), context(*failing, raos=lenient, policy=strict)).outcome == "fail"
    assert lenient.performance is not None
    assert limits_of(lenient.performance, strict).slower_percent == 20, "the rehearsal measures by that, too"


def test_the_benchmark_measures_what_it_says() -> None:
    words = [sys.executable, "bench/performance_check.py", "--runs", "1", "--work", "60", "--json"]
    done = subprocess.run(words, cwd=SAMPLE.parent.parent, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert (found["runs"], found["work_percent"]) == (1, 60)
    assert {kind: sum(counts.values()) for kind, counts in found["counts"].items()} == {"A/A": 1, "A/B": 1}
    assert found["not_failed_of_a_a"] == 1 - found["counts"]["A/A"]["fail"]
    assert found["caught_of_a_b"] == found["counts"]["A/B"]["fail"]
    assert found["reached"] is (done.returncode == 0)


def test_made_up_times_show_how_often_the_check_is_wrong() -> None:
    words = [sys.executable, "bench/performance_check.py", "--synthetic", "--runs", "1", "--json"]
    done = subprocess.run([*words, "--scenario", "4 % at"], cwd=SAMPLE.parent.parent, capture_output=True, check=False)
    found = json.loads(done.stdout)
    assert [(row["scenario"], row["fail"]) for row in found["scenarios"]] == [("4 % at 20 times the time", 1)]
    assert (found["reached"], done.returncode) == (True, 0)


def straggling(which: Which, draw: random.Random, every: int, factor: int = 20) -> Block:
    """A block of 300 answers of each path; each `every`-th takes `factor` times as long."""
    paths = block(draw, noise=0.01, count=300)
    samples = [
        Sample(path, us, "", 900)
        for times in zip(*paths.values(), strict=True)
        for path, us in zip(paths, times, strict=True)
    ]
    return Block(which, tuple(replace(s, us=s.us * factor) if n % every == 7 else s for n, s in enumerate(samples)))


def test_one_answer_in_25_that_takes_long_fails_though_the_median_is_as_before() -> None:
    draw = random.Random(3)
    slow = [straggling(which, draw, 25 if which == "new" else 10_000) for which in ("new", "old") * 4]
    result = run_check(PerformanceCheck(), context(*slow))
    assert (result.outcome, abs(result.figures["slower_per_mille"]) < 50) == ("fail", True)
    assert result.seen.startswith("p99 is "), result.seen
    assert " times (" in result.seen
    named = [each.text for each in result.findings if each.severity == "high"]
    assert {path for path in PATHS if any(text.startswith(f"{path}: p99 is ") for text in named)} == set(PATHS)
    assert any(text.startswith("/c: 4.0 % of the answers take longer than 250 ms") for text in named), named
    assert (result.figures["over_budget"], result.figures["old_over_budget"]) > (40, 0)
    assert len(result.series["new_by_path_p99_us"]) == len(PATHS)
    allowed = Policy(max_growth_percent=1000)
    assert run_check(PerformanceCheck(), context(*slow, policy=allowed)).outcome == "fail", "20 times is more"
    section = raos(slower_percent=20).performance
    assert section is not None
    assert blocks_needed(Rehearsal(tuple(slow[:4])), section, limits_of(section, Policy())) == 4


def test_what_is_too_thin_is_named_and_not_passed_in_silence() -> None:
    result = rehearsed(1, 1)
    (thin,) = (each for each in result.findings if each.unseen)
    assert thin.text.startswith("p99 is not compared, at too few answers, of /a (200), /b (200), /c (200): 500 of each")
    assert (thin.rule, thin.count, thin.severity) == ("too-few-answers", 3, "low")


def test_a_missed_budget_on_a_busy_host_is_no_failure_where_it_was_missed_before() -> None:
    draw = random.Random(12)
    tight = raos(p95_ms=1)
    alike = [replace(load(which, draw), busy_per_mille=610) for which in ("new", "old") * 2]
    result = run_check(PerformanceCheck(), context(*alike, raos=tight))
    assert (result.outcome, "61 % busy with other things" in result.seen) == ("inconclusive", True), result.seen
    assert result.figures["host_busy_per_mille"] == 610
    alone = run_check(PerformanceCheck(), context(*alike[0::2], previous=False, raos=tight))
    assert (alone.outcome, "no baseline" in alone.seen) == ("fail", True), "nothing tells the host from the release"
    quiet = [replace(each, busy_per_mille=100) for each in alike]
    assert run_check(PerformanceCheck(), context(*quiet, raos=tight)).outcome == "fail"
    fine = raos(p95_ms=80)
    worse = [replace(load(which, draw, 3 if which == "new" else 1), busy_per_mille=610) for which in ("new", "old") * 4]
    assert run_check(PerformanceCheck(), context(*worse, raos=fine)).outcome == "fail", "the one before kept it"


def test_a_longer_start_more_memory_and_larger_answers_are_warnings() -> None:
    draw = random.Random(13)
    mib = 1024 * 1024
    blocks = []
    for which in ("new", "old") * 2:
        start, memory, size = (4000, 300, 9000) if which == "new" else (1000, 100, 900)
        made = straggling(which, draw, 10_000)
        samples = tuple(replace(sample, size=size if sample.path == "/b" else 900) for sample in made.samples)
        blocks.append(replace(made, samples=samples, start_ms=start, memory_bytes=memory * mib))
    result = run_check(PerformanceCheck(), context(*blocks))
    assert result.outcome == "warn", result.seen
    assert [each.text for each in result.findings if each.severity == "medium"] == [
        "the program took 4.0 s to start instead of 1.0 s, 300 % more, 50 % are allowed",
        "the program has 300 MiB of memory after the load instead of 100 MiB, 200 % more, 50 % are allowed",
        "/b: an answer has 9000 bytes instead of 900, in the median",
    ]
    assert list(result.series["old_start_ms"]) == [1000, 1000]


def test_a_bundle_that_ran_before_itself_has_no_baseline_and_says_why() -> None:
    draw = random.Random(7)
    given = replace(context(*(load("new", draw, failing=never) for _ in range(2)), previous=False), same_before=True)
    result = run_check(PerformanceCheck(), given)
    assert (result.outcome, result.seen.endswith("; no baseline: this very bundle ran here before")) == ("pass", True)


def test_a_release_that_only_fails_fails() -> None:
    draw = random.Random(8)
    blocks = [load(which, draw, 1, always if which == "new" else never) for which in ("new", "old") * 2]
    result = run_check(PerformanceCheck(), context(*blocks, raos=raos(error_rate=1000)))
    assert (result.outcome, result.seen) == (
        "fail",
        "more requests fail than before: 600 of 600 instead of 0 of 600 (and 3 more)",
    )


def test_a_release_before_that_only_failed_is_nothing_to_compare_with() -> None:
    draw = random.Random(9)
    blocks = [load(which, draw, 1, always if which == "old" else never) for which in ("new", "old") * 2]
    result = run_check(PerformanceCheck(), context(*blocks))
    assert (result.outcome, "answered none of the paths" in result.seen) == ("inconclusive", True)
    assert [finding.text for finding in result.findings] == [
        f"{path} was not compared: the release before did not answer it" for path in PATHS
    ]


def test_more_failures_than_before_fail_even_within_the_budget() -> None:
    draw = random.Random(10)

    def some(number: int) -> bool:
        return number % 15 == 0

    blocks = [load(which, draw, 1, some if which == "new" else never) for which in ("new", "old") * 2]
    tolerant = run_check(PerformanceCheck(), context(*blocks, raos=raos(error_rate=100)))
    assert (tolerant.outcome, "40 of 600 instead of 0 of 600" in tolerant.seen) == ("fail", True)
    both = [load(which, draw, 1, some) for which in ("new", "old") * 2]
    assert run_check(PerformanceCheck(), context(*both, raos=raos(error_rate=100))).outcome == "pass"


def test_a_run_that_was_cut_short_fails() -> None:
    draw = random.Random(11)
    whole = load("new", draw, failing=never)
    short = replace(whole, samples=whole.samples[:20])
    result = run_check(PerformanceCheck(), context(whole, short))
    assert (result.outcome, result.seen.startswith("only 320 of 600 requests ended")) == ("fail", True)
    nothing = run_check(PerformanceCheck(), context(Block("new", ())))
    assert (nothing.outcome, nothing.seen.startswith("only 0 of 300 requests ended")) == ("fail", True)


def test_nothing_is_measured_where_nothing_is_asked_for() -> None:
    plain = load_raos_toml(b'[raos]\nname = "RaOS"\nversion = "1"\n')
    assert run_check(PerformanceCheck(), context(raos=plain)).outcome == "inconclusive"


def test_percentiles_are_nearest_rank() -> None:
    hundred = list(range(1, 101))
    assert (percentile(hundred, 50), percentile(hundred, 95), percentile([7], 95)) == (50, 95, 7)
    assert percentile([1, 2], 50) == 1
    samples = [Sample("/", us, "") for us in range(1, 2001)]
    assert measure([*samples, Sample("/", 5, "status 500")])["error_per_mille"] == 1


def test_samples_are_sorted_by_path_and_outcome() -> None:
    samples = [Sample("/a", 1, ""), Sample("/a", 2, "status 500"), Sample("/b", 3, "status 404")]
    assert times_of(samples) == {"/a": [1]}
    assert counts_of(samples) == {"/a": (1, 2), "/b": (1, 1)}


def needed(*factors: float) -> int:
    """How many blocks of each release are wanted after blocks that took so much longer, from the new one on in turn."""
    draw = random.Random(5)
    blocks = [load(("new", "old")[number % 2], draw, factor) for number, factor in enumerate(factors)]
    section = raos().performance
    assert section is not None
    return blocks_needed(Rehearsal(tuple(blocks)), section, LIMITS)


def test_a_slowdown_is_measured_again_before_it_counts() -> None:
    assert needed() == needed(1, 1) == needed(1.5, 1) == 2, "each release is measured twice at least"
    assert needed(1, 1, 1, 1) == 2
    assert needed(0.5, 1, 0.5, 1) == 2, "nobody minds a quicker one"
    assert needed(1.5, 1, 1.5, 1) == 4, "slower"
    assert needed(1, 1, 2, 1) == 4, "too noisy to tell"
    assert needed(1.5, 1, 1.5, 1, 1, 1, 1, 1) == 4, "and then it is judged"


def test_a_host_that_was_busy_for_two_blocks_makes_no_slower_release() -> None:
    draw = random.Random(5)
    factors = (1.4, 1, 1.4, 1, 1, 1, 1, 1)
    blocks = [load(("new", "old")[number % 2], draw, factor) for number, factor in enumerate(factors)]
    assert run_check(PerformanceCheck(), context(*blocks[:4])).outcome == "fail"
    assert run_check(PerformanceCheck(), context(*blocks)).outcome != "fail"


def test_a_program_that_was_cut_off_is_not_loaded_again() -> None:
    draw = random.Random(5)
    blocks = [load(which, draw, 1.5 if which == "new" else 1) for which in ("new", "old") * BLOCKS]
    short = replace(blocks[0], samples=blocks[0].samples[:10])
    section = raos().performance
    assert section is not None
    assert blocks_needed(Rehearsal((short, *blocks[1:])), section, LIMITS) == 2


# The check and the real program. The slowdown is so large, the tolerance so wide, that a busy machine is no reason.


def test_the_real_program_against_itself_and_against_a_slower_one(tmp_path: Path) -> None:
    document = load_raos_toml((SAMPLE / "raos.toml").read_bytes())
    assert document.performance is not None
    budget = document.performance.model_copy(update={"requests": 60, "slower_percent": 400})
    quick = Policy(time_limits={"performance": 4})
    asked = context(raos=document.model_copy(update={"performance": budget}), policy=quick)
    with (
        running(tmp_path / "old") as old,
        running(tmp_path / "same") as same,
        running(tmp_path / "slower", faults="slow=100") as slower,
    ):
        found = {}
        for name, new in (("same", same), ("slower", slower)):
            blocks: list[Block] = []
            for which, program in (("new", new), ("old", old)) * BLOCKS:
                with Web(replace(asked, app_url=f"http://127.0.0.1:{program.port}")) as web:
                    blocks.append(measure_block(web, which, budget, quick))
            assert all(len(each.samples) >= share_of(budget) for each in blocks)
            found[name] = run_check(PerformanceCheck(), replace(asked, rehearsal=Rehearsal(tuple(blocks))))
        alone = replace(asked, app_url=f"http://127.0.0.1:{same.port}", previous=None)
        first = run_check(PerformanceCheck(), alone)
    assert found["same"].outcome == "pass", found["same"].seen
    assert found["slower"].outcome == "fail", found["slower"].seen
    assert "longer than before" in found["slower"].seen
    assert min(found["slower"].series["new_us"]) > 100_000
    assert (first.outcome, "no baseline" in first.seen) == ("pass", True)
    assert first.figures["requests"] >= 60
