"""A receipt shows a customer what was approved, and no byte of it can be another."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Targets

from ashat.audit.sign import sign_log
from ashat.cli.main import run
from ashat.common.canonical_json import canonical_json
from ashat.deployment import events as e
from ashat.errors import ReceiptError, SessionError
from ashat.receipts.receipt import Receipt, prove
from ashat.receipts.write import write_receipt
from ashat.transparency.log_signer import LogSigner
from ashat.transparency.merkle import inclusion_proof
from ashat.trust.authority.authority import Authority
from ashat.trust.keys.files import NAME_FIELD, OnlinePublicKeys
from tests.support.builders.ceremonies import place
from tests.support.builders.ledgers import ROOT
from tests.support.builders.signed_ledger import ACME, BOLT, COOK, Office, altered
from tests.support.builders.signers import People
from tests.support.builders.trust_world import World
from tests.support.processes.forks import FORKS

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    made = Office(tmp_path_factory.mktemp("office"))
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Kim, Lee and Noa, of whom two must sign."""
    return World(tmp_path_factory.mktemp("world") / "repository")


@pytest.fixture(scope="module")
def shipped(office: Office, world: World) -> bytes:
    """The receipt of what Kim and Lee signed, for the Mainframe acme."""
    office.approve(world.repository.read().raw["targets"], *world.approvers[:2])
    return office.receipt(mainframe="acme")


def refused(content: bytes, root: bytes, told: str, log_key: str = "") -> None:
    with pytest.raises(ReceiptError) as error:
        prove(content, root, log_key)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_receipt_proves_bytes_evidence_approvers_and_place(office: Office, world: World, shipped: bytes) -> None:
    found = prove(shipped, world.root)
    assert (found.document.bundle, found.document.update_id) == (office.bundle, "UPD-1")
    assert found.evidence["outcome"] == "attention"
    assert sorted(name for name, _ in found.approvers) == ["kim", "lee"]
    assert (found.threshold, found.one_person, found.mainframe) == (2, False, ACME)
    kinds = [event.kind for _, event in found.events]
    assert kinds == ["packaged", "verified", "answered", "answered", "promoted", "distributed"]
    assert found.checkpoint.size > found.events[-1][0] + 1
    assert prove(office.receipt(), world.root).mainframe is None
    assert b"acme" not in office.receipt()


