"""`deploy doctor` with everything broken, one thing broken, and nothing broken: it says so, changes nothing, ends."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ashat.cli.commands import doctor
from ashat.cli.control_plane import api
from ashat.cli.main import run
from ashat.node.cli import check
from tests.support.fakes.answering_server import a_node, answering
from tests.support.fakes.stranger import silent, stranger
from tests.support.processes.node import ROOT

Found = dict[str, tuple[str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith(("ASHAT_", "PREFECT_"))]:
        if name not in ("ASHAT_TEST_RUN", "ASHAT_TEST_REQUIRE"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def examined(capsys: pytest.CaptureFixture[str], code: int) -> Found:
    assert run(["doctor", "--json"]) == code
    shown = json.loads(capsys.readouterr().out)
    assert shown["wrong"] is bool(code)
    return {finding["what"]: (finding["verdict"], finding["seen"]) for finding in shown["findings"]}


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
    }


@contextmanager
def prefect(servers: list[dict[str, Any]], **more: Any) -> Iterator[str]:
    """Prefect's API, with a worker in each pool and these server blocks."""
    workers = [{"name": "w", "status": "ONLINE"}]
    answers = {
        "/api/admin/version": "3.9.1",
        "/api/deployments/count": 7,
        "/api/work_pools/alpha/workers/filter": workers,
        "/api/work_pools/control/workers/filter": workers,
        "/api/block_types/slug/raos-server/block_documents": [
            {"name": server["role"], "data": {"title": server["role"], **server}} for server in servers
        ],
    }
    with answering({**answers, **more}) as url:
        yield f"{url}/api"


