"""An OMEGA and Mainframes whose people demand a provenance: builder and approvers, or nothing is shipped."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from ashat.protocol.messages import OperationRequest
from tests.support.builders.signers import Customer, People, demanding_omega, install_root, provenance, refused
from tests.support.builders.trust_world import key_pair
from tests.support.processes.node import NodeProcess, push
from tests.support.processes.omega import decide, eventually, offer, perform, promotion, source


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("proven") / "production"
    with demanding_omega(directory) as node:
        yield node


@pytest.fixture(scope="module")
def people() -> People:
    return People(machines=True)


@pytest.fixture(scope="module")
def root(omega: NodeProcess, people: People, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install_root(omega, people, tmp_path_factory.mktemp("installer") / "root.json")


@pytest.fixture
def client(omega: NodeProcess, root: Path) -> Iterator[NodeClient]:
    with omega.client() as found:
        yield found


def with_provenance(request: OperationRequest, text: str | None) -> OperationRequest:
    """The same, with another provenance beside what the approvers signed."""
    assert request.signed is not None
    return request.model_copy(update={"signed": request.signed.model_copy(update={"provenance": text})})


def _served(omega: NodeProcess, provenance: str | None) -> Path:
    """Where OMEGA has a provenance for Mainframes."""
    assert provenance is not None
    named = sha256(provenance.encode()).hexdigest()
    return omega.data / "trust" / "repository" / "targets" / "provenance" / f"{named}.json"


def test_what_builder_and_approvers_signed_reaches_a_mainframe_and_the_way_back_too(
    omega: NodeProcess, client: NodeClient, people: People, root: Path, tmp_path: Path
) -> None:
    first, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-1")
    assert perform(client, first).status == "succeeded"
    offer(client)
    with Customer(tmp_path / "baker", omega, trust_root=str(root)) as baker:
        baker.wait_for("running")
        assert baker.runs == first.bundle
        assert first.signed is not None
        assert first.signed.provenance is not None
        named = sha256(first.signed.provenance.encode()).hexdigest()
        kept = baker.directory / "data" / "trust" / "documents" / f"{named}.provenance.json"
        assert kept.read_text() == first.signed.provenance


def test_the_builders_key_alone_ships_nothing(client: NodeClient, people: People, tmp_path: Path) -> None:
    bundle = push(client, source(tmp_path))
    wanted, _ = people.promotion(client, bundle, "UPD-2")
    refused(client, wanted.model_copy(update={"signed": None}), "unsigned", "Nobody signed this promote")
    assert wanted.decision is not None
    draft = people.propose(client.trust(), wanted.decision).release
    for machine in people.machines:
        draft.production.sign(machine, append=True)
    production = draft.production.to_bytes().decode()
    signed = draft.signed(()).model_copy(update={"production": production})
    refused(client, wanted.model_copy(update={"signed": signed}), "untrusted", "0 of 2 needed (nobody)")


def test_the_approvers_alone_ship_nothing_either(client: NodeClient, people: People, tmp_path: Path) -> None:
    bundle = push(client, source(tmp_path))
    without, _ = people.promotion(client, bundle, "UPD-3", provenance=None)
    refused(client, without, "unproven", "comes without a provenance", "alpha")
    wanted, _ = people.promotion(client, bundle, "UPD-3")
    refused(client, with_provenance(wanted, None), "unproven", "comes without a provenance")
    builder, verifier = people.machines
    other = provenance(builder, verifier, "a" * 64, "b" * 64)
    refused(client, with_provenance(wanted, other), "unproven", "not the one that was approved")


def test_a_stranger_builds_and_verifies_for_nobody(client: NodeClient, people: People, tmp_path: Path) -> None:
    bundle = push(client, source(tmp_path))
    wanted, _ = people.promotion(client, bundle, "UPD-4")
    assert wanted.decision is not None
    evidence, thief = wanted.decision.evidence, key_pair("alpha")
    builder, verifier = people.machines
    for builds, verifies, told in (
        (thief, verifier, "The builder's statement"),
        (builder, thief, "The verifier's statement"),
    ):
        text = provenance(builds, verifies, bundle, evidence)
        named = sha256(text.encode()).hexdigest()
        theirs, _ = people.promotion(client, bundle, "UPD-4", provenance=named)
        refused(client, with_provenance(theirs, text), "unproven", told)
    for text, told in (
        (provenance(builder, verifier, bundle, "f" * 64), "other evidence than was approved"),
        (provenance(builder, verifier, "a" * 64, evidence), "The builder's statement is about another bundle"),
    ):
        named = sha256(text.encode()).hexdigest()
        theirs, _ = people.promotion(client, bundle, "UPD-4", provenance=named)
        refused(client, with_provenance(theirs, text), "unproven", told)


def test_what_was_approved_is_not_replayed_elsewhere(client: NodeClient, people: People, tmp_path: Path) -> None:
    bundle, other = push(client, source(tmp_path)), push(client, source(tmp_path))
    wanted, _ = people.promotion(client, bundle, "UPD-5")
    seen = client.state()
    assert seen.current is not None
    replayed = decide(other, expected=seen.current.bundle, seq=seen.release_seq + 1, update="UPD-5")
    refused(client, promotion(replayed, signed=wanted.signed), "untrusted", "What was signed is about another bundle")
    elsewhere, _ = people.promotion(client, bundle, "UPD-5", target="omega-eu")
    refused(client, elsewhere, "untrusted", "approved for omega-eu, and not for omega")


def test_a_mainframe_takes_nothing_from_an_omega_that_withholds_or_swaps_the_provenance(
    omega: NodeProcess, client: NodeClient, people: People, root: Path, tmp_path: Path
) -> None:
    wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-6")
    assert perform(client, wanted).status == "succeeded"
    offer(client)
    assert wanted.signed is not None
    served = _served(omega, wanted.signed.provenance)
    true = served.read_bytes()
    served.unlink()
    with Customer(tmp_path / "miller", omega, trust_root=str(root)) as miller:
        miller.wait_for("refused", "comes without a provenance", "What runs here keeps running.")
        served.write_bytes(true.replace(b"a", b"b"))
        miller.wait_for("refused", "not the one that was approved")
        assert miller.runs is None
        served.write_bytes(true)
        eventually(lambda: miller.runs == wanted.bundle, "the release, once its provenance is served", miller)


def test_the_way_back_without_its_own_provenance_is_refused_by_omega_and_by_a_mainframe(
    omega: NodeProcess, client: NodeClient, people: People, root: Path, tmp_path: Path
) -> None:
    first, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-7")
    assert perform(client, first).status == "succeeded"
    second, back = people.promotion(client, push(client, source(tmp_path)), "UPD-8")
    assert perform(client, second).status == "succeeded"
    offer(client)
    assert first.signed is not None
    assert second.signed is not None
    assert back is not None
    assert back.signed is not None
    assert back.signed.provenance == first.signed.provenance, "it is proven as what it returns to was"
    refused(client, with_provenance(back, None), "unproven", "UPD-7 comes without a provenance")
    refused(client, with_provenance(back, second.signed.provenance), "unproven", "not the one that was approved")
    with Customer(tmp_path / "cook", omega, trust_root=str(root)) as cook:
        cook.wait_for("running")
        assert cook.runs == second.bundle
        cook.stop()
        assert perform(client, back).status == "succeeded"
        offered = client.state().offer
        assert offered is not None
        assert offered.bundle == first.bundle, "which OMEGA offers by itself, once it is asked"
        served = _served(omega, first.signed.provenance)
        true = served.read_bytes()
        served.unlink()
        cook.start()
        cook.wait_for("refused", "comes without a provenance", "What runs here keeps running.")
        served.write_bytes(_served(omega, second.signed.provenance).read_bytes())
        cook.wait_for("refused", "not the one that was approved")
        assert cook.runs == second.bundle
        served.write_bytes(true)
        eventually(lambda: cook.runs == first.bundle, "the way back, once its provenance is served", cook)
