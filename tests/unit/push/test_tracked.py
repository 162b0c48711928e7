"""The tasks of a release: those that somebody named, and those of its commits since the last that was approved."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ashat.common.trackers import MOST_TASKS, Tracker, as_variable
from ashat.deployment.stages import Stage
from ashat.deployment.state_machine import State
from ashat.errors import UsageError
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import Source
from tasks.push.tracked import approved_commit, check_keys, tasks_of
from tasks.runtime import trackers as variable
from tests.support.builders.deployments import open_ledger, record

GITHUB = Tracker("raos-github-tracker/issues", "github", ("#", "GH-"))
JIRA = Tracker("raos-jira-tracker/work", "jira", ("PROJ-",))


def git(tree: Path, *words: str) -> str:
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    named = ("-c", "user.name=A", "-c", "user.email=a@example.com", *words)
    return subprocess.run(["git", *named], cwd=tree, check=True, env=env, capture_output=True, text=True).stdout.strip()


def commit(tree: Path, message: str) -> str:
    git(tree, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(tree, "rev-parse", "HEAD")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    git(tree, "init", "--quiet", "--initial-branch=main")
    return tree


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trackers, as Prefect's variable lists them."""
    monkeypatch.setattr(variable.Variable, "get", lambda _: as_variable([GITHUB, JIRA]))


def ended(ledger: Ledger, update_id: str, stage: Stage, commit: str, monkeypatch: pytest.MonkeyPatch) -> State:
    """An update of that commit, at that stage."""
    from tests.support.builders import deployments

    with monkeypatch.context() as patch:
        patch.setattr(deployments, "Source", lambda **_: Source(name="raos", commit=commit))
        return record(ledger, update_id, stage)


@pytest.mark.usefixtures("trackers")
def test_tasks_are_those_named_and_those_of_the_commits_since_the_last_approved_release(
    ledger: Ledger, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = commit(tree, "Begin (#1)")
    approved = commit(tree, "PROJ-2: more")
    rejected = commit(tree, "Louder\n\nCloses GH-3 and #3")
    newest = commit(tree, "PROJ-4 and PROJ-2, not other/repository#9")
    source = Source(name="raos", commit=newest, contains=(first, approved, rejected))
    assert sorted(tasks_of(ledger, "omega", tree, source, ())) == ["#1", "#3", "PROJ-2", "PROJ-4"]

    ended(ledger, "UPD-1", Stage.COMPLETED, first, monkeypatch)
    ended(ledger, "UPD-2", Stage.COMPLETED, approved, monkeypatch)
    ended(ledger, "UPD-3", Stage.REJECTED, rejected, monkeypatch)
    assert approved_commit(ledger, "omega", source) == approved
    assert approved_commit(ledger, "omega-eu", source) is None
    assert tasks_of(ledger, "omega", tree, source, ("GH-7", "ABC-1")) == ("#7", "ABC-1", "#3", "PROJ-4", "PROJ-2")
    assert tasks_of(ledger, "omega", tree, Source(name="raos"), ("ABC-1",)) == ("ABC-1",)


@pytest.mark.usefixtures("trackers")
def test_more_tasks_than_are_kept_are_cut_and_a_message_of_any_size_is_read_as_far_as_its_bound(
    ledger: Ledger, tree: Path
) -> None:
    message = tree / "message"
    message.write_text(" ".join(f"#{number}" for number in range(1, 100)) + "\n" + "x" * 3_000_000 + " #1000")
    git(tree, "commit", "--quiet", "--allow-empty", "-F", str(message))
    source = Source(name="raos", commit=git(tree, "rev-parse", "HEAD"))
    assert tasks_of(ledger, "omega", tree, source, ()) == tuple(f"#{number}" for number in range(1, MOST_TASKS + 1))


def test_where_prefect_does_not_say_which_trackers_there_are_the_named_tasks_are_kept(
    ledger: Ledger, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: str) -> Any:
        raise RuntimeError("Prefect is gone")

    monkeypatch.setattr(variable.Variable, "get", refuses)
    source = Source(name="raos", commit=commit(tree, "Begin (#1)"))
    assert tasks_of(ledger, "omega", tree, source, ("GH-7",)) == ("GH-7",)


def test_what_is_no_key_is_refused_in_a_line() -> None:
    assert check_keys(["PROJ-1", "#2", "PROJ-1"]) == ("PROJ-1", "#2")
    for wrong in (["two words"], ["x\n"], [""], [f"A-{n}" for n in range(MOST_TASKS + 1)]):
        with pytest.raises(UsageError) as refused:
            check_keys(wrong)
        assert "\n" not in str(refused.value)
