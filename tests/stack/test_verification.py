"""A verification as a whole: the way back rehearsed, answers taken over, and evidence that no longer counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ashat.deployment.state_machine import Stage, State
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]

REHEARSING = ("--policy", "rehearsing")


@pytest.fixture
def shipped(stack: Stack) -> Stack:
    """The stack, with something that every server runs, and a policy that rehearses."""
    if not stack.ran("VERIFY-0"):
        stack.change("before the verifications")
        stack.ship("VERIFY-0")
        stack.configure_policy("rehearsing", rehearses=True)
    return stack


def evidence_of(stack: Stack, update_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stack.deploy("evidence", update_id, "--json").stdout)
    return found


def answers(evidence: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in evidence["checks"]}


def verify(stack: Stack, update_id: str, *words: str) -> State:
    stack.deploy("verify", update_id, *words)
    return stack.state(update_id)


def test_the_way_back_is_rehearsed_and_the_evidence_says_how_long_it_took(shipped: Stack) -> None:
    before = shipped.state("VERIFY-0").bundle
    shipped.change("rehearsed")
    shipped.deploy("push", "VERIFY-1", "Rehearsed", "--allow-dirty")
    state = verify(shipped, "VERIFY-1", *REHEARSING)
    assert state.stage is Stage.AWAITING_APPROVAL
    assert shipped.bundles()["staging"] == state.bundle
    evidence = evidence_of(shipped, "VERIFY-1")
    rehearsal = evidence["rehearsal"]
    assert rehearsal["outcome"] == "pass"
    rounds = len(rehearsal["back_ms"])
    assert 2 <= rounds <= 4, "once or twice more where a busy machine made one of them seem slower"
    assert len(rehearsal["forward_ms"]) == rounds
    assert all(took > 0 for took in rehearsal["back_ms"] + rehearsal["forward_ms"])
    assert [tree["release"] for tree in rehearsal["trees"]] == ["old", "new"] * rounds
    assert all(tree["found"] == tree["expected"] for tree in rehearsal["trees"])
    compared = next(check for check in evidence["checks"] if check["name"] == "rehearsal")
    assert compared["inputs"]["noted_before"], "the push noted what the release before answered"
    assert compared["figures"]["endpoints_compared"] == compared["figures"]["requests_compared"] // 6 > 0
    assert compared["figures"]["tables_counted"] > 0
    assert compared["findings"] == []
    assert evidence["public"]["ran_before"] == before
    performance = answers(evidence)["performance"]
    assert performance["outcome"] in ("pass", "inconclusive"), performance["seen"]
    assert len(performance["series"]["old_us"]) >= 20
    assert len(performance["series"]["new_us"]) >= 20
    assert "Rollback rehearsal" in shipped.deploy("status", "VERIFY-1").stdout
    keyed = {"artifacts": {"key": {"any_": ["latency-verify-1-1"]}}}
    (drawing,) = shipped.api("POST", "/artifacts/filter", keyed)
    assert drawing["type"] == "image"
    assert drawing["data"].startswith("data:image/svg+xml;base64,")


def test_verified_again_only_what_is_stale_is_run(shipped: Stack) -> None:
    first = shipped.state("VERIFY-1").evidence
    passed = {name for name, check in answers(evidence_of(shipped, "VERIFY-1")).items() if check["outcome"] == "pass"}
    state = verify(shipped, "VERIFY-1")
    assert state.evidence != first
    again = answers(evidence_of(shipped, "VERIFY-1"))
    kept = {name for name, check in again.items() if check["reused_from"] == first}
    assert kept >= passed - {"rehearsal"}, "nothing changed since"
    fresh = answers(json.loads(_fresh(shipped, "VERIFY-1")))
    assert [check["reused_from"] for check in fresh.values()] == [None] * len(fresh)


def test_a_policy_that_was_misspelt_in_the_ui_is_refused_before_anything_changes(shipped: Stack) -> None:
    before = shipped.wait_asked("VERIFY-1")
    shipped.configure_policy("misspelt", warns=["security"])
    (block,) = [each for each in shipped.api("POST", "/block_documents/filter", {}) if each["name"] == "misspelt"]
    change = {"data": {"warns": ["securty"]}, "merge_existing_data": True}
    shipped.api("PATCH", f"/block_documents/{block['id']}", change)
    done = shipped.deploy("verify", "VERIFY-1", "--policy", "misspelt", check=False)
    assert done.returncode == 1
    assert "The policy names a check 'securty' in warns, and there is none: known here are health" in done.stderr
    assert shipped.state("VERIFY-1").version == before.version


def test_evidence_under_another_policy_does_not_count(shipped: Stack) -> None:
    state = shipped.wait_asked("VERIFY-1")
    assert state.evidence is not None
    shipped.configure_policy("rehearsing", rehearses=True, warns=["security"])
    words = ("approve", "VERIFY-1", "--evidence", state.evidence[-8:], "--comment", "as it is")
    refused = shipped.deploy(*words, check=False)
    assert refused.returncode == 1
    assert "the verification policy is another one by now: deploy verify VERIFY-1" in refused.stderr
    assert shipped.state("VERIFY-1").stage is Stage.AWAITING_APPROVAL
    state = verify(shipped, "VERIFY-1")
    assert evidence_of(shipped, "VERIFY-1")["policy"]["warns"] == ["security"]
    shipped.wait_asked("VERIFY-1", 2)
    assert state.evidence is not None
    shipped.deploy("approve", "VERIFY-1", "--evidence", state.evidence[-8:], "--comment", "as it is")
    assert shipped.state("VERIFY-1").stage is Stage.COMPLETED


def test_the_gate_says_what_a_release_loosens_and_a_policy_may_leave_public_as_it_is(shipped: Stack) -> None:
    promises = shipped.source / "raos.toml"
    kept, faults = promises.read_text(), shipped.source / "faults.toml"
    try:
        promises.write_text(kept.replace("p95_ms = 250", "p95_ms = 900"))
        faults.write_text('faults = ["wrong-version=9.4.0"]\n')
        shipped.configure_policy("lenient", rehearses=False, warns=["health"], rolls_back=False)
        shipped.deploy("push", "VERIFY-2", "Loosened", "--allow-dirty")
        state = verify(shipped, "VERIFY-2", "--policy", "lenient")
        assert (state.stage, state.outcome) == (Stage.AWAITING_APPROVAL, "attention")
        health = answers(evidence_of(shipped, "VERIFY-2"))["health"]
        assert health["outcome"] == "warn"
        assert health["seen"].endswith("(under the policy this only warns)")
        weakened = answers(evidence_of(shipped, "VERIFY-2"))["loosened"]
        assert weakened["outcome"] == "warn"
        assert "on production promised is kept: [performance] p95_ms is 900 instead of 250" in weakened["seen"]
        state = shipped.wait_asked("VERIFY-2")
        assert state.evidence is not None
        shown = shipped.deploy("approve", "VERIFY-2", "--reject", "--reason", "no").stdout
        assert "This release loosens what it is held to" in shown
        assert "One-person mode: one key, on this machine and without a passphrase, approves." in shown
        assert "p95_ms" in shown.replace("\\", "")

        shipped.configure_policy("lenient", rehearses=False, rolls_back=False)
        shipped.deploy("push", "VERIFY-3", "Fails", "--allow-dirty")
        assert shipped.deploy("verify", "VERIFY-3", "--policy", "lenient", check=False).returncode == 1
        state = shipped.state("VERIFY-3")
        assert state.stage is Stage.FAILED
        assert shipped.bundles()["staging"] == state.bundle, "the policy leaves it there to be looked at"
        shipped.deploy("rollback", "VERIFY-3")
        assert shipped.bundles()["staging"] == shipped.state("VERIFY-1").bundle
    finally:
        promises.write_text(kept)
        faults.unlink()


def test_a_policy_that_is_wrong_or_not_there_is_one_line(shipped: Stack) -> None:
    done = shipped.deploy("verify", "VERIFY-2", "--policy", "nowhere", check=False)
    assert done.returncode == 1
    for keys, telling in (
        ({"warn": ["health"]}, "warn: there is no such key. Known are warns"),
        ({"time_limit": 0}, "time_limit: "),
        ({"skips": ["performnce"]}, "The policy names a check 'performnce' in skips, and there is none: known here"),
    ):
        file = shipped.home / "wrong.toml"
        name, value = next(iter(keys.items()))
        file.write_text(f"{name} = {json.dumps(value)}\n")
        done = shipped.deploy("configure", "policy", "default", str(file), check=False)
        assert done.returncode == 2
        assert f"{file}: {telling}" in done.stderr


def _fresh(stack: Stack, update_id: str) -> str:
    stack.deploy("verify", update_id, "--fresh")
    return stack.deploy("evidence", update_id, "--json").stdout


def test_a_way_back_that_is_shut_is_told_and_public_can_be_restored(shipped: Stack) -> None:
    """The new release moves the data to another file, and leaves the old one unreadable."""
    database = shipped.public.data / "app-data" / "raos.db"
    approved = [shipped.state(f"VERIFY-{number}") for number in range(8) if shipped.ran(f"VERIFY-{number}")]
    last = max(
        (state for state in approved if state.stage is Stage.COMPLETED), key=lambda state: state.release_seq or 0
    )
    kept, code = database.read_bytes(), shipped.source / "kernel" / "database.py"
    text, promises = code.read_text(), (shipped.source / "raos.toml").read_text()
    unknown = shipped.deploy("public", "restore", "VERIFY-8", check=False)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (1, 1)
    code.write_text(text.replace("raos.db", "moved.db"))
    move = 'command = ["sh", "-c", "cd $RAOS_DATA && rm -f raos.db* && echo moved > raos.db"]\n'
    (shipped.source / "raos.toml").write_text(f"{promises}\n[migrate]\n{move}")
    try:
        shipped.deploy("push", "VERIFY-9", "Moves its data", "--allow-dirty")
        refused = shipped.deploy("public", "restore", check=False)
        assert "'VERIFY-9' runs on" in refused.stderr
        assert "deploy cancel VERIFY-9" in refused.stderr
        failed = shipped.deploy("verify", "VERIFY-9", *REHEARSING, check=False)
        assert failed.returncode == 1
        assert "deploy public restore" in failed.stderr
        state = shipped.state("VERIFY-9")
        assert (state.stage, state.owes_public) == (Stage.FAILED, True)
        assert shipped.bundles()["staging"] == state.bundle
        told = [finding["text"] for finding in answers(evidence_of(shipped, "VERIFY-9"))["rehearsal"]["findings"]]
        assert "going back to" in told[0]
        assert any(line.startswith("staging runs VERIFY-9") and "deploy public restore" in line for line in told), told

        in_vain = shipped.deploy("public", "restore", check=False)
        assert in_vain.returncode == 1
        assert "staging runs VERIFY-9" in in_vain.stderr.splitlines()[-1], in_vain.stderr
        assert shipped.state("VERIFY-9").owes_public
    finally:
        code.write_text(text)
        (shipped.source / "raos.toml").write_text(promises)
        database.write_bytes(kept)
    done = shipped.deploy("public", "restore")
    assert f"public runs {last.update_id}" in done.stdout
    assert shipped.bundles()["staging"] == last.bundle
    assert not shipped.state("VERIFY-9").owes_public
    assert f"staging runs {last.update_id}" in shipped.deploy("history", "VERIFY-9").stdout
    assert "nothing was changed" in shipped.deploy("public", "restore").stdout


def test_a_migrate_step_that_cannot_be_taken_back_is_said_before(shipped: Stack) -> None:
    """By the rehearsal, which is not walked, in the gate's first line, in status and history, and by the rollback."""
    promises = (shipped.source / "raos.toml").read_text()
    (shipped.source / "raos.toml").write_text(f'{promises}\n[migrate]\ncommand = ["true"]\nreversible = false\n')
    shipped.change("cannot be taken back")
    try:
        assert "its migrate step: done" in shipped.deploy("push", "VERIFY-10", "One way", "--allow-dirty").stdout
    finally:
        (shipped.source / "raos.toml").write_text(promises)
    state = verify(shipped, "VERIFY-10", *REHEARSING)
    assert (state.stage, state.outcome) == (Stage.AWAITING_APPROVAL, "attention")
    evidence = evidence_of(shipped, "VERIFY-10")
    assert evidence["rehearsal"] is None
    rehearsed = answers(evidence)["rehearsal"]
    assert (rehearsed["outcome"], rehearsed["findings"][0]["severity"]) == ("warn", "medium")
    assert "reversible = false" in rehearsed["seen"]
    state = shipped.wait_asked("VERIFY-10")
    assert state.evidence is not None
    words = ("--evidence", state.evidence[-8:], "--comment", "the backup is made")
    shown = shipped.deploy("approve", "VERIFY-10", *words).stdout
    assert "its migrate step cannot be taken back" in shown
    history, status = (" ".join(shipped.deploy(word, "VERIFY-10").stdout.split()) for word in ("history", "status"))
    assert history.count("its migrate step: done in") == 2
    assert status.count("it says that it cannot be taken back") == 2
    back = shipped.deploy("rollback", "VERIFY-10")
    assert "its migrate step cannot be taken back: a rollback leaves the database" in back.stderr
