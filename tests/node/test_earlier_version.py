"""What an earlier version wrote opens, says what it said then, and goes on: a ledger, its keys, and three nodes.

`tests/data/earlier/` holds what that version wrote and what it said of it; README.txt there says how it was made.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sqlite3
import sys
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ashat.audit.sign import sign_log
from ashat.cli.main import run as deploy
from ashat.client.node import NodeClient
from ashat.deployment import events as e
from ashat.deployment.state_machine import Stage, State, fold
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import LogLeaves, Offer, OperationRequest, ReleaseSignature, Role, Scope, SignedRelease
from ashat.transparency.merkle import leaf_hash
from ashat.trust.keys.files import load_signer
from ashat.trust.release.known_log import open_log
from ashat.trust.release.proposal import Proposal
from ashat.trust.tuf.release_document import ReleaseDocument
from tests.support.processes.node import EXAMPLE, NodeProcess, free_port, push, switch
from tests.support.processes.node_cli import Run
from tests.support.processes.omega import decide, eventually, perform, promotion

pytestmark = pytest.mark.timeout(300)

DATA = Path(__file__).parents[1] / "data" / "earlier"
PASSPHRASE = "five words are long enough"
NODES = {"staging": Role.PUBLIC, "production": Role.OMEGA, "mainframe-1": Role.MAINFRAME}


class EarlierNode(NodeProcess):
    """A node on the data that it left in `directory`; only ports and paths in its settings are others."""

    def __init__(self, directory: Path, role: Role, tokens: dict[str, str], omega: str) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.role = role
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ca = None
        self.config = directory / "node.toml"
        self._process = None
        self._words = ["ashat.node"]
        self._env = {}
        self._tokens = {Scope(scope): token for scope, token in tokens.items()}
        text = self.config.read_text()
        for key, value in {"port": self.port, "omega": omega, "command": [sys.executable, "raos.py"]}.items():
            text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {json.dumps(value)}", text)
        self.config.write_text(text)
        # By this a node names its program's control group: two that are unpacked from one file must not share one.
        with closing(sqlite3.connect(self.data / "node.db")) as database, database:
            database.execute("UPDATE meta SET value = ? WHERE key = 'instance'", (uuid.uuid4().hex,))
        self.start(wait=False)


class Place:
    """Everything, unpacked below `directory`; the nodes are up."""

    def __init__(self, directory: Path, closing: ExitStack) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.expected: dict[str, Any] = json.loads((DATA / "expected.json").read_bytes())
        unpack(directory)
        tokens = json.loads((directory / "tokens.json").read_bytes())
        self.nodes: dict[str, EarlierNode] = {}
        for name, role in NODES.items():
            omega = self.nodes["production"].url if role is Role.MAINFRAME else ""
            self.nodes[name] = closing.enter_context(EarlierNode(directory / name, role, tokens[name], omega))
        for node in self.nodes.values():
            node.wait_until_up()
        self.ledger = closing.enter_context(Ledger.open(f"sqlite:///{self.home / 'ledger.db'}"))


def unpack(directory: Path) -> None:
    with tarfile.open(DATA / "data.tar.xz") as tar:
        tar.extractall(directory, filter="fully_trusted")


def told(value: Any) -> Any:
    """A state, field by field, as JSON has it."""
    if isinstance(value, ReleaseSignature):
        return {"way_back" if name == "rollback" else name: text for name, text in value.model_dump().items()}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value):
        return {field.name: told(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: told(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [told(inner) for inner in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else value


def as_then(state: State) -> dict[str, Any]:
    """The fold, field by field, under the names of `expected.json`: the approval requests stood in fields of their own,
    and what the one about the release would let run was the update itself."""
    found: dict[str, Any] = told(state)
    assert found.pop("deaths") == []
    if found["source"]:
        assert (found["source"].pop("differences"), found["source"].pop("history_cut")) == (None, False)
        assert (found["source"].pop("artifact"), found["source"].pop("committed")) == (None, None)
    since = ("baselines", "commits", "tasks", "output", "public_title", "target_title", "irreversible", "migrated")
    assert [found.pop(name) for name in since] == [[], [], [], [], "", "", False, {}]
    assert (found.pop("rollout"), found.pop("mainframes_counted")) == (None, None)
    assert (found.pop("window"), found.pop("held"), found.pop("overridden")) == (None, False, {})
    deciders = found.pop("deciders")
    assert not found["decision"] or found["decision"]["approver"] in deciders
    assert found.pop("rollback_reason") == "" or state.rolling_back or found["rolled_back"]
    assert {each.pop("to_update") for each in found["rolled_back"].values()} <= {""}
    requests, asked = found.pop("approvals"), found.pop("askings")
    assert {request.pop("obstacle") for request in requests.values()} <= {""}
    assert all(request.pop("since") for request in requests.values())
    policies = [(request.pop("rollout_policy"), request.pop("rollout_policy_name")) for request in requests.values()]
    assert set(policies) <= {(None, "")}
    assert {(request.pop("not_before"), request.pop("override_freeze")) for request in requests.values()} <= {
        (None, "")
    }
    found |= {"gate": None, "rollback_gate": None, "askings": asked.pop("release", 0)}
    if gate := requests.pop("release", None):
        about = {name: gate.pop(name) for name in ("update_id", "attempt", "evidence")}
        assert about == {name: found[name] for name in about}
        new = {name: gate.pop(name) for name in ("subject", "why", "decision", "decided_by")}
        assert new["decision"] == (found["decision"] or {}).get("decision", "")
        found["gate"] = {**gate, "opening": found["openings"]}
    if back := requests.pop("rollback", None):
        assert asked.pop("rollback") == back["ordinal"]
        assert (back.pop("subject"), back.pop("target_bundle")) == ("rollback", None)
        then = {"update_id": "to_update", "attempt": "to_attempt", "why": "missing"}
        found["rollback_gate"] = {then.get(name, name): value for name, value in back.items()}
    assert (requests, asked) == ({}, {})
    if found["decision"]:
        assert (found["decision"].pop("subject"), found["decision"].pop("complete")) == ("release", False)
        assert (found["decision"].pop("not_before"), found["decision"].pop("override_freeze")) == (None, "")
        if state.decision and state.decision.signature:
            found["decision"]["signature"] = told(state.decision.signature)
    return found


# What summaries say since.
SINCE = {"stuck", "mainframes_running", "mainframes_total", "not_running", "obstacle", "requests"} | {
    "public",
    "public_name",
    "target_name",
    "rollout",
    "rollout_run",
    "tasks",
    "window",
    "window_opens",
}


def told_of(state: State, events: list[Any]) -> dict[str, Any]:
    """What `expected.json` says of an attempt."""
    return {
        "update_id": state.update_id,
        "attempt": state.attempt,
        "stage": state.stage.value,
        "status": state.status,
        "events": [event.name.replace(" ", "_") for event in events],
        "summary": {key: value for key, value in state.summary().items() if key not in SINCE},
        "state": as_then(state),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with ExitStack() as closing:
        yield Place(tmp_path_factory.mktemp("before"), closing)


@pytest.fixture(autouse=True)
def home(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASHAT_HOME", str(place.home))


def audit(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """What `deploy audit verify` says."""
    code = deploy(["audit", "verify", *map(str, words), "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    found: dict[str, Any] = json.loads(said.out)
    return found


def journal(ashat_node: Run, place: Place, name: str, *words: object) -> str:
    """What `ashat-node journal verify` says."""
    code, out, err = ashat_node("journal", "verify", "--data", place.nodes[name].data, *words)
    assert code == 0, err
    return out.strip()


def test_each_update_is_what_it_was(place: Place) -> None:
    expected = place.expected["updates"]
    attempts = [(one["update_id"], one["attempt"]) for one in expected]
    found = [(place.ledger.load(*attempt), place.ledger.events(*attempt)) for attempt in attempts]
    assert [told_of(state, events) for state, events in found] == expected
    assert [fold(*attempt, events) for attempt, (_, events) in zip(attempts, found, strict=True)] == [
        state for state, _ in found
    ]
    assert sorted((one["update_id"], one["attempt"]) for one in place.ledger.summaries()) == sorted(attempts)
    assert {(one["update_id"], one["attempt"]): one for one in place.ledger.summaries()} == {
        (one["update_id"], one["attempt"]): one["summary"] for one in expected
    }
    kinds = {kind for one in expected for kind in one["events"]}
    assert kinds == set(place.expected["kinds"])
    for one in expected:
        if one["state"]["evidence"]:
            assert place.ledger.document(one["state"]["evidence"])


def test_what_was_signed_still_fits(place: Place, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    expected, kept, root = place.expected["audit"], place.directory / "kept", place.directory / "root-1.json"
    assert audit(capsys) == expected["ledger"]
    assert audit(capsys, "--since", kept / "early-ledger.checkpoint") == expected["since"]
    assert audit(capsys, kept / "record.jsonl", "--trust-root", root) == expected["export"]
    code, out, err = run("verify-receipt", kept / "UPD-1.receipt.json", "--root", root)
    assert (code, out.splitlines()) == (0, place.expected["receipt"]), err


@pytest.mark.parametrize("name", NODES)
def test_each_node_runs_what_it_ran(place: Place, run: Run, name: str) -> None:
    node, expected = place.nodes[name], place.expected["nodes"][name]
    assert "are in order" in journal(run, place, name, "--since", place.directory / "kept" / f"early-{name}.checkpoint")
    with node.client() as client:
        eventually(lambda: client.probe_health().healthy, "its health", node)
        state = client.state()
        assert client.tree().extra == []
    found = {"current": told(state.current), "previous": told(state.previous), "release_seq": state.release_seq}
    assert found == {key: expected[key] for key in found}
    _, out, _ = run("journal", "changes", "--json", "--limit", 100_000, "--data", node.data)
    changes = [json.loads(line) for line in out.splitlines()]
    assert changes[: len(expected["changes"])] == expected["changes"]


def test_public_takes_a_further_bundle(place: Place, run: Run, tmp_path: Path) -> None:
    expected = place.expected["nodes"]["staging"]
    shutil.copytree(EXAMPLE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "source" / "NEWS").write_text("after all that came before\n")
    with place.nodes["staging"].client() as public:
        before = public.state().current
        assert before is not None
        bundle = push(public, tmp_path / "source")
        assert switch(public, bundle, expected=before.bundle, update_id="UPD-10").status == "succeeded"
        assert public.probe_health().bundle == bundle
        assert switch(public, before.bundle, expected=bundle, update_id=before.update_id).status == "succeeded"
    said = journal(run, place, "staging", "--since", place.directory / "kept" / "early-staging.checkpoint")
    assert int(said.split()[0]) >= len(expected["changes"]) + 2


def keep_log(ledger: Ledger, omega: NodeClient, signed: SignedRelease) -> None:
    """Have OMEGA keep the log that the release was signed for, from where it knows it."""
    kept, named = omega.trust().log, ReleaseDocument.from_bytes(signed.document.encode()).log
    assert kept is not None
    assert named is not None
    lacking = ledger.records(first=kept.size, limit=open_log(named).size - kept.size)
    leaves = [leaf_hash(event.leaf).hex() for event in lacking]
    omega.put_log(LogLeaves(signed=signed, first=kept.size, leaves=leaves))


def await_running(node: NodeProcess, bundle: str) -> None:
    """Wait until the node runs the bundle."""
    with node.client() as client:
        eventually(lambda: (found := client.state().current) and found.bundle == bundle, f"{bundle[:12]} to run", node)


def test_what_awaited_approval_is_signed_and_ships(place: Place, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """UPD-9 waited with one signature of two; the other comes now, OMEGA takes it, and the Mainframe follows."""
    ledger, state, at = place.ledger, place.ledger.load("UPD-9"), datetime.now(UTC)
    assert state.gate is not None
    assert state.gate.proposal is not None
    assert (state.stage, [one.name for one in state.gate.signatures]) == (Stage.AWAITING_APPROVAL, ["kim"])
    proposal = Proposal.from_json(ledger.document(state.gate.proposal))
    signature = proposal.sign(load_signer(place.directory / "people" / "lee.pem", lambda: PASSPHRASE))
    wanted, back = proposal.release.document, proposal.rollback
    assert back is not None
    answer: dict[str, Any] = {"ordinal": state.gate.ordinal, "decision": "approve", "accepted": True, "approver": "lee"}
    state = ledger.append(
        state, e.ApprovalAnswered(at=at, **answer, release_seq=wanted.release_seq, signature=signature)
    )
    assert state.stage is Stage.DEPLOYING
    assert state.gate is not None

    with place.nodes["staging"].client() as public, place.nodes["production"].client() as omega:
        public.relay_bundle(omega, wanted.bundle)
        signed = proposal.signed_release(state.gate.signatures)
        keep_log(ledger, omega, signed)
        decision = decide(
            wanted.bundle,
            expected=state.omega_before,
            seq=wanted.release_seq,
            update="UPD-9",
            evidence=wanted.evidence,
        )
        state = ledger.append(state, e.Promoting(at=at, operation="op-9"))
        assert perform(omega, promotion(decision, signed=signed), "op-9").status == "succeeded"
        promoted = e.Promoted(at=at, from_bundle=state.omega_before, release_seq=wanted.release_seq)
        state = ledger.append(state, promoted)
        omega.put_offer(Offer(release_seq=wanted.release_seq, bundle=wanted.bundle, update_id="UPD-9", attempt=1))
        await_running(place.nodes["mainframe-1"], wanted.bundle)

        assert state.gate is not None
        undone = OperationRequest(
            action="rollback",
            bundle=back.document.bundle,
            expected_current=wanted.bundle,
            update_id=back.document.update_id,
            attempt=back.document.attempt,
            signed=proposal.signed_rollback(state.gate.signatures),
        )
        assert perform(omega, undone).status == "succeeded"
        await_running(place.nodes["mainframe-1"], back.document.bundle)
    for name in ("production", "mainframe-1"):
        said = journal(run, place, name, "--since", place.directory / "kept" / f"early-{name}.checkpoint")
        assert int(said.split()[0]) >= len(place.expected["nodes"][name]["changes"]) + 4

    seen = e.MainframeOutcome(id="a" * 12, name="mainframe-1", result="running")
    assert ledger.append(state, e.Distributed(at=at, mainframes=(seen,))).stage is Stage.COMPLETED
    assert ledger.create("UPD-3", e.Created(at=at, description="Again", target="omega", public="public")).attempt == 2
    sign_log(ledger, place.home)
    expected = place.expected["audit"]["ledger"]
    found = audit(capsys, "--since", place.directory / "kept" / "ledger.checkpoint")
    assert found["since"] == expected["checkpoint"]
    assert found["events"] == found["checkpoint"]["size"] == expected["events"] + 5
    assert (found["approvals"], found["unchecked"]) == (expected["approvals"] + 1, [])
