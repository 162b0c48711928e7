"""`deploy audit` against everything that can be done to a record, on both databases."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ashat.cli.main import run
from ashat.common.canonical_json import canonical_json
from ashat.deployment import events as e
from ashat.ledger.database import append_leaf
from ashat.ledger.leaf import leaf_of
from ashat.ledger.ledger import Ledger
from ashat.transparency.checkpoint import Verifier, open_checkpoint
from tests.support.builders.ledgers import CREATED, T0, connected, execute, honest, rewrite
from tests.support.needs import requires_postgresql
from tests.support.processes.deploy_cli import environment

EVENTS = 19  # of `record`: eleven of UPD-1, eight of UPD-2


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=requires_postgresql)])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    if request.param == "sqlite":
        found = f"sqlite:///{tmp_path / 'home/ledger.db'}"
    else:
        found = str(request.getfixturevalue("postgresql_url"))
        monkeypatch.setenv("ASHAT_LEDGER_URL", found)
    return found


@pytest.fixture
def record(url: str) -> str:
    """The address of a ledger with two updates at their gates."""
    with Ledger.open(url) as ledger:
        honest(ledger, "UPD-1", 3)
        honest(ledger, "UPD-2")
    return url


class Deploy:
    """Runs `deploy audit` in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> str:
        """What it prints; it has to succeed."""
        code = run(["audit", *words])
        told = self._capsys.readouterr()
        assert (code, told.err) == (0, "")
        return told.out

    def refused(self, *words: str, code: int = 1) -> str:
        """The one line that it ends with; it has to fail."""
        assert run(["audit", *words]) == code
        told = self._capsys.readouterr().err
        assert len(told.splitlines()) == 1
        return told


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]) -> Deploy:
    return Deploy(capsys)


def vkey() -> str:
    (found,) = Path("home/audit").glob("*/key.vkey")
    return found.read_text().strip()


def test_an_honest_record_fits(record: str, audit: Deploy) -> None:
    assert "none that was signed is here" in audit("verify")
    note = audit("checkpoint")
    found = open_checkpoint(note, [Verifier.parse(vkey())])
    assert note.splitlines()[1] == str(found.size) == str(EVENTS)
    told = json.loads(audit("verify", "--json"))
    assert (told["fits"], told["events"], told["deployments"], told["documents"]) == (True, EVENTS, 2, 2)
    assert told["checkpoint"]["size"] == EVENTS
    assert told["root"] == note.splitlines()[2]
    assert told["signed_by"] == "+".join(vkey().split("+")[:2])
    assert audit("checkpoint") == note
    shown = json.loads(audit("checkpoint", "--json"))
    assert (shown["checkpoint"], shown["key"], shown["size"]) == (note, vkey(), EVENTS)


def test_an_empty_record_is_signed_too(url: str, audit: Deploy) -> None:
    first = Path("first")
    first.write_text(audit("checkpoint"), "utf-8")
    assert first.read_text("utf-8").splitlines()[1] == "0"
    audit("export", "empty.jsonl")
    assert "0, of 0 deployments" in audit("verify", "empty.jsonl")
    with Ledger.open(url) as ledger:
        honest(ledger, "UPD-1")
    assert "the first 0 events are what they were" in audit("verify", "--since", "first")


def test_the_key_is_nobody_elses_to_read(record: str, audit: Deploy) -> None:
    audit("checkpoint")
    (pem,) = Path("home/audit").glob("*/key.pem")
    assert pem.stat().st_mode & 0o777 == 0o600
    assert pem.parent.stat().st_mode & 0o777 == pem.parents[1].stat().st_mode & 0o777 == 0o700
    pem.chmod(0o640)
    assert "chmod 600" in audit.refused("checkpoint")
    pem.chmod(0o600)
    pem.write_text("no key")
    assert "no Ed25519 key" in audit.refused("checkpoint")
    pem.unlink()
    assert "restore it, or remove" in audit.refused("checkpoint")
    shutil.rmtree(pem.parent)
    audit("checkpoint")


