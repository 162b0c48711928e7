"""Decisions: a table of cases, and what holds for all counters, policies and times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.rollouts.decide import (
    Ask,
    Complete,
    Decision,
    OpenNext,
    Pause,
    RollBack,
    Rollout,
    Wait,
    WaveCounts,
    decide,
    needed,
    too_many_failed,
    wave_deadline,
)
from ashat.rollouts.policy import RolloutPolicy, WaveRule

T0 = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
POLICY = RolloutPolicy(
    waves=(WaveRule(name="canary", count=5), WaveRule(name="early", percent=10), WaveRule(name="all", rest=True)),
    soak_seconds=60,
    success_percent=80,
    failure_percent=10,
    failure_least=2,
    mainframe_seconds=600,
)
DECADES = timedelta(days=36500)


def at(seconds: int) -> datetime:
    return T0 + timedelta(seconds=seconds)


def said(decision: Decision) -> tuple[Any, ...]:
    """The decision without its reason, with times as seconds."""
    fields = [value for name, value in zip(decision._fields, decision, strict=True) if name != "why"]
    return (
        type(decision).__name__,
        *(int((each - T0).total_seconds()) if isinstance(each, datetime) else each for each in fields),
    )


@pytest.mark.parametrize(
    ("waves", "ahead", "now", "expected"),
    [
        ([WaveCounts(waiting=5)], 95, 0, ("Wait", 600)),
        ([WaveCounts(under_way=2, succeeded=3)], 95, 100, ("Wait", 600)),
        # Four of five are enough; the soak counts from the last success, which was at 40.
        ([WaveCounts(under_way=1, succeeded=4)], 95, 50, ("Wait", 100)),
        ([WaveCounts(under_way=1, succeeded=4)], 95, 100, ("OpenNext", 1)),
        ([WaveCounts(succeeded=4, unreachable=1)], 95, 100, ("OpenNext", 1)),
        ([WaveCounts(succeeded=4, failed=1)], 95, 100, ("OpenNext", 1)),
        # Two of five failed: four can no longer run it.
        ([WaveCounts(under_way=3, failed=2)], 95, 100, ("Pause",)),
        # One failure in a hundred is below the least; two of twenty are ten percent, two of nineteen are more.
        ([WaveCounts(), WaveCounts(waiting=99, failed=1)], 95, 100, ("Wait", 600)),
        ([WaveCounts(), WaveCounts(waiting=80, succeeded=18, failed=2)], 95, 100, ("Wait", 600)),
        ([WaveCounts(), WaveCounts(waiting=81, succeeded=17, failed=2)], 95, 100, ("Pause",)),
        # Too few are there: nothing is rolled back for that.
        ([WaveCounts(succeeded=3, unreachable=2)], 95, 100, ("Pause",)),
        ([WaveCounts(waiting=2, succeeded=3)], 95, 599, ("Wait", 600)),
        ([WaveCounts(waiting=2, succeeded=3)], 95, 600, ("Pause",)),
        # An empty wave is passed over.
        ([WaveCounts(succeeded=5), WaveCounts()], 90, 100, ("OpenNext", 2)),
        # A Mainframe of an earlier wave fails late.
        ([WaveCounts(succeeded=3, failed=2), WaveCounts(waiting=10)], 85, 100, ("Pause",)),
        # What a person accepted is neither failed nor missing.
        ([WaveCounts(succeeded=3, accepted=2)], 95, 100, ("OpenNext", 1)),
        ([WaveCounts(succeeded=5), WaveCounts(succeeded=10), WaveCounts(succeeded=85)], 0, 100, ("Complete",)),
        ([WaveCounts(succeeded=5), WaveCounts(succeeded=10), WaveCounts(succeeded=85)], 0, 99, ("Wait", 100)),
        # Enough run it, and those who have not answered have their time all the same.
        ([WaveCounts(succeeded=5), WaveCounts(succeeded=10), WaveCounts(9, succeeded=76)], 0, 100, ("Wait", 600)),
        ([WaveCounts(succeeded=5), WaveCounts(succeeded=10), WaveCounts(9, succeeded=76)], 0, 600, ("Complete",)),
        ([WaveCounts(1, succeeded=4), WaveCounts(succeeded=10), WaveCounts(succeeded=85)], 0, 100, ("Wait", 600)),
        # Nobody is in the waves after it.
        ([WaveCounts(succeeded=3)], 0, 100, ("Complete",)),
    ],
)
def test_what_comes_next(waves: list[WaveCounts], ahead: int, now: int, expected: tuple[Any, ...]) -> None:
    rollout = Rollout(waves, ahead, T0, at(40) if waves[-1].succeeded else None)
    assert said(decide(POLICY, rollout, at(now))) == expected


@pytest.mark.parametrize(
    ("action", "failures", "missing"),
    [
        ("pause", ("Pause",), ("Pause",)),
        ("ask", ("Ask",), ("Ask",)),
        ("roll-back-wave", ("RollBack", "wave", 0), ("Pause",)),
        ("roll-back-all", ("RollBack", "all", 0), ("Pause",)),
    ],
)
def test_failures_are_answered_as_the_policy_says_and_missing_ones_by_people(action, failures, missing) -> None:
    policy = POLICY.model_copy(update={"on_failure": action})
    assert said(decide(policy, Rollout([WaveCounts(failed=2, succeeded=3)], 95, T0), T0)) == failures
    assert said(decide(policy, Rollout([WaveCounts(unreachable=2, succeeded=3)], 95, T0), T0)) == missing


def test_the_wave_that_failed_late_is_the_one_that_is_rolled_back() -> None:
    policy = POLICY.model_copy(update={"on_failure": "roll-back-wave"})
    waves = [WaveCounts(succeeded=5), WaveCounts(succeeded=5, failed=5), WaveCounts(waiting=90)]
    decision = decide(policy, Rollout(waves, 0, T0), T0)
    assert isinstance(decision, RollBack)
    assert (decision.scope, decision.wave) == ("wave", 1)
    assert decision.why == "In the wave 'early' 5 run it, 5 failed of 10."


@pytest.mark.parametrize("standing", ["paused", "asked"])
def test_a_rollout_that_people_hold_does_nothing(standing) -> None:
    for wave in (WaveCounts(failed=5), WaveCounts(succeeded=5)):
        rollout = Rollout([wave], 95, T0, T0, standing)
        assert said(decide(POLICY, rollout, T0 + DECADES)) == ("Wait", None)


def test_a_cohort_alone_goes_on_only_when_people_say_so() -> None:
    policy = RolloutPolicy(
        waves=(WaveRule(name="b", percent=10, ask_after=True), WaveRule(name="all", rest=True)), soak_seconds=0
    )
    decision = decide(policy, Rollout([WaveCounts(succeeded=10)], 90, T0, T0), T0)
    assert isinstance(decision, Ask)
    assert decision.why == "The wave 'b' is over: 10 run it of 10. Shall the next one get it?"


def test_all_at_once_ends_as_it_does_today_however_many_fail() -> None:
    today = RolloutPolicy.all_at_once(300)
    mixed = WaveCounts(succeeded=1, failed=8, under_way=1)
    assert said(decide(today, Rollout([mixed], 0, T0), at(299))) == ("Wait", 300)
    assert said(decide(today, Rollout([mixed], 0, T0), at(300))) == ("Complete",)
    assert said(decide(today, Rollout([WaveCounts(failed=10)], 0, T0), T0)) == ("Complete",)
    assert said(decide(today, Rollout([WaveCounts()], 0, T0), T0)) == ("Complete",)


def test_without_a_share_of_successes_a_wave_ends_when_nobody_is_left_who_may_answer() -> None:
    policy = POLICY.model_copy(update={"success_percent": 0})
    assert said(decide(policy, Rollout([WaveCounts(waiting=5)], 95, T0), T0)) == ("Wait", 600)
    assert said(decide(policy, Rollout([WaveCounts(unreachable=5)], 95, T0), T0)) == ("OpenNext", 1)


def test_a_limit_at_once_gives_a_wave_as_many_times_as_it_has_rounds_while_somebody_is_heard() -> None:
    limited = POLICY.model_copy(update={"at_once": 10})

    def deadline(policy: RolloutPolicy, size: int, heard: int | None) -> int:
        last = None if heard is None else at(heard)
        rollout = Rollout([WaveCounts(size)], 0, T0, last_answer_at=last)
        return int((wave_deadline(policy, rollout) - T0).total_seconds())

    assert [deadline(limited, size, 10**6) for size in (0, 1, 10, 11, 100)] == [600, 600, 600, 1200, 6000]
    assert [deadline(limited, 100, heard) for heard in (None, 0, 500, 5400)] == [600, 600, 1100, 6000]
    assert deadline(POLICY.model_copy(update={"at_once": 0}), 10**6, 500) == 600


def test_a_soak_that_stragglers_begin_anew_ends_all_the_same() -> None:
    rollout = Rollout([WaveCounts(succeeded=4, unreachable=1)], 95, T0, at(5000))
    assert said(decide(POLICY, rollout, at(659))) == ("Wait", 660)
    assert said(decide(POLICY, rollout, at(660))) == ("OpenNext", 1)


SEQUENTIAL = RolloutPolicy(waves="sequential", soak_seconds=0, mainframe_seconds=600)


@pytest.mark.parametrize(
    ("waves", "ahead", "expected"),
    [
        ([WaveCounts(waiting=1, succeeded=71)], 900, ("Wait", 600)),
        ([WaveCounts(succeeded=72)], 900, ("OpenNext", 19)),
        ([WaveCounts(succeeded=71, failed=1)], 900, ("OpenNext", 1)),
        ([WaveCounts(succeeded=70, failed=2)], 900, ("OpenNext", 2)),
        ([WaveCounts(succeeded=71, failed=1), WaveCounts(waiting=2, succeeded=40)], 900, ("OpenNext", 19)),
        ([WaveCounts(waiting=70, failed=2)], 900, ("Pause",)),
        ([WaveCounts(succeeded=10, unreachable=62)], 900, ("OpenNext", 2)),
        ([WaveCounts(succeeded=10, failed=1)], 0, ("Complete",)),
        ([WaveCounts(succeeded=60, unreachable=30, failed=1)] + [WaveCounts()] * 18, 900, ("Pause",)),
        ([WaveCounts(succeeded=72)] + [WaveCounts()] * 18 + [WaveCounts(succeeded=20, failed=3)], 0, ("Pause",)),
    ],
)
def test_a_sequential_test_opens_as_many_waves_as_it_needs(waves, ahead, expected) -> None:
    assert said(decide(SEQUENTIAL, Rollout(waves, ahead, T0), T0)) == expected


COUNTS = st.builds(WaveCounts, *[st.integers(0, 40)] * 6)
POLICIES = st.builds(
    RolloutPolicy,
    waves=st.one_of(
        st.just("sequential"),
        st.integers(1, 5).map(
            lambda n: (*(WaveRule(name=f"w{i}", count=40) for i in range(n - 1)), WaveRule(name="rest", rest=True))
        ),
    ),
    soak_seconds=st.integers(0, 10_000),
    success_percent=st.integers(0, 100),
    failure_percent=st.integers(0, 100),
    failure_least=st.integers(1, 10),
    on_failure=st.sampled_from(["pause", "ask", "roll-back-wave", "roll-back-all"]),
    at_once=st.integers(0, 10),
    mainframe_seconds=st.integers(1, 10_000),
)


@st.composite
def rollouts(draw: st.DrawFn) -> tuple[RolloutPolicy, Rollout]:
    policy = draw(POLICIES)
    waves = draw(st.lists(COUNTS, min_size=1, max_size=len(policy.rules())))
    ahead = draw(st.integers(0, 100)) if len(waves) < len(policy.rules()) else 0
    success, answer = draw(st.tuples(*[st.none() | st.integers(0, 10**6).map(at)] * 2))
    return policy, Rollout(waves, ahead, T0, success, last_answer_at=answer)


@given(rollouts(), st.integers(0, 10**7))
def test_nothing_goes_on_while_failures_are_too_many_or_too_few_run_it(given, now) -> None:
    policy, rollout = given
    decision = decide(policy, rollout, at(now))
    wave = rollout.waves[-1]
    if isinstance(decision, OpenNext | Complete):
        assert too_many_failed(policy, rollout) is None
        tested = policy.waves == "sequential" and len(rollout.waves) < len(policy.rules())
        assert tested or wave.succeeded >= needed(policy, wave.size - wave.accepted)
    if isinstance(decision, OpenNext):
        assert len(rollout.waves) <= decision.through < len(policy.rules())
        assert rollout.ahead
    if isinstance(decision, Complete):
        assert rollout.ahead == 0
    if isinstance(decision, RollBack):
        assert sum(each.failed for each in rollout.waves) > 0
        assert rollout.waves[decision.wave].failed or policy.waves == "sequential"


@given(rollouts(), st.integers(0, 10**7))
def test_it_waits_only_until_a_time_that_comes_and_then_for_something_else(given, now) -> None:
    policy, rollout = given
    moment, latest = at(now), wave_deadline(policy, rollout) + timedelta(seconds=policy.soak_seconds)
    for _ in range(3):
        decision = decide(policy, rollout, moment)
        if not isinstance(decision, Wait):
            return
        assert decision.until is not None
        assert moment < decision.until <= latest
        moment = decision.until
    raise AssertionError("it waits again and again")


@given(POLICIES, st.integers(1, 40))
def test_where_all_run_it_it_completes(policy, size) -> None:
    waves: list[WaveCounts] = []
    moment, total = T0, len(policy.rules())
    through = 0
    for _ in range(3 * total):
        waves += [WaveCounts(succeeded=size)] * (through + 1 - len(waves))
        opened, last = moment, moment
        decision = decide(policy, Rollout(waves, size * (total - len(waves)), opened, last), moment)
        if isinstance(decision, Wait):
            assert decision.until is not None
            moment = decision.until
            decision = decide(policy, Rollout(waves, size * (total - len(waves)), opened, last), moment)
        if isinstance(decision, Complete):
            return
        if isinstance(decision, Pause | Ask):
            # Nineteen waves of a test that are smaller than it asks for cannot tell.
            assert policy.waves == "sequential"
            assert policy.sequential.verdict(size * (total - 1), 0) == "undecided"
            return
        assert isinstance(decision, OpenNext)
        through = decision.through
    raise AssertionError("it never ends")