def test_where_nothing_is_set_up_yet_nothing_is_wrong_and_nothing_is_made(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = examined(capsys, 0)
    assert found["home"] == ("ok", f"{home} is not there yet; the first command that needs it makes it")
    assert found["control plane"][0] == "warning"
    assert found["servers, workers"][0] == "not looked at"
    assert found["root of omega"][0] == "warning"
    assert list(tmp_path.iterdir()) == []


def test_with_everything_broken_each_is_named_and_nothing_changes(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = home / "trust" / "keys" / "kim.pem"
    key.parent.mkdir(parents=True)
    key.write_text("key")
    key.chmod(0o644)
    home.chmod(0o755)
    (home / "ledger.db").write_bytes(b"garbage" * 1000)
    (home / "control.json").write_text("{")
    (home / "trust" / "authority" / "omega").mkdir(parents=True)
    for name in ("root.json", "targets.json"):
        (home / "trust" / "authority" / "omega" / name).write_text("garbage")
    monkeypatch.setenv("ASHAT_GATE_TIMEOUT", "soon")
    monkeypatch.setenv("HTTPS_PROXY", "no proxy")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    monkeypatch.setenv("PATH", str(tmp_path))
    before = tree(tmp_path)
    found = examined(capsys, 1)
    assert tree(tmp_path) == before
    wrong = {what for what, (verdict, _) in found.items() if verdict == "wrong"}
    assert wrong == {"settings", "secrets", "git", "ledger", "control plane", "root of omega"}
    assert found["home"][0] == "warning"
    assert str(key) in found["secrets"][1]
    assert run(["doctor"]) == 1
    assert "   → correct ASHAT_GATE_TIMEOUT, or unset it" in capsys.readouterr().out


def test_a_control_plane_that_says_nothing_is_not_waited_for(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_SECONDS", 0.3)
    monkeypatch.setattr(api.PrefectApi.ask, "__kwdefaults__", {"seconds": 0.3})
    with stranger(silent) as url:
        monkeypatch.setenv("PREFECT_API_URL", f"{url}/api")
        found = examined(capsys, 1)
    assert found["control plane"][0] == "wrong"
    assert "does not answer" in found["control plane"][1]
    assert found["servers, workers"][0] == "not looked at"


def test_servers_tokens_workers_and_channels_are_looked_at(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = (datetime.now(UTC) + timedelta(days=5)).isoformat()
    opens = {"id": "1f2e", "name": "first", "created": "2026-01-01T00:00:00Z"}
    dev = {"/v1/token": {**opens, "opens": ["read"], "expires": None}}
    short = {"/v1/token": {**opens, "opens": ["read", "push"], "expires": soon}}
    monkeypatch.setenv("ASHAT_NOTIFY", "slack-webhook/releases, sendgrid-email/owner")
    with answering({**a_node("public"), **short}) as public, answering({**a_node("omega"), **dev}) as omega:
        servers = [
            {"role": "public", "url": public, "token": "t-public"},
            {"role": "omega", "url": omega, "token": "t-omega"},
        ]
        channel = {"/api/block_types/slug/slack-webhook/block_documents/name/releases": {"id": 1}}
        added = {"/api/variables/name/ashat_channels": {"value": {"channels": [{"block": "twilio-sms/night"}]}}}
        tracker = {"block": "raos-jira-tracker/work", "kind": "jira", "prefixes": ["PROJ-"]}
        added["/api/variables/name/ashat_trackers"] = {"value": {"trackers": [tracker]}}
        with prefect(servers, **channel, **added, **{"/api/work_pools/alpha/workers/filter": []}) as url:
            monkeypatch.setenv("PREFECT_API_URL", url)
            found = examined(capsys, 1)
    verdicts = {what: verdict for what, (verdict, _) in found.items()}
    assert verdicts["public, role"] == verdicts["omega, role"] == "ok"
    assert verdicts["public, token"] == "warning"
    assert "expires at" in found["public, token"][1]
    assert (verdicts["omega, token"], "not push, promote" in found["omega, token"][1]) == ("warning", True)
    assert (verdicts["pool alpha"], verdicts["pool control"]) == ("wrong", "ok")
    assert verdicts["channel slack-webhook/releases"] == "ok"
    assert verdicts["channel sendgrid-email/owner"] == "wrong"
    assert verdicts["channel twilio-sms/night"] == "wrong"
    assert verdicts["tracker raos-jira-tracker/work"] == "wrong"
    assert "t-public" not in str(found)
    assert "t-omega" not in str(found)


@pytest.mark.parametrize(
    ("block", "verdict", "seen"),
    [
        ({"waves": ["canary: 5", "everyone: rest"]}, "ok", "canary: 5; everyone: rest"),
        ({"size_waves_by_a_test": True, "waves": ["canary: 5"]}, "ok", "a sequential test"),
        (
            {"waves": ["canary: 5"]},
            "wrong",
            "waves: nobody takes the rest: the last wave, 'canary', needs rest = true.",
        ),
        ({"success_percent": 900}, "wrong", "success_percent: Input should be less than or equal to 100."),
        (None, "wrong", "there is no such block"),
    ],
)
def test_the_rollout_policy_that_is_named_is_looked_at(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, block: Any, verdict: str, seen: str
) -> None:
    monkeypatch.setenv("ASHAT_ROLLOUT_POLICY", "careful")
    path = "/api/block_types/slug/raos-rollout-policy/block_documents/name/careful"
    with prefect([], **({} if block is None else {path: {"data": block}})) as url:
        monkeypatch.setenv("PREFECT_API_URL", url)
        found = examined(capsys, 0 if verdict == "ok" else 1)
    assert found["rollout policy careful"] == (verdict, seen)


def test_a_token_is_shown_only_to_the_right_server(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def note(authorization: str) -> bool:
        shown.append(authorization)
        return True

    with (
        answering(a_node("omega"), allowed=note) as omega,
        prefect([{"role": "public", "url": omega, "token": "secret"}]) as url,
    ):
        monkeypatch.setenv("PREFECT_API_URL", url)
        found = examined(capsys, 1)
    assert found["public, role"][0] == "wrong"
    assert found["public, token"][0] == "not looked at"
    assert set(shown) == {""}


def test_a_ledger_is_read_and_one_that_is_gone_is_missed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["audit", "checkpoint"]) == 0
    capsys.readouterr()
    found = examined(capsys, 0)
    assert found["ledger"] == ("ok", f"{home / 'ledger.db'}, 0 events; deploy audit verify looks at each")
    (home / "ledger.db").unlink()
    assert "is missing" in examined(capsys, 1)["ledger"][1]
    sqlite3.connect(home / "ledger.db").close()
    (home / "ledger.db").write_bytes(b"")
    assert examined(capsys, 1)["ledger"][0] == "wrong"
    assert (home / "ledger.db").read_bytes() == b""


def test_the_guide_says_how_long_it_takes_at_most() -> None:
    guide = (ROOT / "docs/guide.md").read_text("utf-8")
    most = doctor.PLANE_SECONDS + 2 * doctor.SECONDS
    assert f"`deploy doctor` ends within {most:g} seconds, `ashat-node check` within {check.SECONDS:g}" in guide
