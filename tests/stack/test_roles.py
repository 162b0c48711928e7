"""A dev's control plane against an owner's: what each may do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ashat.deployment.state_machine import Stage
from ashat.node.access.tokens import SCOPES, TokenFile
from ashat.protocol.messages import Scope, TokenRole
from tests.support.processes.node import NodeProcess
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1500)]


@pytest.fixture
def dev(stack: Stack) -> Iterator[Stack]:
    """The stack as a dev configured it; an owner does so again afterwards."""
    for name, node in (("public", stack.public), ("omega", stack.omega)):
        told = stack.deploy(
            "configure", name, node.url, name, "--token-stdin", stdin=token_of(node, TokenRole.DEV)
        ).stderr
        assert ("as a dev's does" in told) == (name == "omega"), told
    yield stack
    stack.configure("public", stack.public, Scope.PUSH)
    stack.configure("omega", stack.omega, Scope.ADMIN)


def token_of(node: NodeProcess, duty: TokenRole) -> str:
    """A fresh token of that role on that node."""
    return TokenFile(node.data / "tokens.json").add(str(duty), SCOPES[duty][node.role])[1]


def test_a_dev_pushes_and_verifies_and_an_owner_approves_and_rolls_back(dev: Stack) -> None:
    stack, before = dev, dev.bundles()
    stack.change("by a dev")
    stack.deploy("push", "ROLE-1", "By a dev", "--allow-dirty")
    assert "✅ Verification PASSED!" in stack.deploy("verify", "ROLE-1").stdout
    state = stack.wait_asked("ROLE-1")
    assert state.evidence is not None
    approve = ("approve", "ROLE-1", "--evidence", state.evidence[-8:])
    refused = stack.deploy(*approve, check=False)
    assert refused.returncode == 1
    assert "takes the role owner: ashat-node token add --role owner on omega" in refused.stderr
    assert stack.state("ROLE-1").stage is Stage.AWAITING_APPROVAL
    assert stack.bundles()["production"] == before["production"]

    owner = token_of(stack.omega, TokenRole.OWNER)
    told = stack.deploy("configure", "omega", stack.omega.url, "production", "--token-stdin", stdin=owner)
    assert told.stderr == ""
    stack.wait_asked("ROLE-1", 2)
    stack.deploy(*approve)
    assert stack.state("ROLE-1").stage is Stage.COMPLETED

    reader = token_of(stack.omega, TokenRole.DEV)
    stack.deploy("configure", "omega", stack.omega.url, "production", "--token-stdin", stdin=reader)
    refused = stack.deploy("rollback", "ROLE-1", check=False)
    assert refused.returncode == 1
    assert "takes the role owner" in refused.stderr
    assert "Nothing was changed." in refused.stderr
    assert not stack.state("ROLE-1").rolling_back

    stack.deploy("configure", "omega", stack.omega.url, "production", "--token-stdin", stdin=owner)
    stack.deploy("rollback", "ROLE-1")
    assert stack.bundles() == before
