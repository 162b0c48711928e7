"""A ledger that is gone, cut, another or damaged is a refusal that names what is missing, never a new one."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from ashat.cli.main import run
from ashat.ledger.ledger import Ledger
from tests.support.builders.ledgers import connected, honest
from tests.support.needs import requires_postgresql

FLIPS = 120


class Deploy:
    """Runs `deploy` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Its exit code, what it prints, and the lines of its errors."""
        code = run(list(words))
        shown = self._capsys.readouterr()
        return code, shown.out, shown.err


@pytest.fixture
def deploy(capsys: pytest.CaptureFixture[str]) -> Deploy:
    return Deploy(capsys)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def fill(url: str, updates: int = 2) -> None:
    with Ledger.open(url) as ledger:
        for _ in range(updates):
            honest(ledger, f"UPD-{len(ledger.listed()) + 1}", 2)


def remove(ledger: Path) -> None:
    ledger.unlink()


def empty(ledger: Path) -> None:
    ledger.write_bytes(b"")


def begin_another(ledger: Path) -> None:
    ledger.unlink()
    fill(f"sqlite:///{ledger}", 1)


def drop_tables(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as connection:
        for table in ("events", "documents", "sessions", "log", "ashat_meta"):
            connection.execute(f"drop table {table}")
        connection.commit()


@pytest.mark.parametrize("lose", [remove, empty, begin_another, drop_tables])
@pytest.mark.parametrize("signed", [False, True], ids=["opened", "signed"])
def test_a_ledger_that_is_gone_is_named_by_each_command_and_not_begun_anew(
    home: Path, deploy: Deploy, lose: Callable[[Path], None], signed: bool
) -> None:
    ledger = home / "ledger.db"
    fill(f"sqlite:///{ledger}")
    assert deploy("audit", "checkpoint" if signed else "verify")[0] == 0
    (name,) = [path.name for path in (home / "audit").iterdir()]
    shutil.copy(ledger, home / "backup")
    lose(ledger)
    before = ledger.read_bytes() if ledger.exists() else None
    commands = [["audit", "verify"], ["status"], ["history"], ["audit", "checkpoint"], ["audit", "export", "f"]]
    for words in commands:
        code, _, refusal = deploy(*words)
        assert (code, len(refusal.splitlines())) == (1, 1), words
        assert f"The ledger {name} ({20 if signed else 0} events" in refusal, words
        assert "Restore it from a backup" in refusal
    code, shown, _ = deploy("audit", "verify", "--json")
    assert (code, json.loads(shown)["fits"]) == (1, False)
    if lose is remove:
        assert not ledger.exists()
    elif lose is begin_another:
        assert ledger.read_bytes() == before
    ledger.unlink(missing_ok=True)
    shutil.copy(home / "backup", ledger)
    shown = deploy("audit", "verify")[1]
    assert ("Every event fits." in shown, "says whether some are missing" in shown) == (signed, not signed)


def test_an_older_backup_is_shorter_than_what_was_signed(home: Path, deploy: Deploy) -> None:
    ledger = home / "ledger.db"
    fill(f"sqlite:///{ledger}", 1)
    shutil.copy(ledger, home / "backup")
    fill(f"sqlite:///{ledger}", 1)
    assert deploy("audit", "checkpoint")[0] == 0
    ledger.unlink()
    shutil.copy(home / "backup", ledger)
    for words in (["audit", "verify"], ["status"]):
        code, _, refusal = deploy(*words)
        assert code == 1
        assert "Events 11 to 20 of the ledger are missing" in refusal


def test_a_new_ledger_is_begun_where_none_was_and_where_the_old_one_was_moved_away(
    home: Path, deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, shown, _ = deploy("audit", "verify")
    assert (code, "The record is empty" in shown, "fits" in shown) == (0, True, False)
    (first,) = (home / "audit").iterdir()
    monkeypatch.setenv("ASHAT_LEDGER_URL", f"sqlite:///{home / 'other.db'}")
    code, shown, _ = deploy("audit", "verify")
    assert code == 0
    assert f"{first.name} (0 events were signed on this machine), which lay at sqlite:ledger.db" in " ".join(
        shown.split()
    )
    monkeypatch.delenv("ASHAT_LEDGER_URL")
    (home / "ledger.db").unlink()
    assert deploy("status")[0] == 1
    shutil.rmtree(first)
    assert deploy("status")[0] == deploy("audit", "verify")[0] == 0


def test_a_home_that_moved_knows_its_ledger(home: Path, deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(f"sqlite:///{home / 'ledger.db'}", 1)
    assert deploy("audit", "checkpoint")[0] == 0
    elsewhere = home.with_name("elsewhere")
    home.rename(elsewhere)
    monkeypatch.setenv("ASHAT_HOME", str(elsewhere))
    assert deploy("audit", "verify")[0] == 0
    (elsewhere / "ledger.db").unlink()
    assert "is missing: none is at sqlite:ledger.db" in deploy("audit", "verify")[2]


@requires_postgresql
def test_a_database_that_was_emptied_is_not_begun_anew(
    home: Path, deploy: Deploy, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASHAT_LEDGER_URL", postgresql_url)
    fill(postgresql_url)
    code, shown, _ = deploy("audit", "verify")
    assert (code, "pg_amcheck" in shown) == (0, True)
    with connected(postgresql_url) as connection:
        for table in ("events", "documents", "sessions", "log", "ashat_meta"):
            connection.execute(sa.text(f"drop table {table}"))
    for words in (["audit", "verify"], ["status"]):
        code, _, refusal = deploy(*words)
        assert (code, "is missing: none is at postgresql" in refusal) == (1, True)
    with connected(postgresql_url) as connection:
        assert not sa.inspect(connection).has_table("events")


def rows(ledger: Path) -> list[list[tuple[object, ...]]]:
    """All that is ever read: not the number that the database itself gives each event, nor a document's kind."""
    with closing(sqlite3.connect(ledger)) as connection:
        found = [connection.execute(f"select * from {table}").fetchall() for table in ("ashat_meta", "log", "sessions")]
        found.append(connection.execute("select digest, body from documents").fetchall())
        return [*found, [row[1:] for row in connection.execute("select * from events").fetchall()]]


def test_a_flipped_byte_is_noticed_wherever_it_is_read(home: Path, deploy: Deploy) -> None:
    ledger = home / "ledger.db"
    fill(f"sqlite:///{ledger}", 3)
    with Ledger.configured() as opened:
        opened.put_newest("policy", {"a policy": "that no event names"})
    assert deploy("audit", "checkpoint")[0] == 0
    assert deploy("audit", "verify")[0] == 0
    honest_bytes, honest_rows, draw, noticed = ledger.read_bytes(), rows(ledger), random.Random(7), 0
    used = [at for at, byte in enumerate(honest_bytes) if byte]
    for _ in range(FLIPS):
        at = draw.choice(used)
        flipped = bytearray(honest_bytes)
        flipped[at] ^= 1 << draw.randrange(8)
        for left in home.glob("ledger.db*"):
            left.unlink()
        ledger.write_bytes(flipped)
        code, shown, refusal = deploy("audit", "verify")
        if code == 0:
            assert "Every event fits" in shown
            assert rows(ledger) == honest_rows, f"byte {at} was flipped, and nothing noticed"
            continue
        noticed += 1
        assert (code, len(refusal.splitlines())) == (1, 1), (at, refusal)
        assert deploy("status")[0] in (0, 1)
    assert noticed > FLIPS * 0.8
