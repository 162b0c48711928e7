"""What people are told of a policy: its waves, when it goes on and stops, and the forecast."""

from __future__ import annotations

from ashat.rollouts.describe import FORECAST_COLUMNS, PlannedWave, conditions, forecast_rows, planned_waves
from ashat.rollouts.policy import RolloutPolicy, policy_of


def test_waves_have_the_size_that_the_fleet_gives_them() -> None:
    assert planned_waves(RolloutPolicy(), 1000) == [
        PlannedWave("canary", "5 Mainframes", 5),
        PlannedWave("early", "10 %", 100),
        PlannedWave("everyone", "the rest", 895),
    ]
    labelled = policy_of({"waves": ["eu: region=eu, then ask", "all: rest"]})
    assert planned_waves(labelled, 1000) == [
        PlannedWave("eu", "region=eu, then people are asked", None),
        PlannedWave("all", "the rest", None),
    ]


def test_where_it_is_known_who_is_in_which_wave_the_waves_have_that_size() -> None:
    labelled = policy_of({"waves": ["eu: region=eu", "all: rest"], "at_once": 0, "success_percent": 0})
    assert [wave.mainframes for wave in planned_waves(labelled, 1000, [400, 600])] == [400, 600]
    (_, _, bad) = forecast_rows(labelled, 1000, [400, 600])
    assert (bad[4], bad[5]) == ("in 100 %", "eu")
    assert 70 < int(bad[1]) < 90


def test_a_sequential_test_shows_the_waves_that_have_members() -> None:
    sizes = [wave.mainframes for wave in planned_waves(RolloutPolicy(waves="sequential"), 130)]
    assert sizes == [72, 40, 18]


def test_conditions_are_sentences() -> None:
    assert conditions(RolloutPolicy(on_failure="roll-back-all")) == [
        "It goes on when 90 % of a wave run it and 600 s have passed since.",
        "It stops when 3 or more failed that are above 5 % of a wave's answers, or so many failed that it cannot go "
        "on; then all waves are rolled back.",
        "At most 100 are under way at once; a Mainframe has 3600 s, and is unreachable after that, which is no "
        "failure.",
    ]
    assert conditions(RolloutPolicy(waves="sequential", on_failure="ask", at_once=0)) == [
        "A sequential test tells a release that breaks 50 in 1000 from one that breaks 10; it errs in 50 and 50 of "
        "1000 cases.",
        "All the rest get it once it is called good: after 72 that run it, and 40 more for each that failed.",
        "It stops when it is called bad; then people are asked.",
        "A Mainframe has 3600 s, and is unreachable after that, which is no failure.",
    ]
    assert conditions(RolloutPolicy.all_at_once(300))[0] == ("Every Mainframe is offered it at once: nothing stops it.")


def test_the_forecast_is_a_row_for_each_rate() -> None:
    rows = forecast_rows(RolloutPolicy(), 100_000)
    assert [row[0] for row in rows] == ["1 %", "5 %", "20 %"]
    assert [row[3] for row in rows] == ["1,000", "5,000", "20,000"]
    assert rows[2][4:] == ("in 100 %", "canary")
    assert all(len(row) == len(FORECAST_COLUMNS) for row in rows)
    assert {row[4] for row in forecast_rows(RolloutPolicy.all_at_once(), 50)} == {"never"}
