"""A release goes out in waves from the gate's yes on: a bad one stops by itself, and a person has the next word."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import httpx
import pytest

from ashat.common.identifiers import licence_id, new_key
from ashat.deployment.stages import Stage
from ashat.protocol.licences import LicenceRequest
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.stack import Stack, eventually

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]

POLICY = """
waves = ["internal: ring=internal", "everyone: rest"]
soak_seconds = 0
success_percent = 50
failure_least = 1
failure_percent = 0
mainframe_seconds = 120
"""


@pytest.fixture(autouse=True)
def labelled(stack: Stack) -> Iterator[None]:
    file = stack.source.parent / "rollout.toml"
    file.write_text(POLICY)
    stack.deploy("configure", "rollout-policy", "default", str(file))
    assert "ring=internal" in stack.deploy("fleet", "label", "mainframe-1", "ring=internal", "--omega", "omega").stdout
    yield
    stack.deploy("fleet", "label", "mainframe-1", "ring-", "--omega", "omega")
    found = stack.api("GET", "/block_types/slug/raos-rollout-policy/block_documents/name/default")
    stack.api("DELETE", f"/block_documents/{found['id']}")


def approve(stack: Stack, update_id: str) -> None:
    """Push, verify, and say yes."""
    stack.deploy("push", update_id, "In waves", "--allow-dirty")
    stack.deploy("verify", update_id)
    state = stack.wait_asked(update_id)
    assert state.evidence is not None
    assert state.gate is not None
    form = {"decision": "approve", "evidence": state.evidence[-8:], "approver": "kim", "comment": "it was noisy"}
    stack.api("POST", f"/flow_runs/{state.gate.run}/resume", {"run_input": form})


def test_a_release_goes_out_in_waves_and_is_seen_everywhere(stack: Stack) -> None:
    stack.change("in waves")
    approve(stack, "UPD-W1")
    state = stack.wait("UPD-W1", lambda state: state.ended)
    assert state.stage is Stage.COMPLETED
    assert state.rollout is not None
    assert [size for _, size in state.rollout.waves] == [1, 1]
    assert (state.reach.running, state.reach.total, state.rollout.opened) == (2, 2, 2)
    shown = json.loads(stack.deploy("rollout", "show", "UPD-W1", "--json").stdout)
    assert (shown["status"], [wave["succeeded"] for wave in shown["waves"]]) == ("completed", [1, 1])
    assert "UPD-W1" in stack.deploy("rollout", "list", "--omega", "omega").stdout
    told = stack.deploy("history", "UPD-W1").stdout
    assert "internal 1, everyone 1" in told
    fleet = json.loads(
        stack.deploy("fleet", "--version", "UPD-W1", "--label", "ring=internal", "--json", "--omega", "omega").stdout
    )
    assert [one["name"] for one in fleet["mainframes"]] == ["mainframe-1"]
    assert "mainframe-1,active,running,UPD-W1" in stack.deploy("fleet", "--csv", "--omega", "omega").stdout
    then = json.loads(stack.deploy("fleet", "at", shown["began_at"], "--json", "--omega", "omega").stdout)
    assert {one["bundle"] for one in then["mainframes"]} != {state.bundle}


def test_one_that_a_person_paused_goes_on_by_their_word_or_ends(stack: Stack) -> None:
    stack.change("paused")
    stopped = stack.mainframes[0]
    stopped.stop()
    try:
        approve(stack, "UPD-W2")
        eventually(lambda: (state := stack.state("UPD-W2")).rollout and state.rollout.opened == 1, "the first wave")
        stack.deploy("rollout", "pause", "UPD-W2", "--why", "mainframe-1 is away", "--by", "Kim")
        state = stack.wait("UPD-W2", lambda state: state.rollout is not None and state.rollout.waits)
        assert state.rollout is not None
        assert state.rollout.stopped == "mainframe-1 is away"
        assert "stopped: mainframe-1 is away" in stack.deploy("status").stdout
        stack.wait_run(state.rollout.run, "Suspended")
        waiting = json.loads(stack.deploy("inbox", "--json").stdout)["waiting"]
        (stops,) = [one for one in waiting if one["kind"] == "rollout"]
        assert (stops["about"], stops["run"]) == ("UPD-W2", state.rollout.run)
    finally:
        stopped.start()
    stack.deploy("rollout", "resume", "UPD-W2", "--why", "it is back", "--by", "Kim")
    state = stack.wait("UPD-W2", lambda state: state.ended)
    assert (state.stage, state.reach.running, state.reach.total) == (Stage.COMPLETED, 2, 2)
    assert state.rollout is not None
    assert (state.rollout.answer, state.rollout.answered_by) == ("resume", "Kim")


def test_a_cohort_is_compared_with_the_rest_and_taken_back_by_a_person_s_word(stack: Stack) -> None:
    before = stack.bundles()
    file = stack.source.parent / "rollout.toml"
    file.write_text(POLICY.replace("ring=internal", "ring=internal, then ask", 1))
    stack.deploy("configure", "rollout-policy", "default", str(file))
    stack.change("for a cohort")
    approve(stack, "UPD-W3")
    state = stack.wait("UPD-W3", lambda state: state.rollout is not None and state.rollout.waits)
    assert state.rollout is not None
    compared = stack.deploy("rollout", "compare", "UPD-W3").stdout
    assert "Too few to tell: 0 of 1 of the cohort and 0 of 1 of the rest failed" in compared
    found = json.loads(stack.deploy("rollout", "compare", "UPD-W3", "--json").stdout)
    assert (found["cohort"]["ran"], found["rest"]["ran"]) == (1, 1)
    run = stack.wait_run(state.rollout.run, "Suspended")["id"]
    page = stack.source.parent / "page.html"
    stack.deploy("rollout", "report", "UPD-W3", "--html", str(page))
    assert "then ask" not in page.read_text()
    assert "<svg" in page.read_text()
    form = {"decision": "roll-back", "approver": "Kim", "comment": "the customers complain"}
    stack.api("POST", f"/flow_runs/{run}/resume", {"run_input": form})
    state = stack.wait("UPD-W3", lambda state: state.stage is Stage.ROLLED_BACK)
    assert state.rollback_reason == "the customers complain"
    assert stack.bundles() == before
    assert "roll-back: the customers complain" in stack.deploy("history", "UPD-W3").stdout


def test_too_many_failures_take_it_back_by_themselves_where_the_policy_says_so(stack: Stack) -> None:
    before = stack.bundles()
    file = stack.source.parent / "rollout.toml"
    file.write_text(POLICY + 'on_failure = "roll-back-all"\n')
    stack.deploy("configure", "rollout-policy", "default", str(file))
    stack.change("refused by one")
    log = next(stack.mainframes[0].data.rglob("log.json"))
    known = log.read_bytes()
    try:
        log.write_text("damaged")
        approve(stack, "UPD-W5")
        state = stack.wait("UPD-W5", lambda state: state.stage is Stage.ROLLED_BACK)
    finally:
        log.write_bytes(known)
    assert state.rollout is not None
    assert "failed" in state.rollback_reason
    assert not state.rollout.stopped, "nobody was asked"
    assert stack.bundles() == before


def test_an_approval_counts_for_the_rollout_policy_that_was_shown(stack: Stack) -> None:
    stack.change("for one policy")
    stack.deploy("push", "UPD-W4", "In waves", "--allow-dirty")
    stack.deploy("verify", "UPD-W4")
    state = stack.wait_asked("UPD-W4")
    shown = state.approvals["release"].rollout_policy
    file = stack.source.parent / "rollout.toml"
    file.write_text(POLICY.replace("soak_seconds = 0", "soak_seconds = 1"))
    stack.deploy("configure", "rollout-policy", "default", str(file))
    form = {"decision": "approve", "evidence": (state.evidence or "")[-8:], "approver": "kim", "comment": "noisy"}
    assert state.gate is not None
    stack.api("POST", f"/flow_runs/{state.gate.run}/resume", {"run_input": form})
    state = stack.wait_asked("UPD-W4", 2)
    again = state.approvals["release"]
    assert "the rollout policy is another one than when this was asked" in again.reason
    assert again.rollout_policy not in (None, "", shown)
    stack.api("POST", f"/flow_runs/{again.run}/resume", {"run_input": form})
    state = stack.wait("UPD-W4", lambda state: state.ended)
    assert state.stage is Stage.COMPLETED
    assert state.rollout is not None
    assert state.rollout.policy == again.rollout_policy
    told = stack.deploy("history", "UPD-W4").stdout
    assert "up to wave 1: it begins" in told
    assert "the rollout policy is another one" in " ".join(told.split())
    assert "UPD-W4" not in stack.deploy("audit", "verify", check=False).stdout, "its record is whole"


def test_an_old_install_is_unverified_wherever_it_is_told_from_the_approval_to_the_receipt(stack: Stack) -> None:
    key = new_key()
    with stack.omega.client() as client:
        client.put_licence(LicenceRequest(key=key, name="old-1", old_protocol=True))
    ended = threading.Event()

    def look() -> None:
        """Ask now and then, as an old install does, and say to run whatever was offered before."""
        version = "0.1"
        while not ended.wait(0.5):
            asked = {"version": version, "license": key}
            answer = httpx.get(f"{stack.omega.url}/api/updates/check", params=asked, timeout=60, trust_env=False)
            if answer.status_code == 200 and answer.json()["update"]["updateAvailable"]:
                version = answer.json()["update"]["latestVersion"]

    install = threading.Thread(target=look)
    install.start()
    try:
        stack.change("for an old install")
        stack.deploy("push", "UPD-W6", "In waves", "--allow-dirty")
        stack.deploy("verify", "UPD-W6")
        state = stack.wait_asked("UPD-W6")
        words = ("--evidence", (state.evidence or "")[-8:], "--by", "kim", "--comment", "it was noisy")
        done = stack.deploy("approve", "UPD-W6", *words)
    finally:
        ended.set()
        install.join()
        with stack.omega.client() as client:
            client.revoke_licence(licence_id(key))
    unverified = "UNVERIFIED: by the old protocol it says that it runs"
    line = next(line for line in done.stdout.splitlines() if "old-1" in line)
    assert unverified in line
    state = stack.state("UPD-W6")
    (outcome,) = [one for one in state.mainframes if one.name == "old-1"]
    assert (outcome.result, unverified in outcome.reason) == ("running", True)
    assert unverified in stack.deploy("status", "UPD-W6").stdout
    assert unverified in stack.deploy("history", "UPD-W6", "--json").stdout
    assert "UNVERIFIED" in stack.deploy("fleet", "--omega", "omega").stdout
    file = stack.source.parent / "receipt.json"
    stack.deploy("receipt", "UPD-W6", "--mainframe", "old-1", "--out", str(file))
    root = stack.home / "trust" / "authority" / "omega" / "root.json"
    shown = ashat_node("verify-receipt", file, "--root", root)
    assert shown.returncode == 0, shown.stderr
    assert unverified in shown.stdout
