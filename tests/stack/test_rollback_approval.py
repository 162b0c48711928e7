"""A rollback for which no rollback was signed waits for the people who sign, and one of them may refuse it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.deployment.state_machine import Stage, State
from ashat.protocol.messages import Scope
from tests.support.processes.node import NodeProcess, demanding_region
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]

OPENED = {"ASHAT_KEY_PASSPHRASE": "five words are long enough"}
NAMES = ("kim", "lee", "noa")


@pytest.fixture(scope="module")
def keys(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The private keys of three people, each on a machine of their own."""
    return {name: str(stack.make_key(name, tmp_path_factory.mktemp(name), OPENED)) for name in NAMES}


@pytest.fixture(scope="module")
def region(stack: Stack, keys: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """An OMEGA for which two of three people approve, under a policy by which they sign no rollback beforehand; it runs
    BACK-2, which replaced BACK-1."""
    directory = tmp_path_factory.mktemp("back") / "production-north"
    with demanding_region(directory) as node:
        words = ("configure", "omega", node.url, "production-north", "--as", "omega-north", "--token-stdin")
        stack.deploy(*words, stdin=node.token(Scope.ADMIN))
        approvers = [f"--approver={name}={Path(key).with_suffix('.pub')}" for name, key in keys.items()]
        stack.deploy("trust", "init", "--as", "omega-north", *approvers, "--threshold", "2")
        for name in NAMES[:2]:
            stack.deploy("trust", "sign", "--as", "omega-north", "--key", keys[name], env=OPENED)
        stack.configure_policy("asks", rehearses=False, presign_rollback=False)
        for update_id in ("BACK-1", "BACK-2"):
            ship(stack, keys, update_id)
        yield node


def ship(stack: Stack, keys: dict[str, str], update_id: str) -> None:
    stack.change(update_id)
    stack.deploy("push", update_id, "A release", "--allow-dirty", "--target", "omega-north")
    stack.deploy("verify", update_id, "--policy", "asks")
    tail = tail_of(stack, update_id)
    for ordinal, name in enumerate(NAMES[:2], 1):
        stack.wait_asked(update_id, ordinal)
        words = ("approve", update_id, "--evidence", tail, "--comment", "noisy", "--key", keys[name])
        told = stack.deploy(*words, env=OPENED).stdout
        if (update_id, ordinal) == ("BACK-2", 1):
            assert "A rollback waits for people: the policy has it" in told
    assert stack.state(update_id).stage is Stage.COMPLETED


def tail_of(stack: Stack, update_id: str) -> str:
    return (stack.state(update_id).evidence or "")[-8:]


def runs(node: NodeProcess) -> str:
    with node.client() as client:
        current = client.state().current
    assert current is not None
    return current.update_id


def asked(stack: Stack, ordinal: int) -> State:
    """BACK-2 once the question about its rollback was put for the `ordinal`-th time, and its run is suspended."""
    state = stack.wait("BACK-2", lambda s: (r := s.undecided("rollback")) and r.ordinal == ordinal and not r.answered)
    stack.wait_run(state.approvals["rollback"].run, "Suspended")
    return state


def test_one_rejects_and_nothing_changes(stack: Stack, region: NodeProcess, keys: dict[str, str]) -> None:
    told = stack.deploy("rollback", "BACK-2", "--reason", "it is slow", check=False)
    assert told.returncode == 1
    assert "waits for people (no rollback was signed with its approval): deploy approve BACK-2 --key" in told.stderr
    again = stack.deploy("rollback", "BACK-2", check=False)
    assert (again.returncode, "waits for people" in again.stderr) == (1, True)
    asked(stack, 1)
    assert "rollback" in stack.deploy("status").stdout
    assert "waits for people until" in stack.deploy("status", "BACK-2").stdout
    refused = stack.deploy("approve", "BACK-2", "--reject", "--reason", "mend it instead", "--by", "lee")
    assert "is rejected: production-north (omega-north) keeps running it." in refused.stdout
    assert runs(region) == "BACK-2"
    state = stack.state("BACK-2")
    assert (state.stage, state.rolling_back) == (Stage.COMPLETED, False)
    stack.wait_run(state.approvals["rollback"].run, "Rejected")


def test_a_run_that_is_cancelled_in_prefect_asks_no_more(
    stack: Stack, region: NodeProcess, keys: dict[str, str]
) -> None:
    assert stack.deploy("rollback", "BACK-2", check=False).returncode == 1
    state = asked(stack, 2)
    cancelled = {"state": {"type": "CANCELLED", "name": "Cancelled"}, "force": True}
    stack.api("POST", f"/flow_runs/{state.approvals['rollback'].run}/set_state", cancelled)
    stack.api("POST", f"/deployments/{stack.deployment('reconcile/reconcile')}/create_flow_run", {})
    state = stack.wait("BACK-2", lambda s: s.approvals["rollback"].decision == "reject")
    assert "waits for people" not in stack.deploy("status", "BACK-2").stdout
    assert runs(region) == "BACK-2"


def test_two_sign_and_it_goes_back(stack: Stack, region: NodeProcess, keys: dict[str, str]) -> None:
    assert stack.deploy("rollback", "BACK-2", "--reason", "it is slow", check=False).returncode == 1
    asked(stack, 3)
    tail = tail_of(stack, "BACK-1")
    approve = ("approve", "BACK-2", "--evidence")
    wrong = stack.deploy(*approve, "00000000", "--key", keys["kim"], env=OPENED, check=False)
    assert "does not end in '00000000'" in wrong.stderr
    unsigned = stack.deploy(*approve, tail, check=False)
    assert "it needs a signature of kim, lee, noa" in unsigned.stderr
    asked(stack, 4)
    first = stack.deploy(*approve, tail, "--key", keys["kim"], env=OPENED)
    assert "May production-north (omega-north) go back from BACK-2 to BACK-1?" in first.stdout
    assert "it is slow" in first.stdout
    assert "Others must sign too" in first.stdout
    asked(stack, 5)
    twice = stack.deploy(*approve, tail, "--key", keys["kim"], env=OPENED, check=False)
    assert "kim has signed already; somebody else must sign too" in twice.stderr
    state = asked(stack, 6)
    assert runs(region) == "BACK-2"

    # noa signs elsewhere; whoever is at the form pastes it.
    line = stack.deploy("sign", "BACK-2", "--key", keys["noa"], env=OPENED).stdout.strip().splitlines()[-1]
    form = {"decision": "approve", "evidence": tail, "approver": "lee", "comment": "", "signature": line}
    stack.api("POST", f"/flow_runs/{state.approvals['rollback'].run}/resume", {"run_input": form})
    done = stack.wait("BACK-2", lambda s: s.stage is Stage.ROLLED_BACK)
    assert [one.name for one in done.approvals["rollback"].signatures] == ["kim", "noa"]
    assert done.rolled_back["omega"].release_seq == 3
    assert runs(region) == "BACK-1"
    with region.client() as client:
        assert '"update_id":"BACK-1"' in client.trust().documents["stable"]
