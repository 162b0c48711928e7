"""Ctrl-C at each moment of a release: the line that is left is true, and what it says goes on does go on."""

from __future__ import annotations

import pytest

from ashat.deployment.state_machine import Stage
from tests.support.processes.deploy_cli import deploy_on_terminal
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]


def interrupted(stack: Stack, until: str, *words: str) -> str:
    """The last line of a `deploy` command that gets a Ctrl-C once it has printed `until`."""
    return stack.interrupted(until, *words).strip().splitlines()[-1]


def test_each_moment_has_an_advice_that_is_true(stack: Stack) -> None:
    stack.change("interrupted at each moment")
    push = ("push", "STOP-1", "Interrupted", "--allow-dirty")
    early = interrupted(stack, "Deployment Plan", *push)
    assert "Nothing of it is recorded yet" in early or "deploy push STOP-1 … --resume goes on" in early
    stack.deploy(*push, "--resume")
    checking = interrupted(stack, "Server health", "verify", "STOP-1")
    assert "deploy verify STOP-1 checks it" in checking or "opened by itself" in checking
    stack.deploy("verify", "STOP-1")
    state = stack.wait_asked("STOP-1")
    tail = (state.evidence or "")[-8:]

    code, shown = deploy_on_terminal(stack.home, "approve", "STOP-1", typed=[("leaves it waiting:", "\x03")])
    assert code == 130, shown
    assert "You decided nothing: 'STOP-1' keeps waiting (deploy approve STOP-1)" in shown
    assert stack.state("STOP-1").version == state.version

    words = ("approve", "STOP-1", "--evidence", tail, "--comment", "however noisy", "--by", "kim")
    decided = interrupted(stack, "Approved by: kim", *words)
    assert "Your answer was handed over, and is judged without you." in decided
    assert "deploy rollback STOP-1 stops it" in decided or "deploy status STOP-1" in decided
    stack.wait("STOP-1", lambda found: found.stage is Stage.COMPLETED)

    back = interrupted(stack, "Rolling back 'STOP-1'", "rollback", "STOP-1", "--reason", "a test")
    assert any(words in back for words in ("calls it off", "cannot be called off now", "is RolledBack")), back
    stack.wait("STOP-1", lambda found: found.stage is Stage.ROLLED_BACK)
