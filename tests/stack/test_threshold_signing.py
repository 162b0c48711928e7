"""An OMEGA whose releases two of three people sign: with the command, and with a line that is pasted into the form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ashat.deployment.events import ApprovalAnswered
from ashat.deployment.state_machine import Stage, State
from ashat.errors import NodeConflictError
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import Offer, OperationRequest, Role, Scope, TrustMetadata
from ashat.trust.keys.files import load_public_key
from ashat.trust.release.proposal import Proposal
from ashat.trust.tuf.metadata import Holders, build_targets
from tests.support.builders.signers import refused
from tests.support.builders.trust_world import held_by, key_pair
from tests.support.processes.node import NodeProcess, example_app, example_database
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import decide, promotion
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]

PASSPHRASE = {"ASHAT_KEY_PASSPHRASE": "five words are long enough"}


@pytest.fixture(scope="module")
def region(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A second OMEGA, `omega-eu`, for which kim, lee and noa approve."""
    directory = tmp_path_factory.mktemp("people") / "production-eu"
    demanding = {"unsigned_releases": False}
    with NodeProcess(
        directory, role=Role.OMEGA, app=example_app(), database=example_database(), settings=demanding
    ) as node:
        words = ("configure", "omega", node.url, "production-eu", "--as", "omega-eu", "--token-stdin")
        stack.deploy(*words, stdin=node.token(Scope.ADMIN))
        approvers = []
        for name in ("kim", "lee", "noa"):
            stack.deploy("trust", "keygen", name, env=PASSPHRASE)
            approvers += ["--approver", f"{name}={key(stack, name).with_suffix('.pub')}"]
        stack.deploy("trust", "init", "--as", "omega-eu", *approvers, "--threshold", "2")
        yield node


def key(stack: Stack, name: str) -> Path:
    return stack.home / "trust" / "keys" / f"{name}.pem"


def approve(stack: Stack, state: State, name: str, *, fails: bool = False) -> str:
    """Approve with the key of `name`; what the command says, on both of its streams."""
    assert state.evidence is not None
    words = ("approve", state.update_id, "--evidence", state.evidence[-8:], "--key", str(key(stack, name)))
    done = stack.deploy(*words, env=PASSPHRASE, check=False)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_what_awaits_is_signed_by_two_people_and_only_then_goes_out(stack: Stack, region: NodeProcess) -> None:
    stack.change("signed by two")
    stack.deploy("push", "SIGN-1", "Signed by two", "--allow-dirty", "--target", "omega-eu")
    stack.deploy("verify", "SIGN-1")
    state = stack.wait_asked("SIGN-1")
    assert state.gate is not None
    assert state.gate.proposal is None, "the people have not signed yet that they are the ones to ask"
    told = approve(stack, state, "kim", fails=True)
    assert "'SIGN-1' cannot be approved yet: " in told

    for name in ("kim", "noa"):
        stack.deploy("trust", "sign", "--as", "omega-eu", "--key", str(key(stack, name)), env=PASSPHRASE)
    assert state.evidence is not None
    unsigned = ("approve", "SIGN-1", "--evidence", state.evidence[-8:])
    refused = stack.deploy(*unsigned, check=False)
    assert "It is asked again now" in refused.stderr
    assert "needs a signature of kim, lee, noa" in refused.stderr
    state = stack.wait_asked("SIGN-1", 4)

    told = approve(stack, state, "kim")
    assert "Signed by kim." in told
    assert "Others must sign too" in told
    state = stack.wait_asked("SIGN-1", 5)
    assert state.stage is Stage.AWAITING_APPROVAL
    assert "kim has signed already" in approve(stack, state, "kim", fails=True)
    state = stack.wait_asked("SIGN-1", 6)

    line = stack.deploy("sign", "SIGN-1", "--key", str(key(stack, "lee")), env=PASSPHRASE).stdout.strip()
    assert line.startswith("ashat-signature-1:")
    assert state.gate is not None
    form = {"decision": "approve", "evidence": (state.evidence or "")[-8:], "signature": line}
    answered = stack.api("POST", f"/flow_runs/{state.gate.run}/resume", {"run_input": form})
    assert answered["status"] == "ACCEPT"
    state = stack.wait("SIGN-1", lambda found: found.ended)
    assert state.stage is Stage.COMPLETED, state.reason
    with region.client() as client:
        current = client.state().current
    assert current is not None
    assert (current.update_id, current.release_seq) == ("SIGN-1", 1)


