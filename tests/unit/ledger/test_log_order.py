"""The order of the ledger's log: total, durable and gapless, with several writers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.common.canonical_json import canonical_json
from ashat.deployment import events as e
from ashat.errors import ConflictError, LedgerError
from ashat.ledger.leaf import leaf_of
from ashat.ledger.ledger import Ledger
from ashat.transparency.merkle import leaf_hash, root_of
from tests.support.builders.ledgers import CREATED, T0, Worker, begin, execute, fill, race
from tests.support.needs import requires_postgresql


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=requires_postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url) as opened:
        yield opened


def assert_whole(ledger: Ledger) -> int:
    """Places without a gap, versions in order, every root that of the leaves so far; how many there are."""
    records = list(ledger.records())
    assert [record.seq for record in records] == list(range(len(records)))
    assert ledger.log_head()[1] == len(records)
    seen: dict[tuple[str, int], int] = {}
    hashes = [leaf_hash(record.leaf) for record in records]
    for record in records:
        assert record.version == seen.get((record.update_id, record.attempt), 0) + 1
        seen[record.update_id, record.attempt] = record.version
    for size in {*range(1, min(len(records), 40)), len(records)} - {0}:
        assert records[size - 1].root == root_of(hashes[:size]).hex()
    return len(records)


def test_a_leaf_is_the_canonical_json_of_the_event_and_whose_it_is(ledger: Ledger) -> None:
    ledger.create("UPD-1", CREATED)
    (record,) = ledger.records()
    whole = {"update_id": "UPD-1", "attempt": 1, "version": 1, "event": json.loads(record.body)}
    assert record.leaf == canonical_json(whole)
    assert leaf_of('ü"', 2, 3, "{}") == canonical_json({"update_id": 'ü"', "attempt": 2, "version": 3, "event": {}})


def test_events_of_all_updates_are_in_the_order_in_which_they_were_appended(ledger: Ledger) -> None:
    first, second = begin(ledger, "B", []), begin(ledger, "A", [])
    ledger.append(first, e.Cancelled(at=T0))
    ledger.append(second, e.Cancelled(at=T0))
    ledger.create("B", CREATED)
    assert [(r.update_id, r.attempt, r.version) for r in ledger.records()] == [
        ("B", 1, 1), ("A", 1, 1), ("B", 1, 2), ("A", 1, 2), ("B", 2, 1),
    ]  # fmt: skip
    assert [r.seq for r in ledger.records(limit=2)] == [0, 1]
    assert assert_whole(ledger) == 5


def test_an_append_that_is_refused_leaves_no_gap(ledger: Ledger) -> None:
    seen = begin(ledger, "UPD-1", [])
    ledger.append(seen, e.Cancelled(at=T0))
    for _ in range(3):
        with pytest.raises(ConflictError):
            ledger.append(seen, e.Failed(at=T0, reason="too late"))
    ledger.create("UPD-2", CREATED)
    assert assert_whole(ledger) == 3


def test_processes_that_append_at_once_end_up_in_one_order_without_a_gap(ledger: Ledger, url: str) -> None:
    names = [f"UPD-{number}" for number in range(3)]
    for name in names:
        begin(ledger, name, fill(0))
    assert race(*(Worker("ask", url, name, "40") for name in names)) == ["won"] * 3
    assert assert_whole(ledger) == 3 * (len(fill(0)) + 1 + 40)
    for name in names:
        assert ledger.load(name).askings["release"] == 41


def test_the_log_is_named_once_and_each_ledger_has_its_own_name(ledger: Ledger, url: str, tmp_path: Path) -> None:
    origin = ledger.log_head()[0]
    with Ledger.open(url) as again, Ledger.open(f"sqlite:///{tmp_path / 'another.db'}") as another:
        assert again.log_head() == (origin, 0)
        assert another.log_head()[0] != origin


@pytest.mark.parametrize("harm", ["delete from log", "update log set frontier = 'aa'", "update log set size = 7"])
def test_a_log_that_was_broken_takes_no_more_events(ledger: Ledger, url: str, harm: str) -> None:
    begin(ledger, "UPD-1", [])
    execute(url, harm)
    with pytest.raises(LedgerError, match="deploy audit verify"):
        ledger.create("UPD-2", CREATED)
    assert ledger.find("UPD-2") is None
