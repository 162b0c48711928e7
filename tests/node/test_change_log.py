"""The journal of changes: all that was done to a node, in the record's own transactions; what was tampered with."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from ashat.common.identifiers import licence_id
from ashat.errors import AuditError
from ashat.node.access.tokens import TokenFile, follow_in
from ashat.node.core.db import Database
from ashat.node.logs import change_log
from ashat.node.logs.change_log_audit import Audited, audit, read_changes
from ashat.node.omega.fleet.database import FILE
from ashat.node.omega.fleet.fleet import open_fleet
from ashat.node.omega.trust import OmegaTrust
from ashat.node.operations import records
from ashat.protocol.messages import OperationRequest, Role, Scope
from ashat.transparency.checkpoint import Verifier, open_checkpoint
from tests.support.builders.signers import People
from tests.support.processes.node import NodeProcess, push, tiny_app
from tests.support.processes.node_cli import Run
from tests.support.processes.omega import licence, offer, promote, revoke_licence, roll_back, source

KEY = "RACORE-0123ABCD-0123ABCD-0123ABCD"
OTHER = "RACORE-FFFFABCD-0123ABCD-0123ABCD"
FLEET = "fleet: "
A, B = "a" * 64, "b" * 64


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "node.db")
    yield opened
    opened.close()


def story(database: Database) -> None:
    """Two operations, of which one fails, and two licences, of which one is revoked: eight entries with the first."""
    change_log.begin(database)
    for number, bundle, status in ((1, A, "succeeded"), (2, B, "failed")):
        request = OperationRequest(
            action="promote", bundle=bundle, expected_current=None, update_id=f"UPD-{number}", attempt=1
        )
        with database.transaction() as connection:
            records.begin(connection, f"op-{number}", request, running=None, release_seq=number)
        operation = records.find(database, f"op-{number}")
        assert operation is not None
        if status == "succeeded":
            records.succeed(database, operation)
        else:
            records.fail(database, operation.id, "it did not become healthy", switched_back=True)
    with open_fleet(database, database.path.parent, None) as fleet:
        fleet.licences.keep_all([(KEY, "A customer", None), (OTHER, "Another", None)])
        fleet.licences.revoke(licence_id(OTHER))
        fleet.licences.revoke(licence_id(OTHER))
        fleet.licences.upsert(KEY, "A customer", None)


def kinds(database: Database) -> list[str]:
    return [change.facts["kind"] for change in read_changes(database)]


def tamper(database: Database, *statements: str) -> None:
    """Write to the file as somebody would who has it: the triggers go first."""
    with closing(sqlite3.connect(database.path)) as connection, connection:
        connection.execute("DROP TRIGGER changes_stay")
        connection.execute("DROP TRIGGER changes_are_kept")
        for statement in statements:
            if not statement.startswith(FLEET):
                connection.execute(statement)
    with closing(sqlite3.connect(database.path.parent / FILE)) as connection, connection:
        for statement in statements:
            if statement.startswith(FLEET):
                connection.execute(statement.removeprefix(FLEET))


def audited(database: Database) -> Audited:
    """The change log held against the record and the fleet."""
    with open_fleet(database, database.path.parent, None) as fleet:
        return fleet.audit()


def test_what_is_done_is_in_it_once_and_in_order(database: Database) -> None:
    story(database)
    assert kinds(database) == [
        "journal-began", "operation-began", "operation-ended", "operation-began", "operation-ended", "licence-kept",
        "licence-kept", "licence-revoked",
    ]  # fmt: skip
    found = audit(database)
    assert (found.size, found.checkpoints) == (8, 0)
    failed = read_changes(database, after=4, limit=1)[0].facts
    assert (failed["by"], failed["operation"], failed["status"]) == ("the node", "op-2", "failed")
    assert failed["reason"] == "it did not become healthy"


def test_a_change_and_its_entry_are_one_transaction(database: Database) -> None:
    story(database)
    request = OperationRequest(action="promote", bundle=B, expected_current=A, update_id="UPD-3", attempt=1)
    try:
        with database.transaction() as connection:
            records.begin(connection, "op-3", request, running=A, release_seq=3)
            assert connection.execute("SELECT count(*) FROM changes").fetchone()[0] == 9
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert audit(database).size == 8
    assert records.find(database, "op-3") is None


def test_the_database_itself_refuses_to_change_an_entry(database: Database) -> None:
    story(database)
    for statement in ("UPDATE changes SET entry = '{}'", "DELETE FROM changes"):
        with pytest.raises(sqlite3.IntegrityError, match="only grows"), database.transaction() as connection:
            connection.execute(statement)
    assert audit(database).size == 8


@pytest.mark.parametrize(
    ("statements", "told", "number"),
    [
        (["UPDATE changes SET entry = replace(entry, 'UPD-1', 'UPD-9')"], "Entry 2 (operation-began op-1)", 2),
        (["UPDATE changes SET entry = replace(entry, ',', ', ') WHERE seq = 3"], "Entry 4 (operation-began op-2)", 4),
        (["UPDATE changes SET entry = 'no JSON' WHERE seq = 3"], "Entry 4 does not fit: it is no JSON object", 4),
        (["UPDATE changes SET root = substr(root, 2) || '0' WHERE seq = 0"], "Entry 1 (journal-began)", 1),
        (["DELETE FROM changes WHERE seq = 4"], "Entry 5 is missing: 6 comes next", 5),
        (["DELETE FROM changes WHERE seq = 7"], "Entry 8 is missing: 8 were written, and the journal ends with 7", 8),
        (["INSERT INTO changes SELECT 8, entry, root FROM changes WHERE seq = 7"], "Entry 9 (licence-revoked", 9),
        (["UPDATE changes_log SET size = 7"], "Entry 8 does not fit: 7 were written", 8),
        (["UPDATE changes_log SET frontier = ''"], "Entry 9 does not fit: 8 were written", 9),
        (["UPDATE operations SET to_bundle = from_bundle WHERE id = 'op-1'"], "its bundle is another", 2),
        (["UPDATE operations SET status = 'succeeded'"], "in the record the operation is succeeded", 5),
        (["DELETE FROM operations WHERE id = 'op-2'"], "the record has no such operation", 4),
        (["UPDATE operations SET id = 'op-3' WHERE id = 'op-2'"], "The record has the operation 'op-3'", None),
        (["DELETE FROM releases"], "by the record nothing runs, and it brought another", 3),
        (["fleet: UPDATE licences SET revoked_at = NULL"], "in the record the licence is not revoked", 8),
        (
            ["fleet: DELETE FROM mainframes", f"fleet: DELETE FROM licences WHERE id = '{licence_id(KEY)}'"],
            "the record has no such licence",
            6,
        ),
        (["fleet: UPDATE licences SET expires = '2099-01-01'"], "the licence ends at another time", 6),
        (["fleet: UPDATE licences SET id = 'x' WHERE revoked_at IS NOT NULL"], "The record has the licence x", None),
    ],
)
def test_what_was_tampered_with_is_named(
    database: Database, statements: list[str], told: str, number: int | None
) -> None:
    story(database)
    tamper(database, *statements)
    with pytest.raises(AuditError) as refused:
        audited(database)
    assert told in str(refused.value)
    assert refused.value.event == number


def test_a_journal_that_was_written_anew_does_not_continue_what_was_signed(database: Database, tmp_path: Path) -> None:
    story(database)
    note, key = change_log.sign_checkpoint(database, tmp_path)
    kept = open_checkpoint(note, [Verifier.parse(key)])
    assert (kept.size, kept.root) == (8, audit(database, [kept]).root)
    database.set_meta("role", "omega")
    with database.transaction() as connection:
        change_log.append(connection, "licence-revoked", id=licence_id(KEY), name="A customer")
    assert audit(database, [kept]).checkpoints == 1

    tamper(
        database,
        "DELETE FROM changes",
        "DELETE FROM operations",
        "fleet: DELETE FROM mainframes",
        "fleet: DELETE FROM licences",
        f"UPDATE changes_log SET size = 0, frontier = '', origin = '{kept.origin}'",
    )
    for _ in range(12):
        with database.transaction() as connection:
            change_log.append(connection, "journal-began", operations_before=0)
    assert audit(database).size == 12
    with pytest.raises(
        AuditError,
        match="The journal of changes was rewritten or forked: its first 8 entries are not those that it had",
    ):
        audit(database, [kept])
    with pytest.raises(
        AuditError,
        match="The journal of changes was rewritten or forked: its first 8 entries are not those that it had",
    ):
        change_log.sign_checkpoint(database, tmp_path)


def test_tokens_are_in_it_before_they_open_and_a_death_in_between_is_mended(database: Database, tmp_path: Path) -> None:
    change_log.begin(database)
    tokens = TokenFile(tmp_path / "tokens.json", follow_in(database))
    first, secret = tokens.add("alpha", [Scope.PUSH])
    tokens.rotate(first.id, timedelta(hours=1))
    tokens.revoke(first.id)
    assert kinds(database)[1:] == ["token-added", "token-changed", "token-added", "token-removed"]
    added = read_changes(database)[1].facts
    assert (added["id"], added["name"], added["scopes"]) == (first.id, "alpha", ["push"])

    # Killed after it was written down, before the file was: the next look says that it is not there.
    follow_in(database)([*tokens.all(), first])
    TokenFile(tmp_path / "tokens.json", follow_in(database)).all()
    assert kinds(database)[5:] == ["token-added", "token-removed"]

    # Written behind the journal's back: a look, and so its first use, says so.
    other, _ = TokenFile(tmp_path / "tokens.json").add("backdoor", [Scope.ADMIN])
    assert kinds(database)[7:] == []
    tokens.identify(secret)
    (last,) = read_changes(database, after=7)
    assert (last.facts["kind"], last.facts["id"], last.facts["by"]) == ("token-added", other.id, "the node")
    (tmp_path / "tokens.json").unlink()
    tokens.all()
    assert kinds(database)[8:] == ["token-removed", "token-removed"]


def test_the_command_shows_signs_and_verifies(run: Run, database: Database, tmp_path: Path) -> None:
    story(database)
    code, _, told = run("token", "add", "--scope", "read", "--name", "alpha", "--data", tmp_path)
    assert code == 0, told
    code, shown, _ = run("journal", "changes", "--data", tmp_path, "--limit", 2)
    assert code == 0
    assert [line.split()[0] for line in shown.splitlines()] == ["8", "9"]
    assert " on this machine: " in shown.splitlines()[1]
    assert 'scopes ["read"]' in shown.splitlines()[1]
    code, note, told = run("journal", "checkpoint", "--data", tmp_path)
    assert code == 0
    key = told.split(": ")[1].strip()
    (tmp_path / "kept").write_text(note)
    code, said, _ = run("journal", "verify", "--data", tmp_path, "--since", tmp_path / "kept", "--key", key)
    assert (code, said.split()[:2]) == (0, ["9", "entries"])
    assert "as 2 checkpoints signed before" in said

    tamper(database, "UPDATE changes SET entry = replace(entry, 'customer', 'friend')")
    code, out, err = run("journal", "verify", "--data", tmp_path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("ashat-node: Entry 6 (licence-kept")
    (tmp_path / "bytes").write_bytes(b"\xff")
    for words, text, code in [
        (("--since", tmp_path / "none"), "cannot be read", 2),
        (("--key", "no key", "--since", tmp_path / "kept"), "is no verifier key", 1),
        (("--since", tmp_path / "bytes"), "it is no text", 2),
    ]:
        found, _, err = run("journal", "verify", "--data", tmp_path, *words)
        assert (found, err.count("\n")) == (code, 1), err
        assert text in err
    code, _, err = run("journal", "changes", "--data", tmp_path / "nowhere")
    assert (code, "There is no node in" in err) == (2, True)


def test_an_omega_writes_down_all_that_is_done_to_it(tmp_path: Path, run: Run) -> None:
    def get(path: str, scope: Scope, **params: Any) -> Any:
        headers = {"Authorization": f"Bearer {omega.token(scope)}"}
        return httpx.get(f"{omega.url}/v1/journal/{path}", params=params, headers=headers).raise_for_status().json()

    with NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app()) as omega, omega.client() as client:
        admin = f"token {client.token().id}"
        key = licence(client)
        first, second = (push(client, source(tmp_path)) for _ in range(2))
        promote(client, first, "UPD-1")
        promote(client, second, "UPD-2")
        offer(client)
        offer(client)
        kept = get("checkpoint", Scope.READ)
        omega.kill9()
        omega.start()
        assert roll_back(client).status == "succeeded"
        revoke_licence(client, licence_id(key))
        code, _, _ = run("token", "revoke", client.token().id, "--data", omega.data)
        assert code == 0
        code, _, _ = run("token", "add", "--role", "owner", "--data", omega.data)
        assert code == 0
        with closing(Database(omega.data / "node.db")) as database:
            checkpoint = open_checkpoint(kept["checkpoint"], [Verifier.parse(kept["key"])])
            assert audit(database, [checkpoint]).checkpoints == 1
            said = [(change.facts["kind"], change.facts["by"]) for change in read_changes(database)]
        begun = [("journal-began", "the node"), *[("token-added", "the node")] * len(Scope)]
        assert said[: len(begun)] == begun
        change = [("operation-began", admin), ("operation-ended", "the node")]
        assert said[len(begun) : -2] == [
            ("licence-kept", admin), *change, *change, ("offered", admin), *change, ("licence-revoked", admin),
        ]  # fmt: skip
        assert [kind for kind, _ in said[-2:]] == ["token-removed", "token-added"]
        assert all(by.endswith(" on this machine") for _, by in said[-2:])


@pytest.mark.parametrize("killed", [False, True], ids=["asked", "killed before it was written down"])
def test_a_root_that_is_installed_is_in_it(tmp_path: Path, killed: bool) -> None:
    signed = {"unsigned_releases": False}
    with NodeProcess(tmp_path / "omega", role=Role.OMEGA, settings=signed) as omega, omega.client() as client:
        asked = f"token {client.token().id}"
        given = People().begin(client)
        if killed:
            omega.kill9()
            OmegaTrust(omega.data / "trust").install(given)
            omega.start()
        for _ in range(2):
            client.put_trust(given)
        with closing(Database(omega.data / "node.db")) as database:
            found = [change.facts for change in read_changes(database) if change.facts["kind"] == "trust-added"]
    assert {facts["id"] for facts in found} == {"root", "targets"}
    assert len(found) == 2
    assert {(facts["by"], facts["target"], facts["version"]) for facts in found} == {
        ("the node" if killed else asked, "omega", 1)
    }
