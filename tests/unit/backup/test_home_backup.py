"""A home in one file: its ledger of either database, its keys and what it remembers, and back into an empty one."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from ashat.audit.sign import sign_log
from ashat.cli.control_plane import home_backup
from ashat.cli.control_plane.home_backup import PREFECT, back_up_home, restore_home
from ashat.cli.control_plane.state import ControlState, read_state, write_state
from ashat.errors import BackupError, LedgerError, LedgerTooNewError, UsageError
from ashat.ledger.copying import LoadedLedger, dump_ledger, load_ledger
from ashat.ledger.ledger import Ledger
from ashat.settings import Settings
from ashat.trust.release.machine_keys import machine_signer
from ashat.trust.tuf.metadata import BUILDER
from tests.support.builders.ledgers import begin, execute, honest
from tests.support.needs import requires_postgresql


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that has a ledger with a gate, keys, a signed checkpoint, a password and a database of Prefect's."""
    home = tmp_path / "home"
    monkeypatch.setenv("ASHAT_HOME", str(home))
    monkeypatch.delenv("ASHAT_LEDGER_URL", raising=False)
    with Ledger.configured() as ledger:
        honest(ledger, "UPD-1")
        begin(ledger, "UPD-2", [])
        sign_log(ledger, home)
    machine_signer(home, BUILDER)
    (home / "control.password").write_text("admin:secret\n")
    (home / "control.password").chmod(0o600)
    (home / "control.lock").touch()
    (home / "logs").mkdir()
    (home / "logs/server.log").write_text("much")
    write_state(home, ControlState(port=4321, ready=True))
    (home / "prefect").mkdir()
    with sqlite3.connect(home / PREFECT) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE flow_run (id)")
        database.execute("INSERT INTO flow_run VALUES (7)")
    return home


def restored(monkeypatch: pytest.MonkeyPatch, backup: Path, home: Path) -> Path:
    monkeypatch.setenv("ASHAT_HOME", str(home))
    restore_home(Settings(), backup)
    return home


