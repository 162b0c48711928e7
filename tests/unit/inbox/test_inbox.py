"""`deploy inbox` lists what waits, for whom, and what was not looked at; the page in Prefect says the same."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from securesystemslib.signer import CryptoSigner

from ashat.cli.main import run
from ashat.deployment import events as e
from ashat.deployment.state_machine import Stage
from ashat.errors import LedgerError
from ashat.inbox.gather import gather
from ashat.ledger.ledger import Ledger
from ashat.ledger.summaries import CHANNELS, TROUBLES, document, glance
from ashat.protocol.messages import ReleaseSignature, TrustState
from ashat.trust.authority.authority import Authority
from ashat.trust.authority.key_change import without
from ashat.trust.authority.pending_change import PendingChange
from ashat.trust.keys.files import OnlinePublicKeys, public_hex, public_pem
from ashat.trust.tuf.metadata import Lifetimes
from tasks.runtime.inbox_page import inbox_markdown
from tests.support.builders.deployments import open_ledger, record
from tests.support.builders.trust_world import World, key_pair

DAY = timedelta(days=1)
RUN = "00000000-0000-0000-0000-000000000000"
UI = "http://prefect.example.com:4200"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("ASHAT_LEDGER_URL", raising=False)
    return tmp_path / "home"


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    with open_ledger(home) as opened:
        yield opened


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "repository")


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["inbox", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def save_public(directory: Path, signer: CryptoSigner, name: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.pub").write_text(public_pem(signer))
    return directory / f"{name}.pem"


def ask_people(ledger: Ledger, update_id: str, world: World, *signed: CryptoSigner) -> None:
    """Put the question of an update's release anew, to be signed by the world's approvers; some have."""
    state, now = ledger.load(update_id), datetime.now(UTC)
    proposal = ledger.put_document("proposal", {"targets": world.repository.read().targets.to_bytes().decode()})
    asked = e.ApprovalRequested(at=now, ordinal=2, run=RUN, shown=state.gate and state.gate.shown, proposal=proposal)
    state = ledger.append(state, asked)
    for signer in signed:
        name = signer.public_key.unrecognized_fields["x-ashat-name"]
        signature = ReleaseSignature(name=name, keyid=signer.public_key.keyid, release="ab" * 32)
        answer = e.ApprovalAnswered(
            at=now, ordinal=2, decision="approve", accepted=True, approver=name, signature=signature
        )
        state = ledger.append(state, answer)


def test_gates_and_rollbacks_are_listed_with_their_end_and_the_form(
    home: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    record(ledger, "UPD-later", Stage.AWAITING_APPROVAL, at=now - DAY, expires=now + 3 * DAY)
    record(ledger, "UPD-sooner", Stage.AWAITING_APPROVAL, at=now - 2 * DAY, expires=now + DAY, outcome="attention")
    record(ledger, "UPD-overdue", Stage.AWAITING_APPROVAL, at=now - 9 * DAY, expires=now)
    shipped = record(ledger, "UPD-shipped", Stage.COMPLETED, at=now - DAY)
    back = e.ApprovalRequested(
        at=now - timedelta(hours=1),
        subject="rollback",
        ordinal=1,
        run=RUN,
        expires=now + 2 * DAY,
        to_update="UPD-before",
        to_attempt=1,
        evidence="e" * 64,
        why="its signed rollback is gone",
    )
    ledger.append(shipped, back)
    monkeypatch.setenv("PREFECT_API_URL", f"{UI}/api")
    found = listed(capsys)["waiting"]
    assert [one["about"] for one in found] == ["UPD-sooner", "UPD-shipped", "UPD-later"]
    assert [one["kind"] for one in found] == ["release", "rollback", "release"]
    assert [one["until"] for one in found] == [(now + n * DAY).isoformat() for n in (1, 2, 3)]
    opened = datetime.fromisoformat(found[2]["since"])
    assert now - DAY < opened < now - DAY + timedelta(minutes=1)
    assert found[0]["link"] == f"{UI}/runs/flow-run/{RUN}"
    assert found[0]["how"] == "deploy approve UPD-sooner"
    assert "an approval needs a comment" in found[0]["what"]
    assert "go back to UPD-before? its signed rollback is gone" in found[1]["what"]
    assert run(["inbox"]) == 0
    told = capsys.readouterr().out
    assert f"form   {UI}/runs/flow-run/{RUN}\n" in told
    assert "UPD-overdue" not in told


def test_where_people_sign_only_those_who_have_not_can_answer(
    home: Path, ledger: Ledger, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kim, lee, noa = world.approvers
    record(ledger, "UPD-1", Stage.AWAITING_APPROVAL)
    ask_people(ledger, "UPD-1", world, lee)
    (one,) = listed(capsys)["waiting"]
    assert (one["who"]["signers"], one["who"]["signed"], one["who"]["needed"]) == (["kim", "noa"], ["lee"], 1)
    assert one["how"] == "deploy approve UPD-1 --key FILE.pem"

    assert listed(capsys, "--mine") == {**listed(capsys), "waiting": [], "others": 1}
    elsewhere = save_public(tmp_path / "stick", noa, "noa")
    assert [one["about"] for one in listed(capsys, "--mine", "--key", str(elsewhere))["waiting"]] == ["UPD-1"]
    signed = save_public(tmp_path / "stick", lee, "lee")
    assert listed(capsys, "--mine", "--key", str(signed))["waiting"] == []
    save_public(home / "trust" / "keys", kim, "kim")
    assert [one["about"] for one in listed(capsys, "--mine")["waiting"]] == ["UPD-1"]
    assert run(["inbox", "--key", str(elsewhere)]) == 2
    assert run(["inbox", "--mine", "--key", str(tmp_path / "none.pem")]) == 1
    assert capsys.readouterr().err.count("\n") == 2


def test_what_nobody_can_approve_yet_says_so_and_waits_for_whoever_can_reject_it(
    home: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    state = record(ledger, "UPD-1", Stage.AWAITING_APPROVAL)
    ledger.append(state, e.ApprovalRequested(at=datetime.now(UTC), ordinal=2, run=RUN, obstacle="OMEGA is silent"))
    assert listed(capsys, "--mine")["waiting"] == []
    monkeypatch.setenv("PREFECT_API_URL", f"{UI}/api")
    (one,) = listed(capsys, "--mine")["waiting"]
    assert one["what"] == "it can only be rejected yet, since OMEGA is silent"


def test_changes_of_trust_wait_for_those_who_still_have_to_sign(
    home: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no trust root is kept in this home" in str(listed(capsys)["not_looked_at"])
    kim, lee, noa = world.approvers
    authority, now = Authority(home), datetime.now(UTC)
    online = {name: public_hex(key_pair(name)) for name in ("snapshot", "timestamp")}
    authority.init([key.public_key for key in world.approvers], 2, online=OnlinePublicKeys.of(online), now=now)
    authority.sign(lee)
    (first,) = listed(capsys)["waiting"]
    assert "not signed by enough" in first["what"]
    assert (first["who"]["signers"], first["who"]["needed"]) == (["kim", "noa"], 1)
    authority.sign(kim)
    assert listed(capsys)["waiting"] == []

    pending = PendingChange(authority)
    seen = TrustState(target="omega", online=online)
    change = pending.plan(
        seen, lambda roles: roles.held_by(without(roles.approvers, "noa", 2)), now=now, approval_lifetime=86400.0
    )
    pending.begin(change)
    (planned,) = listed(capsys)["waiting"]
    assert planned["since"] == now.isoformat(timespec="seconds")
    assert "noa" in planned["what"]
    assert (planned["who"]["signers"], planned["who"]["needed"]) == (["kim", "lee", "noa"], 2)
    pending.sign(kim)
    pending.sign(lee)
    (signed,) = listed(capsys)["waiting"]
    assert signed["how"] == "deploy trust publish"
    assert (signed["who"]["signers"], signed["who"]["needed"]) == ([], 0)
    assert noa.public_key.keyid not in str(signed)


def test_a_root_that_ends_within_a_month_waits_to_be_renewed_and_one_that_cannot_be_read_is_said(
    home: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    authority, now = Authority(home), datetime.now(UTC)
    online = OnlinePublicKeys.of({name: public_hex(key_pair(name)) for name in ("snapshot", "timestamp")})
    short = Lifetimes(root=29 * 86400, targets=300 * 86400)
    authority.init([key.public_key for key in world.approvers], 2, online=online, now=now, lifetimes=short)
    for key in world.approvers[:2]:
        authority.sign(key)
    (one,) = listed(capsys)["waiting"]
    assert one["how"] == "deploy trust renew"
    assert one["until"] == authority.read().root.signed.expires.isoformat()
    for damaged in (b"{}", b"no JSON", b"[1, 2]", b"\xff", b'{"signed": {"roles": 7}}'):
        (authority.directory / "root.json").write_bytes(damaged)
        found = listed(capsys)
        assert found["waiting"] == []
        assert "the trust root of omega could not be read" in str(found["not_looked_at"])


def test_servers_in_trouble_wait_too_and_what_was_not_looked_at_is_said(
    home: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    since = datetime(2026, 11, 1, tzinfo=UTC).isoformat()
    dead = {"server": "omega", "name": "production", "kind": "unreachable", "what": "no answer", "since": since}
    ledger.put_newest(TROUBLES, {"troubles": [dead]})
    channel = {"server": "slack-webhook/ops", "kind": "channel", "what": "it answered 500", "since": since}
    ledger.put_newest(CHANNELS, {"troubles": [channel]})
    found = listed(capsys)
    assert {(one["kind"], one["about"], one["since"]) for one in found["waiting"]} == {
        ("server", "production", since),
        ("channel", "slack-webhook/ops", since),
    }
    assert "what production runs, since it does not answer" in found["not_looked_at"]
    assert "the control plane does not run" in str(found["not_looked_at"])


def test_the_page_in_prefect_lists_the_same_and_escapes_what_others_wrote(
    home: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.runtime.inbox_page.url_for", lambda kind, obj_id: f"{UI}/runs/{kind}/{obj_id}")
    record(ledger, "UPD-1", Stage.AWAITING_APPROVAL, description="a | b <img src=x> [here](http://elsewhere)")
    now = datetime.now(UTC)
    summaries, troubles = glance()
    page = inbox_markdown(gather(home, summaries, troubles, document, now), now)
    assert f"[the form]({UI}/runs/flow-run/{UUID(RUN)})" in page
    assert "<img" not in page
    assert "[here](" not in page
    assert r"a \| b" in page
    assert "Not looked at:" in page
    assert "Nothing waits." in inbox_markdown(gather(home, [], [], document, now), now)


def test_a_document_is_read_quickly_only_where_it_is_what_its_digest_says(home: Path, ledger: Ledger) -> None:
    digest = ledger.put_document("gate", {"markdown": "ü"})
    assert document(digest) == {"markdown": "ü"}
    with pytest.raises(LedgerError, match="holds no document"):
        document("0" * 64)


def test_a_gate_that_an_earlier_version_opened_is_listed_too(
    home: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    record(ledger, "UPD-before", Stage.AWAITING_APPROVAL)
    record(ledger, "UPD-done", Stage.COMPLETED)
    with closing(sqlite3.connect(home / "ledger.db")) as database, database:
        for update_id, text in database.execute("SELECT update_id, summary FROM sessions").fetchall():
            earlier = {key: value for key, value in json.loads(text).items() if key != "requests"}
            database.execute("UPDATE sessions SET summary = ? WHERE update_id = ?", (json.dumps(earlier), update_id))
    (one,) = listed(capsys)["waiting"]
    assert (one["about"], one["run"]) == ("UPD-before", RUN)
