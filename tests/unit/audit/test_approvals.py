"""`deploy audit verify` against approvals that are none: whoever has the ledger and the key of its log makes a record
that fits, and is given away by what the approvers signed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from securesystemslib.signer import CryptoSigner

from ashat.audit.approvals import Approvals
from ashat.audit.sign import sign_log
from ashat.cli.main import run
from ashat.common.canonical_json import canonical_json, digest_of
from ashat.deployment import events as e
from ashat.deployment.state_machine import start
from ashat.ledger.leaf import Record
from ashat.protocol.messages import ReleaseSignature
from ashat.transparency.checkpoint import Checkpoint, Signer
from ashat.transparency.log_signer import LogSigner
from ashat.transparency.merkle import CompactRange, leaf_hash
from ashat.trust.release.machine_keys import machine_signer
from ashat.trust.release.proposal import Proposal
from ashat.trust.tuf.release_document import LogEntry
from tests.support.builders.ledgers import FAR, T0, honest
from tests.support.builders.signed_ledger import Office
from tests.support.builders.trust_world import World, key_pair

Lines = list[dict[str, Any]]


class Case:
    """An office whose OMEGA has a root and targets, of version 2, which name a builder and a verifier."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._capsys = capsys
        self.office = Office(directory)
        self.world = World(directory / "repository")
        self.roots, self.targets = [self.world.root], b""
        self.install(self.world.approvers)
        sign_log(self.office.ledger, self.office.home)

    def install(self, approvers: list[CryptoSigner]) -> bytes:
        """Let these approve from now on, by a new root and new targets, which are returned."""
        machines = {f"{role}s": [machine_signer(self.office.home, role)] for role in ("builder", "verifier")}
        root, self.targets = self.world.offline(approvers, **machines)  # type: ignore[arg-type]
        self.roots.append(root)
        place = self.office.home / "trust/authority/omega"
        (place / "roots").mkdir(parents=True, exist_ok=True)
        (place / "root.json").write_bytes(root)
        (place / "targets.json").write_bytes(self.targets)
        for version, content in enumerate(self.roots, 1):
            (place / "roots" / f"{version}.root.json").write_bytes(content)
        return self.targets

    def approve(self, *names: Literal["kim", "lee", "noa"], targets: bytes = b"", **changes: Any) -> None:
        people = dict(zip(("kim", "lee", "noa"), self.world.approvers, strict=True))
        self.office.approve(targets or self.targets, *(people[name] for name in names), **changes)

    def export(self) -> Path:
        path = self.directory / "record.jsonl"
        assert run(["audit", "export", str(path)]) == 0
        self._capsys.readouterr()
        return path

    def verify(self, *words: object) -> dict[str, Any]:
        """What it says of what fits."""
        assert run(["audit", "verify", *map(str, words), "--json"]) == 0, self._capsys.readouterr()
        told: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return told

    def refused(self, *words: object, code: int = 1) -> str:
        """The one line of an audit that fails."""
        assert run(["audit", "verify", *map(str, words)]) == code
        told = self._capsys.readouterr()
        assert (told.out, len(told.err.splitlines())) == ("", 1)
        return told.err

    def forged(self, change: Callable[[Lines], object]) -> Path:
        """The export with a change, once every root was computed anew and signed with the key of the log."""
        path = self.export()
        header, *lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        change(lines)
        documents = {digest_of(line["document"]): line for line in lines if "document" in line}
        told: Lines = []
        tree = CompactRange()
        for line in [line for line in lines if "leaf" in line]:
            named = [documents.pop(str(value), None) for value in line["leaf"]["event"].values()]
            tree.append(leaf_hash(canonical_json(line["leaf"])))
            told += [*filter(None, named), {**line, "root": tree.root().hex()}]
        signer = self.signer
        header["checkpoint"] = signer.sign(Checkpoint(signer.name, tree.size, tree.root()).text)
        path.write_bytes(b"".join(canonical_json(line) + b"\n" for line in (header, *told)))
        return path

    @property
    def signer(self) -> Signer:
        """Who signs for the log."""
        return LogSigner(self.office.home, self.office.ledger.log_head()[0])._signer()


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Case]:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    made = Case(tmp_path, capsys)
    yield made
    made.office.ledger.close()


