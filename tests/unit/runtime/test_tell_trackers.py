"""Trackers are told each moment of a release once; what they answer, or that they do not, ends no deployment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block
from pydantic import SecretStr

from ashat.cli.main import run
from ashat.common.trackers import VARIABLE, Tracker, as_variable
from ashat.deployment.state_machine import Stage
from ashat.inbox.waiting import of_trouble
from ashat.ledger.summaries import glance, last_messages
from blocks import tracker_http
from blocks.trackers import GitHubTracker, JiraTracker
from tasks.reconcile import trackers as under_test
from tasks.runtime import notify
from tasks.runtime import trackers as listed
from tasks.runtime.connections import connections, this_run
from tests.support.builders.deployments import open_ledger, record
from tests.support.fakes.tracker_server import TOKEN, Issue, Reply, TrackerServer
from tests.support.processes.deploy_cli import environment

GITHUB = Tracker("raos-github-tracker/issues", "github", ("#", "GH-"))
JIRA = Tracker("raos-jira-tracker/work", "jira", ("PROJ-",))
STAGES = ["was pushed", "went through", "waits for approval", "was approved", "omega runs", "is completed"]


@pytest.fixture
def server() -> Iterator[TrackerServer]:
    with TrackerServer().served() as served:
        yield served


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: TrackerServer) -> Iterator[dict[str, Any]]:
    """Prefect's variables, with two trackers whose blocks ask the server, in a home of its own."""
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASHAT_NOTIFY", "")
    blocks: dict[str, Block] = {
        GITHUB.block: GitHubTracker(repository="owner/name", url=server.url, token=SecretStr(TOKEN)),
        JIRA.block: JiraTracker(url=server.url, token=SecretStr(TOKEN), done="Done"),
    }
    kept: dict[str, Any] = {VARIABLE: as_variable([GITHUB, JIRA])}
    for module in (under_test, listed, notify):
        monkeypatch.setattr(module.Variable, "get", lambda name, *_: kept.get(name))
        monkeypatch.setattr(module.Variable, "set", lambda name, value, **_: kept.update({name: value}))
        monkeypatch.setattr(module.Variable, "unset", lambda name: kept.pop(name, None))
    monkeypatch.setattr(Block, "load", lambda name, *_: blocks[name])
    with connections():
        under_test.tell_trackers()
        yield kept


def place(variables: dict[str, Any], tracker: Tracker) -> int:
    return int(variables[under_test.variable_of(tracker.block)]["events"])


def size() -> int:
    return this_run().ledger.log_head()[1]


def troubles() -> dict[str, str]:
    return {trouble["server"]: trouble["what"] for trouble in glance()[1] if trouble["kind"] == "tracker"}


def said(texts: list[str]) -> list[str]:
    return [next((stage for stage in STAGES if stage in text), text) for text in texts]


def test_each_stage_is_a_comment_and_completion_moves_the_task(
    variables: dict[str, Any], server: TrackerServer
) -> None:
    record(this_run().ledger, "UPD-1", Stage.COMPLETED, tasks=("#7", "PROJ-7", "ABC-1"))
    under_test.tell_trackers()
    assert said(server.comments("github 7")) == said(server.comments("PROJ-7")) == STAGES
    assert "UPD-1 is completed: 1 of 2 Mainframes run it (1 missing)" in server.comments("PROJ-7")[-1].replace("\\", "")
    assert "was approved by kim: read it" in server.comments("PROJ-7")[3]
    assert (server.issues["github 7"].state, server.issues["PROJ-7"].state) == ("closed", "Done")
    assert {place(variables, tracker) for tracker in (GITHUB, JIRA)} == {size()}
    assert troubles() == {}
    assert {last_messages()[tracker.block]["why"] for tracker in (GITHUB, JIRA)} == {""}

    asked = len(server.asked)
    under_test.tell_trackers()
    assert len(server.asked) == asked, "nothing is new, and nobody is asked"
    for tracker in (GITHUB, JIRA):  # as if what was told was never kept
        variables[under_test.variable_of(tracker.block)]["events"] = 0
    under_test.tell_trackers()
    assert said(server.comments("github 7")) == said(server.comments("PROJ-7")) == STAGES


