"""Describe a rollout policy to people: its waves, what stops it, and what a bad release would break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ashat.rollouts.cohorts import expected_sizes
from ashat.rollouts.forecast import Forecast, forecast
from ashat.rollouts.policy import RolloutPolicy, WaveRule

AT_ONCE = "every Mainframe is offered it at once: nothing stops it"
FORECAST_COLUMNS = ("defects", "broken", "in 95 % at most", "without waves", "it stops", "mostly in")
_ANSWERS = {
    "pause": "it pauses",
    "ask": "people are asked",
    "roll-back-wave": "that wave is rolled back",
    "roll-back-all": "all waves are rolled back",
}


class PlannedWave(NamedTuple):
    """Hold a wave as it is planned for a fleet; `mainframes` is None where labels decide how many it has."""

    name: str
    takes: str
    mainframes: int | None


def planned_waves(policy: RolloutPolicy, fleet: int, sizes: Sequence[int] | None = None) -> list[PlannedWave]:
    """List the waves of a fleet of that size, with their `sizes` where they are known; a sequential test's that would
    be empty are left out."""
    rules, sequential = policy.rules(), policy.waves == "sequential"
    labelled = sizes is None and any(rule.label is not None for rule in rules)
    sizes = expected_sizes(policy, fleet) if sizes is None else sizes
    return [
        PlannedWave(rule.name, _takes(rule), None if labelled and (rule.rest or rule.label) else size)
        for rule, size in zip(rules, sizes, strict=True)
        if size or not sequential
    ]


def conditions(policy: RolloutPolicy) -> list[str]:
    """Say in sentences when a rollout goes on, what stops it, and how fast it may be."""
    if not policy.stops:
        return [f"{AT_ONCE[0].upper()}{AT_ONCE[1:]}.", _time(policy)]
    if policy.waves == "sequential":
        return [*_test(policy), _time(policy)]
    on = [f"{policy.success_percent} % of a wave run it"] if policy.success_percent else ["a wave is over"]
    on += [f"{policy.soak_seconds} s have passed since"] if policy.soak_seconds else []
    failures = f"{policy.failure_least} or more failed that are above {policy.failure_percent} % of a wave's answers"
    return [
        f"It goes on when {' and '.join(on)}.",
        f"It stops when {failures}, or so many failed that it cannot go on; then {_ANSWERS[policy.on_failure]}.",
        _time(policy),
    ]


def _test(policy: RolloutPolicy) -> list[str]:
    """Say what a sequential test does."""
    test = policy.sequential
    first, more = test.sizes()
    return [
        f"A sequential test tells a release that breaks {test.unacceptable_per_mille} in 1000 from one that breaks "
        f"{test.acceptable_per_mille}; it errs in {test.beta_per_mille} and {test.alpha_per_mille} of 1000 cases.",
        f"All the rest get it once it is called good: after {first} that run it, and {more} more for each that failed.",
        f"It stops when it is called bad; then {_ANSWERS[policy.on_failure]}.",
    ]


def forecast_rows(policy: RolloutPolicy, fleet: int, sizes: Sequence[int] | None = None) -> list[tuple[str, ...]]:
    """Write the forecast of a fleet of that size, with the waves' `sizes` where they are known, a row for each rate of
    defects, below `FORECAST_COLUMNS`."""
    waves, sizes = policy.rules(), expected_sizes(policy, fleet) if sizes is None else sizes
    return [_row(found, waves) for found in forecast(policy, sizes)]


def _row(found: Forecast, waves: Sequence[WaveRule]) -> tuple[str, ...]:
    stops = f"in {found.stops} %" if found.stops else "never"
    wave = "" if found.wave is None else waves[found.wave].name
    return (f"{found.rate} %", f"{found.expected:,}", f"{found.at_most:,}", f"{found.unstopped:,}", stops, wave)


def _takes(rule: WaveRule) -> str:
    return f"{rule.selector}, then people are asked" if rule.ask_after else rule.selector


def _time(policy: RolloutPolicy) -> str:
    limit = f"At most {policy.at_once:,} are under way at once; a" if policy.at_once else "A"
    return f"{limit} Mainframe has {policy.mainframe_seconds} s, and is unreachable after that, which is no failure."
