"""A run that dies of the same reason again and again is followed by the next after pauses that grow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ashat.deployment import events as e
from ashat.deployment.state_machine import State, apply, fold
from tests.unit.deployment.test_state_machine import APPROVED, PROMOTING, UP_TO_THE_GATE

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def died(number: int, reason: str = "omega lost it", *, crashed: bool = False) -> e.RunDied:
    return e.RunDied(at=T0, by="reconcile", run=f"run-{number}", reason=reason, crashed=crashed)


def after(*events: Any) -> State:
    return fold("UPD-1", 1, [*UP_TO_THE_GATE, APPROVED, *events])


def pause(state: State) -> float:
    assert state.next_run is not None
    return (state.next_run - T0).total_seconds()


def test_the_pauses_grow_up_to_an_hour() -> None:
    pauses = [pause(after(*(died(n) for n in range(count)))) for count in range(1, 11)]
    assert pauses == [0, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_no_clock_however_it_is_set_has_a_run_wait_longer_than_the_longest_pause() -> None:
    state = after(died(1), died(2))
    assert [state.too_early(T0 + timedelta(seconds=at)) for at in (0, 59, 60, 10**9)] == [True, True, False, False]
    assert state.too_early(T0 - timedelta(minutes=59))
    assert not state.too_early(T0 - timedelta(days=5 * 365))
    assert not after().too_early(T0)


def test_another_reason_begins_anew() -> None:
    state = after(died(1), died(2), died(3), died(4, "another"))
    assert (pause(state), state.same_deaths) == (0, 1)
    assert state.stuck == "a run died of it: another"


def test_crashes_are_endured_longer_for_they_say_nothing_of_the_next() -> None:
    pauses = [pause(after(*(died(n, "gone", crashed=True) for n in range(count)))) for count in (1, 4, 5, 6)]
    assert pauses == [0, 0, 60, 120]


@pytest.mark.parametrize("event", [PROMOTING])
def test_what_a_run_writes_before_it_dies_keeps_the_count(event: Any) -> None:
    assert after(died(1), event, died(2)).same_deaths == 2


def test_what_brings_it_on_ends_the_count() -> None:
    state = after(PROMOTING, died(1), died(2))
    assert state.stuck == "2 runs died of it: omega lost it"
    assert state.summary()["stuck"] == state.stuck
    on = apply(state, e.Promoted(at=T0 + timedelta(seconds=9), from_bundle="c" * 64, release_seq=7))
    assert (on.deaths, on.stuck, on.next_run) == ((), "", None)


def test_a_rollback_that_dies_counts_too() -> None:
    state = after(PROMOTING, e.RollbackStarted(at=T0, run="r"), died(1), died(2))
    assert pause(state) == 60