def leaves(lines: Lines, kind: str, update: str = "UPD-1") -> Lines:
    """The events of that kind of an update."""
    found = [line["leaf"] for line in lines if "leaf" in line and line["leaf"]["update_id"] == update]
    return [leaf["event"] for leaf in found if leaf["event"]["kind"] == kind]


def test_what_was_approved_fits(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    honest(case.office.ledger, "UPD-0")
    case.approve("kim", "lee")
    case.install(case.world.approvers[1:])
    case.approve("noa", "lee", update="UPD-2")
    record = case.export()
    for words in ([], [record]):
        told = case.verify(*words)
        assert (told["approvals"], told["unchecked"]) == (2, [])
        assert told["roots"]["omega"]["version"] == 1
        assert told["roots"]["omega"]["from"] == ("from the export" if words else "kept here")
    key = case.signer.verifier.vkey
    shutil.rmtree(case.office.home)
    first = case.directory / "root.json"
    first.write_bytes(case.roots[0])
    told = case.verify(record, "--key", key, "--trust-root", first)
    assert (told["approvals"], told["roots"]["omega"]["from"]) == (2, "the one given")
    assert run(["audit", "verify", str(record), "--key", key]) == 0
    said = capsys.readouterr().out
    assert "Approvals   2, each signed by enough of those who may" in said
    assert f"Root omega version 1, from the export, sha256 {told['roots']['omega']['sha256']}" in " ".join(said.split())


def test_an_export_without_roots_is_checked_as_far_as_it_goes(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.approve("kim", "lee")
    record = case.export()
    header, *rest = record.read_bytes().splitlines(keepends=True)
    told = json.loads(header)
    record.write_bytes(b"".join([canonical_json(told | {"roots": {}}) + b"\n", *rest]))
    found = case.verify(record)
    assert (found["approvals"], found["roots"]) == (1, {})
    assert found["unchecked"] == [
        "omega: which root names those who approve, as the log came with none (--trust-root FILE gives it)"
    ]
    assert run(["audit", "verify", str(record)]) == 0
    assert "Unchecked   omega: which root names" in capsys.readouterr().out
    (case.directory / "root.json").write_bytes(case.roots[1])
    assert case.verify(record, "--trust-root", case.directory / "root.json")["unchecked"] == []


def swap_signatures(lines: Lines) -> None:
    one, other = leaves(lines, "answered")
    one["signature"]["release"], other["signature"]["release"] = (
        other["signature"]["release"],
        one["signature"]["release"],
    )


def another_key(lines: Lines) -> None:
    stranger, one = key_pair("kim"), leaves(lines, "answered")[0]
    proposal = next(line["document"] for line in lines if "release" in line.get("document", {}))
    metadata = Proposal.from_json(proposal).release.production
    metadata.sign(stranger, append=True)
    keyid = stranger.public_key.keyid
    one["signature"].update(keyid=keyid, release=metadata.signatures[keyid].signature)


@pytest.mark.parametrize(
    ("change", "named", "why"),
    [
        (swap_signatures, "Event 9 (UPD-1 attempt 1 version 9)", "is no approver's, or not over this release"),
        (another_key, "Event 9 (UPD-1 attempt 1 version 9)", "is no approver's, or not over this release"),
        (
            lambda lines: leaves(lines, "answered")[0]["signature"].update(name="noa"),
            "Event 9 (UPD-1 attempt 1 version 9)",
            "it is recorded as signed by noa, and the key is that of kim",
        ),
        (
            lambda lines: leaves(lines, "answered")[0].update(release_seq=1),
            "Event 9 (UPD-1 attempt 1 version 9)",
            "the release is signed by 1 of 2 needed (kim); missing: lee, noa",
        ),
        (
            lambda lines: leaves(lines, "answered")[1].update(release_seq=2),
            "Event 11 (UPD-1 attempt 1 version 11)",
            "it was approved as release 2, and 1 was signed",
        ),
        (
            lambda lines: leaves(lines, "promoted")[0].update(release_seq=2),
            "Event 13 (UPD-1 attempt 1 version 13)",
            "release_seq 1 was approved, and 2 promoted",
        ),
        (
            lambda lines: leaves(lines, "packaged")[0].update(bundle="b" * 64),
            "Event 9 (UPD-1 attempt 1 version 9)",
            "What was signed is about another bundle",
        ),
        (
            lambda lines: leaves(lines, "created")[0].update(description="Less"),
            "Event 9 (UPD-1 attempt 1 version 9)",
            "the log that was signed for was rewritten or forked: its first 7 events are not those that it had",
        ),
    ],
)  # fmt: skip
def test_an_approval_that_was_altered_is_named(
    case: Case, change: Callable[[Lines], object], named: str, why: str
) -> None:
    case.approve("kim", "lee")

    told = case.refused(case.forged(change))
    assert named in told
    assert why in told


def test_a_provenance_of_other_statements_than_were_recorded_is_named(case: Case) -> None:
    case.approve("kim", "lee", logged=False)
    told = case.refused(case.forged(lambda lines: leaves(lines, "packaged")[0].update(attestation=None)))
    assert "Event 11 (UPD-1 attempt 1 version 11)" in told
    assert "the provenance that was signed is not of the statements in the record" in told


def test_a_document_or_an_event_of_an_export_that_was_altered_is_named(case: Case) -> None:
    case.approve("kim", "lee")

    def evidence(lines: Lines) -> None:
        found = next(line["document"] for line in lines if "checks" in line.get("document", {}))
        found["outcome"] = "passed" if found["outcome"] != "passed" else "attention"

    assert "Event 6 (UPD-1 attempt 1 version 6) does not fit: evidence" in case.refused(case.forged(evidence))


def test_a_log_without_what_came_before_the_approval_is_not_the_one_that_was_signed(case: Case) -> None:
    """The record fits itself, without an update that nobody should see any more, and in another order."""
    case.office.ledger.append(honest(case.office.ledger, "UPD-0"), e.Cancelled(at=T0))
    case.approve("kim", "lee")

    def removed(lines: Lines) -> None:
        lines[:] = [line for line in lines if "leaf" not in line or line["leaf"]["update_id"] != "UPD-0"]

    def reordered(lines: Lines) -> None:
        at = next(n for n, line in enumerate(lines) if "leaf" in line and line["leaf"]["update_id"] == "UPD-1")
        lines.insert(at, lines.pop(at - 1))

    told = case.refused(case.forged(removed))
    assert "the log that was signed for was cut: it had 16 events, and has 8" in told
    assert "Event 9 (UPD-1 attempt 1 version 9)" in told
    told = case.refused(case.forged(reordered))
    assert "Event 18 (UPD-1 attempt 1 version 9)" in told
    assert "its first 16 events are not those that it had" in told


def test_a_checkpoint_of_a_fork_is_named(case: Case) -> None:
    fork = case.signer
    note = fork.sign(Checkpoint(fork.name, 7, b"f" * 32).text)
    case.approve("kim", "lee", log=LogEntry(checkpoint=note, key=fork.verifier.vkey))
    told = case.refused()
    assert "Event 9 (UPD-1 attempt 1 version 9) does not fit: the log that was signed for was rewritten" in told


def test_a_checkpoint_of_another_ledger_is_named(case: Case, tmp_path: Path) -> None:
    other = Office(tmp_path / "other")
    note, key, _ = sign_log(other.ledger, other.home)
    case.approve("kim", "lee", log=LogEntry(checkpoint=note, key=key))
    assert "the log that was signed for is another one: it was ashat-deploy/ledger-" in case.refused()
    other.ledger.close()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"built": "b" * 64}, "The builder's statement is about another bundle than was approved"),
        ({"seen": "b" * 64}, "the evidence is about another release than was signed"),
        ({"bundle": "b" * 64}, "What was signed is about another bundle"),
        ({"evidence": "b" * 64}, "What was signed is about another evidence"),
        ({"attempt": 2}, "What was signed is about another attempt: 2, not 1"),
        ({"channel": "beta"}, "What was signed is about another channel: beta, not stable"),
        ({"provenance": "b" * 64}, "The provenance given is not the one that was approved with UPD-1"),
        ({"provenance": None}, "UPD-1 comes without a provenance, and one by "),
    ],
)
def test_what_was_signed_about_something_else_is_named(case: Case, changes: dict[str, Any], why: str) -> None:
    case.approve("kim", "lee", **changes)
    told = case.refused()
    assert why in told
    assert "does not fit" in told
    assert "(UPD-1 attempt 1 version " in told


