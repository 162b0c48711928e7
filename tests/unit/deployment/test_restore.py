"""What Public is put back to, when updates were pushed over one another."""

from __future__ import annotations

from dataclasses import replace

from ashat.deployment.restore import restore_target
from ashat.deployment.stages import Stage
from ashat.deployment.state import PreviousRelease, State

FIRST = PreviousRelease("0" * 64, "UPD-0", 1)


def update(name: str, stage: Stage, *ran: PreviousRelease) -> State:
    """An update whose switch found `ran` on Public, each time."""
    return State(update_id=name, attempt=1, stage=stage, bundle=name[-1] * 64, switching=True, public_ran=ran)


def found(*states: State) -> dict[tuple[str, int], State]:
    """The ledger's answers."""
    return {(state.update_id, state.attempt): state for state in states}


def test_it_is_what_ran_before() -> None:
    known = found(update("UPD-0", Stage.COMPLETED))
    assert restore_target(update("UPD-1", Stage.CANCELLED, FIRST), lambda *key: known.get(key)) == FIRST


def test_an_update_that_was_called_off_meanwhile_is_skipped() -> None:
    one = update("UPD-1", Stage.CANCELLED, FIRST)
    two = update("UPD-2", Stage.CANCELLED, PreviousRelease("1" * 64, "UPD-1", 1))
    known = found(update("UPD-0", Stage.COMPLETED), one)
    assert restore_target(two, lambda *key: known.get(key)) == FIRST
    waiting = found(replace(one, stage=Stage.AWAITING_APPROVAL))
    assert restore_target(two, lambda *key: waiting.get(key)).update_id == "UPD-1"


def test_two_updates_that_took_turns_lead_back_to_what_ran_before_both() -> None:
    one = update("UPD-1", Stage.CANCELLED, FIRST, PreviousRelease("2" * 64, "UPD-2", 1))
    two = update("UPD-2", Stage.REJECTED, PreviousRelease("1" * 64, "UPD-1", 1))
    known = found(update("UPD-0", Stage.COMPLETED), one, two)
    assert restore_target(two, lambda *key: known.get(key)) == FIRST
    assert restore_target(one, lambda *key: known.get(key)) == FIRST


def test_nothing_and_strangers_count_as_they_are() -> None:
    nothing = update("UPD-1", Stage.CANCELLED, PreviousRelease(None))
    assert restore_target(nothing, lambda *key: None) == PreviousRelease(None)
    stranger = PreviousRelease("9" * 64, "BY-HAND", 1)
    assert restore_target(update("UPD-1", Stage.CANCELLED, stranger), lambda *key: None) == stranger


def test_where_everything_came_to_nothing_it_is_what_ran_just_before() -> None:
    one = update("UPD-1", Stage.FAILED, PreviousRelease("2" * 64, "UPD-2", 1))
    two = update("UPD-2", Stage.FAILED, PreviousRelease("1" * 64, "UPD-1", 1))
    known = found(one, two)
    assert restore_target(one, lambda *key: known.get(key)).bundle == "2" * 64
