"""`deploy status`, `history` and `evidence`: what the ledger says, for people and for scripts, without Prefect."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ashat.cli.control_plane.state import ControlState, write_state
from ashat.cli.main import run
from ashat.cli.terminal.output import width_of
from ashat.common.canonical_json import digest_of
from ashat.common.home import LOOKED_FILE
from ashat.common.processes import ProcessRef
from ashat.deployment.events import RollbackStarted
from ashat.deployment.state_machine import Stage
from ashat.ledger.copying import dump_ledger, load_ledger
from ashat.ledger.ledger import Ledger
from ashat.ledger.summaries import summaries
from tasks.reconcile.earlier import note_looked
from tests.support.builders.deployments import LONG_AGO, open_ledger, record
from tests.support.needs import requires_postgresql
from tests.support.processes.deploy_cli import deploy, environment
from tests.support.processes.node import ROOT


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose ledger holds an update at each stage, and one whose gate is past its time."""
    home = tmp_path_factory.mktemp("reading") / "home"
    now = datetime.now(UTC)
    with open_ledger(home) as ledger:
        for age, stage in enumerate(reversed(Stage), 1):
            began = now - timedelta(hours=age)
            closed = began + timedelta(minutes=1) if stage is Stage.EXPIRED else None
            record(ledger, f"UPD-{stage.value}", stage, at=began, expires=closed)
        record(ledger, "UPD-overdue", Stage.AWAITING_APPROVAL, at=now - timedelta(days=9), expires=now)
        record(ledger, "UPD-old", Stage.COMPLETED, at=LONG_AGO, description="Ümlaute, 漢字 and the like")
        record(ledger, "UPD-Cancelled", Stage.PUSHED, at=now - timedelta(minutes=5), description="a second attempt")
        rolling = record(ledger, "UPD-rolling", Stage.COMPLETED, at=now - timedelta(minutes=9))
        ledger.append(rolling, RollbackStarted(at=now, by="kim", reason="oops"))
    return home


