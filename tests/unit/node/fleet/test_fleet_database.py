"""The fleet's database: its schema, writing in groups, the change log behind it, and what an earlier version left."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import Future
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from ashat.common.identifiers import licence_id, new_key
from ashat.errors import AshatError, FleetDatabaseError, UsageError
from ashat.node.core.db import Database
from ashat.node.logs import change_log
from ashat.node.logs.change_log_audit import read_changes
from ashat.node.omega.fleet.database import FILE, FleetDatabase
from ashat.node.omega.fleet.fleet import Fleet, open_fleet
from ashat.node.omega.fleet.outbox import note, relay
from ashat.node.omega.fleet.tables import metadata
from ashat.protocol.fleet import MainframeReport
from tests.support.builders.databases import new_postgresql_database
from tests.support.needs import requires_postgresql

A = "a" * 64


def test_the_migrations_make_the_tables_that_the_code_knows(fleet: Fleet) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with fleet.database.reading() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert differences == []


def test_one_that_fails_undoes_itself_and_no_other_of_its_group(fleet: Fleet) -> None:
    held, go = threading.Event(), threading.Event()

    def hold(_connection: sa.Connection) -> None:
        held.set()
        assert go.wait(10)

    first = fleet.database.submit(hold)
    assert held.wait(10)

    def noted(kind: str, *, fails: bool) -> Future[None]:
        def change(connection: sa.Connection) -> None:
            note(connection, kind)
            if fails:
                raise KeyError(kind)

        return fleet.database.submit(change)

    made = [noted("one", fails=False), noted("two", fails=True), noted("three", fails=False)]
    go.set()
    first.result(10)
    assert [type(future.exception(10)) for future in made] == [type(None), KeyError, type(None)]
    relay(fleet.database, fleet.record)
    assert [change.facts["kind"] for change in read_changes(fleet.record)][1:] == ["one", "three"]


def test_who_goes_away_before_it_is_written_stops_nobody_else(fleet: Fleet) -> None:
    held, go = threading.Event(), threading.Event()

    def hold(_connection: sa.Connection) -> None:
        held.set()
        assert go.wait(10)

    fleet.database.submit(hold)
    assert held.wait(10)
    gone, stays = (fleet.database.submit(lambda connection: note(connection, "noted")) for _ in range(2))
    assert gone.cancel()
    go.set()
    stays.result(10)
    assert fleet.database.thread is not None
    assert fleet.database.thread.is_alive()
    assert fleet.database.number("outbox") == 1


def test_an_omega_without_licences_opens_where_its_directory_was_moved_to(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    for data in (before, after):
        record = Database(data / "node.db")
        change_log.begin(record)
        with open_fleet(record, data, None) as opened:
            assert opened.mainframes.all() == []
        record.close()
        if data == before:
            before.rename(after)


def test_each_entry_reaches_the_change_log_once_whatever_was_cut(fleet: Fleet, tmp_path: Path) -> None:
    with change_log.asked_by("kim"):
        fleet.licences.upsert(new_key(), "Baker", None)
    for _ in range(2):
        fleet.relay()
    other = Database(tmp_path / "other.db")
    with closing(other):
        change_log.begin(other)
        relay(fleet.database, other)
        entries = [[(c.facts["kind"], c.facts["by"]) for c in read_changes(each)] for each in (fleet.record, other)]
    assert entries[0] == entries[1]
    assert entries[0][1:] == [("licence-kept", "kim")]


def test_what_another_process_changes_is_seen(fleet: Fleet) -> None:
    key = new_key()
    licence, _ = fleet.licences.upsert(key, "Baker", None)
    assert fleet.licences.find(key) == licence
    url = Path(fleet.database.name) if fleet.database.dialect == "sqlite" else fleet.database.name
    elsewhere = Fleet(FleetDatabase(url), fleet.record)
    elsewhere.licences.revoke(licence.id)
    elsewhere.close()
    threading.Event().wait(0.25)  # the lag that PostgreSQL may have
    found = fleet.licences.find(key)
    assert found is not None
    assert found.status == "revoked"


def test_reports_of_one_moment_are_all_kept(fleet: Fleet) -> None:
    made = [kept for kept, _ in fleet.licences.keep_all([(new_key(), f"M{n:03}", None) for n in range(300)])]
    report = MainframeReport(release_seq=1, bundle=A, result="running")
    for future in [fleet.mainframes.report(each, report) for each in made * 2]:
        future.result(30)
    assert {(each.result, each.release_seq) for each in fleet.mainframes.all()} == {("running", 1)}
    assert [line.times for line in fleet.mainframes.reports(made[0].id)] == [2]


def test_two_machines_with_one_licence_are_noticed_and_one_that_starts_anew_is_not(fleet: Fleet) -> None:
    one, other = (kept for kept, _ in fleet.licences.keep_all([(new_key(), name, None) for name in ("A", "B")]))
    for licence, runs in ((one, "xxyyzz"), (other, "xyx")):
        for run in runs:
            fleet.mainframes.seen(licence, "9.9", run)
        fleet.mainframes.keep_seen()
    first, second = fleet.mainframes.all()
    assert (first.agent, first.twin_at, second.twin_at is not None) == ("9.9", None, True)
    assert second.last_seen == second.twin_at


def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    FleetDatabase(tmp_path / FILE).close()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(AshatError, match=r"A newer version .* \(schema 9999, this one reads 0003\); upgrade"):
        FleetDatabase(tmp_path / FILE)
    assert (tmp_path / FILE).read_bytes() == before


def test_of_several_that_make_it_at_once_one_does(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def opened() -> None:
        try:
            FleetDatabase(tmp_path / FILE).close()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=opened) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []


def test_no_database_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FleetDatabaseError, match=r"^The fleet's database .* does not answer: [^\n]*$") as refused:
        FleetDatabase("postgresql://someone:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(AshatError, match="such as postgresql://user@host/database"):
        FleetDatabase("mysql://x/y")
    (tmp_path / FILE).write_bytes(b"no database at all, but text that is long enough" * 30)
    with pytest.raises(FleetDatabaseError, match="file is not a database"):
        FleetDatabase(tmp_path / FILE)


OLD = """
CREATE TABLE licences (id TEXT PRIMARY KEY, key_hash TEXT NOT NULL UNIQUE, name TEXT NOT NULL, created_at TEXT NOT NULL,
    expires TEXT, revoked_at TEXT, last_seen TEXT) STRICT;