def test_a_forged_resume_ships_nothing_and_one_rejection_ends_it(stack: Stack, region: NodeProcess) -> None:
    stack.change("nobody signs this")
    stack.deploy("push", "SIGN-2", "Nobody signs this", "--allow-dirty", "--target", "omega-eu")
    stack.deploy("verify", "SIGN-2")
    state = stack.wait_asked("SIGN-2")
    assert state.gate is not None
    assert state.evidence is not None
    forged = {"decision": "approve", "evidence": state.evidence[-8:], "approver": "kim", "signature": "kim, truly"}
    stack.api("POST", f"/flow_runs/{state.gate.run}/resume", {"run_input": forged})
    state = stack.wait_asked("SIGN-2", 2)
    assert state.gate is not None
    assert "not one that deploy sign printed" in state.gate.reason
    approve(stack, state, "noa")
    stack.wait_asked("SIGN-2", 3)
    stack.deploy("approve", "SIGN-2", "--reject", "--reason", "not today")
    assert stack.state("SIGN-2").stage is Stage.REJECTED
    with region.client() as client:
        current = client.state().current
    assert current is not None
    assert current.update_id == "SIGN-1"


def forge(stack: Stack, state: State, **fields: Any) -> State:
    """Write an approval into the ledger that nobody gave, resume the run through Prefect's API; what comes of it."""
    assert state.gate is not None
    answered = ApprovalAnswered(
        at=datetime.now(UTC),
        by="kim@laptop",
        ordinal=state.gate.ordinal,
        decision="approve",
        accepted=True,
        approver="kim",
        **fields,
    )
    with Ledger.open(f"sqlite:///{stack.home / 'ledger.db'}") as ledger:
        assert ledger.append(ledger.load(state.update_id), answered).stage is Stage.DEPLOYING
    form = {"decision": "approve", "evidence": (state.evidence or "")[-8:], "approver": "kim"}
    stack.api("POST", f"/flow_runs/{state.gate.run}/resume", {"run_input": form})
    return stack.wait_asked(state.update_id, state.gate.ordinal + 1)


