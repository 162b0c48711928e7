"""What an operator does at a terminal: configures, is asked, hesitates, interrupts, goes on, decides with another."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ashat.bundle.pack import pack_directory, pack_git_ref
from ashat.deployment.events import ApprovalAnswered, Packaged
from ashat.deployment.state_machine import Stage
from ashat.protocol.messages import LeaseRequest, Scope
from ashat.protocol.origins import Differences
from ashat.trust.release.machine_keys import machine_signer
from ashat.trust.tuf.metadata import BUILDER
from tests.support.builders.deployments import open_ledger
from tests.support.processes.deploy_cli import deploy_on_terminal
from tests.support.processes.node import ROOT, free_port
from tests.support.processes.stack import Stack, eventually

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]


@pytest.fixture
def operator(stack: Stack) -> Iterator[Stack]:
    """The stack, with its servers configured again afterwards."""
    yield stack
    stack.configure("public", stack.public, Scope.PUSH)
    stack.configure("omega", stack.omega, Scope.ADMIN)


def block(stack: Stack, name: str) -> dict[str, Any]:
    """What a server block holds, its secrets too."""
    path = f"/block_types/slug/raos-server/block_documents/name/{name}"
    data: dict[str, Any] = stack.api("GET", path, params={"include_secrets": "true"})["data"]
    return data


def verified(stack: Stack, update_id: str) -> str:
    """A pushed and verified update that awaits approval; the end of its evidence."""
    stack.change(update_id)
    stack.deploy("push", update_id, f"For {update_id}", "--allow-dirty")
    stack.deploy("verify", update_id)
    evidence = stack.wait_asked(update_id).evidence
    assert evidence is not None
    return evidence[-8:]


def answers(stack: Stack, update_id: str) -> list[ApprovalAnswered]:
    with open_ledger(stack.home) as ledger:
        return [event for event in ledger.events(update_id, 1) if isinstance(event, ApprovalAnswered)]


def test_a_token_comes_from_the_environment_and_is_kept(operator: Stack) -> None:
    token = operator.public.token(Scope.PUSH)
    told = operator.deploy("configure", "public", operator.public.url, "One", env={"ASHAT_PUBLIC_TOKEN": token})
    assert token not in told.stdout + told.stderr
    assert block(operator, "public")["token"] == token
    again = operator.deploy("configure", "public", operator.public.url, "Two")
    assert "Name: Two" in again.stdout
    assert again.stderr == ""
    assert block(operator, "public")["token"] == token


def test_a_token_that_is_typed_is_not_shown(operator: Stack) -> None:
    token = operator.public.token(Scope.PUSH)
    code, shown = deploy_on_terminal(
        operator.home,
        "configure",
        "public",
        operator.public.url,
        "Typed",
        typed=[("Token of Typed", token)],
        secret=True,
    )
    assert code == 0, shown
    assert token not in shown
    assert "✅ Server configured successfully" in shown
    assert block(operator, "public")["token"] == token


def test_further_regions_have_blocks_of_their_own(operator: Stack) -> None:
    token = operator.omega.token(Scope.ADMIN)
    nowhere = f"127.0.0.1:{free_port()}"
    told = operator.deploy(
        "configure", "omega", nowhere, "Europe", "--as", "omega-eu", "--token-stdin", stdin=f"{token}\n"
    )
    assert "Block: omega-eu" in told.stdout
    assert f"URL: http://{nowhere}" in told.stdout
    assert "Answers: no: Europe: " in told.stdout
    listed = {s["block"]: s for s in json.loads(operator.deploy("servers", "--json").stdout)["servers"]}
    assert set(listed) >= {"public", "omega", "omega-eu"}
    assert listed["omega-eu"]["answers"] is False
    assert listed["omega"]["current"]["bundle"] == operator.bundles()["production"]
    assert token not in str(listed)


def test_plain_http_to_another_machine_is_saved_with_a_warning(operator: Stack) -> None:
    words = ("configure", "omega", "http://192.0.2.7:80", "Far", "--as", "omega-far")
    quick = {"ASHAT_CONNECT_TIMEOUT": "0.2", "ASHAT_OMEGA_FAR_TOKEN": "a-token"}
    warned = operator.deploy(*words, env=quick)
    assert "✅ Server configured successfully" in warned.stdout
    assert "will not be sent" in warned.stderr
    allowed = operator.deploy(*words, "--insecure-http", env=quick)
    assert "readable" in allowed.stderr
    assert block(operator, "omega-far")["insecure_http"] is True


def test_a_source_is_saved_for_the_ui(operator: Stack) -> None:
    told = operator.deploy("configure", "source", "raos", ".", "--ref", "main")
    assert "✅ Source configured successfully" in told.stdout
    assert f"Location: {operator.source}" in told.stdout


def test_a_rollout_policy_is_saved_for_the_ui(operator: Stack) -> None:
    file = operator.home / "careful.toml"
    file.write_text('waves = ["canary: 2", "everyone: rest"]\nsoak_seconds = 5\n', "utf-8")
    told = operator.deploy("configure", "rollout-policy", "careful", str(file))
    assert "✅ Rollout policy configured successfully" in told.stdout
    saved = operator.api("GET", "/block_types/slug/raos-rollout-policy/block_documents/name/careful")["data"]
    assert (saved["waves"], saved["soak_seconds"]) == (["canary: 2", "everyone: rest"], 5)


def test_commit_commits_tracked_changes_under_id_and_description(stack: Stack) -> None:
    stack.change("to be committed")
    git = ["git", "-C", str(stack.source)]
    identity = {"GIT_CONFIG_GLOBAL": str(stack.home / "gitconfig")}
    (stack.home / "gitconfig").write_text("[user]\n name = Kim\n email = kim@example.com\n")
    told = stack.deploy("push", "CLI-1", "Committed on the way", "--commit", env=identity)
    head = subprocess.run([*git, "log", "-1", "--format=%H %s"], capture_output=True, text=True, check=True).stdout
    commit, _, message = head.strip().partition(" ")
    assert message == "CLI-1: Committed on the way"
    assert f"Committed as {commit[:12]}" in told.stdout
    source = stack.state("CLI-1").source
    assert source is not None
    assert (source.commit, source.dirty) == (commit, False)
    stack.deploy("cancel", "CLI-1", "--reason", "only a test")


def test_a_commit_is_pushed_as_it_is_and_its_bytes_are_shown_on_a_terminal(stack: Stack) -> None:
    git = ["git", "-C", str(stack.source), "-c", "user.name=Kim", "-c", "user.email=kim@example.com"]
    stack.change("in the commit")
    subprocess.run([*git, "commit", "--quiet", "--all", "--message", "To be pushed"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    stack.change("in the directory alone")
    words = ("push", "CLI-6", "A commit", "--ref", "HEAD", "--source", str(stack.source))
    code, shown = deploy_on_terminal(stack.home, *words)
    assert code == 0, shown
    assert re.search(r"\x1b\[[\d;]*m━+.*\d/\d+\.?\d* kB", shown), "a bar, and bytes of all bytes"
    state = stack.state("CLI-6")
    assert state.source is not None
    assert (state.source.commit, state.source.dirty) == (head, False)
    assert state.source.differences == Differences()
    with pack_git_ref(stack.source, head) as packed:
        assert state.bundle == packed.manifest.digest
    stack.deploy("cancel", "CLI-6")


def test_an_archive_is_pushed_by_its_digest_and_the_gate_and_the_evidence_name_it(stack: Stack) -> None:
    stack.change("in the archive")
    archive = stack.home / "raos.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        made.add(stack.source, "raos-9", filter=lambda entry: None if "/.git" in entry.name else entry)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    words = ("push", "CLI-7", "From an archive", "--source", str(archive), "--subdirectory", "raos-9", "--digest")
    refused = stack.deploy(*words, "sha256:" + "0" * 64, check=False)
    assert refused.returncode == 1
    assert f"is not what was wanted: it is sha256:{digest}, and --digest says sha256:{'0' * 64}" in refused.stderr
    assert "Traceback" not in refused.stderr
    stack.deploy(*words, f"sha256:{digest}")
    state = stack.state("CLI-7")
    assert state.source is not None
    assert state.source.artifact is not None
    assert (state.source.artifact.digest, state.source.commit) == (digest, None)
    assert stack.bundles()[stack.public.directory.name] == state.bundle
    with pack_directory(stack.source) as packed:
        assert packed.manifest.digest == state.bundle
    named = f"tar.gz raos.tar.gz (sha256:{digest})"
    assert named in " ".join(stack.deploy("history", "CLI-7").stdout.split())
    stack.deploy("verify", "CLI-7")
    stack.wait_asked("CLI-7")
    with open_ledger(stack.home) as ledger:
        asked = next(event for event in ledger.events("CLI-7", 1) if event.kind == "asked")
        page = str(ledger.document(asked.shown)["markdown"])
        assert "from the artifact raos" in page
        assert f"`{digest}`" in page
    evidence = json.loads(stack.deploy("evidence", "CLI-7", "--json").stdout)
    assert evidence["source"]["artifact"]["digest"] == digest
    stack.deploy("cancel", "CLI-7")

    stack.deploy("configure", "source", "built", str(archive), "--subdirectory", "raos-9", "--digest", digest)
    path = f"/deployments/{stack.deployment('push/push')}/create_flow_run"
    given = {"update_id": "CLI-8", "description": "By a flow", "source": "built"}
    run = stack.api("POST", path, {"parameters": given})["id"]
    eventually(lambda: stack.run(run)["end_time"], "the end of the push")
    pushed = stack.state("CLI-8")
    assert (pushed.stage, pushed.bundle) == (Stage.PUSHED, state.bundle)
    assert pushed.source is not None
    assert (pushed.source.name, pushed.source.artifact) == ("built", state.source.artifact)
    stack.deploy("cancel", "CLI-8")
    for wrong in ("sha1:00", "0" * 63):
        assert (
            stack.deploy("configure", "source", "built", str(archive), "--digest", wrong, check=False).returncode == 2
        )


def test_ci_pushes_and_verifies_with_a_home_of_its_own_and_leaves_the_gate_to_people(
    stack: Stack, tmp_path: Path
) -> None:
    stack.change("built by CI")
    for name in ("tmp", "work", "bin"):
        (tmp_path / name).mkdir()
    program = tmp_path / "bin" / "deploy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m ashat.cli "$@"\n')
    program.chmod(0o755)
    key = stack.home / "trust" / "builder.pem"
    given = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path / "tmp"),
        "PREFECT_API_URL": stack.api_url,
        "PREFECT_API_AUTH_STRING": (stack.home / "control.password").read_text().strip(),
        "ASHAT_LEDGER_URL": f"sqlite:///{stack.home / 'ledger.db'}",
        "ASHAT_CI_ID": "CLI-9",
        "ASHAT_CI_DESCRIPTION": "Built; $(touch harm) `touch harm`",
        "ASHAT_CI_SOURCE": str(stack.source),
        "ASHAT_CI_BUILDER_KEY": key.read_text().strip(),
        "GITHUB_OUTPUT": str(tmp_path / "outputs"),
    }
    env = {**stack.environment, **given}
    del env["ASHAT_HOME"]
    words = [ROOT / "deploy/ci/ship.sh"]
    refused = subprocess.run(words, cwd=tmp_path / "work", env=env, capture_output=True, text=True, timeout=300)
    assert refused.returncode == 1
    assert "has uncommitted changes" in refused.stderr
    git = ["git", "-C", str(stack.source), "-c", "user.name=Kim", "-c", "user.email=kim@example.com"]
    subprocess.run([*git, "commit", "--quiet", "--all", "--message", "For CI"], check=True)
    done = subprocess.run(words, cwd=tmp_path / "work", env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    state = stack.wait_asked("CLI-9")
    assert state.description == given["ASHAT_CI_DESCRIPTION"]
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["ashat-result.json"]
    assert json.loads((tmp_path / "work/ashat-result.json").read_text())["evidence"] == state.evidence
    outputs = dict(line.split("=", 1) for line in (tmp_path / "outputs").read_text().splitlines())
    assert (outputs["stage"], outputs["bundle"]) == (state.stage.value, state.bundle)
    assert list((tmp_path / "tmp").iterdir()) == [], "no key outlives the job"
    with open_ledger(stack.home) as ledger:
        packaged = next(event for event in ledger.events("CLI-9", 1) if isinstance(event, Packaged))
        assert packaged.attestation is not None
        signed = ledger.document(packaged.attestation)
    assert signed["signatures"][0]["keyid"] == machine_signer(stack.home, BUILDER).public_key.keyid
    stack.deploy("cancel", "CLI-9")


def test_an_interrupted_push_says_how_to_go_on_and_goes_on(stack: Stack) -> None:
    stack.change("interrupted")
    lease = LeaseRequest(holder="OTHER-1/1", who="somebody", why="verify", ttl=120)
    words = ["push", "CLI-2", "Interrupted", "--allow-dirty"]
    with stack.public.client(Scope.PUSH) as public:
        public.acquire_lease(lease)
        told = stack.interrupted("⏳ Waiting for OTHER-1/1 (somebody: verify", *words)
        assert "deploy push CLI-2 … --resume goes on with it; deploy cancel CLI-2 calls it off." in told
        public.release_lease("OTHER-1/1")
    assert stack.state("CLI-2").stage is Stage.PLANNING
    assert "--resume" in stack.deploy(*words, check=False).stderr
    stack.deploy(*words, "--resume")
    assert stack.state("CLI-2").stage is Stage.PUSHED
    stack.deploy("cancel", "CLI-2")


def test_a_failed_verification_says_what_was_seen_and_what_is_next(stack: Stack) -> None:
    module = stack.source / "Modules" / "Forum" / "__init__.py"
    good = module.read_text()
    before = stack.bundles()
    module.write_text(f"{good}\nraise RuntimeError('the forum is closed')\n")
    try:
        stack.deploy("push", "CLI-3", "A module that does not load", "--allow-dirty")
        done = stack.deploy("verify", "CLI-3", check=False)
    finally:
        module.write_text(good)
    assert done.returncode == 1
    assert "🔍 ASHAT Deployment Verification" in done.stdout
    assert "❌ Module load: " in done.stdout
    assert "❌ Verification FAILED!" in done.stdout
    assert "deploy push CLI-3" in done.stdout
    assert "Verification failed: " in done.stderr
    assert stack.state("CLI-3").stage is Stage.FAILED
    assert stack.bundles() == before
    assert "Failed" in stack.deploy("history", "--stage", "failed").stdout


def test_at_a_terminal_a_person_types_what_they_read(stack: Stack) -> None:
    tail = verified(stack, "CLI-4")
    code, shown = deploy_on_terminal(stack.home, "approve", "CLI-4", typed=[("leaves it waiting:", "")])
    assert code == 0
    assert "May CLI-4 go to production?" in shown
    assert "Nothing was decided: 'CLI-4' keeps waiting." in shown
    typed = [("leaves it waiting:", "00000000"), ("leaves it waiting:", tail)]
    code, shown = deploy_on_terminal(stack.home, "approve", "CLI-4", typed=typed)
    assert code == 0, shown
    assert "That is not how the evidence ends." in shown
    for line in (
        "🎉 ASHAT Deployment to OMEGA Approved!",
        "📤 Distributing to Licensed Mainframes",
        "mainframe-1: running",
        "✅ Deployment completed successfully!",
    ):
        assert line in shown
    assert [answer.accepted for answer in answers(stack, "CLI-4")] == [True]
    again = stack.deploy("approve", "CLI-4", "--evidence", tail, check=False)
    assert again.returncode == 1
    assert "already, and is completed" in again.stderr
    late = stack.deploy("cancel", "CLI-4", check=False)
    assert "deploy rollback CLI-4" in late.stderr
    assert "⏪ Deployment 'CLI-4' rolled back successfully." in stack.deploy("rollback", "CLI-4").stdout


def test_a_release_that_no_mainframe_takes_is_called_so_everywhere_until_they_take_it(stack: Stack) -> None:
    stack.change("for nobody, at first")
    tail = verified(stack, "CLI-N")
    known = [next(mainframe.data.rglob("log.json")) for mainframe in stack.mainframes]
    before = [path.read_bytes() for path in known]
    try:
        for path in known:
            path.write_text("damaged")
        done = stack.deploy("approve", "CLI-N", "--evidence", tail, check=False)
        assert done.returncode == 3, done.stdout + done.stderr
        last = done.stdout.splitlines()[-2]
        nobody = "❌ production runs 'CLI-N', and 0 of 2 Mainframes run it: mainframe-1 failed (refused: "
        assert last.startswith(nobody)
        assert "successfully" not in done.stdout
        state = stack.state("CLI-N")
        assert state.gate is not None
        run = stack.wait_run(state.gate.run, "Completed, 0 of 2")
        assert run["state"]["type"] == "FAILED"
        assert "mainframe-2 failed" in run["state"]["message"]
        for words in (["status"], ["history"], ["status", "CLI-N"]):
            shown = stack.deploy(*words).stdout
            assert "0 of 2" in shown
            assert not any("✅" in row and "CLI-N" in row for row in shown.splitlines())
    finally:
        for path, content in zip(known, before, strict=True):
            path.write_bytes(content)
    eventually(lambda: {*stack.bundles().values()} == {stack.state("CLI-N").bundle}, "both run it")

    def seen() -> tuple[str, list[dict[str, str]]]:
        """How a run of `reconcile` ends, and what `deploy status` then says of OMEGA: there may be others here."""
        run = stack.api("POST", f"/deployments/{stack.deployment('reconcile/reconcile')}/create_flow_run", {})["id"]
        ended = ("COMPLETED", "FAILED")
        state = eventually(lambda: (found := stack.run(run)["state"])["type"] in ended and found, "its end")
        troubles = json.loads(stack.deploy("status", "--json").stdout)["troubles"]
        return state["name"], [trouble for trouble in troubles if trouble["server"] == "omega"]

    eventually(lambda: seen() and stack.state("CLI-N").reach.whole, "both reports are recorded")
    assert "2 of 2 Mainframes run it" in stack.deploy("status", "CLI-N").stdout
    assert "0 of 2" not in stack.deploy("status").stdout

    stack.omega.kill9()
    try:
        name, (trouble,) = seen()
        assert (name, trouble["kind"]) == ("Unreachable", "unreachable")
        assert re.search(r"❌  *production  *unreachable  *for ", stack.deploy("status").stdout)
        assert seen() == ("Unreachable", [trouble]), "since it was first seen"
    finally:
        stack.omega.start()
    assert seen()[1] == []
    assert not re.search(r"❌  *omega  *unreachable", stack.deploy("status").stdout)


def test_a_release_supersedes_what_waits_only_once_it_waits_itself(stack: Stack) -> None:
    stack.deploy("configure", "source", "raos", str(stack.source))

    def release(update_id: str, end: str, **parameters: Any) -> None:
        given = {"update_id": update_id, "allow_dirty": True, **parameters}
        path = f"/deployments/{stack.deployment('release/release')}/create_flow_run"
        run = stack.api("POST", path, {"parameters": given})["id"]
        stack.wait_run(run, end, seconds=300)

    def stages() -> list[Stage]:
        return [
            stack.state(update_id).stage for update_id in ("REL-1", "REL-2", "REL-3", "REL-4") if stack.ran(update_id)
        ]

    waits, failed, cancelled = Stage.AWAITING_APPROVAL, Stage.FAILED, Stage.CANCELLED
    stack.change("the first release")
    release("REL-1", "AwaitingApproval")
    good = (stack.source / "raos.toml").read_text()
    (stack.source / "raos.toml").write_text(good.replace("p95_ms = 250", "p95_ms = 1"))
    release("REL-2", "Failed", unanswered="supersede")
    assert stages() == [waits, failed], "what was verified is not given up for what has passed nothing"
    (stack.source / "raos.toml").write_text(good)
    stack.change("the third release")
    release("REL-3", "AwaitingApproval")
    assert stages() == [waits, failed, waits], "by default both wait"
    stack.change("the fourth release")
    release("REL-4", "AwaitingApproval", unanswered="supersede")
    assert stages() == [cancelled, failed, cancelled, waits]
    assert stack.state("REL-1").reason == "superseded by REL-4"
    stack.deploy("cancel", "REL-4")


def test_two_who_decide_at_once_decide_once_and_without_omega_it_waits(operator: Stack) -> None:
    tail = verified(operator, "CLI-5")
    omega = operator.api("GET", "/block_types/slug/raos-server/block_documents/name/omega")
    operator.api("DELETE", f"/block_documents/{omega['id']}")
    missing = operator.deploy("approve", "CLI-5", "--evidence", tail, check=False)
    assert missing.returncode == 1
    assert missing.stderr.startswith("❌ omega is not configured: deploy configure omega <url> <name>. 'CLI-5' keeps")
    assert operator.state("CLI-5").stage is Stage.AWAITING_APPROVAL
    assert answers(operator, "CLI-5") == []
    operator.configure("omega", operator.omega, Scope.ADMIN)

    words = [("--evidence", tail, "--by", "kim"), ("--reject", "--reason", "not today", "--by", "lee")]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "ashat.cli", "approve", "CLI-5", *word],
            cwd=operator.source,
            env={**operator.environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for word in words
    ]
    told = [process.communicate(timeout=240) for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], told
    judged = answers(operator, "CLI-5")
    assert len(judged) == 1
    winner = codes.index(0)
    assert judged[0].approver == ("kim", "lee")[winner]
    out, err = told[winner]
    assert ("🎉 ASHAT Deployment to OMEGA Approved!", "🛑 Deployment 'CLI-5' rejected.")[winner] in out, out + err
    assert len([line for line in told[1 - winner][1].splitlines() if line.startswith("❌")]) == 1
    if winner == 0:
        operator.deploy("rollback", "CLI-5")