CREATE TABLE reports (seq INTEGER PRIMARY KEY AUTOINCREMENT, licence TEXT NOT NULL REFERENCES licences (id),
    release_seq INTEGER NOT NULL, bundle TEXT NOT NULL, result TEXT NOT NULL, reason TEXT NOT NULL,
    first_at TEXT NOT NULL, last_at TEXT NOT NULL, times INTEGER NOT NULL DEFAULT 1) STRICT;
CREATE TABLE last_outputs (licence TEXT PRIMARY KEY REFERENCES licences (id), lines TEXT NOT NULL) STRICT;
CREATE TABLE doubts (licence TEXT PRIMARY KEY REFERENCES licences (id), told TEXT NOT NULL, at TEXT NOT NULL) STRICT;
"""
AT = "2026-01-02T03:04:05.000000+00:00"


def earlier(record: Database) -> None:
    """Two licences as a version kept them that had them in the node's record, and no old protocol."""
    record.ensure(OLD)
    with record.transaction() as connection:
        for name, revoked in (("x" * 12, None), ("y" * 12, AT)):
            row = (name, name * 5, f"of {name[0]}", AT, None, revoked, AT)
            connection.execute("INSERT INTO licences VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        for seq, result in ((1, "running"), (2, "failed")):
            row = ("x" * 12, seq, A, result, "why" if seq == 2 else "", AT, AT, seq)
            connection.execute(
                "INSERT INTO reports (licence, release_seq, bundle, result, reason, first_at, last_at, times) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        connection.execute("INSERT INTO last_outputs VALUES (?, ?)", ("x" * 12, '["the last line"]'))
        connection.execute("INSERT INTO doubts VALUES (?, ?, ?)", ("x" * 12, "a doubt", AT))


def test_what_an_earlier_version_kept_in_the_record_is_taken_over_once(tmp_path: Path) -> None:
    record = Database(tmp_path / "node.db")
    change_log.begin(record)
    earlier(record)
    for _ in range(2):
        with open_fleet(record, tmp_path, None) as fleet:
            first, second = fleet.mainframes.all()
            assert (first.name, first.status, first.result, first.reason) == ("of x", "active", "failed", "why")
            assert (first.journal, second.status) == ("a doubt", "revoked")
            assert first.last_seen == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
            lines = fleet.mainframes.reports("x" * 12)
            assert [(line.release_seq, line.times) for line in lines] == [(2, 2), (1, 1)]
            assert lines[0].output == ("the last line",)
            assert not fleet.licences.all()[0].old_protocol
        assert record.one("SELECT 1 FROM sqlite_master WHERE name = 'licences'") is None
    earlier(record)  # as where the power went between the two
    with open_fleet(record, tmp_path, None) as fleet:
        assert len(fleet.mainframes.all()) == 2
        assert len(fleet.mainframes.reports("x" * 12)) == 2
    record.close()


@requires_postgresql
def test_the_fleet_moves_to_the_database_that_the_settings_name(tmp_path: Path) -> None:
    record, key = Database(tmp_path / "node.db"), new_key()
    change_log.begin(record)
    with open_fleet(record, tmp_path, None) as fleet:
        fleet.licences.upsert(key, "Baker", None)
        fleet.mainframes.report(fleet.licences.all()[0], MainframeReport(release_seq=1, bundle=A, result="running"))
    with new_postgresql_database() as database, new_postgresql_database() as empty:
        dsn = tmp_path / "dsn"
        dsn.touch(mode=0o600)
        dsn.write_text(database.render_as_string(hide_password=False))
        settings = tmp_path / "node.toml"
        settings.write_text(f'role = "omega"\ndata = "{tmp_path}"\nfleet_dsn_file = "dsn"\n')
        for _ in range(2):
            with open_fleet(record, tmp_path, settings) as fleet:
                (moved,) = fleet.mainframes.all()
                assert (moved.id, moved.name, moved.result) == (licence_id(key), "Baker", "running")
                fleet.mainframes.report(
                    fleet.licences.all()[0], MainframeReport(release_seq=2, bundle=A, result="running")
                ).result()
        with pytest.raises(UsageError, match=r"^This OMEGA keeps its fleet in postgresql.*: --config FILE\.$"):
            open_fleet(record, tmp_path, None).__enter__()
        dsn.write_text(empty.render_as_string(hide_password=False))
        with pytest.raises(AshatError, match="which the settings name, is empty"):
            open_fleet(record, tmp_path, settings).__enter__()
    record.close()
