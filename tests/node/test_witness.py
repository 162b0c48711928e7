"""What the control plane remembers of OMEGA's journal, and that a journal which was rewritten is noticed there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ashat.errors import AuditError
from ashat.node.core.db import Database
from ashat.protocol.messages import Role, Scope
from ashat.transparency.checkpoint import Signer, Verifier
from ashat.transparency.witness import Witness
from tasks.servers.drift import witness_journal
from tests.support.builders.tampered_change_log import done, forget, told
from tests.support.processes.node import NodeProcess
from tests.support.processes.omega import licence


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "node").mkdir()
    opened = Database(tmp_path / "node" / "node.db")
    yield opened
    opened.close()


def test_a_journal_that_grows_is_followed(data: Database, tmp_path: Path) -> None:
    witness = Witness.of_changes(tmp_path / "home", "omega")
    assert witness.size() == 0
    for size, names in ((3, "ab"), (3, ""), (4, "c"), (11, "defghij")):
        done(data, *names)
        witness.judge(told(data, witness.size()))
        assert witness.size() == size
    assert [path.name for path in (tmp_path / "home" / "witnessed").iterdir()] == ["omega.json"]
    assert witness.path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("names", "key", "why"),
    [
        ("axcdef", False, "was rewritten or forked: its first 4 entries are not those that it had"),
        ("a", False, "was cut: it had 4 entries, and has 1"),
        ("abc", True, "is not signed as before"),
    ],
)
def test_one_that_was_written_anew_is_noticed_and_what_it_was_is_kept(
    data: Database, tmp_path: Path, names: str, key: bool, why: str
) -> None:
    witness = Witness.of_changes(tmp_path / "home", "omega")
    done(data, *"abc")
    witness.judge(told(data))
    before = witness.path.read_bytes()
    forget(data, key=key)
    done(data, *names)
    for _ in range(2):
        with pytest.raises(AuditError, match=f"omega: its journal of changes {why}"):
            witness.judge(told(data, witness.size()))
    assert witness.path.read_bytes() == before
    witness.path.unlink()
    witness.judge(told(data))


def test_a_key_that_is_shown_beside_what_another_signed_is_not_believed(data: Database, tmp_path: Path) -> None:
    witness = Witness.of_changes(tmp_path / "home", "omega")
    done(data, "a")
    first = told(data)
    witness.judge(first)
    done(data, "b")
    stranger = Signer(Verifier.parse(first.key).name, Ed25519PrivateKey.generate()).verifier
    assert witness.judge(told(data, witness.size()).model_copy(update={"key": stranger.vkey}))
    known = witness.known()
    assert known is not None
    assert (witness.size(), known.key) == (3, first.key)


def test_another_journal_and_a_file_that_is_none(data: Database, tmp_path: Path) -> None:
    witness = Witness.of_changes(tmp_path / "home", "omega")
    done(data, "a")
    first = told(data)
    witness.judge(first)
    with closing(Database(tmp_path / "node" / "other.db")) as other:
        done(other, *"abc")
        with pytest.raises(AuditError, match="is not signed as before"):
            witness.judge(told(other))
    witness.path.write_text("{}")
    with pytest.raises(AuditError, match="it holds something else; remove that file to begin anew"):
        witness.size()


def test_an_omega_is_asked_and_one_that_was_rewritten_is_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    with NodeProcess(tmp_path / "omega", role=Role.OMEGA) as omega, omega.client(Scope.READ) as reader:
        assert witness_journal("omega", reader) == []
        with omega.client() as admin:
            licence(admin)
        assert witness_journal("omega", reader) == []
        assert Witness.of_changes(tmp_path / "home", "omega").size() == len(Scope) + 2
        omega.stop()
        with closing(Database(omega.data / "node.db")) as database:
            forget(database)
            done(database, *"abcdefgh")
        omega.start()
        (why,) = witness_journal("omega", reader)
        assert f"was rewritten or forked: its first {len(Scope) + 2} entries" in why

        with closing(sqlite3.connect(omega.data / "node.db")) as connection, connection:
            connection.execute("UPDATE changes_log SET size = 3")
        (why,) = witness_journal("omega", reader)
        assert "is not what was signed" in why
