"""What a Mainframe decides to do about an offer, without a server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.node.core.db import Database
from ashat.node.mainframe.agent import LastFailure, Patience, read_position
from ashat.node.mainframe.plan import ATTEMPTS, Failed, Idle, Install, Position, Running, plan
from ashat.node.operations import records
from ashat.protocol.messages import Offer, OperationRequest

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
OLD, NEW = "a" * 64, "b" * 64
DELAY = 60.0

digests = st.sampled_from([OLD, NEW])
positions = st.builds(
    Position,
    current_bundle=st.none() | digests,
    current_seq=st.none() | st.integers(1, 5),
    accepted_seq=st.integers(0, 5),
    accepted_bundle=digests,
    failures=st.integers(0, 5),
    last_failure=st.none() | st.just(NOW),
    interrupted=st.booleans(),
    reason=st.just("unhealthy"),
)
offers = st.builds(Offer, release_seq=st.integers(1, 6), bundle=digests, update_id=st.just("UPD-1"), attempt=st.just(1))


def offered(seq: int, bundle: str = NEW) -> Offer:
    return Offer(release_seq=seq, bundle=bundle, update_id="UPD-1", attempt=1)


def failed(times: int, *, interrupted: bool = False) -> Position:
    return Position(
        current_bundle=OLD,
        current_seq=1,
        accepted_seq=2,
        accepted_bundle=NEW,
        failures=times,
        last_failure=NOW,
        interrupted=interrupted,
        reason="unhealthy",
    )


@given(offer=offers, position=positions, ago=st.integers(0, 400), just_started=st.booleans())
def test_never_goes_back_and_never_does_one_number_twice(
    offer: Offer, position: Position, ago: int, just_started: bool
) -> None:
    todo = plan(offer, position, failed_ago=ago, retry_delay=DELAY, just_started=just_started)
    if isinstance(todo, Install):
        assert offer.release_seq >= position.accepted_seq
        if offer.release_seq == position.accepted_seq:
            assert offer.bundle == position.accepted_bundle
            assert (position.current_bundle, position.current_seq) != (offer.bundle, offer.release_seq)
    if isinstance(todo, Running):
        assert (position.current_bundle, position.current_seq) == (offer.bundle, offer.release_seq)


def test_installs_what_is_new_and_rests_when_it_runs() -> None:
    assert plan(None, Position(), failed_ago=0, retry_delay=DELAY) == Idle()
    assert plan(offered(1), Position(), failed_ago=0, retry_delay=DELAY) == Install(offered(1), 1)
    runs = Position(current_bundle=NEW, current_seq=2, accepted_seq=2, accepted_bundle=NEW)
    assert plan(offered(2), runs, failed_ago=0, retry_delay=DELAY) == Running(offered(2))
    assert plan(offered(3), runs, failed_ago=0, retry_delay=DELAY) == Install(offered(3), 1)


@pytest.mark.parametrize("offer", [offered(1), offered(1, OLD), offered(2, OLD)])
def test_refuses_an_older_number_and_another_bundle_under_the_same(offer: Offer) -> None:
    position = Position(current_bundle=NEW, current_seq=2, accepted_seq=2, accepted_bundle=NEW)
    todo = plan(offer, position, failed_ago=0, retry_delay=DELAY, just_started=True)
    assert isinstance(todo, Failed)
    assert todo.retry_in is None
    assert "Promote again" in todo.reason


def test_tries_a_failed_release_again_later_and_later_and_then_no_more() -> None:
    for times in range(1, ATTEMPTS):
        pause = DELAY * 2 ** (times - 1)
        waiting = plan(offered(2), failed(times), failed_ago=pause - 1, retry_delay=DELAY)
        assert waiting == Failed(offered(2), "unhealthy", retry_in=1)
        due = plan(offered(2), failed(times), failed_ago=pause, retry_delay=DELAY)
        assert due == Install(offered(2), times + 1)
    over = plan(offered(2), failed(ATTEMPTS), failed_ago=1e6, retry_delay=DELAY)
    assert isinstance(over, Failed)
    assert over.retry_in is None
    assert plan(offered(3), failed(ATTEMPTS), failed_ago=0, retry_delay=DELAY) == Install(offered(3), 1)


def test_a_node_that_starts_tries_once_more_unless_that_brought_it_down() -> None:
    again = plan(offered(2), failed(ATTEMPTS), failed_ago=0, retry_delay=DELAY, just_started=True)
    assert again == Install(offered(2), ATTEMPTS + 1)
    down = plan(offered(2), failed(1, interrupted=True), failed_ago=0, retry_delay=DELAY, just_started=True)
    assert isinstance(down, Failed)


def test_the_position_is_read_from_the_record(tmp_path: Path) -> None:
    db = Database(tmp_path / "node.db")

    def change(name: str, bundle: str, seq: int, fails: str = "") -> None:
        request = OperationRequest(action="switch", bundle=bundle, expected_current=None, update_id="U", attempt=1)
        with db.transaction() as connection:
            records.begin(connection, name, request, running=None, release_seq=seq)
        operation = records.find(db, name)
        assert operation
        if fails:
            records.fail(db, name, fails, switched_back=True)
        else:
            records.succeed(db, operation)

    assert read_position(db) == Position()
    change("one", OLD, 1)
    assert read_position(db) == Position(OLD, 1, accepted_seq=1, accepted_bundle=OLD)
    change("two", NEW, 4, "sick")
    change("three", NEW, 4, "still sick")
    found = read_position(db)
    assert (found.current_seq, found.accepted_seq, found.accepted_bundle) == (1, 4, NEW)
    assert (found.failures, found.reason, found.interrupted) == (2, "still sick", False)
    assert found.last_failure is not None
    db.close()


@pytest.mark.parametrize("noted", [NOW.replace(year=2031), NOW.replace(year=9999), NOW, NOW.replace(year=1970)])
def test_no_clock_however_it_is_set_makes_a_retry_wait_longer_than_its_delay(
    monkeypatch: pytest.MonkeyPatch, noted: datetime
) -> None:
    since = {"start": 100.0}
    monkeypatch.setattr("ashat.node.mainframe.agent.now", lambda: NOW)
    monkeypatch.setattr("ashat.node.mainframe.agent.uptime", lambda: since["start"])
    clock = LastFailure()
    first = clock.seconds_ago(noted)
    assert first == max((NOW - noted).total_seconds(), 0)
    since["start"] += DELAY - 1
    monkeypatch.setattr("ashat.node.mainframe.agent.now", lambda: NOW.replace(year=2001))
    assert clock.seconds_ago(noted) == first + DELAY - 1
    since["start"] += 1
    due = plan(offered(2), failed(1), failed_ago=clock.seconds_ago(noted), retry_delay=DELAY)
    assert due == Install(offered(2), 2)


def test_patience_grows_to_the_slow_pace_and_forgets() -> None:
    patience = Patience(15)
    pauses = [patience.after_failure() for _ in range(20)]
    assert 0.75 <= pauses[0] <= 1.25
    assert all(45 <= pause <= 75 for pause in pauses[7:])
    assert patience.after_failure(at_least=600) == 600
    assert 45 <= patience.after_refusal() <= 75
    assert patience.after_answer(None) == 0
    assert patience.after_answer(took=20) == 0
    assert 13.5 <= patience.after_answer(took=0) <= 16.5
    assert patience.after_failure() <= 1.25