def test_a_home_comes_back_as_it_was(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = back_up_home(Settings(), tmp_path / "a.backup", with_secrets=True)
    assert (made.events, made.left_out) == (9, ())
    with Ledger.configured() as ledger:
        before = ledger.load("UPD-1"), ledger.log_head(), ledger.summaries()
    other = restored(monkeypatch, tmp_path / "a.backup", tmp_path / "elsewhere")
    with Ledger.configured() as ledger:
        assert (ledger.load("UPD-1"), ledger.log_head(), ledger.summaries()) == before
        assert ledger.document(before[0].evidence or "") is not None
        begin(ledger, "UPD-3", [])
        sign_log(ledger, other)  # it continues what was signed before
    names = {str(path.relative_to(other)) for path in other.rglob("*") if path.is_file()}
    assert {"trust/builder.pem", "control.password", PREFECT, "control.json", "ledger.db"} <= names
    assert not [name for name in names if name.startswith(("logs", "control.lock")) or name.endswith(("jsonl", "-wal"))]
    assert stat.S_IMODE((other / "trust/builder.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(other.stat().st_mode) == 0o700
    assert read_state(other) == ControlState(port=4321)
    with sqlite3.connect(other / PREFECT) as database:
        assert database.execute("SELECT id FROM flow_run").fetchall() == [(7,)]


def test_without_secrets_no_key_no_password_and_no_token_is_in_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = back_up_home(Settings(), tmp_path / "a.backup", with_secrets=False)
    assert not made.header.secrets
    assert made.left_out == ("Prefect's database, as the servers' tokens are in it", "3 files with keys or passwords")
    other = restored(monkeypatch, tmp_path / "a.backup", tmp_path / "elsewhere")
    texts = [path.read_bytes() for path in other.rglob("*") if path.is_file()]
    assert texts
    assert not [text for text in texts if b"PRIVATE KEY" in text or b"admin:secret" in text]
    with Ledger.configured() as ledger:
        assert ledger.load("UPD-1").update_id == "UPD-1"


def test_nothing_is_overwritten_and_a_wrong_backup_changes_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = tmp_path / "a.backup"
    with pytest.raises(UsageError, match="is in ASHAT_HOME itself"):
        back_up_home(Settings(), home / "a.backup", with_secrets=True)
    back_up_home(Settings(), backup, with_secrets=True)
    with pytest.raises(UsageError, match="is there already"):
        back_up_home(Settings(), backup, with_secrets=True)
    with pytest.raises(UsageError, match=r"holds audit, control.json, control.lock and \d+ more: nothing is over"):
        restore_home(Settings(), backup)
    backup.write_bytes(backup.read_bytes()[:-20])
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(BackupError, match="nothing was changed"):
        restore_home(Settings(), backup)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.backup", "home"]
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="nothing to back up"):
        back_up_home(Settings(), tmp_path / "b.backup", with_secrets=True)


def test_a_home_without_a_ledger_is_backed_up_without_one_and_a_lost_ledger_is_not_taken_for_none(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "ledger.db").unlink()
    with pytest.raises(LedgerError, match=r"The ledger ledger-[0-9a-f]+ .* is missing"):
        back_up_home(Settings(), tmp_path / "a.backup", with_secrets=True)
    assert not (home / "ledger.db").exists()
    approver = tmp_path / "approver"
    approver.mkdir()
    machine_signer(approver, BUILDER)
    monkeypatch.setenv("ASHAT_HOME", str(approver))
    made = back_up_home(Settings(), tmp_path / "a.backup", with_secrets=True)
    assert "a ledger, as there is none yet" in made.left_out
    assert not (approver / "ledger.db").exists()
    other = restored(monkeypatch, tmp_path / "a.backup", tmp_path / "elsewhere")
    assert (other / "trust/builder.pem").read_bytes() == (approver / "trust/builder.pem").read_bytes()


@requires_postgresql
def test_a_ledger_on_postgresql_is_put_back_with_the_home_or_not_at_all(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgresql_url: str
) -> None:
    back_up_home(Settings(), tmp_path / "a.backup", with_secrets=True)
    monkeypatch.setenv("ASHAT_LEDGER_URL", postgresql_url)

    def refuse(staged: Path, target: Path) -> None:
        raise BackupError("the disk is read-only")

    monkeypatch.setattr(home_backup, "put_in_place", refuse)
    with pytest.raises(BackupError, match="read-only"):
        restored(monkeypatch, tmp_path / "a.backup", tmp_path / "elsewhere")
    with Ledger.open(postgresql_url) as ledger:
        assert ledger.log_head()[1] == 0
    monkeypatch.undo()
    monkeypatch.setenv("ASHAT_LEDGER_URL", postgresql_url)
    other = restored(monkeypatch, tmp_path / "a.backup", tmp_path / "elsewhere")
    assert not (other / "ledger.db").exists()
    with Ledger.configured() as ledger:
        assert ledger.log_head()[1] == 9
        sign_log(ledger, other)
        begin(ledger, "UPD-3", [])
    # The machine is lost once more, and the database, which is on another, is not.
    again = restored(monkeypatch, tmp_path / "a.backup", tmp_path / "again")
    with Ledger.configured() as ledger:
        assert ledger.load("UPD-3").update_id == "UPD-3"
        sign_log(ledger, again)


@pytest.fixture(params=["sqlite", "postgresql"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Where a ledger is, and an empty address of the other database."""
    sqlite, postgresql = f"sqlite:///{tmp_path / 'l.db'}", str(request.getfixturevalue("postgresql_url"))
    return (sqlite, postgresql) if request.param == "postgresql" else (postgresql, sqlite)


@requires_postgresql
def test_a_ledger_moves_between_the_databases(urls: tuple[str, str], tmp_path: Path) -> None:
    here, there = urls
    with Ledger.open(here) as ledger:
        state = honest(ledger, "UPD-1", askings=3)
        assert dump_ledger(here, tmp_path / "l.jsonl") == ledger.log_head()[1]
        assert load_ledger(there, tmp_path / "l.jsonl") == LoadedLedger(ledger.log_head()[1])
        with Ledger.open(there) as other:
            assert other.load("UPD-1") == state
            assert other.log_head() == ledger.log_head()
            assert list(other.records()) == list(ledger.records())
            begin(other, "UPD-2", [])
    with Ledger.open(there) as other:
        longer = other.log_head()[1]
    assert load_ledger(there, tmp_path / "l.jsonl") == LoadedLedger(longer, kept=True)
    dump_ledger(there, tmp_path / "longer.jsonl")
    with pytest.raises(BackupError, match="the backup's, and shorter"):
        load_ledger(here, tmp_path / "longer.jsonl")
    with Ledger.open(f"sqlite:///{tmp_path / 'another.db'}") as another:
        begin(another, "UPD-1", [])
    with pytest.raises(BackupError, match=r"another one \(1 events\); nothing is overwritten"):
        load_ledger(f"sqlite:///{tmp_path / 'another.db'}", tmp_path / "l.jsonl")


def test_a_ledger_that_lacks_an_event_is_not_backed_up_and_a_newer_one_is_not_put_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'l.db'}"
    with Ledger.open(url) as ledger:
        begin(ledger, "UPD-1", [])
    dump_ledger(url, tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines()
    for name, spoilt, error in (
        ("newer", [line.replace('"value":"2"', '"value":"3"') for line in lines], LedgerTooNewError),
        ("short", [line for line in lines if '"table":"events"' not in line], BackupError),
        ("foreign", [*lines, '{"table":"others","row":{}}'], BackupError),
        ("wider", [lines[0].replace('"key":', '"more":1,"key":'), *lines[1:]], BackupError),
        ("no", [*lines, "x"], BackupError),
        ("doubled", [*lines, lines[-1]], BackupError),
    ):
        (tmp_path / name).write_text("\n".join(spoilt) + "\n")
        with pytest.raises(error):
            load_ledger(f"sqlite:///{tmp_path / f'{name}.db'}", tmp_path / name)
        with Ledger.open(f"sqlite:///{tmp_path / f'{name}.db'}") as ledger:
            assert ledger.log_head()[1] == 0
    execute(url, "delete from events")
    with pytest.raises(BackupError, match="has 0 events and its log counts 1"):
        dump_ledger(url, tmp_path / "cut.jsonl")