def test_whoever_steals_the_control_plane_ships_nothing(stack: Stack, region: NodeProcess) -> None:
    """The thief has the database, Prefect's API and the token for OMEGA, and offers bytes of their own."""
    stack.change("a thief's")
    stack.deploy("push", "SIGN-3", "A thief's", "--allow-dirty", "--target", "omega-eu")
    stack.deploy("verify", "SIGN-3")
    state = stack.wait_asked("SIGN-3")
    assert state.gate is not None
    thief = key_pair("kim")
    with region.client() as client:
        before, trust = client.state(), client.trust()
    assert before.current is not None
    assert before.current.update_id == "SIGN-1"

    # An approval is forged in the ledger: with a signature that is none; then by people whom the thief names. Whoever
    # resumes the run goes on from there.
    roles = held_by(Holders([thief.public_key]))
    theirs = build_targets(roles, lifetime=9999, now=datetime.now(UTC), version=9)
    with Ledger.open(f"sqlite:///{stack.home / 'ledger.db'}") as ledger:
        assert state.gate.proposal is not None
        honest = Proposal.from_json(ledger.document(state.gate.proposal))
        forged = replace(honest, targets=theirs)
        digest = ledger.put_document("proposal", forged.to_json())
    signature = forged.sign(thief)
    kim = load_public_key(key(stack, "kim").with_suffix(".pub"), "kim")
    in_kims_name = signature.model_copy(update={"keyid": kim.keyid})
    state = forge(stack, state, release_seq=honest.release.document.release_seq, signature=in_kims_name)
    assert state.gate is not None
    assert "is signed by 0 of 2" in state.gate.reason
    state = forge(stack, state, release_seq=9, proposal=digest, signature=signature)
    assert state.gate is not None
    assert "OMEGA refuses what was signed" in state.gate.reason

    # OMEGA is asked directly, by the token that the control plane has for it.
    document = honest.release.document
    decision = decide(
        document.bundle,
        expected=before.current.bundle,
        seq=document.release_seq,
        update="SIGN-3",
        target="omega-eu",
        evidence=document.evidence,
    )
    offered = Offer(release_seq=document.release_seq, bundle=document.bundle, update_id="SIGN-3", attempt=1)
    with region.client() as client:
        refused(client, promotion(decision), "unsigned")
        refused(client, promotion(decision, signed=forged.signed_release([signature])), "untrusted", "0 of 2 needed")
        back = OperationRequest(
            action="rollback",
            bundle=document.bundle,
            expected_current=before.current.bundle,
            update_id="SIGN-3",
            attempt=1,
            decision=decision,
        )
        refused(client, back, "nothing_before")
        with pytest.raises(NodeConflictError, match="Only what OMEGA runs can be offered"):
            client.put_offer(offered)
        made_up = TrustMetadata(target="omega-eu", targets=theirs.to_bytes().decode())
        with pytest.raises(NodeConflictError, match="0 of 2 needed"):
            client.put_trust(made_up)
        assert client.trust() == trust
        assert client.state().current == before.current
    stack.deploy("approve", "SIGN-3", "--reject", "--reason", "nobody approved it")
    assert stack.state("SIGN-3").stage is Stage.REJECTED


def test_a_person_comes_and_another_goes(stack: Stack, region: NodeProcess) -> None:
    stack.deploy("trust", "keygen", "mia", env=PASSPHRASE)
    mia = f"mia={key(stack, 'mia').with_suffix('.pub')}"
    there = ("--as", "omega-eu")
    told = stack.deploy("trust", "add-approver", mia, "--threshold", "3", *there, "--dry-run").stdout
    assert "mia signs, too" in told
    assert "it takes 3 of 4, instead of 2 of 3" in told
    assert "last approval: to be signed by 3 of kim, lee, mia, noa" in told, "kim and lee have signed it"
    assert "No change" in stack.deploy("trust", "publish", *there, check=False).stderr

    stack.deploy("trust", "add-approver", mia, *there)
    assert "Another change" in stack.deploy("trust", "renew", *there, check=False).stderr
    assert "is signed by 0 of 2" in stack.deploy("trust", "publish", *there, check=False).stderr
    for name in ("mia", "lee", "kim"):
        told = stack.deploy("trust", "sign", "--key", str(key(stack, name)), *there, env=PASSPHRASE).stdout
    assert "Enough have signed: deploy trust publish" in told
    assert "2 of 4 approve each release: kim, lee, mia, noa" in stack.deploy("trust", "publish", *there).stdout

    stack.deploy("trust", "remove-approver", "kim", *there)
    assert "kim signs no more" in stack.deploy("trust", "status", *there).stdout
    stack.deploy("trust", "abandon", *there)
    stack.deploy("trust", "remove-approver", "kim", *there)
    for name in ("noa", "mia"):
        stack.deploy("trust", "sign", "--key", str(key(stack, name)), *there, env=PASSPHRASE)
    assert "2 of 3 approve each release: lee, mia, noa" in stack.deploy("trust", "publish", *there).stdout
    with region.client() as client:
        root = client.trust().root
    assert root is not None
    assert json.loads(root)["signed"]["version"] == 3
    assert "Which key?" in stack.deploy("trust", "rotate", *there, check=False).stderr
    assert "has no new keys" in stack.deploy("trust", "rotate", "--online", *there, check=False).stderr
    assert "people take over with" in stack.deploy("trust", "remove-approver", "kim", check=False).stderr