def test_a_record_that_goes_on_continues_its_checkpoints(record: str, audit: Deploy) -> None:
    Path("older").write_text(audit("checkpoint"), "utf-8")
    audit("export", "older.jsonl")
    with Ledger.open(record) as ledger:
        ledger.append(ledger.load("UPD-1"), e.Cancelled(at=T0))
        honest(ledger, "UPD-3")
    audit("export", "newer.jsonl")
    for since in ("older", "older.jsonl"):
        for file in ([], ["newer.jsonl"]):
            told = json.loads(audit("verify", *file, "--since", since, "--json"))
            assert (told["events"], told["since"]["size"]) == (EVENTS + 9, EVENTS)
    cut = f"was cut: it had {EVENTS + 9} events, and has {EVENTS}"
    assert cut in audit.refused("verify", "older.jsonl", "--since", "newer.jsonl")


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("harm", "named"),
    [
        # The body of an event, so that it is another, no event, or no JSON.
        ("update events set body = replace(body, '描述', '描') where seq = 11", "Event 12 (UPD-2 attempt 1 version 1)"),
        ("update events set body = '{}' where seq = 3", "Event 4 (UPD-1 attempt 1 version 4)"),
        ("update events set body = 'x' where seq = 18", "Event 19 (UPD-2 attempt 1 version 8)"),
        ("update events set body = replace(body, ':', ': ') where seq = 0", "Event 1 (UPD-1 attempt 1 version 1)"),
        # Whose it is.
        ("update events set update_id = 'UPD-9' where update_id = 'UPD-2'", "Event 12 (UPD-9 attempt 1 version 1)"),
        ("update events set attempt = 2 where seq = 5", "Event 6 (UPD-1 attempt 2 version 6)"),
        # The order, and what is there.
        ("update events set seq = 90 - seq where seq in (4, 5)", "Event 5 (UPD-1 attempt 1 version 7)"),
        ("update events set root = 'aa' where seq = 7", "Event 8 (UPD-1 attempt 1 version 8)"),
        ("delete from events where seq = 0", "Event 1 (UPD-1 attempt 1 version 2)"),
        ("delete from events where seq = 10", "Event 11 (UPD-2 attempt 1 version 1)"),
        ("delete from events where seq >= 15", "Event 16 is missing: 19 were appended"),
        ("delete from events", "Event 1 is missing: 19 were appended"),
        # What they name.
        ("update documents set body = replace(body, 'saw', 'SAW')", "Event 6 (UPD-1 attempt 1 version 6)"),
        ("update documents set body = 'x' where kind = 'evidence'", "Event 6 (UPD-1 attempt 1 version 6)"),
        ("delete from documents where kind = 'gate'", "Event 8 (UPD-1 attempt 1 version 8)"),
    ],
)  # fmt: skip
def test_what_was_done_to_the_database_is_named(
    record: str, audit: Deploy, capsys: pytest.CaptureFixture[str], harm: str, named: str, signed: bool
) -> None:
    if signed:
        audit("checkpoint")
    execute(record, harm)
    assert named in audit.refused("verify")
    assert run(["audit", "verify", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["fits"] is False
    assert told["why"].startswith(named)
    assert f"Event {told['event']} " in named[: len(f"Event {told['event']} ")]
    if told["update_id"]:
        assert f"({told['update_id']} attempt {told['attempt']} version {told['version']})" in named
    assert "Event" in audit.refused("export", "x.jsonl")
    assert not Path("x.jsonl").exists()
    if "documents" not in harm:
        assert "Event" in audit.refused("checkpoint")


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (
            "update sessions set summary = replace(summary, 'AwaitingApproval', 'Completed')",
            "UPD-1 attempt 1: its stage",
        ),
        (
            "update sessions set summary = 'x' where update_id = 'UPD-2'",
            "UPD-2 attempt 1: its summary is another there",
        ),
        ("update sessions set version = 3 where update_id = 'UPD-2'", "UPD-2 attempt 1: it is at version 3 there"),
        ("delete from sessions where update_id = 'UPD-1'", "UPD-1 attempt 1: only one of the two has it"),
        ("update sessions set update_id = 'UPD-0' where update_id = 'UPD-1'", "UPD-0 attempt 1: only one of the two"),
    ],
)
def test_a_list_that_says_otherwise_is_named(record: str, audit: Deploy, harm: str, named: str) -> None:
    execute(record, harm)
    assert named in audit.refused("verify")
    audit("export", "x.jsonl")
    audit("verify", "x.jsonl")


