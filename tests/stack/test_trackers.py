"""The tasks of a release are recorded at push, stand wherever people look, and hear what becomes of it."""

from __future__ import annotations

import base64
import json
import subprocess
from typing import Any

import pytest

from ashat.deployment.stages import Stage
from ashat.ledger.ledger import Ledger
from tests.support.builders.deployments import open_ledger
from tests.support.fakes.tracker_server import TOKEN, TrackerServer
from tests.support.processes.stack import Stack, eventually

STAGES = ("was pushed", "went through", "waits for approval", "was approved", "omega runs", "is completed")

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]


def gate_page(ledger: Ledger, update_id: str) -> str:
    """What people are shown at the gate of an update."""
    asked = next(event for event in ledger.events(update_id, 1) if event.kind == "asked")
    return str(ledger.document(asked.shown or "")["markdown"])


def test_the_tasks_of_a_push_stand_in_provenance_evidence_gate_status_and_history(stack: Stack) -> None:
    stack.change("brings tasks")
    refused = stack.deploy("push", "TASK-1", "With tasks", "--task", "no key", check=False)
    assert refused.returncode == 2
    assert "'no key' is no key of a task" in refused.stderr
    pushed = stack.deploy("push", "TASK-1", "With tasks", "--allow-dirty", "--task", "#12", "--task", "PROJ-7")
    assert "Tasks: #12, PROJ-7" in pushed.stdout
    stack.deploy("verify", "TASK-1")
    state = stack.wait_asked("TASK-1")
    assert state.tasks == ("#12", "PROJ-7")
    with open_ledger(stack.home) as ledger:
        assert "Tasks: #12, PROJ-7" in gate_page(ledger, "TASK-1").replace("\\", "")
        built = ledger.document(state.built or "")
    statement = json.loads(base64.b64decode(built["payload"]))
    assert statement["predicate"]["buildDefinition"]["externalParameters"]["tasks"] == ["#12", "PROJ-7"]
    assert json.loads(stack.deploy("evidence", "TASK-1", "--json").stdout)["tasks"] == ["#12", "PROJ-7"]
    assert "#12, PROJ-7" in stack.deploy("evidence", "TASK-1").stdout
    assert "#12, PROJ-7" in stack.deploy("status", "TASK-1").stdout
    listed = json.loads(stack.deploy("history", "--search", "proj-7", "--json").stdout)["deployments"]
    assert [(one["update_id"], one["tasks"]) for one in listed] == [("TASK-1", ["#12", "PROJ-7"])]
    assert "tasks #12, PROJ-7" in " ".join(stack.deploy("history", "TASK-1").stdout.split())
    stack.deploy("cancel", "TASK-1")


def test_tasks_of_commits_hear_of_each_stage_and_a_tracker_that_refuses_is_seen_and_fails_nothing(
    stack: Stack,
) -> None:
    with TrackerServer().served() as server:
        words = ("--url", server.url, "--secrets", "-")
        added = stack.deploy("tracker", "add", "github", "issues", "--project", "owner/name", *words, stdin=TOKEN)
        assert "hears of tasks such as #12" in added.stdout
        jira = ("tracker", "add", "jira", "board", "--key-prefix", "PROJ-", "--done", "Shipped", *words)
        shown = added.stdout + stack.deploy(*jira, stdin=TOKEN).stdout + str(block(stack, "raos-jira-tracker", "board"))
        refused = stack.deploy(
            "tracker", "add", "gitlab", "other", "--project", "a/b", *words, stdin=TOKEN, check=False
        )
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "Keys that begin with # are those of raos-github-tracker/issues" in refused.stderr
        assert "is there" in stack.deploy("tracker", "test", "issues").stdout
        wrong = stack.deploy("tracker", "test", "board", check=False)
        assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
        assert "it has no state 'Shipped'; it has To Do, In Progress, Done" in wrong.stderr

        stack.change("brings what its commit names")
        git = ["git", "-C", str(stack.source), "-c", "user.name=Kim", "-c", "user.email=kim@example.com"]
        subprocess.run([*git, "commit", "--quiet", "--all", "--message", "PROJ-7: louder\n\nCloses GH-7"], check=True)
        stack.deploy("push", "TASK-2", "Louder, says @kim", "--ref", "HEAD", "--task", "PROJ-404")
        assert set(stack.state("TASK-2").tasks) == {"PROJ-404", "PROJ-7", "#7"}
        stack.deploy("verify", "TASK-2")
        state = stack.wait_asked("TASK-2")
        stack.reconcile()
        assert len(server.comments("github 7")) == len(server.comments("PROJ-7")) == 3
        stack.deploy("approve", "TASK-2", "--evidence", (state.evidence or "")[-8:], "--comment", "as it is")
        eventually(lambda: stack.state("TASK-2").stage is Stage.COMPLETED, "the release to be completed")
        stack.reconcile()
        assert server.issues["github 7"].state == "closed"
        for key in ("github 7", "PROJ-7"):
            assert len(server.comments(key)) == len(STAGES)
            for text, stage in zip(server.comments(key), STAGES, strict=True):
                assert stage in text
                assert "Louder, says @kim" not in text or key == "PROJ-7"
        what = trackers(stack)["raos-jira-tracker/board"]["why"]
        assert "no transition leads to 'Shipped'" in what
        assert "raos-jira-tracker/board" in stack.deploy("status").stdout
        assert server.issues["PROJ-7"].state == "To Do"
        shown += (
            str(trackers(stack)) + stack.deploy("tracker", "list").stdout + stack.deploy("doctor", check=False).stdout
        )
        assert TOKEN not in shown
    for name in ("issues", "board"):
        stack.deploy("tracker", "remove", name)
    assert trackers(stack) == {}
    assert "raos-jira-tracker" not in stack.deploy("status").stdout


def block(stack: Stack, slug: str, name: str) -> dict[str, Any]:
    """A block as Prefect's API shows it to anyone."""
    return dict(stack.api("GET", f"/block_types/slug/{slug}/block_documents/name/{name}"))


def trackers(stack: Stack) -> dict[str, dict[str, Any]]:
    """What `deploy tracker list` says of each."""
    listed = json.loads(stack.deploy("tracker", "list", "--json").stdout)["trackers"]
    return {tracker["tracker"]: tracker for tracker in listed}