def test_a_first_root_is_handed_over_at_once_and_status_says_so(stack: Stack, tmp_path: Path) -> None:
    pin, there = tmp_path / "root.json", ("--as", "omega-jp")
    settings = {"unsigned_releases": False, "trust_root": str(pin)}
    with NodeProcess(
        tmp_path / "production-jp", role=Role.OMEGA, app=example_app(), settings=settings, start=False
    ) as node:
        keys = ashat_node("trust-keys", "--data", node.data)
        keys.check_returncode()
        (tmp_path / "omega-keys.json").write_text(keys.stdout)
        people = []
        for name in ("ann", "bob"):
            stack.deploy("trust", "keygen", name, env=PASSPHRASE)
            people += ["--approver", f"{name}={key(stack, name).with_suffix('.pub')}"]
        stack.deploy("trust", "init", *there, *people, "--omega-keys", str(tmp_path / "omega-keys.json"))
        pin.write_bytes((stack.home / "trust" / "authority" / "omega-jp" / "root.json").read_bytes())
        node.start()
        for block in ("omega-jp", "omega-jp-2"):
            words = ["configure", "omega", node.url, "production-jp", "--as", block, "--token-stdin"]
            stack.deploy(*words, stdin=node.token(Scope.ADMIN))
        alone = stack.deploy("trust", "init", "--as", "omega-jp-2", check=False)
        assert "begins with no root but its trust_root" in alone.stderr
        told = stack.deploy("trust", "status").stdout
        told = told[told.index("omega-jp:") :]
        assert "2 of 2 approve each release: ann, bob." in told
        assert "was not handed it yet: it is signed by too few" in told
        assert "pins this root (trust_root)" in told
        assert "Nothing is set up here." in told
        assert "pins another root" in told
        assert "signed by 0 of 2" in stack.deploy("trust", "publish", *there, check=False).stderr
        for name in ("ann", "bob"):
            stack.deploy("trust", "sign", *there, "--key", str(key(stack, name)), env=PASSPHRASE)
        told = stack.deploy("trust", "publish", *there, "--dry-run").stdout
        assert "would be given version 1 of the one made for it here" in told
        assert "what OMEGA's trust_root leads to" in told
        assert "not handed it yet: deploy trust publish" in stack.deploy("trust", "status", *there).stdout
        assert "keeps root version 1" in stack.deploy("trust", "publish", *there).stdout
        assert "omega-jp keeps what is in force" in stack.deploy("trust", "publish", *there, check=False).stderr
        assert "was handed it, and keeps root version 1" in stack.deploy("trust", "status", *there).stdout
        found = json.loads(stack.deploy("trust", "status", *there, "--json").stdout)["omega"]
        assert (found["asked"], found["handed_over"], found["pins_this"]) == (True, True, True)
        stack.deploy("trust", "renew", *there)
        for name in ("ann", "bob"):
            stack.deploy("trust", "sign", *there, "--key", str(key(stack, name)), env=PASSPHRASE)
        told = stack.deploy("trust", "publish", *there, "--dry-run").stdout
        assert "omega-jp would be given it. Nothing was changed." in told
        assert "keeps root version 2" in stack.deploy("trust", "publish", *there).stdout
        assert "pins this root (trust_root)" in stack.deploy("trust", "status", *there).stdout, "it leads there"


def test_the_one_person_mode_is_named_wherever_approvals_are_shown(
    stack: Stack, region: NodeProcess, tmp_path: Path
) -> None:
    told = stack.deploy("servers").stdout
    assert "Approvals for production: One-person mode" in told
    assert "Approvals for omega-eu" not in told
    shown = stack.deploy("evidence", "UPD-0").stdout
    assert shown.count("One-person mode") == 1
    assert "they can approve anything" not in shown, "that is said once, where it is decided"
    assert "they can approve anything" in stack.deploy("trust", "status", "--as", "omega").stdout
    assert "One-person mode" not in stack.deploy("evidence", "SIGN-1").stdout
    page = tmp_path / "page.html"
    stack.deploy("evidence", "UPD-0", "--html", str(page))
    assert "One-person mode" in page.read_text("utf-8")