def test_a_record_that_grows_while_it_is_checked_fits(record: str, audit: Deploy, monkeypatch: Any) -> None:
    listed = Ledger.listed

    def meanwhile(self: Ledger) -> Any:
        found = listed(self)
        with Ledger.open(record) as another:
            honest(another, "UPD-3")
            another.append(another.load("UPD-1"), e.Cancelled(at=T0))
        return found

    monkeypatch.setattr(Ledger, "listed", meanwhile)
    assert json.loads(audit("verify", "--json"))["events"] == EVENTS + 9


def test_a_reordered_log_is_named(record: str, audit: Deploy) -> None:
    for before, after in ((10, 90), (11, 10), (90, 11)):
        execute(record, f"update events set seq = {after} where seq = {before}")
    assert "Event 11 (UPD-2 attempt 1 version 1)" in audit.refused("verify")


def test_a_log_that_was_rewritten_with_care_is_caught_by_what_was_signed(record: str, audit: Deploy) -> None:
    note = audit("checkpoint")
    Path("older").write_text(note, "utf-8")
    audit("export", "older.jsonl")
    rewrite(record, 12, lambda event: event.update(bundle="b" * 64))
    assert "are not those that it had" in audit.refused("verify")
    assert "are not those that it had" in audit.refused("verify", "--since", "older")
    named = audit.refused("verify", "--since", "older.jsonl")
    assert "Event 13 (UPD-2 attempt 1 version 2) does not fit: the older export" in named
    assert "are not those that it had" in audit.refused("checkpoint")
    for path in Path("home/audit").glob("*/checkpoint"):
        path.unlink()  # whoever has the machine can have it signed, which is why checkpoints are to be kept elsewhere
    assert audit("checkpoint") != note
    audit("export", "newer.jsonl")
    audit("verify", "newer.jsonl")
    assert "are not those that it had" in audit.refused("verify", "newer.jsonl", "--since", "older")
    assert "Event 13 (UPD-2" in audit.refused("verify", "newer.jsonl", "--since", "older.jsonl")


def test_a_log_cut_off_with_care_is_caught_by_what_was_signed(record: str, audit: Deploy) -> None:
    audit("checkpoint")
    with connected(record) as connection:
        connection.execute(sa.text("delete from events where seq >= 11"))
        connection.execute(sa.text("update log set size = 0, frontier = ''"))
        for row in connection.execute(sa.text("select * from events order by seq")).mappings().all():
            append_leaf(connection, leaf_of(row["update_id"], row["attempt"], row["version"], row["body"]))
    assert "Events 12 to 19 of the ledger are missing" in audit.refused("verify")


def test_events_that_the_state_machine_would_have_refused_are_named(record: str, audit: Deploy) -> None:
    rewrite(record, 1, lambda event: event.update(kind="promoting", operation="op"))
    told = audit.refused("verify")
    assert "Event 2 (UPD-1 attempt 1 version 2) does not fit: this version knows no such event" in told
    rewrite(
        record, 1, lambda event: (event.clear(), event.update(kind="rolled_back", at="2026-01-01T00:00:00Z", by=""))
    )
    told = audit.refused("verify")
    assert "Event 2 (UPD-1 attempt 1 version 2) does not fit: nothing of that kind may happen there" in told


def test_an_attempt_that_should_not_be_is_named(record: str, audit: Deploy) -> None:
    body = canonical_json(CREATED.model_dump(mode="json")).decode()
    columns = "(update_id, attempt, version, kind, at, body, seq, root)"
    with connected(record) as connection:
        seq, root = append_leaf(connection, leaf_of("UPD-1", 2, 1, body))
        connection.execute(
            sa.text(f"insert into events {columns} values ('UPD-1', 2, 1, 'created', '', :body, :seq, :root)"),
            {"body": body, "seq": seq, "root": root},
        )
    told = audit.refused("verify")
    assert "Event 20 (UPD-1 attempt 2 version 1) does not fit: no attempt came before it" in told


