"""What an approver finds out for themselves: who built it, that somebody else pushed it, what the checks say here."""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from ashat.deployment.state_machine import Stage, State
from ashat.ledger.ledger import Ledger
from ashat.protocol.frames import frame_header
from ashat.protocol.messages import FRAME_HEADER, Scope
from ashat.trust.keys.files import load_signer
from ashat.trust.release.proposal import Proposal, spell
from tests.support.fakes.flaky_proxy import Lies, MoodyProxy
from tests.support.processes.node import NodeProcess, demanding_region
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]

PASSPHRASE = "five words are long enough"
OPENED = {"ASHAT_KEY_PASSPHRASE": PASSPHRASE}
SECRET = 'KEY = "AKIAQYLPMN5HHHFPZAM2"\n'


@pytest.fixture(scope="module")
def keys(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The private keys of kim and lee, each on a machine of their own."""
    return {name: stack.make_key(name, tmp_path_factory.mktemp(name), OPENED) for name in ("kim", "lee")}


@pytest.fixture(scope="module")
def region(stack: Stack, keys: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """An OMEGA for which kim or lee approves what this machine built and verified."""
    directory = tmp_path_factory.mktemp("eyes") / "production-us"
    with demanding_region(directory) as node:
        set_up(stack, node, "omega-us", keys, "lee")
        stack.configure_policy("eyes", rehearses=False, four_eyes=True, warns=["security"])
        yield node


def set_up(stack: Stack, node: NodeProcess, name: str, keys: dict[str, Path], *signers: str) -> None:
    """Let as many of kim and lee approve for `node`, which is `name`, as sign that."""
    words = ("configure", "omega", node.url, node.directory.name, "--as", name, "--token-stdin")
    stack.deploy(*words, stdin=node.token(Scope.ADMIN))
    named = [f"--approver={approver}={key.with_suffix('.pub')}" for approver, key in keys.items()]
    for role in ("builder", "verifier"):
        public = node.directory.parent / f"{role}.pub"
        public.write_text(stack.deploy("trust", f"{role}-key").stdout)
        named.append(f"--{role}=alpha={public}")
    stack.deploy("trust", "init", "--as", name, *named, "--threshold", str(len(signers)))
    for signer in signers:
        stack.deploy("trust", "sign", "--as", name, "--key", str(keys[signer]), env=OPENED)


def verified(stack: Stack, update_id: str, target: str = "omega-us") -> State:
    """What kim pushed, verified under the policy that wants four eyes; its gate is open."""
    stack.change(update_id)
    words = ("push", update_id, "By kim", "--allow-dirty", "--target", target)
    stack.deploy(*words, env={"LOGNAME": "kim"})
    stack.deploy("verify", update_id, "--policy", "eyes")
    return stack.wait_asked(update_id)


def shown(stack: Stack, state: State) -> str:
    """What the gate shows."""
    assert state.gate is not None
    assert state.gate.shown is not None
    with Ledger.open(f"sqlite:///{stack.home / 'ledger.db'}") as ledger:
        return str(ledger.document(state.gate.shown)["markdown"])


def test_what_a_stranger_built_cannot_be_signed(stack: Stack, region: NodeProcess, keys: dict[str, Path]) -> None:
    own, aside = stack.home / "trust" / "builder.pem", stack.home / "trust" / "aside.pem"
    for suffix in (".pem", ".pub"):
        os.rename(own.with_suffix(suffix), aside.with_suffix(suffix))
    state = verified(stack, "EYES-1")
    for suffix in (".pem", ".pub"):
        os.replace(aside.with_suffix(suffix), own.with_suffix(suffix))
    assert "and not by alpha, whom targets names" in shown(stack, state)
    refused = stack.deploy("sign", "EYES-1", "--key", str(keys["lee"]), env=OPENED, check=False)
    assert refused.returncode == 1
    assert "Nothing of 'EYES-1' is to be signed" in refused.stderr
    stack.deploy("cancel", "EYES-1", "--reason", "a stranger built it")


def test_four_eyes_a_look_of_ones_own_and_tampered_evidence(
    stack: Stack, region: NodeProcess, keys: dict[str, Path]
) -> None:
    (stack.source / "Modules" / "Chat" / "settings.py").write_text(SECRET)
    state = verified(stack, "EYES-2")
    assert state.outcome == "attention", state.checks
    assert state.evidence is not None
    assert "Four eyes: kim@" in shown(stack, state)
    assert re.search(
        r"from commit `[0-9a-f]{12}`\*\*, but 2 files are not as it has them \S*\(1 changed: ", shown(stack, state)
    )
    assert "Built on alpha, verified on alpha, as their keys prove" in shown(stack, state)

    refused = stack.deploy("sign", "EYES-2", "--key", str(keys["kim"]), env=OPENED, check=False)
    assert refused.returncode == 1
    assert "kim pushed 'EYES-2', and the policy wants four eyes: not signed." in refused.stderr
    assert state.gate is not None
    assert state.gate.proposal is not None
    with Ledger.open(f"sqlite:///{stack.home / 'ledger.db'}") as ledger:
        proposal = Proposal.from_json(ledger.document(state.gate.proposal))
    by_hand = spell(proposal.sign(load_signer(keys["kim"], lambda: PASSPHRASE)))
    form = {"decision": "approve", "evidence": state.evidence[-8:], "comment": "fine", "signature": by_hand}
    stack.api("POST", f"/flow_runs/{state.gate.run}/resume", {"run_input": form})
    state = stack.wait_asked("EYES-2", 2)
    assert state.gate is not None
    assert "kim pushed it, and the policy wants four eyes" in state.gate.reason

    query = "UPDATE documents SET body = replace(body, ?, ?) WHERE digest = ?"
    honest, forged = '"outcome":"attention"', '"outcome":"passed"'
    with closing(sqlite3.connect(stack.home / "ledger.db", isolation_level=None)) as database:
        database.execute(query, (honest, forged, state.evidence))
        tampered = stack.deploy("sign", "EYES-2", "--key", str(keys["lee"]), env=OPENED, check=False)
        database.execute(query, (forged, honest, state.evidence))
    assert tampered.returncode == 1
    assert "was altered: its digest does not match" in tampered.stderr
    assert tampered.stdout == ""


def test_the_checks_again_from_the_approvers_machine(
    stack: Stack, region: NodeProcess, keys: dict[str, Path], tmp_path: Path
) -> None:
    state = stack.wait_asked("EYES-2", 2)
    assert state.evidence is not None
    approving = ("approve", "EYES-2", "--evidence", state.evidence[-8:], "--comment", "no secret", "--recheck")
    strict = tmp_path / "strict.toml"
    strict.write_text("rehearses = false\n")
    refused = stack.deploy(*approving, "--key", str(keys["lee"]), "--policy", str(strict), env=OPENED, check=False)
    assert refused.returncode == 1, refused.stdout
    assert "a policy that asks less than your policy: warns: security" in refused.stderr
    assert "Checked again here, 'EYES-2' fails: " in refused.stderr
    assert stack.state("EYES-2").version == state.version, "nothing was answered, nothing recorded"
    with stack.public.client() as public:
        assert public.state().lease is None

    # Whoever has the control plane says that Public is elsewhere; the approver knows where it is.
    stack.deploy("configure", "public", "http://127.0.0.1:9", "staging", "--token-stdin", stdin="stolen")
    known = ("--public", stack.public.url, "--public-token-stdin")
    token = stack.public.token(Scope.PUSH)
    again = ("sign", "EYES-2", "--key", str(keys["lee"]), "--recheck", *known)
    try:
        refused = stack.deploy(*approving, "--key", str(keys["lee"]), env=OPENED, check=False)
        signed = stack.deploy(*again, env=OPENED, stdin=token)
    finally:
        stack.configure("public", stack.public, Scope.PUSH)  # the other tests need it
    assert refused.returncode == 1
    assert "127.0.0.1:9" in refused.stderr
    assert signed.stdout.startswith("ashat-signature-1:")
    assert len(signed.stdout.splitlines()) == 1
    assert f"of staging at {stack.public.url}:" in signed.stderr
    assert "Checked again here: all " in signed.stderr
    done = stack.deploy(*approving, "--key", str(keys["lee"]), *known, env=OPENED, stdin=token)
    assert "Built on alpha, as its key proves, from commit " in done.stderr
    differing = (
        "2 files are not as it has them (1 changed: Modules/Chat/__init__.py; 1 not in it: Modules/Chat/settings.py)"
    )
    assert f", but {differing}, pushed by kim@" in done.stderr
    assert "Checked again here: all " in done.stdout
    state = stack.state("EYES-2")
    assert state.stage is Stage.COMPLETED
    assert state.decision is not None
    assert state.decision.approver == "lee"
    assert "no secret [rechecked on " in state.decision.comment
    (stack.source / "Modules" / "Chat" / "settings.py").unlink()


def test_what_public_showed_falsely_is_found_by_checking_again(
    stack: Stack, region: NodeProcess, keys: dict[str, Path], tmp_path: Path
) -> None:
    state = verified(stack, "EYES-3")
    assert state.evidence is not None
    assert state.outcome == "passed", state.checks
    mine = tmp_path / "mine.toml"
    mine.write_text("rehearses = false\n")
    altered = stack.public.data / "current" / "Modules" / "Chat" / "__init__.py"
    mode = altered.stat().st_mode
    altered.chmod(0o666)
    words = ("approve", "EYES-3", "--evidence", state.evidence[-8:], "--key", str(keys["lee"]))
    refused = stack.deploy(*words, "--recheck", "--policy", str(mine), env=OPENED, check=False)
    altered.chmod(mode)
    assert refused.returncode == 1, refused.stdout
    assert "fail here; the evidence says ✅" in refused.stderr
    assert "Modules/Chat/__init__.py is 0666 on the server" in refused.stdout
    assert stack.state("EYES-3").version == state.version


def _another_byte(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def _another_object(content: bytes) -> bytes:
    """The last object of an answer altered, and named by what it is by then: it fits itself."""
    start, at = 0, 0
    while at < len(content):
        start = at
        at += FRAME_HEADER + int.from_bytes(content[at + 32 : at + FRAME_HEADER], "big")
    altered = _another_byte(content[start + FRAME_HEADER :])
    return content[:start] + frame_header(sha256(altered).hexdigest(), len(altered)) + altered


def _nothing(content: bytes) -> bytes:
    return content[:0]


@pytest.mark.parametrize(
    ("method", "path", "answer", "told"),
    [
        ("GET", "/v1/bundles/{bundle}$", _another_byte, "sent another manifest than {bundle}"),
        ("POST", "/v1/objects/fetch$", _another_byte, "sent bytes that do not match"),
        ("POST", "/v1/objects/fetch$", _another_object, "sent an object that was not asked for"),
        ("POST", "/v1/objects/fetch$", _nothing, "which was asked for"),
    ],
    ids=["another manifest", "another byte", "another object", "nothing"],
)
def test_what_public_sends_to_an_approvers_machine_is_what_was_verified_or_nothing_is_signed(
    stack: Stack,
    region: NodeProcess,
    keys: dict[str, Path],
    method: str,
    path: str,
    answer: Callable[[bytes], bytes],
    told: str,
) -> None:
    state = stack.state("EYES-3")
    assert state.bundle is not None
    assert state.evidence is not None
    key = ("--key", str(keys["lee"]))
    with MoodyProxy(stack.public.port) as liar:
        stack.deploy("configure", "public", liar.url, "staging", "--token-stdin", stdin=stack.public.token(Scope.PUSH))
        try:
            for words in (("sign", "EYES-3"), ("approve", "EYES-3", "--evidence", state.evidence[-8:])):
                liar.expect(method, path.format(bundle=state.bundle), Lies(answer))
                refused = stack.deploy(*words, *key, env=OPENED, check=False)
                assert refused.returncode == 1, refused.stdout
                assert told.format(bundle=state.bundle) in refused.stderr.splitlines()[-1]
                assert "ashat-signature" not in refused.stdout
                assert liar.pending == []
        finally:
            stack.configure("public", stack.public, Scope.PUSH)
    assert stack.state("EYES-3").version == state.version, "nothing was answered, nothing recorded"


def test_where_public_runs_something_else_nothing_is_checked_again(
    stack: Stack, region: NodeProcess, keys: dict[str, Path]
) -> None:
    state = stack.state("EYES-3")
    assert state.evidence is not None
    stack.change("another")
    stack.deploy("push", "EYES-4", "Another", "--allow-dirty", "--target", "omega-us")
    words = ("approve", "EYES-3", "--evidence", state.evidence[-8:], "--recheck", "--key", str(keys["lee"]))
    refused = stack.deploy(*words, env=OPENED, check=False)
    assert refused.returncode == 1
    assert "runs EYES-4" in refused.stderr
    for update_id in ("EYES-4", "EYES-3"):
        stack.deploy("cancel", update_id, "--reason", "only a test")


def test_four_eyes_cannot_hold_in_the_one_person_mode(stack: Stack, region: NodeProcess) -> None:
    state = verified(stack, "EYES-5", target="omega")
    assert "which cannot hold in the one" in shown(stack, state)
    assert state.evidence is not None
    refused = stack.deploy("approve", "EYES-5", "--evidence", state.evidence[-8:], check=False)
    assert "'EYES-5' cannot be approved yet: the policy wants four eyes" in refused.stderr
    stack.deploy("cancel", "EYES-5", "--reason", "only a test")


def test_four_eyes_that_leave_too_few_are_told_when_the_gate_opens(
    stack: Stack, region: NodeProcess, keys: dict[str, Path], tmp_path: Path
) -> None:
    with demanding_region(tmp_path / "production-cn") as node:
        set_up(stack, node, "omega-cn", keys, "kim", "lee")
        state = verified(stack, "EYES-6", target="omega-cn")
        text = shown(stack, state)
        assert "It cannot be approved yet:" in text
        assert "kim pushed it: of 2 who must sign, lee may" in text
        refused = stack.deploy("sign", "EYES-6", "--key", str(keys["lee"]), env=OPENED, check=False)
        assert "Nothing of 'EYES-6' is to be signed" in refused.stderr
        stack.deploy("cancel", "EYES-6", "--reason", "only a test")


def test_what_people_and_the_one_person_mode_approved_is_audited_from_an_export(
    stack: Stack, region: NodeProcess, tmp_path: Path
) -> None:
    stack.deploy("audit", "export", str(tmp_path / "record.jsonl"))
    told = json.loads(stack.deploy("audit", "verify", str(tmp_path / "record.jsonl"), "--json").stdout)
    assert told["approvals"] >= 2
    assert told["unchecked"] == []
    assert told["roots"].keys() >= {"omega", "omega-us"}


def test_options_that_do_not_go_together_are_refused(stack: Stack) -> None:
    for words, told in (
        (("--reject", "--recheck"), "a rejection needs none"),
        (("--policy", "mine.toml"), "--policy says what --recheck asks"),
        (("--public", "http://127.0.0.1:1"), "--public says where --recheck and --key look"),
        (("--recheck", "--public-token-stdin"), "are of what --public names: give that, too"),
        (("--recheck", "--public", "http://127.0.0.1:1", "--public-token-stdin"), "No token came on standard input"),
        (("--recheck", "--public", "http://127.0.0.1:1", "--public-ca", "no.pem"), "The CA file no.pem cannot be used"),
    ):
        done = stack.deploy("approve", "EYES-2", *words, check=False)
        assert done.returncode == 2
        assert told in done.stderr
