"""What Public is put back to, when updates were pushed over one another."""

from __future__ import annotations

from dataclasses import replace

from ashat.deployment.restore import way_back
from ashat.deployment.stages import Stage
from ashat.deployment.state import Before, State

FIRST = Before("0" * 64, "UPD-0", 1)


def update(name: str, stage: Stage, *ran: Before) -> State:
    """An update whose switch found `ran` on Public, each time."""
    return State(update_id=name, attempt=1, stage=stage, bundle=name[-1] * 64, switching=True, public_ran=ran)


def found(*states: State) -> dict[tuple[str, int], State]:
    """The ledger's answers."""
    return {(state.update_id, state.attempt): state for state in states}


def test_it_is_what_ran_before() -> None:
    known = found(update("UPD-0", Stage.COMPLETED))
    assert way_back(update("UPD-1", Stage.CANCELLED, FIRST), lambda *key: known.get(key)) == FIRST


def test_an_update_that_was_called_off_meanwhile_is_skipped() -> None:
    one = update("UPD-1", Stage.CANCELLED, FIRST)
    two = update("UPD-2", Stage.CANCELLED, Before("1" * 64, "UPD-1", 1))
    known = found(update("UPD-0", Stage.COMPLETED), one)
    assert way_back(two, lambda *key: known.get(key)) == FIRST
    waiting = found(replace(one, stage=Stage.AWAITING_APPROVAL))
    assert way_back(two, lambda *key: waiting.get(key)).update_id == "UPD-1"


def test_two_updates_that_took_turns_lead_back_to_what_ran_before_both() -> None:
    one = update("UPD-1", Stage.CANCELLED, FIRST, Before("2" * 64, "UPD-2", 1))
    two = update("UPD-2", Stage.REJECTED, Before("1" * 64, "UPD-1", 1))
    known = found(update("UPD-0", Stage.COMPLETED), one, two)
    assert way_back(two, lambda *key: known.get(key)) == FIRST
    assert way_back(one, lambda *key: known.get(key)) == FIRST


def test_nothing_and_strangers_count_as_they_are() -> None:
    nothing = update("UPD-1", Stage.CANCELLED, Before(None))
    assert way_back(nothing, lambda *key: None) == Before(None)
    stranger = Before("9" * 64, "BY-HAND", 1)
    assert way_back(update("UPD-1", Stage.CANCELLED, stranger), lambda *key: None) == stranger


def test_where_everything_came_to_nothing_it_is_what_ran_just_before() -> None:
    one = update("UPD-1", Stage.FAILED, Before("2" * 64, "UPD-2", 1))
    two = update("UPD-2", Stage.FAILED, Before("1" * 64, "UPD-1", 1))
    known = found(one, two)
    assert way_back(one, lambda *key: known.get(key)).bundle == "2" * 64