def paths(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the strings, numbers and the like of a JSON value are."""
    if isinstance(value, (dict, list)) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from paths(value[key], (*where, key))
    else:
        yield where


def another(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str() if value:
            return ("b" if value[0] != "b" else "c") + value[1:]
        case str():
            return "b"
        case None:
            return "b"
    return ["b"] if isinstance(value, list) else {"b": 1}


def test_no_field_can_be_another(world: World, shipped: bytes) -> None:
    whole = json.loads(shipped)
    found = list(paths(whole))
    assert len(found) > 150
    for where in found:

        def change(receipt: Any, where: tuple[Any, ...] = where) -> None:
            *above, last = where
            for key in above:
                receipt = receipt[key]
            receipt[last] = another(receipt[last])

        forged = altered(shipped, change)
        try:
            prove(forged, world.root)
        except ReceiptError:
            continue
        pytest.fail(f"{where} can be another")


@given(data=st.data())
def test_no_byte_can_be_another(world: World, shipped: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(shipped) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda byte: byte != shipped[at]))
    with pytest.raises(ReceiptError):
        prove(shipped[:at] + bytes([byte]) + shipped[at + 1 :], world.root)


@given(data=st.data())
def test_no_byte_can_be_missing_or_one_too_many(world: World, shipped: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(shipped)))
    more = data.draw(st.binary(max_size=3))
    less = data.draw(st.integers(0 if more else 1, 3))
    other = shipped[:at] + more + shipped[at + less :]
    if other != shipped:
        with pytest.raises(ReceiptError):
            prove(other, world.root)


def test_what_does_not_fit_is_named(office: Office, world: World, shipped: bytes, tmp_path: Path) -> None:
    def text(field: str, old: str, new: str) -> Callable[[dict[str, Any]], object]:
        return lambda receipt: receipt.update({field: receipt[field].replace(old, new)})

    root = world.root
    refused(b"[]\n", root, "no receipt that this version can read")
    refused(b"\xff", root, "it is no JSON")
    refused(shipped[:-1], root, "not spelled as")
    refused(shipped, b"{}", "The root given is no TUF metadata")
    refused(shipped, World(tmp_path / "other").root, "targets version 1 is signed by 0 of 2 needed")
    refused(altered(shipped, text("document", "UPD-1", "UPD-9")), root, "does not name this release of UPD-9")
    refused(altered(shipped, text("targets", ",", ", ")), root, "targets was altered")
    refused(altered(shipped, lambda receipt: receipt["evidence"].update(tool="9")), root, "the evidence is not the one")
    refused(
        altered(shipped, lambda receipt: receipt.update(provenance=None)),
        root,
        "provenance given is not the one that was approved",
    )
    refused(altered(shipped, lambda receipt: receipt["log"]["events"].pop(1)), root, "do not tell the evidence")
    refused(altered(shipped, lambda receipt: receipt["log"]["events"].pop(2)), root, "do not tell the signatures")
    refused(altered(shipped, lambda receipt: receipt["log"]["events"].pop()), root, "no event in it tells of")
    refused(altered(shipped, lambda receipt: receipt["log"]["events"].reverse()), root, "does not stand there")
    refused(
        altered(shipped, lambda receipt: receipt["log"].update(consistency=[])),
        root,
        "The log was rewritten or forked: its first",
    )
    refused(shipped, root, "no verifier key", log_key="mine")
    production = json.loads(json.loads(shipped)["production"])
    production["signatures"][0]["sig"] = production["signatures"][0]["sig"].upper()
    upper = altered(shipped, lambda receipt: receipt.update(production=json.dumps(production)))
    refused(upper, root, "production was altered")
    production["signatures"] = production["signatures"][:1]
    alone = altered(shipped, lambda receipt: receipt.update(production=json.dumps(production)))
    refused(alone, root, "is signed by 1 of 2 needed")


def test_the_story_of_another_release_is_none_of_it(office: Office, world: World, shipped: bytes) -> None:
    hashes = sign_log(office.ledger, office.home).hashes
    foreign = next(record for record in office.ledger.records() if record.update_id == "UPD-1-later")
    proof = [node.hex() for node in inclusion_proof(hashes, foreign.seq)]
    told = {"index": foreign.seq, "leaf": json.loads(foreign.leaf), "proof": proof}
    fresh = office.receipt()
    refused(altered(fresh, lambda receipt: receipt["log"]["events"].append(told)), world.root, "about another release")


def test_a_log_that_does_not_continue_what_was_signed_for_is_none(office: Office, world: World, tmp_path: Path) -> None:
    """Whoever has the ledger and its key makes a log of their own; what the approvers signed for gives it away."""
    targets = world.repository.read().raw["targets"]
    forger = Office(tmp_path / "forger")
    forger.approve(targets, *world.approvers[:2])
    true, false = json.loads(office.receipt()), json.loads(forger.receipt())
    mixed = canonical_json(true | {"log": false["log"]}) + b"\n"
    refused(mixed, world.root, "not by")
    key = json.loads(false["document"])["log"]["key"]
    refused(mixed, world.root, "The log is another one: it was", log_key=key)
    forger.ledger.close()


def test_an_approval_without_a_log_needs_its_key_from_elsewhere(world: World, tmp_path: Path) -> None:
    office = Office(tmp_path / "before")
    office.approve(world.repository.read().raw["targets"], *world.approvers[:2], logged=False)
    written = write_receipt(office.ledger, office.home, office.ledger.load("UPD-1"))
    content = written.receipt.to_bytes()
    refused(content, world.root, "give --log-key")
    assert prove(content, world.root, written.log_key).document.log is None
    forged = altered(content, lambda receipt: receipt["log"].update(consistency=["0" * 64]))
    refused(forged, world.root, "The log was rewritten or forked: its first", log_key=written.log_key)
    office.ledger.close()


def test_a_root_that_came_later_leads_to_its_targets(tmp_path: Path) -> None:
    world = World(tmp_path / "repository")
    first = world.root
    root, targets = world.offline(world.approvers)
    third, _ = world.offline(world.approvers)
    office = Office(tmp_path / "office")
    office.approve(targets, *world.approvers[:2])
    plain = office.receipt()
    assert prove(plain, first).document.update_id == "UPD-1"

    def with_roots(*roots: bytes) -> bytes:
        return office.sealed(plain, lambda receipt: receipt.update(roots=[one.decode() for one in roots]))

    for held, roots in ((first, [root]), (first, [root, third]), (root, [root, third]), (third, [root, third])):
        assert prove(with_roots(*roots), held).document.update_id == "UPD-1"
    refused(with_roots(third), first, "it goes on with 3")
    refused(with_roots(root, third, third), first, "does not follow version 3")
    stranger = World(tmp_path / "stranger")
    forged, _ = stranger.offline(stranger.approvers)
    refused(with_roots(forged), first, "0 of 2 needed")
    refused(with_roots(root.replace(b",", b", ", 1)), first, "a root was altered")
    other = World(tmp_path / "twin", world.held, world.approvers)
    refused(with_roots(other.offline(other.approvers)[0]), root, "another root version 2")
    # Those before the root that is held count for nothing, and still have to be what they were.
    later = json.loads(root)
    later["signed"]["expires"] = "2099-01-01T00:00:00Z"
    refused(with_roots(json.dumps(later).encode()), third, "root version 2 is signed by 0 of 2 needed")
    refused(with_roots(forged), third, "root version 3 is signed by 0 of 2 needed")
    refused(with_roots(forged, third), third, "root version 3 is signed by 0 of 2 needed")
    assert prove(with_roots(root), third).document.update_id == "UPD-1"
    office.ledger.close()


def test_a_receipt_is_for_the_mainframe_that_it_was_written_for(office: Office, world: World, shipped: bytes) -> None:
    def for_another(outcome: e.MainframeOutcome, content: bytes = shipped) -> bytes:
        return altered(content, lambda receipt: receipt.update(mainframe=outcome.id))

    refused(for_another(COOK), world.root, "it was altered since it was sealed")
    refused(for_another(BOLT), world.root, "has not reported")
    refused(altered(shipped, lambda receipt: receipt.update(mainframe="")), world.root, "altered since it was sealed")
    assert prove(office.receipt(mainframe="cook"), world.root).mainframe == COOK
    with pytest.raises(SessionError, match=r"bolt has not reported 'UPD-1' \(not heard of yet\)"):
        office.receipt(mainframe="bolt")


def test_only_the_key_of_the_log_seals(office: Office, world: World, shipped: bytes, tmp_path: Path) -> None:
    strange = Office(tmp_path / "strange")
    sign_log(strange.ledger, strange.home)
    forged = strange.sealed(shipped, lambda receipt: receipt.update(mainframe=COOK.id))
    refused(forged, world.root, "The seal of the receipt does not fit: The checkpoint is signed by")
    twice = altered(shipped, lambda receipt: receipt.update(seal=receipt["seal"] + receipt["seal"].split("\n\n")[1]))
    refused(twice, world.root, "altered since it was sealed")
    signer = LogSigner(office.home, office.ledger.log_head()[0])
    with pytest.raises(ValueError, match="taken for a checkpoint"):
        signer.sign_note("ashat-deploy/ledger-0000000000000000\n9\nAAAA\n")
    strange.ledger.close()


def test_approvers_with_keys_of_ecdsa(tmp_path: Path) -> None:
    """As tokens and key services make them; P-256. Of such a signature there is a second that is as good."""
    people = [CryptoSigner.generate_ecdsa() for _ in range(3)]
    for name, signer in zip(("kim", "lee", "noa"), people, strict=True):
        signer.public_key.unrecognized_fields[NAME_FIELD] = name
    world = World(tmp_path / "repository", approvers=people)
    office = Office(tmp_path / "office")
    office.approve(world.repository.read().raw["targets"], *people[:2])
    content = office.receipt(mainframe="acme")
    assert sorted(name for name, _ in prove(content, world.root).approvers) == ["kim", "lee"]

    def twin(receipt: dict[str, Any]) -> None:
        production = Metadata[Targets].from_bytes(receipt["production"].encode())
        signature = production.signatures[people[0].public_key.keyid]
        r, s = decode_dss_signature(bytes.fromhex(signature.signature))
        signature.signature = encode_dss_signature(r, P256_ORDER - s).hex()
        receipt["production"] = production.to_bytes().decode()

    def swapped(receipt: dict[str, Any]) -> None:
        production = Metadata[Targets].from_bytes(receipt["production"].encode())
        one, other = production.signatures.values()
        one.signature, other.signature = other.signature, one.signature
        receipt["production"] = production.to_bytes().decode()

    refused(office.sealed(content, twin), world.root, "do not tell the signatures")
    refused(office.sealed(content, swapped), world.root, "is signed by 0 of 2 needed")
    refused(altered(content, lambda receipt: receipt.update(mainframe=COOK.id)), world.root, "since it was sealed")
    for where in paths(json.loads(content)):
        if where[0] not in ("production", "document", "targets", "mainframe", "seal", "format"):
            continue
        forged = altered(content, lambda receipt, where=where: receipt.update({where[0]: another(receipt[where[0]])}))
        with pytest.raises(ReceiptError):
            prove(forged, world.root)
    office.ledger.close()


def test_a_receipt_of_another_region_is_none_of_this_one(tmp_path: Path) -> None:
    """The same people approve for both, and hold root and targets of both."""
    there = World(tmp_path / "there", named=True)
    here = World(tmp_path / "here", there.held, there.approvers, target="omega-eu", named=True)
    office = Office(tmp_path / "office")
    office.approve(there.repository.read().raw["targets"], *there.approvers[:2])
    assert prove(office.receipt(), there.root).document.target == "omega"
    refused(office.receipt(), here.root, "approved for omega, and not for omega-eu")
    office.ledger.close()


def test_the_first_root_proves_a_receipt_from_after_two_ceremonies(tmp_path: Path) -> None:
    people = People()
    with place(tmp_path, people) as here:
        for _ in range(2):
            here.change(lambda roles: roles, *people.keys[:2])
        kept = here.authority.directory / "roots"
        assert sorted(path.name for path in kept.iterdir()) == [f"{number}.root.json" for number in (1, 2, 3)]
        assert (kept / "1.root.json").read_bytes() == here.root
        assert (kept / "3.root.json").read_bytes() == (kept.parent / "root.json").read_bytes()
    office = Office(tmp_path)
    office.approve(here.authority.read().targets.to_bytes(), *people.keys[:2])
    content = office.receipt()
    assert [json.loads(root)["signed"]["version"] for root in json.loads(content)["roots"]] == [2, 3]
    for number in (1, 2, 3):
        assert prove(content, (kept / f"{number}.root.json").read_bytes()).document.update_id == "UPD-1"
    # What is not in force here yet is not told.
    later = json.loads(here.root)
    later["signed"]["version"] = 4
    (kept / "4.root.json").write_text(json.dumps(later))
    assert json.loads(office.receipt())["roots"] == json.loads(content)["roots"]
    office.ledger.close()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    """The one-person mode, of whose home the command is run."""
    office = Office(tmp_path)
    monkeypatch.setenv("ASHAT_HOME", str(office.home))
    monkeypatch.chdir(tmp_path)
    keys = World(tmp_path / "elsewhere").online
    public = {"snapshot": keys.snapshot.public_key, "timestamp": keys.timestamp.public_key}
    authority = Authority(office.home)
    authority.init((), 1, online=OnlinePublicKeys(**public), now=datetime.now(UTC))  # type: ignore[arg-type]
    (tmp_path / "root.json").write_bytes(authority.read().root.to_bytes())
    office.approve(authority.read().targets.to_bytes(), authority.embedded_approver())  # type: ignore[arg-type]
    yield office
    office.ledger.close()


def verify(*words: str) -> subprocess.CompletedProcess[str]:
    return FORKS.run(["ashat.node", "verify-receipt", *words], env={"PYTHONPATH": str(ROOT)}, timeout=60)


def test_the_commands(alone: Office, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["receipt", "UPD-1", "--mainframe", "acme"]) == 0
    told = capsys.readouterr()
    written = alone.home / "receipts/UPD-1.receipt.json"
    assert f"{written}: ashat-node verify-receipt {written} --root root.json" in told.out
    assert "It also names bolt, cook" in told.err
    assert not Path("UPD-1.receipt.json").exists(), "where the command is typed may be the tree that is pushed next"
    assert run(["receipt", "UPD-1", "--mainframe", "acme", "--out", "UPD-1.receipt.json"]) == 0
    assert Path("UPD-1.receipt.json").read_bytes() == written.read_bytes()
    done = verify("UPD-1.receipt.json", "--root", "root.json", "--bundle", str(alone.tree))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("UPD-1 (attempt 1) was approved for omega, channel stable, as release_seq 1. Everything")
    for words in (
        f"bundle {alone.bundle}; {alone.tree} is exactly that",
        "attention, 2 checks",
        "Built     by builder from ",
        "Signed    approver, key ",
        "One-person mode: the key lay on the machine that deploys",
        "2026-01-01 01:00:00 UTC: read it\\x1b[2J",
        "acme (aaaaaaaaaaaa): running, the record says",
        "events 2, 6, 9, 11, 12 of 20 of ashat-deploy/ledger-",
    ):
        assert words in done.stdout, words
    (alone.tree / "more.txt").write_text("more")
    done = verify("UPD-1.receipt.json", "--root", "root.json", "--bundle", str(alone.tree))
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "is not what was approved: it makes the bundle" in done.stderr
    content = Path("UPD-1.receipt.json").read_bytes()
    Path("UPD-1.receipt.json").write_bytes(
        content.replace(b'"mainframe":"aaaaaaaaaaaa"', b'"mainframe":"baaaaaaaaaaa"')
    )
    done = verify("UPD-1.receipt.json", "--root", "root.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "ashat-node: The receipt does not fit: no event in it tells of the Mainframe 'baaaaaaaaaaa'.\n"
    )
    done = verify("nowhere.json", "--root", "root.json")
    assert (done.returncode, done.stderr) == (
        2,
        "ashat-node: nowhere.json cannot be read: No such file or directory.\n",
    )


def test_what_has_no_receipt_is_said_so(
    alone: Office, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(words: list[str], told: str, code: int = 1) -> None:
        assert run(["receipt", *words]) == code
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert told in said

    fails(["UPD-1-later"], "was not approved, so there is nothing")
    fails(["UPD-9"], "No deployment 'UPD-9' is known")
    fails(["UPD-1", "--mainframe", "dora"], "No Mainframe 'dora' is known to have been offered 'UPD-1': acme, bolt, ")
    fails(["UPD-1", "--mainframe", "bolt"], "bolt has not reported 'UPD-1' (not heard of yet): nothing shows what")
    fails(["UPD-1", "--out", "nowhere/receipt.json"], "cannot be written", 2)
    monkeypatch.setenv("ASHAT_LEDGER_URL", f"sqlite:///{alone.home / 'ledger.db'}")
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "elsewhere"))
    fails(["UPD-1"], "is not on this machine", 2)
    assert not list((tmp_path / "elsewhere").rglob("key.*")), "no key is made to read"
    assert not list(tmp_path.rglob("*.receipt.json"))


def test_a_receipt_reads_as_it_was_written(shipped: bytes) -> None:
    assert Receipt.from_bytes(shipped).to_bytes() == shipped
    assert base64.b64decode(Receipt.from_bytes(shipped).log.checkpoint.splitlines()[2])
