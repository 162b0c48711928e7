"""The eleven things that users of the original did, typed as they typed them, against servers that are real."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ashat.bundle.pack import pack_directory
from ashat.deployment.state_machine import PUT_BACK, Stage
from ashat.protocol.messages import Scope
from tests.support.processes.counted_run import opened_by
from tests.support.processes.node import NodeProcess
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]


@pytest.fixture(scope="module", autouse=True)
def decided(stack: Stack) -> None:
    """Public runs what somebody decided on, so that it is what a way back leads to, whatever ran here before."""
    for earlier in stack.opened.glob("*"):
        earlier.unlink()  # what the runs before these opened is counted nowhere
    with stack.public.client() as public:
        current = public.state().current
    assert current is not None
    if stack.state(current.update_id).stage in PUT_BACK | {Stage.ROLLED_BACK}:
        stack.change("before the scenarios")
        stack.ship("UPD-0A", "What runs before the scenarios")


def files_on(node: NodeProcess) -> dict[str, tuple[str, int]]:
    """Each file of what the node runs, hashed as it lies on its disk; nothing else may lie there."""
    with node.client(Scope.READ) as client:
        tree = client.tree()
    assert tree.extra == []
    return {path: (file.sha256, file.mode) for path, file in tree.files.items()}


def files_in(directory: Path) -> dict[str, tuple[str, int]]:
    """Each file of a source, as it is packed."""
    with pack_directory(directory) as packed:
        return {file.path: (file.sha256, file.mode) for file in packed.manifest.files}


def test_1_initialise(stack: Stack) -> None:
    told = stack.deploy("up", "--detach")
    assert stack.ui_url in told.stdout + told.stderr
    assert (stack.home.stat().st_mode & 0o777) == 0o700


def test_2_help(stack: Stack) -> None:
    told = stack.deploy("help").stdout
    for word in ("push", "verify", "approve", "rollback", "cancel", "status", "history", "servers", "configure"):
        assert word in told


def test_3_list_servers(stack: Stack) -> None:
    told = stack.deploy("servers").stdout
    assert "🖥️ Configured Servers" in told
    assert "ALPHA (localhost)" in told
    assert "PUBLIC" in told
    assert stack.public.url in told
    assert "OMEGA" in told
    assert stack.omega.url in told
    assert "Mainframes of production" in told
    assert re.search(r"mainframe-1  seen .* ago  |mainframe-1  never seen  ", told)
    listed = json.loads(stack.deploy("servers", "--json").stdout)
    assert {one["name"] for one in listed["mainframes"]} >= {one.directory.name for one in stack.mainframes}
    assert all(one["omega"] == "omega" and one["told"] in " ".join(told.split()) for one in listed["mainframes"])


def test_3_the_log_of_a_server(stack: Stack) -> None:
    lines = (stack.public.data / "app.log").read_text().splitlines()
    shown = json.loads(stack.deploy("logs", "public", "--json", "--lines", "2").stdout)
    assert (shown["server"], shown["log"]) == ("public", "app.log")
    assert shown["lines"] == lines[-2:]
    assert stack.deploy("logs", "staging", "--lines", "2").stdout.splitlines() == lines[-2:], (
        "by the name that was typed"
    )
    told = stack.deploy("logs", "mainframe-1")
    assert (told.stdout, told.stderr[:33]) == ("", "Its last report brought no lines:")
    nobody = stack.deploy("logs", "nobody", check=False)
    assert nobody.returncode == 1
    assert nobody.stderr.startswith("❌ No server and no Mainframe 'nobody' is known: deploy servers lists them.")


@pytest.mark.parametrize("kind", ["public", "omega"])
def test_4_5_configure_a_server(stack: Stack, kind: str) -> None:
    node = stack.public if kind == "public" else stack.omega
    done = stack.deploy("configure", kind, node.url, f"{kind}-renamed", "--token-stdin", stdin=node.token(Scope.ADMIN))
    assert "✅ Server configured successfully" in done.stdout
    for seen in (kind, f"{kind}-renamed", node.url):
        assert seen.casefold() in done.stdout.casefold()
    assert node.token(Scope.ADMIN) not in done.stdout + done.stderr
    assert f"{kind}-renamed" in stack.deploy("servers").stdout
    stack.configure(kind, node, Scope.ADMIN)  # as the others know it


def test_5_any_other_type_is_refused_by_name(stack: Stack) -> None:
    done = stack.deploy("configure", "mainframe", "http://127.0.0.1:1", "x", check=False)
    assert done.returncode == 2
    assert "mainframe" in done.stderr


def test_6_to_9_push_verify_approve_rollback(stack: Stack) -> None:
    before = stack.bundles()
    stack.change("the scenario")
    words = ("push", "UPD-1", "A changed byte", "with more said", "--allow-dirty")
    swapped = stack.deploy(*words, "--target", "public", check=False)
    assert "'public' is configured as a server of the role public, so it cannot be a target" in swapped.stderr
    pushed = stack.deploy(*words).stdout
    for line in (
        "🚀 ASHAT Deployment Workflow Initiated",
        "Update ID: UPD-1",
        f"Target: staging (Public Server, {stack.public.url}); once it is approved, production (OMEGA)",
        "📋 Deployment Plan: 4 steps",
        "Commit and Package",
        "Deploy to Public Server",
        "Verification Tests",
        "Await Approval",
    ):
        assert line in pushed
    assert stack.state("UPD-1").stage is Stage.PUSHED

    verified = stack.deploy("verify", "UPD-1").stdout
    assert "🔍 ASHAT Deployment Verification" in verified
    assert verified.count("✅") >= 7
    assert "✅ Verification PASSED!" in verified
    assert f"Evidence: {stack.state('UPD-1').evidence}" in verified
    assert f"{stack.ui_url}/runs/flow-run/" in verified

    state = stack.wait_asked("UPD-1")
    assert stack.bundles()["production"] == before["production"], "nothing may reach OMEGA before a person said so"
    assert state.evidence is not None
    approved = stack.deploy("approve", "UPD-1", "--evidence", state.evidence[-8:]).stdout
    for line in (
        "🎉 ASHAT Deployment to OMEGA Approved!",
        "📤 Distributing to Licensed Mainframes",
        "✅ Deployment completed successfully!",
    ):
        assert line in approved
    assert set(stack.bundles().values()) == {state.bundle}
    expected = files_in(stack.source)
    for node in stack.servers:
        assert files_on(node) == expected, node.directory.name

    undone = stack.deploy("rollback", "UPD-1").stdout
    assert "⏪ Deployment 'UPD-1' rolled back successfully." in undone
    assert stack.bundles() == before
    assert stack.state("UPD-1").stage is Stage.ROLLED_BACK
    again = stack.deploy("rollback", "UPD-1", check=False)
    assert again.returncode == 1
    assert "rolled back already" in again.stderr


def test_9_what_a_person_opens_afterwards_in_prefect(stack: Stack) -> None:
    bundle = str(stack.state("UPD-1").bundle)[:12]

    def artifact(key: str) -> Any:
        """The data of the newest artifact of that key, which a flow run left."""
        found = stack.api("GET", f"/artifacts/{key}/latest")
        assert found["flow_run_id"], key
        assert found["description"], key
        return found["data"]

    assert [artifact(f"{way}-{bundle}") for way in ("upload", "promote")] == [100.0, 100.0]
    assert "Commit and Package" in artifact("plan-upd-1-1")
    difference = artifact("gate-upd-1-1")
    assert "Chat" in difference.partition("What changes")[2], difference
    standing = json.loads(artifact("servers-upd-1-1"))
    assert {row["server"]: (row["role"], row["runs"], row["bundle"][:12]) for row in standing} == {
        "staging": ("public", "UPD-1", bundle),
        "production": ("omega", "UPD-1", bundle),
        "mainframe-1": ("mainframe", "running", bundle),
        "mainframe-2": ("mainframe", "running", bundle),
    }


def test_9_an_approved_release_opens_the_ledger_and_each_server_about_once_a_process(stack: Stack) -> None:
    processes = opened_by(stack.opened, "*")
    assert len(processes) >= 2, "one asked, and one went on once a person had answered"
    ports = (node.url.rpartition(":")[2] for node in (stack.public, stack.omega))
    for name, most in (("ledger.db", 3), *((port, 2) for port in ports)):
        assert 1 <= max(opened[name] for opened in processes) <= most, (name, processes)


def test_10_cancel(stack: Stack) -> None:
    before = stack.bundles()
    stack.change("never approved")
    stack.deploy("push", "UPD-2", "Called off", "--allow-dirty")
    assert stack.bundles() != before
    stack.deploy("verify", "UPD-2")
    stack.wait_asked("UPD-2")
    assert "🚫 Deployment 'UPD-2' cancelled." in stack.deploy("cancel", "UPD-2").stdout
    state = stack.state("UPD-2")
    assert state.stage is Stage.CANCELLED
    assert state.public_restored
    assert stack.bundles() == before
    late = stack.deploy("approve", "UPD-2", "--evidence", "0" * 8, check=False)
    assert late.returncode == 1
    assert "was cancelled" in late.stderr


def test_11_the_complete_workflow_with_history(stack: Stack) -> None:
    stack.change("the complete workflow")
    assert stack.ship("UPD-3", "All of it").stage is Stage.COMPLETED
    told = stack.deploy("history").stdout
    assert "📜 Deployment History" in told
    for update_id in ("UPD-0", "UPD-1", "UPD-2", "UPD-3"):
        assert update_id in told
    assert "📊 ASHAT Deployment Status" in stack.deploy("status").stdout
    listed = json.loads(stack.deploy("history", "--json").stdout)
    rows = listed["deployments"] if isinstance(listed, dict) else listed
    stages = {row["update_id"]: row["stage"] for row in rows}
    assert rows[0]["update_id"] == "UPD-3"
    assert stages | {"UPD-1": "RolledBack", "UPD-2": "Cancelled", "UPD-3": "Completed"} == stages


def test_a_release_that_does_not_start_comes_with_what_its_program_wrote(stack: Stack) -> None:
    before, program = stack.bundles(), stack.source / "raos.py"
    good = program.read_text()
    program.write_text('import sys\nsys.exit("\\x1b[2Jno sails, password=hunter2")\n')
    try:
        done = stack.deploy("push", "UPD-SUNK", "It has no sails", "--allow-dirty", check=False)
    finally:
        program.write_text(good)
    line = r"│ \x1b[2Jno sails, password=***"
    assert done.returncode == 1
    assert f"  staging {line}\n" in done.stdout
    assert "staging did not take it: the program ended by itself with exit code 1" in done.stderr
    assert f"  {line}\n" in stack.deploy("status", "UPD-SUNK").stdout
    output = json.loads(stack.deploy("status", "UPD-SUNK", "--json").stdout)["output"]
    assert output == [line[2:]] * len(output), "once for each time that it was started"
    assert output
    assert stack.bundles() == before


def test_without_its_omega_a_release_waits_until_that_is_configured(stack: Stack) -> None:
    stack.change("for a further region")
    pushed = stack.deploy("push", "UPD-4", "For another region", "--allow-dirty", "--target", "omega-asia")
    assert "deploy configure omega <url> <name> --as omega-asia. It can be pushed and verified" in pushed.stderr
    assert "✅ Verification PASSED!" in stack.deploy("verify", "UPD-4").stdout
    state = stack.wait_asked("UPD-4")
    assert state.evidence is not None
    words = ("approve", "UPD-4", "--evidence", state.evidence[-8:])
    refused = stack.deploy(*words, check=False)
    assert refused.returncode == 1
    assert "deploy configure omega <url> <name> --as omega-asia" in refused.stderr
    assert stack.state("UPD-4").stage is Stage.AWAITING_APPROVAL

    told = stack.deploy(
        "configure", "omega", stack.omega.url, "asia", "--as", "omega-asia", "--token-stdin", stdin=stack.omega.token()
    )
    assert "✅ Server configured successfully" in told.stdout
    shown = stack.deploy("approve", "UPD-4", "--evidence", "00000000", check=False)
    assert "It is asked again now" in shown.stderr
    assert "does not end in '00000000'" in shown.stderr
    state = stack.wait_asked("UPD-4", 2)
    assert state.gate is not None
    assert state.gate.obstacle == ""
    stack.deploy(*words)
    state = stack.state("UPD-4")
    assert state.stage is Stage.COMPLETED
    assert set(stack.bundles().values()) == {state.bundle}
