"""Where a release comes from: what the statements say, and what is refused that no builder or verifier signed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Targets

from ashat.bundle.compare import NAMES_SHOWN
from ashat.common.canonical_json import canonical_json
from ashat.errors import KeyPolicyError, MalformedMetadataError, NodeError, OversizedError, UnprovenError
from ashat.protocol.messages import Source
from ashat.protocol.origins import Artifact, Differences, DifferingFiles
from ashat.trust.release.machine_keys import machine_path, machine_public_key, machine_signer
from ashat.trust.release.provenance import (
    MAX_BYTES,
    Parameters,
    attest_build,
    attest_evidence,
    provenance_of,
    verify_provenance,
)
from ashat.trust.tuf.metadata import BUILDER, VERIFIER, Holders, build_targets, parse
from tests.support.builders.signers import provenance
from tests.support.builders.trust_world import World, document, held_by, key_pair, mainframe, reply, serving

ALPHA, CONTROL, THIEF, KIM = (key_pair(name) for name in ("alpha", "control", "thief", "kim"))
BUNDLE, EVIDENCE = "b" * 64, "e" * 64


def targets(builders: list[CryptoSigner], verifiers: list[CryptoSigner]) -> Targets:
    """What names them, as it is read back."""
    machines = {"builders": builders, "verifiers": verifiers}
    named = {role: [key.public_key for key in keys] for role, keys in machines.items()}
    made = build_targets(held_by(Holders([KIM.public_key]), **named), lifetime=999, now=datetime.now(UTC))
    return parse(made.to_bytes(), Targets, "targets.json").signed


BOTH = targets([ALPHA], [CONTROL])


def released(text: str, **changes: Any) -> Any:
    """The release document that names this provenance."""
    named = {"bundle": BUNDLE, "evidence": EVIDENCE, "provenance": sha256(text.encode()).hexdigest()}
    return document(1, **(named | changes))


def test_it_says_who_built_what_from_which_commit_in_the_fields_own_formats() -> None:
    text = provenance(ALPHA, CONTROL, BUNDLE, EVIDENCE)
    proven = verify_provenance(BOTH, released(text), text.encode())
    assert proven is not None
    assert (proven.builder, proven.verifier) == ("alpha", "control")
    assert proven.builder_key == ALPHA.public_key.keyval["public"]
    told = proven.parameters
    assert (told.commit, told.dirty, told.pushed_by) == ("c" * 40, True, "kim@alpha")
    envelope = json.loads(text)["build"]
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    statement = json.loads(base64.b64decode(envelope["payload"]))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"] == [{"name": "bundle", "digest": {"sha256": BUNDLE}}]
    checked = json.loads(base64.b64decode(json.loads(text)["evidence"]["payload"]))
    assert checked["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert checked["predicate"]["result"] == "PASSED"


def test_it_says_how_the_files_differ_from_that_commit_and_an_earlier_one_says_what_it_did() -> None:
    most = DifferingFiles(count=10**9, names=("\U0001f600" * 100,) * NAMES_SHOWN)
    differences = Differences(changed=most, added=most, missing=most, converted=3)
    source = Source(name="raos", commit="c" * 40, dirty=True, differences=differences)
    build = attest_build(ALPHA, bundle=BUNDLE, update_id="U", attempt=1, source=source, pushed_by="kim")
    statement = json.loads(base64.b64decode(build["payload"]))
    told = statement["predicate"]["buildDefinition"]["externalParameters"]
    assert told["differences"]["added"] == {"count": 10**9, "names": list(most.names)}
    assert Parameters.model_validate(told).differences == differences
    told["differences"]["unknown"] = {"to": "this version"}
    assert Parameters.model_validate(told).differences == differences
    del told["differences"]
    assert (Parameters.model_validate(told).dirty, Parameters.model_validate(told).differences) == (True, None)


def test_it_names_the_artifact_by_its_digest_as_what_was_resolved() -> None:
    artifact = Artifact(name="raos.tar.gz", kind="tar.gz", digest="a" * 64, size=1234)
    source = Source(name="raos", artifact=artifact)
    build = attest_build(ALPHA, bundle=BUNDLE, update_id="U", attempt=1, source=source, pushed_by="kim")
    definition = json.loads(base64.b64decode(build["payload"]))["predicate"]["buildDefinition"]
    assert definition["resolvedDependencies"] == [{"name": "raos.tar.gz", "digest": {"sha256": "a" * 64}}]
    assert Parameters.model_validate(definition["externalParameters"]).artifact == artifact
    text = canonical_json(provenance_of(build, None)).decode()
    proven = verify_provenance(targets([ALPHA], []), released(text), text.encode())
    assert proven is not None
    assert proven.parameters.artifact == artifact


def test_where_nobody_is_named_none_is_demanded_and_a_builder_alone_may_be_named() -> None:
    nobody = targets([], [])
    assert verify_provenance(nobody, document(1), None) is None
    build = attest_build(ALPHA, bundle=BUNDLE, update_id="U", attempt=1, source=Source(name="raos"), pushed_by="kim")
    text = canonical_json(provenance_of(build, None)).decode()
    proven = verify_provenance(targets([ALPHA], []), released(text), text.encode())
    assert proven is not None
    assert (proven.verifier, proven.parameters.commit) == ("", None)
    with pytest.raises(MalformedMetadataError, match="verifier's statement is in no DSSE envelope"):
        verify_provenance(BOTH, released(text), text.encode())


@pytest.mark.parametrize(
    ("text", "changes", "told"),
    [
        (provenance(THIEF, CONTROL, BUNDLE, EVIDENCE), {}, "builder's statement is signed by .*, and not by alpha"),
        (provenance(ALPHA, THIEF, BUNDLE, EVIDENCE), {}, "verifier's statement is signed by .*, and not by control"),
        (provenance(CONTROL, ALPHA, BUNDLE, EVIDENCE), {}, "builder's statement is signed by .*, and not by alpha"),
        (provenance(ALPHA, CONTROL, "a" * 64, EVIDENCE), {}, "builder's statement is about another bundle"),
        (provenance(ALPHA, CONTROL, BUNDLE, "f" * 64), {}, "control signed other evidence"),
        (provenance(ALPHA, CONTROL, BUNDLE, EVIDENCE, outcome="failed"), {}, "control saw the checks of UPD-1 fail"),
        (provenance(ALPHA, CONTROL, BUNDLE, EVIDENCE), {"provenance": "0" * 64}, "not the one that was approved"),
        (provenance(ALPHA, CONTROL, BUNDLE, EVIDENCE), {"provenance": None}, "comes without a provenance"),
    ],
    ids=range(8),  # the text is another each time
)
def test_what_nobody_who_may_build_or_verify_signed_is_refused(text: str, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(UnprovenError, match=told):
        verify_provenance(BOTH, released(text, **changes), text.encode())


def _swap_kinds(content: dict[str, Any]) -> None:
    content["build"] = attest_evidence(ALPHA, bundle=BUNDLE, evidence=EVIDENCE, outcome="passed", policy="d" * 64)


def _other_format(content: dict[str, Any]) -> None:
    content["format"] = "ashat-provenance/9"


def _no_envelope(content: dict[str, Any]) -> None:
    content["build"] = {"payload": "!!!", "signatures": 7}


def _two_signatures_of_one_key(content: dict[str, Any]) -> None:
    content["build"]["signatures"] *= 2


def _endless(content: dict[str, Any]) -> None:
    content["more"] = "x" * MAX_BYTES


@pytest.mark.parametrize(
    ("alter", "told"),
    [
        (_swap_kinds, "builder's statement cannot be read: predicateType"),
        (_other_format, "of another format"),
        (_no_envelope, "in no DSSE envelope"),
        (_two_signatures_of_one_key, "in no DSSE envelope"),
        (_endless, "more than 65536 bytes"),
    ],
)
def test_what_is_no_provenance_is_refused_in_a_line(alter: Callable[[dict[str, Any]], None], told: str) -> None:
    content = json.loads(provenance(ALPHA, CONTROL, BUNDLE, EVIDENCE))
    alter(content)
    text = canonical_json(content).decode()
    with pytest.raises(MalformedMetadataError, match=told) as error:
        verify_provenance(BOTH, released(text), text.encode())
    assert "\n" not in str(error.value)


def test_a_statement_that_was_altered_is_not_signed() -> None:
    content = json.loads(provenance(ALPHA, CONTROL, BUNDLE, EVIDENCE))
    statement = base64.b64decode(content["build"]["payload"]).replace(b'"dirty":true', b'"dirty":false')
    content["build"]["payload"] = base64.b64encode(statement).decode()
    text = canonical_json(content).decode()
    with pytest.raises(UnprovenError, match="and not by alpha"):
        verify_provenance(BOTH, released(text), text.encode())


@pytest.mark.parametrize("spelled", [b" {}", b"[]", b"{", b'{"format":"ashat-provenance/1","build":1.5}', b"[" * 5000])
def test_another_spelling_is_refused(spelled: bytes) -> None:
    named = document(1, bundle=BUNDLE, provenance=sha256(spelled).hexdigest())
    with pytest.raises(MalformedMetadataError):
        verify_provenance(BOTH, named, spelled)


@pytest.mark.parametrize(
    ("builders", "verifiers", "told"),
    [
        ([KIM], [], "builder: kim has the key of kim"),
        ([ALPHA], [ALPHA], "verifier: alpha has the key of alpha"),
        ([ALPHA, ALPHA], [], "one and the same key"),
    ],
)
def test_each_key_does_one_thing(builders: list[CryptoSigner], verifiers: list[CryptoSigner], told: str) -> None:
    with pytest.raises(KeyPolicyError, match=told):
        targets(builders, verifiers)


def test_a_machine_makes_its_key_once_and_nobody_else_reads_it(tmp_path: Path) -> None:
    first = machine_signer(tmp_path, BUILDER)
    assert machine_signer(tmp_path, BUILDER).public_key.keyid == first.public_key.keyid
    assert machine_signer(tmp_path, VERIFIER).public_key.keyid != first.public_key.keyid
    path = machine_path(tmp_path, BUILDER)
    assert path.stat().st_mode & 0o777 == 0o600
    named = machine_public_key(tmp_path, BUILDER, "alpha")
    assert named.keyid == first.public_key.keyid


def test_what_was_accepted_once_stays_so_and_whoever_comes_anew_demands_a_provenance(tmp_path: Path) -> None:
    world = World(tmp_path / "repository")
    made = document(1)
    world.publish(made)
    with serving(world.directory) as server:
        with mainframe(server, world, tmp_path / "old") as client:
            assert client.latest_release("stable") == made
        root, named = world.offline(world.approvers, builders=[ALPHA])
        world.repository.install(world.online, root=root, targets=named)
        with mainframe(server, world, tmp_path / "old") as client:
            assert client.latest_release("stable") == made
        with mainframe(server, world, tmp_path / "new") as client, pytest.raises(UnprovenError, match="by alpha"):
            client.latest_release("stable")
        world.publish(document(2))
        with mainframe(server, world, tmp_path / "old") as client, pytest.raises(UnprovenError, match="UPD-2 comes"):
            client.latest_release("stable")


def test_a_verifier_alone_is_demanded_too() -> None:
    alone = targets([], [CONTROL])
    checked = provenance(THIEF, CONTROL, BUNDLE, EVIDENCE)
    assert verify_provenance(alone, released(checked), checked.encode()) is None
    with pytest.raises(UnprovenError, match="one by control is demanded"):
        verify_provenance(alone, document(1), None)
    for text, told in (
        (provenance(ALPHA, THIEF, BUNDLE, EVIDENCE), "verifier's statement is signed by .*, and not by control"),
        (provenance(ALPHA, CONTROL, BUNDLE, "f" * 64), "control signed other evidence"),
        (provenance(ALPHA, CONTROL, BUNDLE, EVIDENCE, outcome="failed"), "control saw the checks of UPD-1 fail"),
    ):
        with pytest.raises(UnprovenError, match=told):
            verify_provenance(alone, released(text), text.encode())


def test_a_mainframe_demands_the_statement_of_a_verifier_alone(tmp_path: Path) -> None:
    world = World(tmp_path / "repository")
    root, named = world.offline(world.approvers, verifiers=[CONTROL])
    world.repository.install(world.online, root=root, targets=named)
    world.publish(document(1))
    with serving(world.directory) as server, mainframe(server, world, tmp_path / "cache") as client:
        with pytest.raises(UnprovenError, match="UPD-1 comes without a provenance, and one by control"):
            client.latest_release("stable")
        for seq, signer in ((2, THIEF), (3, CONTROL)):
            made = document(seq)
            text = provenance(ALPHA, signer, made.bundle, made.evidence)
            made = document(seq, provenance=sha256(text.encode()).hexdigest())
            world.publish(made)
            world.force(f"targets/provenance/{made.provenance}.json", text.encode())
            if signer is THIEF:
                with pytest.raises(UnprovenError, match="not by control"):
                    client.latest_release("stable")
        assert client.latest_release("stable") == made


def test_a_provenance_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    world = World(tmp_path / "repository")
    root, named = world.offline(world.approvers, builders=[ALPHA])
    world.repository.install(world.online, root=root, targets=named)
    world.publish(document(1, provenance="0" * 64))
    path = f"/targets/provenance/{'0' * 64}.json"
    with serving(world.directory) as server, mainframe(server, world, tmp_path / "cache") as client:
        server.answers[path] = lambda handler: reply(handler, 200, b"x" * (MAX_BYTES + 1))
        with pytest.raises(OversizedError):
            client.latest_release("stable")
        server.answers[path] = lambda handler: reply(handler, 503, b"{}")
        with pytest.raises(NodeError):
            client.latest_release("stable")
        server.answers[path] = lambda handler: reply(handler, 200, b"{}")
        with pytest.raises(UnprovenError, match="not the one that was approved"):
            client.latest_release("stable")
