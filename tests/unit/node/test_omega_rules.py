"""OMEGA's rules without a server: decisions, the way back, the offer, licences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ashat.common.identifiers import check_licence_key, key_hash, licence_id, new_key
from ashat.errors import UsageError
from ashat.node.core.db import Database
from ashat.node.core.errors import ApiError
from ashat.node.logs import change_log
from ashat.node.omega.authorization import SCHEMA, AuthorizationRule, Use, judge_promotion, judge_rollback
from ashat.node.omega.fleet.fleet import Fleet, open_fleet
from ashat.node.omega.fleet.licences import licence_status
from ashat.node.omega.ledger_log import KeptLog
from ashat.node.omega.offers import effective_offer, why_not_offered
from ashat.node.omega.trust import OmegaTrust
from ashat.node.operations import records
from ashat.node.operations.records import RunningRelease
from ashat.protocol.fleet import MainframeReport
from ashat.protocol.licences import parse_expiry, parse_licences
from ashat.protocol.messages import Current, Decision, Offer, OperationRequest

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64


def running(bundle: str, *, seq: int | None = 1, update: str = "UPD-1", attempt: int = 1) -> Current:
    return Current(bundle=bundle, update_id=update, attempt=attempt, release_seq=seq, since=NOON)


def standing(
    current: Current | None, previous: Current | None = None, brought_by: str | None = "promote", highest: int = 1
) -> RunningRelease:
    return RunningRelease(current=current, previous=previous, brought_by=brought_by, release_seq=highest)


def decided(**changes: object) -> Decision:
    fields = {
        "id": "UPD-2.1.0",
        "decision": "approve",
        "update_id": "UPD-2",
        "attempt": 1,
        "bundle": NEW,
        "evidence": "e" * 64,
        "target": "omega",
        "expected_current": OLD,
        "release_seq": 2,
        "approver": "kim",
        "at": NOON,
    }
    return Decision.model_validate({**fields, **changes})


def promotion(decision: Decision | None, **changes: object) -> OperationRequest:
    fields = {
        "action": "promote",
        "bundle": NEW,
        "expected_current": OLD,
        "update_id": "UPD-2",
        "attempt": 1,
        "decision": decision,
    }
    return OperationRequest.model_validate({**fields, **changes})


def rollback(bundle: str | None, expected: str = NEW) -> OperationRequest:
    return OperationRequest(action="rollback", bundle=bundle, expected_current=expected, update_id="UPD-1", attempt=1)


@contextmanager
def refused(code: str, *words: str) -> Iterator[None]:
    with pytest.raises(ApiError) as raised:
        yield
    assert (raised.value.status, raised.value.code) == (409, code)
    for word in words:
        assert word in raised.value.detail
    assert "\n" not in raised.value.detail


class TestPromotion:
    now = standing(running(OLD))

    def test_gets_the_release_seq_of_its_decision(self) -> None:
        assert judge_promotion(promotion(decided(release_seq=7)), self.now, []) == 7

    def test_of_a_first_release_over_nothing(self) -> None:
        decision = decided(expected_current=None, release_seq=1)
        request = promotion(decision, expected_current=None)
        assert judge_promotion(request, standing(None, brought_by=None, highest=0), []) == 1

    def test_needs_a_decision(self) -> None:
        with refused("decision_missing", "deploy approve"):
            judge_promotion(promotion(None), self.now, [])

    @pytest.mark.parametrize(
        ("changes", "word"),
        [
            ({"bundle": OTHER}, "bundle"),
            ({"update_id": "UPD-3"}, "update"),
            ({"attempt": 2}, "update"),
            ({"expected_current": OTHER}, "expected_current"),
            ({"expected_current": None}, "expected_current"),
        ],
    )
    def test_needs_a_decision_for_exactly_this(self, changes: dict[str, object], word: str) -> None:
        with refused("decision_missing", f"for another {word}"):
            judge_promotion(promotion(decided(**changes)), self.now, [])

    @pytest.mark.parametrize("seq", [1, 4, 5])
    def test_needs_a_release_seq_above_the_highest(self, seq: int) -> None:
        with refused("decision_missing", "5 was accepted"):
            judge_promotion(promotion(decided(release_seq=seq)), standing(running(OLD), highest=5), [])

    def test_spends_its_decision(self) -> None:
        uses = [Use(decided(), failed=False, release_seq=2)]
        with refused("decision_used"):
            judge_promotion(promotion(decided()), standing(running(OLD), highest=2), uses)

    def test_that_failed_may_be_asked_for_again_under_the_same_decision(self) -> None:
        uses = [Use(decided(), failed=True, release_seq=2)] * 2
        assert judge_promotion(promotion(decided()), standing(running(OLD), highest=2), uses) == 2

    def test_that_failed_is_over_once_something_else_was_accepted(self) -> None:
        uses = [Use(decided(), failed=True, release_seq=2)]
        with refused("decision_used", "something else was accepted since"):
            judge_promotion(promotion(decided()), standing(running(OLD), highest=3), uses)

    def test_cannot_take_the_id_of_a_failed_decision_for_another(self) -> None:
        uses = [Use(decided(evidence="f" * 64), failed=True, release_seq=2)]
        with refused("decision_used"):
            judge_promotion(promotion(decided()), standing(running(OLD), highest=2), uses)


class TestRollback:
    now = standing(running(NEW, seq=2, update="UPD-2"), running(OLD), highest=4)

    def test_goes_to_what_was_replaced_under_a_number_of_its_own(self) -> None:
        assert judge_rollback(rollback(OLD), self.now) == 5

    @pytest.mark.parametrize("bundle", [OTHER, NEW, None])
    def test_goes_nowhere_else(self, bundle: str | None) -> None:
        with refused("decision_missing", OLD[:12]):
            judge_rollback(rollback(bundle), self.now)

    @pytest.mark.parametrize("current", [None, running(NEW)])
    def test_needs_something_before(self, current: Current | None) -> None:
        with refused("nothing_before"):
            judge_rollback(rollback(OLD), standing(current))

    @pytest.mark.parametrize("brought_by", ["rollback", "switch", None])
    def test_is_not_covered_where_nothing_was_promoted(self, brought_by: str | None) -> None:
        with refused("decision_missing", "Promote"):
            judge_rollback(rollback(NEW, OLD), standing(running(OLD, seq=3), running(NEW), brought_by, 3))


any_bundle = st.sampled_from([OLD, NEW, OTHER])
ahead = st.sampled_from([1, 1, 1, 2, 0, -1])
changes = st.one_of(
    st.tuples(st.just("promote"), any_bundle, ahead, st.integers(0, 9), st.booleans()),
    st.tuples(st.just("again"), st.integers(0, 9), st.booleans()),
    st.tuples(st.just("rollback"), any_bundle, st.booleans()),
)


class World:
    """An OMEGA's real record, which takes what the rule lets through."""

    def __init__(self, directory: Path) -> None:
        self.db = Database(directory / "node.db")
        self.db.ensure(SCHEMA)
        self.rule = AuthorizationRule(OmegaTrust(directory / "trust", unsigned_releases=True), KeptLog(self.db))
        self.asked = 0
        self.accepted: list[tuple[OperationRequest, int, bool]] = []

    def submit(self, request: OperationRequest, ends_well: bool) -> bool:
        """Whether it was accepted; it then succeeds or fails as said. The node itself checks expected_current."""
        self.asked += 1
        name = f"op-{self.asked}"
        with self.db.transaction() as connection:
            now = records.read_standing(connection)
            if request.expected_current != now.bundle:
                return False
            try:
                seq = self.rule(connection, request, now)
            except ApiError:
                return False
            assert seq is not None
            records.begin(connection, name, request, running=now.bundle, release_seq=seq)
        operation = records.find(self.db, name)
        assert operation is not None
        if ends_well:
            records.succeed(self.db, operation)
        else:
            records.fail(self.db, name, "unhealthy", switched_back=True)
        self.accepted.append((request, seq, ends_well))
        return True

    def promote(self, bundle: str, ahead: int, number: int, ends_well: bool) -> None:
        now = records.standing(self.db)
        seq = max(now.release_seq + ahead, 1)
        decision = decided(id=f"d{number}", bundle=bundle, expected_current=now.bundle, release_seq=seq)
        self.submit(promotion(decision, bundle=bundle, expected_current=now.bundle), ends_well)

    def again(self, index: int, ends_well: bool) -> None:
        """Present an earlier decision once more: fine as long as it failed and nothing else was accepted since."""
        earlier = [(request, good) for request, _, good in self.accepted if request.decision]
        if not earlier:
            return
        request, _ = earlier[index % len(earlier)]
        assert request.decision
        fine = (
            request.expected_current == records.standing(self.db).bundle
            and not any(good for other, good in earlier if other.decision == request.decision)
            and request.decision.release_seq == self.accepted[-1][1]
        )
        assert self.submit(request, ends_well) == fine

    def rollback(self, bundle: str, ends_well: bool) -> None:
        """Allowed exactly from a promotion that holds, to what it replaced."""
        good = [request for request, _, ended_well in self.accepted if ended_well]
        now = records.standing(self.db).bundle
        fine = bool(good) and good[-1].action == "promote" and good[-1].expected_current == bundle
        assert self.submit(rollback(bundle, expected=now or OLD), ends_well) == fine

    def check(self) -> None:
        """Numbers never go back, and each that succeeded, as each decision that did, did so once."""
        numbers = [seq for _, seq, _ in self.accepted]
        assert numbers == sorted(numbers)
        good = [(request, seq) for request, seq, ended_well in self.accepted if ended_well]
        assert len({seq for _, seq in good}) == len(good)
        decisions = [request.decision.id for request, _ in good if request.decision]
        assert len(set(decisions)) == len(decisions)