def shown(home: Path, *words: str) -> Any:
    done = deploy(home, *words, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_status_sorts_what_is_under_way_from_what_waits_and_what_ended(home: Path) -> None:
    found = shown(home, "status")
    ids = {part: [d["update_id"] for d in found[part]] for part in ("under_way", "awaiting_approval", "ended")}
    assert set(ids["under_way"]) == {
        "UPD-Planning",
        "UPD-Pushed",
        "UPD-Testing",
        "UPD-AwaitingWindow",
        "UPD-DeployingToOmega",
        "UPD-Distributing",
        "UPD-Cancelled",
        "UPD-rolling",
    }
    assert ids["awaiting_approval"] == ["UPD-AwaitingApproval"]
    assert len(ids["ended"]) == 5
    assert found["control_plane"] is None


def test_status_names_the_prefect_server_that_is_used_instead(home: Path) -> None:
    named = {"PREFECT_API_URL": "http://prefect.example.com:4200/api"}
    assert json.loads(deploy(home, "status", "--json", env=named).stdout)["control_plane"] == {
        "api_url": "http://prefect.example.com:4200/api",
        "ui_url": "http://prefect.example.com:4200",
    }


def test_status_is_fit_to_read_and_to_grep(home: Path) -> None:
    told = deploy(home, "status").stdout
    assert told.startswith("📊 ASHAT Deployment Status\n")
    for words in (
        "Under way",
        "Awaiting approval",
        "Ended last",
        "UPD-Cancelled#2",
        "deploy approve UPD-AwaitingApproval",
    ):
        assert words in told
    assert "rolling back" in next(line for line in told.splitlines() if "UPD-rolling" in line)
    assert "\x1b" not in told
    assert not [line for line in told.splitlines() if line != line.rstrip()]


def test_status_of_an_empty_home_makes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = deploy(home, "status")
    assert done.returncode == 0
    assert "No deployments yet" in done.stdout
    assert not home.exists()


def test_status_of_one_update_says_everything(home: Path) -> None:
    told = deploy(home, "status", "UPD-Completed").stdout
    for words in (
        "Completed",
        "What it brings",
        "kim@alpha",
        "public → omega",
        "3.0 MB",
        "Evidence",
        "Approved",
        "by kim",
    ):
        assert words in told
    assert "✅ Server health: 8 of 8 looks healthy" in told
    assert "⏳ bolt missing: not seen since Monday" in told
    found = shown(home, "status", "UPD-Completed")
    assert found["checks"][0]["name"] == "health"
    assert (found["public_name"], found["target_name"], found["size"]) == ("public", "omega", 3_000_000)
    assert found["decision"] == "approve"
    assert datetime.fromisoformat(found["decided_at"]).strftime("%Y-%m-%d %H:%M:%S UTC") in told


def test_a_gate_past_its_time_is_expired_at_once(home: Path) -> None:
    assert shown(home, "status", "UPD-overdue")["stage"] == "Expired"
    assert "Gate" not in deploy(home, "status", "UPD-overdue").stdout
    assert "UPD-overdue" not in str(shown(home, "status")["awaiting_approval"])


PUT_BACK = " While the control plane is up, public is put back by itself within a minute."


@pytest.mark.parametrize("update_id", ["UPD-overdue", "UPD-Expired"])
def test_an_approval_that_comes_too_late_is_refused(
    home: Path, update_id: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASHAT_HOME", str(home))
    for words in (("--evidence", "00000000"), ("--reject", "--reason", "too late")):
        assert run(["approve", update_id, *words]) == 1
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err == (
            f"❌ Deployment '{update_id}' has expired: nobody answered in time. Push it again, as its next attempt: "
            f"deploy push {update_id} <description>.{PUT_BACK if update_id == 'UPD-Expired' else ''}\n"
        )
    assert not (home / "control.json").exists(), "nothing is started for it"


def test_status_of_an_unknown_update_is_one_line(home: Path) -> None:
    done = deploy(home, "status", "NOPE")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "❌ No deployment 'NOPE' is known. deploy history lists them.\n"


def test_history_lists_all_of_it_newest_first(home: Path) -> None:
    found = shown(home, "history")["deployments"]
    assert len(found) == len(Stage) + 4
    assert [d["updated_at"] for d in found] == sorted((d["updated_at"] for d in found), reverse=True)
    told = deploy(home, "history").stdout
    assert told.startswith("📜 Deployment History\n")
    assert len([line for line in told.splitlines() if not line.startswith("      ")]) == len(found) + 1
    assert "Ümlaute, 漢字 and the like" in told


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--stage", "expired"), {"UPD-Expired", "UPD-overdue"}),
        (("--stage", "AwaitingApproval"), {"UPD-AwaitingApproval"}),
        (("--stage", "Failed", "--stage", "Rejected"), {"UPD-Failed", "UPD-Rejected"}),
        (("--search", "ümlaute"), {"UPD-old"}),
        (("--search", "upd-roll"), {"UPD-rolling", "UPD-RolledBack"}),
        (("--since", "30m"), {"UPD-Cancelled", "UPD-rolling"}),
        (("--limit", "1"), {"UPD-rolling"}),
        (("--since", "2026-01-01", "--search", "UPD-old"), {"UPD-old"}),
        (("--since", "2999-01-01"), set()),
    ],
)
def test_history_filters(
    home: Path,
    words: tuple[str, ...],
    expected: set[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ASHAT_HOME", str(home))
    assert run(["history", *words, "--json"]) == 0
    assert {d["update_id"] for d in json.loads(capsys.readouterr().out)["deployments"]} == expected


def test_history_of_one_update_tells_every_event_of_every_attempt(home: Path) -> None:
    found = shown(home, "history", "UPD-Cancelled")["events"]
    assert [(e["attempt"], e["kind"]) for e in found] == [
        (1, "created"),
        (1, "cancelled"),
        (2, "created"),
        (2, "packaged"),
        (2, "public_switching"),
        (2, "pushed"),
    ]
    assert "not needed" in deploy(home, "history", "UPD-Cancelled").stdout


def test_history_of_one_update_names_who_decided_which_server_and_what_each_mainframe_made_of_it(home: Path) -> None:
    rows = deploy(home, "history", "UPD-Completed").stdout.splitlines()[1:]
    assert all(re.match(r"  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC  #1  |      \S", row) for row in rows)
    told: dict[str, str] = {}
    for row in rows:
        if not row.startswith("      "):
            kind = re.split(r"  +", row.strip())[2]
        told[kind] = f"{told.get(kind, '')} {row.strip()}".strip()
    for kind, words in {
        "created": "(public → omega)",
        "pushed": "public runs it, at http",
        "verified": "evidence …",
        "promoted": "omega runs it, release ",
        "distributed": "Mainframe",
    }.items():
        assert words in told[kind], told[kind]
    answers = [event for event in shown(home, "history", "UPD-Completed")["events"] if event["kind"] == "answered"]
    assert answers[-1]["approver"] in told["answered"]
    assert "approve, release " in told["answered"]


def test_evidence_is_the_document_that_its_digest_names(home: Path) -> None:
    evidence = shown(home, "status", "UPD-Completed")["evidence"]
    assert digest_of(shown(home, "evidence", "UPD-Completed")) == evidence
    done = deploy(home, "evidence", "UPD-Completed")
    assert evidence in done.stdout
    refused = deploy(home, "evidence", "UPD-Pushed")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "deploy verify UPD-Pushed" in refused.stderr


def test_text_from_a_release_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with open_ledger(tmp_path / "home") as ledger:
        record(ledger, "UPD-1", Stage.PUSHED, description="\x1b[2J\rgone\n❌ forged \u202eline\x85\u2028\u2066.")
    for words in (("status",), ("status", "UPD-1"), ("history",), ("history", "UPD-1")):
        told = deploy(tmp_path / "home", *words).stdout
        assert "gone" in told
        assert "\n❌ forged" not in told
        assert not any(char in told for char in "\x1b\r\u202e\x85\u2028\u2066")
        assert r"\x1b[2J gone ❌ forged \u202eline\x85\u2028\u2066." in told
    told = deploy(tmp_path / "home", "status", "UPD-1", "--json").stdout
    assert json.loads(told)["description"].startswith("\x1b[2J\rgone\n")
    assert not any(char in told for char in "\u202e\x85\u2028\u2066")


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "20"}]
)
def test_any_locale_and_width_will_do(home: Path, locale: dict[str, str]) -> None:
    done = deploy(home, "status", env=locale, anew=True)
    assert done.returncode == 0
    assert "📊 ASHAT Deployment Status" in done.stdout
    assert "deploy approve UPD-AwaitingApproval" in done.stdout