def test_the_rollback_is_the_return_to_what_was_signed_before(case: Case) -> None:
    case.approve("kim", "lee")
    case.approve("lee", "noa", update="UPD-2", back={})
    record = case.forged(lambda lines: None)
    assert case.verify(record)["approvals"] == 2

    def swapped(lines: Lines) -> None:
        one, other = leaves(lines, "answered", "UPD-2")
        one["signature"]["rollback"] = other["signature"]["rollback"]

    told = case.refused(case.forged(swapped))
    assert "(UPD-2 attempt 1 version 9) does not fit: the signature by the key" in told
    case.approve("kim", "noa", update="UPD-3", back={"bundle": "b" * 64})
    told = case.refused()
    assert "(UPD-3 attempt 1 version 9) does not fit: The rollback that is proposed, to UPD-2" in told


@pytest.mark.parametrize("harm", [{}, {"bundle": "b" * 64}, {"update_id": "UPD-2"}])
def test_a_rollback_that_people_signed_is_audited_as_well(case: Case, harm: dict[str, str]) -> None:
    for update in ("UPD-1", "UPD-2"):
        case.approve("kim", "lee", update=update)
    ledger, kim, lee = case.office.ledger, *case.world.approvers[:2]
    to, state = ledger.load("UPD-1"), ledger.load("UPD-2")
    assert to.gate is not None
    assert to.gate.proposal is not None
    assert to.evidence is not None
    signed = Proposal.from_json(ledger.document(to.gate.proposal)).release
    again = signed.document.model_copy(update={"release_seq": 3, **harm})
    provenances = {str(again.provenance): str(signed.provenance)}
    way = Proposal.make(case.targets, None, (again, None), lifetime=9e6, now=datetime.now(UTC), provenances=provenances)
    shown, proposal = ledger.put_document("gate", {"m": "!"}), ledger.put_document("proposal", way.to_json())
    asked = {"subject": "rollback", "run": "r", "expires": FAR, "to_update": "UPD-1", "to_attempt": 1}
    for number, signer in enumerate((kim, lee), 1):
        question = e.ApprovalRequested.model_validate(
            {"at": T0, "ordinal": number, "evidence": to.evidence, "shown": shown, "proposal": proposal, **asked}
        )
        yes = {"decision": "approve", "accepted": True, "complete": number == 2, "signature": way.sign(signer)}
        answer = e.ApprovalAnswered.model_validate({"at": T0, "subject": "rollback", "ordinal": number, **yes})
        for event in (question, answer):
            state = ledger.append(state, event)
    if not harm:
        assert case.verify()["approvals"] == 3
        forged = case.forged(lambda lines: leaves(lines, "answered", "UPD-2")[2].update(complete=True))
        assert "the release is signed by 1 of 2 needed (kim)" in case.refused(forged)
    else:
        assert f"What was signed is about another {next(iter(harm))}" in case.refused()