@pytest.mark.parametrize(
    ("stage", "ending"),
    [
        (Stage.FAILED, "UPD-1 failed: "),
        (Stage.REJECTED, "UPD-1 was rejected by kim: read it"),
        (Stage.EXPIRED, "UPD-1 expired"),
        (Stage.ROLLED_BACK, "UPD-1 was rolled back"),
    ],
)
def test_each_other_ending_is_told_and_moves_nothing_back(
    stage: Stage, ending: str, variables: dict[str, Any], server: TrackerServer
) -> None:
    record(this_run().ledger, "UPD-1", stage, tasks=("PROJ-7",))
    under_test.tell_trackers()
    assert server.comments("PROJ-7")[-1].startswith(ending)
    assert server.issues["PROJ-7"].state == ("Done" if stage is Stage.ROLLED_BACK else "To Do")
    assert variables


def test_a_renamed_state_and_a_task_that_is_not_there_are_a_line_and_hold_nothing_up(
    variables: dict[str, Any], server: TrackerServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.statuses[2] = "Shipped"
    record(this_run().ledger, "UPD-1", Stage.COMPLETED, tasks=("PROJ-7", "PROJ-8", "#7"))
    under_test.tell_trackers()
    assert said(server.comments("PROJ-7")) == said(server.comments("github 7")) == STAGES
    assert place(variables, JIRA) == size()
    (what,) = troubles().values()
    assert "PROJ-8: of pushed of UPD-1 it was not told: it refuses (HTTP 404, Issue does not exist" in what
    assert "PROJ-7 was not moved to its last state: no transition leads to 'Done'; from where it is, it can be" in what
    assert len(what.split("; PROJ-7")) == 2, "each is said once"
    assert run(["status"]) == 0
    assert JIRA.block in capsys.readouterr().out
    trouble = next(trouble for trouble in glance()[1] if trouble["kind"] == "tracker")
    assert (of_trouble(trouble).kind, of_trouble(trouble).how) == ("tracker", "deploy tracker test")

    server.issues["PROJ-9"] = Issue("To Do")
    record(this_run().ledger, "UPD-2", Stage.PUSHED, tasks=("PROJ-9",))
    under_test.tell_trackers()
    assert said(server.comments("PROJ-9")) == STAGES[:1]
    assert troubles() == {}


def test_a_wrong_token_is_seen_and_told_again_once_it_is_right(
    variables: dict[str, Any], server: TrackerServer
) -> None:
    server.instead = lambda _, path: Reply(401, {"message": TOKEN}) if "/repos/" in path else None
    record(this_run().ledger, "UPD-1", Stage.AWAITING_APPROVAL, tasks=("PROJ-7", "#7"))
    for _ in range(2):
        under_test.tell_trackers()
        assert troubles() == {
            GITHUB.block: "it refuses the token (HTTP 401): give it another one, by deploy tracker add"
        }
    assert said(server.comments("PROJ-7")) == STAGES[:3]
    server.instead = lambda *_: None
    under_test.tell_trackers()
    assert said(server.comments("github 7")) == STAGES[:3]
    assert troubles() == {}
    assert variables


def test_a_tracker_that_asks_to_wait_is_not_asked_before(
    variables: dict[str, Any], server: TrackerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.instead = lambda *_: Reply(429, {}, {"Retry-After": "120"})
    record(this_run().ledger, "UPD-1", Stage.PUSHED, tasks=("#7",))
    under_test.tell_trackers()
    assert "it asks to wait 120 s" in troubles()[GITHUB.block]
    server.instead = lambda *_: None
    asked = len(server.asked)
    under_test.tell_trackers()
    assert len(server.asked) == asked
    monkeypatch.setattr(under_test, "now", lambda: datetime.now(UTC) + timedelta(seconds=121))
    under_test.tell_trackers()
    assert said(server.comments("github 7")) == STAGES[:1]
    assert variables


def test_a_tracker_that_hangs_holds_up_no_other_and_is_seen(
    variables: dict[str, Any], server: TrackerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_http, "SECONDS", 1.0)
    server.instead = lambda _, path: Reply(0) if "/repos/" in path else None
    record(this_run().ledger, "UPD-1", Stage.COMPLETED, tasks=("PROJ-7", "#7"))
    began = time.monotonic()
    under_test.tell_trackers()
    assert time.monotonic() - began < 8
    assert said(server.comments("PROJ-7")) == STAGES
    assert troubles() == {GITHUB.block: "it did not answer within 1 s"}
    assert place(variables, GITHUB) < size()


def test_what_takes_longer_than_a_look_goes_on_where_it_was(
    variables: dict[str, Any], server: TrackerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [str(number) for number in range(1, 51)]
    server.issues |= {f"github {key}": Issue("open") for key in keys}
    server.after_comment = lambda: time.sleep(0.05)
    monkeypatch.setattr(under_test, "LOOK_SECONDS", 0.5)
    record(this_run().ledger, "UPD-1", Stage.PUSHED, tasks=tuple(f"#{key}" for key in keys))
    looks = 0
    while place(variables, GITHUB) < size():
        under_test.tell_trackers()
        looks += 1
    assert 1 < looks < 25
    assert {len(server.comments(f"github {key}")) for key in keys} == {1}
    assert len([one for one in server.asked if one.startswith("GET")]) <= len(keys) + 1, "none is asked of twice"


def test_what_is_a_day_old_is_given_up_and_said(variables: dict[str, Any], server: TrackerServer) -> None:
    record(this_run().ledger, "UPD-old", Stage.PUSHED, tasks=("#7",), at=datetime.now(UTC) - timedelta(days=2))
    under_test.tell_trackers()
    assert troubles() == {GITHUB.block: "#7: of pushed of UPD-old it was not told within a day"}
    assert server.comments("github 7") == []
    assert place(variables, GITHUB) == size()


def test_a_tracker_without_a_block_is_seen_and_one_that_is_gone_is_not(
    variables: dict[str, Any], server: TrackerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(name: str, *_: Any) -> Block:
        raise ValueError(f"Unable to find block document named {name}")

    with monkeypatch.context() as patch:
        patch.setattr(Block, "load", gone)
        record(this_run().ledger, "UPD-1", Stage.PUSHED, tasks=("#7",))
        under_test.tell_trackers()
    assert "its block cannot be loaded: Unable to find" in troubles()[GITHUB.block]
    assert place(variables, GITHUB) < size()
    under_test.tell_trackers()
    assert said(server.comments("github 7")) == STAGES[:1]
    variables[VARIABLE] = as_variable([JIRA])
    under_test.tell_trackers()
    assert troubles() == {}


def test_a_tracker_is_told_nothing_of_before_it_was_added(variables: dict[str, Any], server: TrackerServer) -> None:
    record(this_run().ledger, "UPD-1", Stage.COMPLETED, tasks=("#7",))
    variables.pop(under_test.variable_of(GITHUB.block))
    under_test.tell_from_now_on(GITHUB)
    record(this_run().ledger, "UPD-2", Stage.PUSHED, tasks=("#7",))
    under_test.tell_trackers()
    assert [text.split()[0] for text in server.comments("github 7")] == ["UPD-2"]


def test_killed_behind_a_comment_it_is_not_posted_twice(tmp_path: Path, server: TrackerServer) -> None:
    home = tmp_path / "home"
    with open_ledger(home) as ledger:
        log, first = ledger.log_head()
        record(ledger, "UPD-1", Stage.COMPLETED, tasks=("#7",))
        last = ledger.log_head()[1]
    name = under_test.variable_of(GITHUB.block)
    kept = {VARIABLE: as_variable([GITHUB]), name: {"ledger": log, "events": first}}
    (home / "variables.json").write_text(json.dumps(kept))
    command = [sys.executable, "-m", "tests.support.processes.tracker_teller", server.url]

    def tell(*, dies: bool) -> None:
        with subprocess.Popen(command, env=environment(home)) as process:
            server.after_comment = (lambda: os.kill(process.pid, signal.SIGKILL)) if dies else lambda: None
            assert process.wait(60) == (-signal.SIGKILL if dies else 0)

    for count in range(1, 4):
        tell(dies=True)
        assert said(server.comments("github 7")) == STAGES[:count]
    tell(dies=False)
    assert said(server.comments("github 7")) == STAGES
    assert server.issues["github 7"].state == "closed"
    assert json.loads((home / "variables.json").read_text())[name]["events"] == last