@settings(max_examples=60, deadline=None)
@given(story=st.lists(changes, min_size=12, max_size=24))
def test_any_order_of_changes_keeps_the_rules(story: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as directory:
        world = World(Path(directory))
        try:
            for what, *words in story:
                getattr(world, what)(*words)
            world.check()
        finally:
            world.db.close()


class TestOffer:
    put = Offer(release_seq=2, bundle=OLD, update_id="UPD-1", attempt=1)

    def test_stays_until_a_promotion_is_offered(self) -> None:
        assert effective_offer(self.put, running(NEW, seq=3), rolled_back=False) == self.put

    def test_follows_a_rollback_by_itself(self) -> None:
        back = effective_offer(self.put, running(OTHER, seq=4, update="UPD-0"), rolled_back=True)
        assert back == Offer(release_seq=4, bundle=OTHER, update_id="UPD-0", attempt=1)

    def test_is_nothing_before_anything_was_offered(self) -> None:
        assert effective_offer(None, running(OLD, seq=4), rolled_back=True) is None
        assert effective_offer(None, None, rolled_back=False) is None

    def test_can_only_be_what_omega_runs(self) -> None:
        current = running(OLD, seq=2)
        assert why_not_offered(self.put, current) is None
        for wrong in ({"release_seq": 3}, {"bundle": NEW}, {"update_id": "UPD-9"}, {"attempt": 2}):
            assert why_not_offered(self.put.model_copy(update=wrong), current)
        assert why_not_offered(self.put, None)
        assert why_not_offered(self.put, running(OLD, seq=None))


class TestLicence:
    def test_a_new_key_has_the_form_and_is_its_own(self) -> None:
        keys = {new_key() for _ in range(100)}
        assert len(keys) == 100
        assert all(check_licence_key(key) == key for key in keys)

    def test_counts_until_the_instant_it_expires(self) -> None:
        tick = timedelta(microseconds=1)
        assert licence_status(expires=NOON, revoked_at=None, now=NOON - tick) == "active"
        assert licence_status(expires=NOON, revoked_at=None, now=NOON) == "expired"
        assert licence_status(expires=None, revoked_at=None, now=NOON) == "active"
        assert licence_status(expires=NOON, revoked_at=NOON, now=NOON) == "revoked"

    def test_a_day_counts_to_its_end_in_utc(self) -> None:
        assert parse_expiry("2027-12-31") == datetime(2028, 1, 1, tzinfo=UTC)
        assert parse_expiry("2027-12-31T18:00:00+02:00") == datetime(2027, 12, 31, 16, tzinfo=UTC)

    @pytest.mark.parametrize("text", ["", "soon", "2027-12-31T18:00:00", "2027-13-01", "9999-12-31"])
    def test_no_other_words_are_a_time(self, text: str) -> None:
        with pytest.raises(UsageError, match="no day and no time"):
            parse_expiry(text)

    def test_import_takes_all_lines_or_names_the_bad_one_without_its_key(self) -> None:
        key = new_key()
        other = new_key()
        assert parse_licences(["Key,Name", f'{key},"Baker, Sons",2027-01-01', "", f" {other} , Miller"]) == [
            (key, "Baker, Sons", datetime(2027, 1, 2, tzinfo=UTC)),
            (other, "Miller", None),
        ]
        third = new_key()
        for bad in (third, f"{third},", f"{third},x,soon", f"{third},x,,y", f"{third.lower()},x", f"{key},y"):
            with pytest.raises(UsageError, match=r"^Line 2: .*Nothing was kept\.$") as raised:
                parse_licences([f"{key},x", bad])
            assert third[7:] not in str(raised.value).upper()

    def test_import_names_every_bad_line_at_once_and_no_more_than_ten(self) -> None:
        key = new_key()
        with pytest.raises(UsageError) as raised:
            parse_licences([f"{key},x", "", f"{key},y", "nothing", *[f"{new_key()},z"] * 3])
        assert "Line 3: it has the key of line 1." in str(raised.value)
        assert "Line 4: it has 1 fields" in str(raised.value)
        assert "Line 7: it has the key of line 5." in str(raised.value)
        assert "RACORE-" + key[7:] not in str(raised.value)
        with pytest.raises(UsageError, match=r"And 15 more\. Nothing was kept\.$"):
            parse_licences(["x"] * 25)
        with pytest.raises(UsageError, match="There is no licence"):
            parse_licences(["", " , "])
        with pytest.raises(UsageError, match="more than 5,000"):
            parse_licences(f"{new_key()},x" for _ in range(5001))
        with pytest.raises(UsageError, match="is no CSV"):
            parse_licences([f"{key},x" + "x" * 200_000])


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    database = Database(tmp_path / "node.db")
    change_log.begin(database)
    with open_fleet(database, tmp_path, None) as opened:
        yield opened
    database.close()


class TestRegister:
    def test_keeps_no_key(self, fleet: Fleet, tmp_path: Path) -> None:
        key = new_key()
        licence, new = fleet.licences.upsert(key, "Baker", None)
        assert new
        assert licence.id == licence_id(key) == key_hash(key)[:12]
        assert fleet.licences.find(key) == licence
        assert fleet.licences.find(new_key()) is None
        stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert key_hash(key).encode() in stored
        assert key.encode() not in stored

    def test_renews_but_never_revives(self, fleet: Fleet) -> None:
        key = new_key()
        fleet.licences.upsert(key, "Baker", NOON - timedelta(days=365))
        renewed, new = fleet.licences.upsert(key, "Baker & Sons", None)
        assert not new
        assert (renewed.name, renewed.status) == ("Baker & Sons", "active")
        assert fleet.licences.revoke(renewed.id) == fleet.licences.revoke(renewed.id)
        assert fleet.licences.upsert(key, "Baker", None)[0].status == "revoked"
        assert fleet.licences.revoke("0" * 12) is None

    def test_history_counts_what_is_said_again(self, fleet: Fleet) -> None:
        licence, _ = fleet.licences.upsert(new_key(), "Baker", None)
        bad = MainframeReport(release_seq=2, bundle=NEW, result="failed", reason="unhealthy")
        good = MainframeReport(release_seq=3, bundle=OLD, result="running")
        for said in (bad, bad, good):
            fleet.mainframes.report(licence, said).result()
        lines = fleet.mainframes.reports(licence.id)
        assert [(line.release_seq, line.result, line.times) for line in lines] == [(3, "running", 1), (2, "failed", 2)]
        (mainframe,) = fleet.mainframes.all()
        assert (mainframe.result, mainframe.bundle, mainframe.release_seq, mainframe.reason) == ("running", OLD, 3, "")
        assert mainframe.last_seen is not None