def test_events_of_an_attempt_may_follow_the_beginning_of_the_next(record: str, audit: Deploy) -> None:
    with Ledger.open(record) as ledger:
        first = ledger.append(ledger.load("UPD-1"), e.Cancelled(at=T0))
        ledger.create("UPD-1", CREATED)
        ledger.append(first, e.PublicRestored(at=T0, to_bundle=None))
    assert json.loads(audit("verify", "--json"))["deployments"] == 3


def test_two_branches_of_a_log_are_told_apart(tmp_path: Path, audit: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    home, branch = tmp_path / "home", tmp_path / "branch"
    monkeypatch.chdir(tmp_path)
    with Ledger.open(f"sqlite:///{home / 'ledger.db'}") as ledger:
        honest(ledger, "UPD-1")
    monkeypatch.setenv("ASHAT_HOME", str(home))
    Path("common").write_text(audit("checkpoint"), "utf-8")
    shutil.copytree(home, branch)
    for where, name in ((home, "UPD-2"), (branch, "UPD-3")):
        with Ledger.open(f"sqlite:///{where / 'ledger.db'}") as ledger:
            honest(ledger, name)
        monkeypatch.setenv("ASHAT_HOME", str(where))
        audit("verify", "--since", "common")
        Path(f"{name}.checkpoint").write_text(audit("checkpoint"), "utf-8")
        audit("export", f"{name}.jsonl")
    assert "was rewritten or forked: its first" in audit.refused("verify", "--since", "UPD-2.checkpoint")
    told = audit.refused("verify", "UPD-3.jsonl", "--since", "UPD-2.jsonl")
    assert "Event 9 (UPD-3 attempt 1 version 1) does not fit: the older export" in told


# Exports, and who signed them.


def test_an_export_is_checked_without_the_ledger(record: str, audit: Deploy, tmp_path: Path) -> None:
    assert f"{EVENTS} events" in audit("export", "x.jsonl")
    key = vkey()
    Path("key").write_text(f"{key}\n")
    shutil.rmtree("home", ignore_errors=True)
    assert "give --key VKEY" in audit.refused("verify", "x.jsonl", code=2)
    for given in (key, "key"):
        told = json.loads(audit("verify", "x.jsonl", "--key", given, "--json"))
        assert (told["events"], told["documents"], told["checkpoint"]["size"]) == (EVENTS, 2, EVENTS)
    assert not Path("home/ledger.db").exists()


def test_a_checkpoint_signed_by_another_key_is_refused(record: str, audit: Deploy, monkeypatch: Any) -> None:
    audit("export", "x.jsonl")
    key = vkey()
    Path("home").rename("ours")
    if not record.startswith("sqlite"):
        audit("export", "y.jsonl")  # the same ledger, from a machine with another key
    else:
        Path("home").mkdir()
        shutil.copy("ours/ledger.db", "home/ledger.db")
        audit("export", "y.jsonl")
    assert "is signed by" in audit.refused("verify", "y.jsonl", "--key", key)
    assert "is signed by" in audit.refused("verify", "x.jsonl")
    assert "is no verifier key" in audit.refused("verify", "x.jsonl", "--key", "nonsense")
    assert "is signed by" in audit.refused("verify", "y.jsonl", "--since", "x.jsonl")


def test_a_checkpoint_of_another_log_is_refused(tmp_path: Path, audit: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        monkeypatch.setenv("ASHAT_HOME", str(tmp_path / name))
        (tmp_path / f"{name}.checkpoint").write_text(audit("checkpoint"), "utf-8")
        audit("export", str(tmp_path / f"{name}.jsonl"))
    (vkey_of_one,) = (tmp_path / "one/audit").glob("*/key.vkey")
    for since in ("one.checkpoint", "one.jsonl"):
        words = ("--since", str(tmp_path / since), "--key", vkey_of_one.read_text())
        assert "is of another log" in audit.refused("verify", *words)


def test_an_export_with_a_bit_flipped_is_refused(tmp_path: Path, audit: Deploy, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    with Ledger.open(f"sqlite:///{tmp_path / 'home/ledger.db'}") as ledger:
        honest(ledger, "UPD-1")
    path = tmp_path / "x.jsonl"
    audit("export", str(path))
    key = vkey()
    audit("verify", str(path), "--key", key)
    whole = path.read_bytes()
    changed = tmp_path / "y.jsonl"
    for at in range(0, len(whole), 13):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        changed.write_bytes(flipped)
        assert audit.refused("verify", str(changed), "--key", key), at


def test_an_export_that_was_edited_is_named(record: str, audit: Deploy) -> None:
    audit("export", "x.jsonl")
    lines = Path("x.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + EVENTS + 2
    first_document = next(number for number, line in enumerate(lines) if line.startswith(b'{"document"'))
    assert first_document == 6

    def told(*changed: bytes) -> str:
        Path("y.jsonl").write_bytes(b"".join(changed))
        return audit.refused("verify", "y.jsonl")

    assert "which ends with event 18 (UPD-2 attempt 1 version 7), was cut: it had 19" in told(*lines[:-1])
    assert "Event 2 (UPD-1 attempt 1 version 3)" in told(*lines[:2], *lines[3:])
    assert "Event 1 (UPD-1 attempt 1 version 2)" in told(lines[0], lines[2], lines[1], *lines[3:])
    assert "Event 6 (UPD-1 attempt 1 version 6) does not fit: evidence" in told(*lines[:6], *lines[7:])
    assert "does not name" in told(*lines[:3], lines[6], *lines[3:])
    assert "a document that no event names" in told(*lines, lines[6])
    assert "Event 20" in told(*lines, lines[-1])
    assert "line 3 of y.jsonl was altered or cut off" in told(*lines[:2], lines[2][:40])
    assert "after UPD-1 attempt 1 version 1, does not fit: line 3" in told(*lines[:2], b'{"more":1}\n', *lines[2:])
    assert "is no export" in told(b"hello\n", *lines[1:])
    newer = lines[0].replace(b"ashat-audit-2", b"ashat-audit-3")
    assert "has the format 'ashat-audit-3', and this version reads ashat-audit-2" in told(newer, *lines[1:])
    assert "holds no roots" in told(lines[0].replace(b'"roots":{}', b'"roots":[0]'), *lines[1:])
    assert "cannot be read" in audit.refused("verify", "nowhere.jsonl")
    assert "was not written" in audit.refused("export", "nowhere/x.jsonl")
    assert "cannot be read" in audit.refused("verify", "--since", "nowhere")
    Path("noise").write_bytes(b"\xff\xfe")
    assert "no text in UTF-8" in audit.refused("verify", "--since", "noise", code=2)


def test_an_export_of_more_than_was_signed_names_the_first_that_was_not(record: str, audit: Deploy) -> None:
    audit("export", "short.jsonl")
    with Ledger.open(record) as ledger:
        ledger.append(ledger.load("UPD-2"), e.Cancelled(at=T0))
    audit("export", "long.jsonl")
    header = Path("short.jsonl").read_bytes().splitlines(keepends=True)[0]
    rest = Path("long.jsonl").read_bytes().splitlines(keepends=True)[1:]
    Path("both.jsonl").write_bytes(header + b"".join(rest))
    told = audit.refused("verify", "both.jsonl")
    assert f"Event {EVENTS + 1} does not fit: the checkpoint covers {EVENTS} only" in told


def test_it_starts_without_prefect(record: str, tmp_path: Path) -> None:
    script = (
        "import json, sys; from ashat.cli.main import run\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    loaded = [run(words), *(name for name in ('prefect', 'httpx', 'fastapi') if name in sys.modules)]\n"
        "    print(loaded, file=sys.stderr)"
    )
    env = {} if record.startswith("sqlite") else {"ASHAT_LEDGER_URL": record}
    commands = (["audit", "checkpoint"], ["audit", "verify"], ["audit", "export", str(tmp_path / "x")])
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(commands)],
        env=environment(tmp_path / "home", env), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "[0]\n" * len(commands))