def test_what_was_signed_for_another_region_is_named(case: Case) -> None:
    eu = case.office.home / "trust/authority/omega-eu"
    shutil.copytree(case.office.home / "trust/authority/omega", eu)
    case.approve("kim", "lee", target="omega-eu")
    assert "it was signed for omega-eu, and not for omega" in case.refused()


def test_who_approves_no_more_is_named(case: Case) -> None:
    before = case.targets
    case.install([case.world.approvers[0], case.world.approvers[1]])
    case.approve("kim", "lee")
    assert case.verify()["approvals"] == 1
    case.approve("kim", "noa", targets=before, update="UPD-2")
    told = case.refused()
    assert "UPD-2 attempt 1 version 9" in told
    assert "it goes by targets version 2, and 3 was in force before" in told


def test_targets_that_no_holder_signed_are_named(case: Case) -> None:
    stranger = World(case.directory / "stranger", approvers=case.world.approvers)
    case.approve("kim", "lee", targets=stranger.repository.read().raw["targets"])
    told = case.refused()
    assert "Event 9 (UPD-1 attempt 1 version 9) does not fit: no root from version 1 on names who signed this" in told


def test_an_approval_that_lost_its_signatures_is_named(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.approve("kim", "lee")
    state = honest(case.office.ledger, "UPD-9")
    answer = e.ApprovalAnswered(at=T0, ordinal=1, decision="approve", accepted=True, release_seq=2, approver="kim")
    case.office.ledger.append(state, answer)
    assert "it carries no signature, as approvals for omega before it do" in case.refused()


def test_approvals_from_before_there_were_signatures_are_told(case: Case) -> None:
    state = honest(case.office.ledger, "UPD-0")
    answer = e.ApprovalAnswered(at=T0, ordinal=1, decision="approve", accepted=True, release_seq=1, approver="kim")
    case.office.ledger.append(state, answer)
    case.approve("kim", "lee", logged=False)
    told = case.verify()
    assert told["approvals"] == 1
    assert told["unchecked"] == [
        "1 approved without a checkpoint of the log: no approver vouches for what came before",
        "1 approved without a signature, before there were any: nothing shows by whom",
    ]


def test_the_root_that_is_given_decides(case: Case) -> None:
    case.approve("kim", "lee")
    record, given = case.export(), case.directory / "root.json"
    stranger = World(case.directory / "stranger")
    given.write_bytes(stranger.root)
    assert "The log came with another root version 1 of omega than the one given" in case.refused(
        record, "--trust-root", given
    )
    given.write_bytes(stranger.offline(stranger.approvers)[0])
    assert "another root version 2 of omega" in case.refused(record, "--trust-root", given)
    given.write_bytes(stranger.offline(stranger.approvers)[0])
    told = case.refused(record, "--trust-root", given)
    assert "Event 9 (UPD-1 attempt 1 version 9) does not fit: no root from version 3 on names who signed this" in told
    given.write_text("{}")
    assert "The root given is no TUF metadata" in case.refused(record, "--trust-root", given)
    assert "cannot be read" in case.refused(record, "--trust-root", "nowhere", code=2)
    # Where the export has none, the later ones are given, too.
    header, *rest = record.read_bytes().splitlines(keepends=True)
    bare = case.directory / "bare.jsonl"
    bare.write_bytes(b"".join([canonical_json(json.loads(header) | {"roots": {}}) + b"\n", *rest]))
    paths = [case.directory / f"{number}.root.json" for number in (1, 2)]
    for path, content in zip(paths, case.roots, strict=True):
        path.write_bytes(content)
    words = [word for path in reversed(paths) for word in ("--trust-root", path)]
    assert case.verify(bare, *words)["roots"]["omega"]["version"] == 1
    header, *rest = record.read_bytes().splitlines(keepends=True)
    told_roots = json.loads(header)
    forged = json.loads(stranger.root)
    forged["signed"]["version"] = 2
    told_roots["roots"]["omega"][1] = json.dumps(forged)
    record.write_bytes(canonical_json(told_roots) + b"\n" + b"".join(rest))
    assert "The roots of omega do not follow on each other: root version 2" in case.refused(record)


def test_a_root_of_another_region_is_told(case: Case, tmp_path: Path) -> None:
    case.approve("kim", "lee")
    (tmp_path / "eu.json").write_bytes(World(tmp_path / "eu", target="omega-eu", named=True).root)
    told = case.verify("--trust-root", tmp_path / "eu.json")
    assert told["unchecked"] == ["omega-eu: nothing was approved for it, and a root of it is given"]
    assert told["roots"]["omega"]["from"] == "kept here"


def test_signatures_of_a_kind_that_is_not_known_are_told() -> None:
    """As a later version may have them, of which this one knows the form alone."""

    class Countersigned(e.Event):
        kind: Literal["countersigned"] = "countersigned"
        signature: ReleaseSignature

    given = ReleaseSignature(name="kim", keyid="a" * 64, release="b" * 128)
    approvals = Approvals("ashat-deploy/ledger-0000000000000000", {})
    approvals.event(
        Record("UPD-1", 1, 1, "{}", 0, ""),
        Countersigned(at=T0, signature=given),  # type: ignore[arg-type]
        start("UPD-1", 1),
        lambda size: b"",
    )
    assert approvals.unchecked == [
        "1 signatures in events of the kind 'countersigned', which this version cannot check"
    ]
