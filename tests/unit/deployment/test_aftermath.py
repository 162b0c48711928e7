"""What goes on by itself once a command has ended, and the command that stops that, are those of the stage."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ashat.deployment import events as e
from ashat.deployment.aftermath import after_an_interrupt, goes_on, what_it_waits_for
from ashat.deployment.state import State
from ashat.deployment.state_machine import Stage

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
NEW = State(update_id="UPD-1", attempt=1, version=3)
DIED = tuple(e.RunDied(at=AT, run=str(number), reason="the disk is full") for number in range(3))
BACK = {"omega": e.ServerRolledBack(at=AT, server="omega", to_bundle=None)}
OWING = replace(NEW, stage=Stage.FAILED, switching=True)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (NEW, ()),
        (replace(NEW, stage=Stage.PUSHED), ()),
        (replace(NEW, stage=Stage.TESTING), ()),
        (replace(NEW, stage=Stage.AWAITING_APPROVAL), ()),
        (replace(NEW, stage=Stage.COMPLETED), ()),
        (replace(NEW, stage=Stage.TESTING, evidence="0" * 64, outcome="passed"), ("gate", "deploy cancel UPD-1 stops")),
        (replace(NEW, stage=Stage.TESTING, evidence="0" * 64, outcome="failed"), ()),
        (replace(NEW, stage=Stage.DEPLOYING), ("within a minute", "deploy rollback UPD-1 stops it")),
        (replace(NEW, stage=Stage.DISTRIBUTING), ("within a minute", "deploy rollback UPD-1 stops it")),
        (replace(NEW, stage=Stage.DEPLOYING, deaths=DIED), ("at 12:02 UTC", "deploy rollback UPD-1 stops it")),
        (replace(NEW, stage=Stage.COMPLETED, rolling_back=True), ("tried again", "deploy cancel UPD-1 calls it off")),
        (replace(NEW, stage=Stage.COMPLETED, rolling_back=True, rolled_back=BACK), ("cannot be called off now",)),
        (OWING, ("public is put back by itself",)),
    ],
)
def test_what_goes_on_by_itself(state: State, words: tuple[str, ...]) -> None:
    told = goes_on(state, AT + timedelta(seconds=1))
    assert (told == "") == (words == ())
    assert all(word in told for word in words), told


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (None, "Nothing of it is recorded yet, and nothing runs of it: run it again."),
        (replace(NEW, stage=Stage.CANCELLED), "Nothing of it is recorded yet, and nothing runs of it: run it again."),
        (NEW, "deploy push UPD-1 … --resume goes on with it; deploy cancel UPD-1 calls it off."),
        (replace(NEW, switching=True), "public may be switching to it. deploy push UPD-1 … --resume"),
        (replace(NEW, stage=Stage.PUSHED), "public was switched to 'UPD-1': deploy verify UPD-1 checks it"),
        (replace(NEW, stage=Stage.TESTING), "The checks were stopped. public was switched to 'UPD-1': deploy verify"),
        (replace(NEW, stage=Stage.AWAITING_APPROVAL), "'UPD-1' waits at the gate: deploy approve UPD-1 decides"),
        (replace(NEW, stage=Stage.DEPLOYING), "'UPD-1' is approved and DeployingToOmega"),
        (OWING, "public is put back by itself"),
    ],
)
def test_whoever_interrupts_is_told_how_far_it_is(state: State | None, told: str) -> None:
    assert told in after_an_interrupt(state, AT)


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (NEW, "goes on, and nothing else does: deploy status UPD-1"),
        (replace(NEW, stage=Stage.PUSHED), "goes on, and nothing else does: deploy status UPD-1"),
        (replace(NEW, stage=Stage.DEPLOYING), "that goes on by itself within a minute"),
        (OWING, "public is put back by itself"),
    ],
)
def test_whoever_gives_up_waiting_is_told_what_it_waits_for(state: State, told: str) -> None:
    assert told in what_it_waits_for(state, AT + timedelta(seconds=1))
