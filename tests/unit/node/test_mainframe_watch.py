"""When a program that runs is ill, and when its switch is taken back: each look is given, and so is the clock."""

from __future__ import annotations

from typing import Any

import pytest

from ashat.node.mainframe.watch import CALM_SECONDS, Watched
from ashat.protocol.messages import App
from ashat.protocol.probes import HealthProbe

WELL = HealthProbe(healthy=True, status=200, ms=1, restarts=0)
SICK = HealthProbe(healthy=False, status=500, ms=1, restarts=0, detail="answers 500 at /health")


def app(restarts: int = 0, status: Any = "running", failure: str = "") -> App:
    return App(status=status, healthy=False, restarts=restarts, failure=failure)


def test_a_program_that_is_well_is_not_ill() -> None:
    watched = Watched("op", 0)
    for at in range(10):
        watched.see(app(), WELL, at)
        assert (watched.ill(at), watched.does_not_hold(at, 300)) == ("", False)


def test_one_that_ends_is_ill_for_a_minute_and_the_second_time_the_switch_does_not_hold() -> None:
    watched = Watched("op", 0)
    watched.see(app(status="backing-off", failure="it ended on signal 9"), None, 70)
    assert watched.ill(70) == (
        "the program ended by itself once since it was switched to; the last time, it ended on signal 9"
    )
    watched.see(app(1), WELL, 75)
    assert watched.ill(75)
    assert not watched.does_not_hold(75, 300)
    assert watched.ill(70 + CALM_SECONDS) == ""
    watched.see(app(2), WELL, 200)
    assert "2 times" in watched.ill(200)
    assert watched.does_not_hold(200, 300)
    assert not watched.does_not_hold(200, 200)
    assert not watched.does_not_hold(200, 0)


def test_three_unhealthy_looks_in_a_row_and_no_fewer() -> None:
    watched = Watched("op", 0)
    for at, health in enumerate((SICK, SICK, WELL, SICK, SICK)):
        watched.see(app(), health, at)
        assert watched.ill(at) == ""
    watched.see(app(), SICK, 6)
    assert watched.ill(6) == "the program is not healthy any more: answers 500 at /health"
    assert watched.does_not_hold(6, 300)
    watched.see(app(), WELL, 7)
    assert watched.ill(7) == ""


@pytest.mark.parametrize("before", [1, 5])
def test_what_nobody_looked_at_does_not_count(before: int) -> None:
    watched = Watched("op", 0, before=before)
    watched.see(app(before), WELL, 100)
    assert (watched.ill(100), watched.does_not_hold(100, 300)) == ("", False)
    watched.see(app(before + 1), WELL, 101)
    assert watched.ill(101)
    assert not watched.does_not_hold(101, 300)
