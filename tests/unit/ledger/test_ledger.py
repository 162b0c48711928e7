"""The ledger on both of its databases, with real processes at the same time and killed in the middle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ashat.deployment import events as e
from ashat.deployment.state_machine import Stage, State, fold
from ashat.errors import (
    ConflictError,
    LedgerError,
    LedgerTooNewError,
    SessionError,
    UnknownUpdateError,
    UpdateExistsError,
)
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import Source
from tests.support.builders.ledgers import CREATED, FAR, T0, Worker, begin, race
from tests.support.needs import requires_mount, requires_postgresql
from tests.support.processes.small_disk import MIB, small_disk

BUNDLE, EVIDENCE = "a" * 64, "e" * 64
TO_THE_GATE: list[Any] = [
    e.Packaged(at=T0, bundle=BUNDLE, files=1, size=1, source=Source(name="sample")),
    e.PublicSwitching(at=T0, from_bundle=None),
    e.Pushed(at=T0, url="http://public"),
    e.VerificationStarted(at=T0),
    e.Verified(at=T0, evidence=EVIDENCE, outcome="passed", checks=()),
    e.GateOpened(at=T0, opening=1, expires=FAR),
    e.ApprovalRequested(at=T0, ordinal=1, target_bundle=None),
]
APPROVED = e.ApprovalAnswered(at=T0, by="lee", ordinal=1, decision="approve", accepted=True, release_seq=1)
TO_COMPLETED: list[Any] = [
    *TO_THE_GATE,
    APPROVED,
    e.Promoting(at=T0, operation="op"),
    e.Promoted(at=T0, from_bundle=None, release_seq=1),
    e.Distributed(at=T0, mainframes=()),
]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=requires_postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url) as opened:
        yield opened


def execute(url: str, statement: str, **values: Any) -> None:
    driver = url.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(driver)
    with engine.begin() as connection:
        connection.execute(sa.text(statement), values)
    engine.dispose()


def test_a_state_read_back_is_the_state_that_was_written(ledger: Ledger, url: str) -> None:
    written = begin(ledger, "UPD-1", TO_COMPLETED)
    with Ledger.open(url) as another:
        assert another.load("UPD-1") == written
        assert another.load("UPD-1", 1) == fold("UPD-1", 1, another.events("UPD-1", 1))
        assert another.load("UPD-1").description == CREATED.description


def test_the_list_is_what_the_events_say(ledger: Ledger) -> None:
    for number, events in enumerate([[], TO_THE_GATE, TO_COMPLETED]):
        begin(ledger, f"UPD-{number}", events)
    listed = {summary["update_id"]: summary for summary in ledger.summaries()}
    for number in range(3):
        folded = ledger.load(f"UPD-{number}")
        assert listed[f"UPD-{number}"] == folded.summary()


def test_the_list_is_filtered_and_newest_first(ledger: Ledger) -> None:
    elsewhere = timezone(timedelta(hours=-8))
    begin(ledger, "OLD", [])
    later = T0 + timedelta(hours=2)
    ledger.append(ledger.load("OLD"), e.Cancelled(at=T0 + timedelta(hours=1)))
    ledger.create("NEW", CREATED.model_copy(update={"at": later.astimezone(elsewhere), "description": "A Hotfix"}))
    assert [s["update_id"] for s in ledger.summaries()] == ["NEW", "OLD"]
    assert [s["update_id"] for s in ledger.summaries(limit=1)] == ["NEW"]
    assert [s["update_id"] for s in ledger.summaries(stages=("Cancelled",))] == ["OLD"]
    assert [s["update_id"] for s in ledger.summaries(text="hotFIX")] == ["NEW"]
    assert [s["update_id"] for s in ledger.summaries(text="描述")] == ["OLD"]


def test_a_stale_append_changes_nothing_and_is_told_what_happened(ledger: Ledger) -> None:
    seen = begin(ledger, "UPD-1", TO_THE_GATE)
    ledger.append(seen, e.Cancelled(at=T0, by="lee"))
    with pytest.raises(ConflictError, match=r"moved on: cancelled by lee; it is Cancelled now") as told:
        ledger.append(seen, APPROVED)
    assert "\n" not in str(told.value)
    assert ledger.load("UPD-1").stage is Stage.CANCELLED
    assert len(ledger.events("UPD-1", 1)) == seen.version + 1


def test_a_refused_event_is_not_written(ledger: Ledger) -> None:
    state = begin(ledger, "UPD-1", [])
    with pytest.raises(SessionError):
        ledger.append(state, APPROVED)
    assert ledger.load("UPD-1") == state


def test_of_two_processes_one_wins_and_the_other_is_told_who_did(ledger: Ledger, url: str) -> None:
    begin(ledger, "UPD-1", TO_THE_GATE)
    said = race(Worker("race", url, "UPD-1", "kim"), Worker("race", url, "UPD-1", "lee"))
    assert sorted(said)[1] == "won"
    winner = ledger.events("UPD-1", 1)[-1].by
    told = next(text for text in said if text != "won")
    assert told.startswith(f"ConflictError: Deployment 'UPD-1' moved on: cancelled by {winner};")
    assert len(ledger.events("UPD-1", 1)) == len(TO_THE_GATE) + 2


def test_two_approvals_of_different_updates_never_get_one_release_seq(ledger: Ledger, url: str) -> None:
    for name in ("UPD-1", "UPD-2"):
        begin(ledger, name, TO_THE_GATE)
    said = race(Worker("approve", url, "UPD-1"), Worker("approve", url, "UPD-2"))
    assert sorted(said)[1] == "won"
    loser = "UPD-1" if said[1] == "won" else "UPD-2"
    assert "Another approval for omega was accepted" in next(text for text in said if text != "won")
    assert ledger.load(loser).stage is Stage.AWAITING_APPROVAL
    assert ledger.highest_release_seq("omega") == 1
    again = ledger.append(ledger.load(loser), APPROVED.model_copy(update={"release_seq": 2}))
    assert again.stage is Stage.DEPLOYING


def test_the_highest_release_seq_counts_rollbacks_and_forgets_what_omega_refused(ledger: Ledger) -> None:
    assert ledger.highest_release_seq("omega") == 0
    state = begin(ledger, "UPD-1", TO_COMPLETED)
    state = ledger.append(state, e.RollbackStarted(at=T0))
    ledger.append(state, e.ServerRolledBack(at=T0, server="omega", to_bundle=None, release_seq=2))
    assert ledger.highest_release_seq("omega") == 2
    assert ledger.highest_release_seq("omega-eu") == 0
    refused = begin(ledger, "UPD-2", [*TO_THE_GATE, APPROVED.model_copy(update={"release_seq": 3})])
    assert ledger.highest_release_seq("omega") == 3
    ledger.append(refused, e.DecisionVoid(at=T0, reason="OMEGA moved on"))
    assert ledger.highest_release_seq("omega") == 2


def test_processes_that_open_a_new_ledger_at_once_all_succeed(url: str) -> None:
    assert race(*(Worker("open", url) for _ in range(4))) == ["won"] * 4


def test_a_process_killed_while_it_appends_leaves_a_ledger_that_reads_and_goes_on(ledger: Ledger, url: str) -> None:
    begin(ledger, "UPD-1", TO_THE_GATE)
    hammering = Worker("hammer", url, "UPD-1")
    written = len(hammering.stdout.read(25))
    hammering.process.kill()
    hammering.end()
    assert hammering.process.returncode == -signal.SIGKILL
    with Ledger.open(url) as again:
        state = again.load("UPD-1")
        assert state.askings["release"] >= written
        assert state.version == len(again.events("UPD-1", 1))
        assert again.summaries()[0] == state.summary()
        assert again.append(state, e.Cancelled(at=T0)).stage is Stage.CANCELLED


def test_advance_decides_again_on_the_newest_state(ledger: Ledger) -> None:
    begin(ledger, "UPD-1", TO_THE_GATE)
    seen: list[int] = []

    def decide(state: State) -> e.ApprovalRequested:
        seen.append(state.askings["release"])
        if len(seen) == 1:
            ledger.append(state, e.ApprovalRequested(at=T0, ordinal=2, target_bundle=None))
        return e.ApprovalRequested(at=T0, ordinal=state.askings["release"] + 1, target_bundle=None)

    assert ledger.advance("UPD-1", 1, decide).askings["release"] == 3
    assert seen == [1, 2]
    before = ledger.load("UPD-1")
    assert ledger.advance("UPD-1", 1, lambda state: None) == before


def test_an_id_in_use_is_refused_with_how_to_go_on(ledger: Ledger) -> None:
    begin(ledger, "UPD-1", TO_THE_GATE)
    with pytest.raises(UpdateExistsError, match=r"^Deployment session 'UPD-1' already exists.*deploy approve UPD-1"):
        ledger.create("UPD-1", CREATED)


def test_an_id_that_was_cancelled_is_pushed_again_as_the_next_attempt(ledger: Ledger) -> None:
    first = ledger.append(begin(ledger, "UPD-1", TO_THE_GATE), e.Cancelled(at=T0))
    assert ledger.create("UPD-1", CREATED).attempt == 2
    assert ledger.load("UPD-1").stage is Stage.PLANNING
    assert ledger.load("UPD-1", 1) == first
    ledger.append(ledger.load("UPD-1"), e.Cancelled(at=T0))
    with pytest.raises(ConflictError, match="at attempt 2 by now"):
        ledger.create("UPD-1", CREATED, attempt=2)
    assert ledger.create("UPD-1", CREATED, attempt=3).attempt == 3


def test_an_id_that_reached_omega_is_never_used_again(ledger: Ledger) -> None:
    state = begin(ledger, "UPD-1", TO_COMPLETED)
    with pytest.raises(UpdateExistsError, match="never used again"):
        ledger.create("UPD-1", CREATED)
    for event in (e.RollbackStarted(at=T0), e.RolledBack(at=T0)):
        state = ledger.append(state, event)
    with pytest.raises(UpdateExistsError, match="never used again"):
        ledger.create("UPD-1", CREATED)


def test_an_unknown_id_is_said_to_be_unknown(ledger: Ledger) -> None:
    begin(ledger, "UPD-1", [])
    assert ledger.find("UPD-2") is None
    with pytest.raises(UnknownUpdateError, match="'UPD-2' is known"):
        ledger.load("UPD-2")
    with pytest.raises(UnknownUpdateError, match="'UPD-1' attempt 2"):
        ledger.load("UPD-1", 2)


def test_a_ledger_of_another_schema_is_refused_and_left_alone(ledger: Ledger, url: str) -> None:
    begin(ledger, "UPD-1", [])
    execute(url, "update ashat_meta set value = '3' where key = 'schema'")
    with pytest.raises(LedgerTooNewError, match=r"schema 3; this one reads 2\). Upgrade"):
        Ledger.open(url)
    execute(url, "update ashat_meta set value = '1' where key = 'schema'")
    with pytest.raises(LedgerError, match=r"before 0.1.0 was released \(schema 1; this one reads 2\)"):
        Ledger.open(url)
    execute(url, "update ashat_meta set value = '2' where key = 'schema'")
    with Ledger.open(url) as again:
        assert again.load("UPD-1").version == 1


@pytest.mark.parametrize("event", ['{"kind": "teleported", AT}', '{"kind": "pushed", "url": "", "spin": 1, AT}'])
def test_an_event_nobody_knows_is_refused(ledger: Ledger, url: str, event: str) -> None:
    begin(ledger, "UPD-1", [])
    body = event.replace("AT", '"at": "2026-01-01T00:00:00Z"')
    columns = "(update_id, attempt, version, kind, at, body, seq, root)"
    statement = f"insert into events {columns} values ('UPD-1', 1, 2, 'x', '', :body, 1, '')"
    execute(url, statement, body=body)
    with pytest.raises(LedgerTooNewError, match="an event that this version does not know") as told:
        ledger.load("UPD-1")
    assert "\n" not in str(told.value)


def test_a_document_is_kept_once_and_read_back(ledger: Ledger) -> None:
    digest = ledger.put_document("evidence", {"b": 1, "a": ["ü"]})
    assert ledger.put_document("evidence", {"a": ["ü"], "b": 1}) == digest
    assert ledger.document(digest) == {"a": ["ü"], "b": 1}
    with pytest.raises(LedgerError, match="no document 000000000000"):
        ledger.document("0" * 64)


@pytest.mark.parametrize("body", ['{"a":2}', '{"a":', '{"a":1.5}'])
def test_an_altered_document_is_noticed(ledger: Ledger, url: str, body: str) -> None:
    digest = ledger.put_document("evidence", {"a": 1})
    execute(url, "update documents set body = :body", body=body)
    with pytest.raises(LedgerError, match="was altered"):
        ledger.document(digest)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("not a url", "ASHAT_LEDGER_URL is not a database"),
        ("mysql://kim:hunter2@db/x", "mysql is neither"),
        ("postgresql://kim:hunter2@db:port/x", "port is not a number"),
        ("postgresql://kim:hunter2@127.0.0.1:1/x", r"kim:\*\*\*@127.0.0.1:1/x"),
        ("postgresql://kim@127.0.0.1:1/x?password=hunter2", "kim@127.0.0.1:1/x"),
        ("sqlite:////proc/nowhere/ledger.db", "/proc/nowhere"),
    ],
)
def test_a_wrong_address_gets_one_line_without_its_password(url: str, says: str) -> None:
    with pytest.raises(LedgerError, match=says) as told:
        Ledger.open(url)
    assert "\n" not in str(told.value)
    assert "hunter2" not in str(told.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger.open(f"sqlite:///{path}")
    assert path.read_bytes() == b"something else entirely" * 100


@requires_mount
def test_a_full_disk_is_named_as_that(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size=2 * MIB) as disk:
        url = f"sqlite:///{disk.path / 'ledger.db'}"
        Ledger.open(url).close()
        disk.fill()
        with pytest.raises(LedgerError, match=f"the disk of {disk.path} is full"):
            Ledger.open(url)
        disk.free_again()
        with Ledger.open(url) as ledger:
            disk.fill()
            with pytest.raises(LedgerError, match=r"was not written: the disk of .* is full"):
                ledger.put_document("thing", {"text": "x" * 3_000_000})