def test_a_reader_that_goes_away_is_no_error(home: Path) -> None:
    line = f"{sys.executable} -m ashat.cli history | true; {sys.executable} -m ashat.cli history --json | head -1"
    done = subprocess.run(["sh", "-c", line], env=environment(home), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_reading_imports_neither_prefect_nor_the_ledgers_libraries(home: Path) -> None:
    script = (
        "import sys; from ashat.cli.main import run; code = run(sys.argv[1:]);"
        "heavy = ('prefect', 'sqlalchemy', 'ashat.deployment.events', 'rich', 'httpx');"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr);"
        "sys.exit(code)"
    )
    for words in (["status"], ["status", "--json"], ["history"], ["inbox"], ["help"], ["push", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], env=environment(home), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "[]\n"), words


def test_the_quick_look_sees_what_the_ledger_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_ledger(home) as ledger:
        expected = ledger.summaries()
    monkeypatch.setenv("ASHAT_HOME", str(home))
    assert summaries() == expected
    monkeypatch.setenv("ASHAT_LEDGER_URL", f"sqlite:///{home / 'ledger.db'}")
    assert summaries() == expected


def test_a_ledger_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with open_ledger(home) as ledger:
        record(ledger, "UPD-1", Stage.PUSHED)
    with sqlite3.connect(home / "ledger.db") as connection:
        connection.execute("UPDATE ashat_meta SET value = '99' WHERE key = 'schema'")
    connection.close()
    for words in (("status",), ("history",), ("status", "UPD-1"), ("approve", "UPD-1")):
        done = deploy(home, *words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert "newer version" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("looked", "said"),
    [
        (timedelta(seconds=20), r"\(reconcile looked \d+ s ago\)$"),
        (timedelta(minutes=7, seconds=9), r"\(⚠️ reconcile has not looked for 7 min: see .*/logs/reconcile\.log\)$"),
        (None, r":1$"),
    ],
)
def test_it_says_when_reconcile_looked_last(tmp_path: Path, looked: timedelta | None, said: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    write_state(home, ControlState(port=1, ready=True, supervisor=ProcessRef.of(os.getpid())))
    (home / LOOKED_FILE).write_text("{}")
    if looked is not None:
        note_looked(home, datetime.now(UTC) - looked)
    done = deploy(home, "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(said, done.stdout.splitlines()[-1]), done.stdout
    plane = json.loads(deploy(home, "status", "--json").stdout)["control_plane"]
    assert ("looked_at" in plane) is (looked is not None)


def test_a_ledger_that_is_no_database_is_named(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "ledger.db").write_text("this is no database, and it is long enough to be looked at as one\n" * 20)
    done = deploy(home, "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert "ledger.db" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@requires_postgresql
def test_a_ledger_in_postgresql_is_read_as_well(tmp_path: Path, postgresql_url: str) -> None:
    with Ledger.open(postgresql_url) as ledger:
        record(ledger, "UPD-1", Stage.PUSHED)
    done = deploy(tmp_path / "home", "status", "--json", env={"ASHAT_LEDGER_URL": postgresql_url})
    assert [d["update_id"] for d in json.loads(done.stdout)["under_way"]] == ["UPD-1"]


@requires_postgresql
def test_postgresql_and_sqlite_show_the_same(home: Path, tmp_path: Path, postgresql_url: str) -> None:
    dump_ledger(f"sqlite:///{home / 'ledger.db'}", tmp_path / "copy")
    load_ledger(postgresql_url, tmp_path / "copy")
    for words in (("status", "--json"), ("history", "--json"), ("inbox", "--json")):
        env = {"ASHAT_LEDGER_URL": postgresql_url}
        there, here = deploy(tmp_path / "home", *words, env=env), deploy(home, *words)
        assert (there.returncode, there.stderr) == (0, "")
        assert json.loads(there.stdout) == json.loads(here.stdout) | _plane(there.stdout)
    script = "import sys; from ashat.cli.main import run; run(['status']); sys.exit('sqlalchemy' in sys.modules)"
    env = environment(tmp_path / "home") | {"ASHAT_LEDGER_URL": postgresql_url, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", script], env=env, stdout=subprocess.DEVNULL).returncode == 0


def _plane(printed: str) -> dict[str, Any]:
    """What is said of the control plane, which is that of the home."""
    return {key: value for key, value in json.loads(printed).items() if key == "control_plane"}


@requires_postgresql
def test_a_ledger_of_another_home_on_postgresql_is_noticed(tmp_path: Path, postgresql_url: str) -> None:
    env = {"ASHAT_LEDGER_URL": postgresql_url}
    with Ledger.open(postgresql_url) as ledger:
        record(ledger, "UPD-1", Stage.PUSHED)
    assert deploy(tmp_path / "home", "evidence", "UPD-1", env=env).stderr  # it remembers the ledger
    (known,) = (tmp_path / "home/audit").glob("ledger-*")
    known.rename(known.with_name("ledger-0123456789abcdef"))
    done = deploy(tmp_path / "home", "status", env=env)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is missing: another one" in done.stderr


def test_the_benchmark_measures_what_it_says() -> None:
    words = [sys.executable, "bench/cli.py", "--releases", "12", "--runs", "1", "--json"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert (found["releases"], found["runs"], found["imports_prefect"]) == (12, 1, False)
    assert found["reached"] is (done.returncode == 0)
    assert set(found["median_seconds"]) >= {"status", "history"}


@pytest.mark.parametrize("env", [{}, {"COLUMNS": "80", "NO_COLOR": "1"}])
def test_tables_of_long_and_wide_names_fit_80_columns_and_lose_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    name, words = f"UPD-{'x' * 58}", "漢字" * 50 + " and more of it" * 10
    with open_ledger(tmp_path / "home") as ledger:
        for stage in (Stage.COMPLETED, Stage.AWAITING_APPROVAL, Stage.FAILED):
            record(ledger, f"{name}{len(stage.value):02}", stage, description=words)
    for command in (("status",), ("history",), ("history", f"{name}09")):
        told = deploy(tmp_path / "home", *command, env=env).stdout
        assert max(width_of(line) for line in told.splitlines()) <= 80, command
        assert words.replace(" ", "") in "".join(told.split())
