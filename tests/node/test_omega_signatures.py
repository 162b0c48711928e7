"""What OMEGA and a Mainframe refuse because the approvers did not sign it, and that what they signed goes out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ashat.client.node import NodeClient
from ashat.common.identifiers import licence_id
from ashat.errors import NodeAuthError, NodeConflictError, NodeRefusedError
from ashat.protocol.messages import OperationRequest, Role, Scope, SignedRelease
from ashat.trust.tuf.release_document import ReleaseDocument
from tests.support.builders.signers import Customer, People, demanding_omega, install_root, refused
from tests.support.processes.node import NodeProcess, push, tiny_app
from tests.support.processes.omega import decide, eventually, offer, perform, promotion, running, source


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("signed") / "production"
    with demanding_omega(directory) as node:
        yield node


@pytest.fixture(scope="module")
def people() -> People:
    return People()


@pytest.fixture
def client(omega: NodeProcess) -> Iterator[NodeClient]:
    with omega.client() as found:
        yield found


@pytest.fixture(scope="module")
def root(omega: NodeProcess, people: People, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root that the people made, as an installer brings it; OMEGA keeps it by then."""
    return install_root(omega, people, tmp_path_factory.mktemp("installer") / "root.json")


def test_without_a_root_nothing_is_promoted(client: NodeClient, tmp_path: Path) -> None:
    bundle = push(client, source(tmp_path))
    refused(client, promotion(decide(bundle, expected=None, seq=1)), "trust_missing", "keeps no trust root")


def test_what_two_of_three_signed_reaches_a_mainframe_and_the_way_back_too(
    omega: NodeProcess, client: NodeClient, people: People, root: Path, tmp_path: Path
) -> None:
    first, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-1")
    assert perform(client, first).status == "succeeded"
    offer(client)
    with Customer(tmp_path / "baker", omega, trust_root=str(root)) as baker:
        baker.wait_for("running")
        assert baker.runs == first.bundle
        second, back = people.promotion(client, push(client, source(tmp_path)), "UPD-2", people.keys[1], people.keys[2])
        assert back is not None
        assert perform(client, second).status == "succeeded"
        offer(client)
        eventually(lambda: baker.runs == second.bundle, "the second release", baker)
        refused(client, back.model_copy(update={"signed": None}), "unsigned", "Nobody signed this rollback")
        assert perform(client, back).status == "succeeded"
        eventually(lambda: baker.runs == first.bundle, "the way back, which OMEGA offers by itself", baker)
        assert running(client).release_seq == 3
        refused(client, back.model_copy(update={"expected_current": first.bundle}), "decision_missing")
    assert client.trust().documents["stable"].startswith('{"attempt":1')


def test_what_nobody_or_too_few_signed_is_refused(
    client: NodeClient, people: People, root: Path, tmp_path: Path
) -> None:
    bundle = push(client, source(tmp_path))
    wanted, _ = people.promotion(client, bundle, "UPD-4")
    refused(client, wanted.model_copy(update={"signed": None}), "unsigned", "Nobody signed this promote")
    alone, _ = people.promotion(client, bundle, "UPD-4", people.keys[0])
    refused(client, alone, "untrusted", "1 of 2 needed (kim)")
    assert wanted.signed is not None
    altered = wanted.signed.document.replace('"attempt":1', '"attempt":2')
    with_other = SignedRelease(document=altered, production=wanted.signed.production)
    refused(client, wanted.model_copy(update={"signed": with_other}), "untrusted", "does not name this release")


def test_a_stranger_signs_for_nobody(client: NodeClient, people: People, root: Path, tmp_path: Path) -> None:
    thieves = People()
    with pytest.raises(NodeConflictError, match="does not follow version 1"):
        client.put_trust(thieves.begin(client))
    thieves.keys = [people.keys[0], *thieves.keys[1:]]
    wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-5")
    assert wanted.decision is not None
    state = client.trust()
    given = thieves.begin(client)
    assert given.targets is not None
    proposal = people.propose(state.model_copy(update={"targets": given.targets}), wanted.decision)
    theirs = proposal.signed_release([proposal.sign(key) for key in thieves.keys])
    refused(client, wanted.model_copy(update={"signed": theirs}), "untrusted", "1 of 2 needed (kim)")


def test_what_was_signed_is_for_one_release_one_omega_and_one_number(
    client: NodeClient, people: People, root: Path, tmp_path: Path
) -> None:
    bundle, other = push(client, source(tmp_path)), push(client, source(tmp_path))
    wanted, _ = people.promotion(client, bundle, "UPD-6")
    seen = client.state()
    assert seen.current is not None
    replayed = decide(other, expected=seen.current.bundle, seq=seen.release_seq + 1, update="UPD-6")
    refused(client, promotion(replayed, signed=wanted.signed), "untrusted", "What was signed is about another bundle")
    elsewhere, _ = people.promotion(client, bundle, "UPD-6", target="omega-eu")
    refused(client, elsewhere, "untrusted", "approved for omega-eu, and not for omega")
    assert wanted.decision is not None
    later = wanted.decision.model_copy(update={"id": "later", "release_seq": seen.release_seq + 9})
    refused(client, promotion(later, signed=wanted.signed), "untrusted", "another release_seq")
    blind = wanted.decision.model_copy(update={"id": "blind", "evidence": "f" * 64})
    refused(client, promotion(blind, signed=wanted.signed), "untrusted", "evidence")
    with pytest.raises(NodeConflictError, match="This OMEGA is omega, and not omega-eu"):
        client.put_trust(people.begin(client, "omega-eu"))


def shipped(client: NodeClient, people: People, directory: Path, update: str) -> OperationRequest:
    """Have OMEGA run a new bundle that two people signed; the way back from it."""
    wanted, back = people.promotion(client, push(client, source(directory)), update)
    assert perform(client, wanted).status == "succeeded"
    assert back is not None
    return back


def as_promotion(back: OperationRequest) -> OperationRequest:
    """A way back as whoever has the control plane's token asks for it, under a decision that they made up."""
    assert back.signed is not None
    signed = ReleaseDocument.from_bytes(back.signed.document.encode())
    made_up = decide(
        signed.bundle,
        expected=back.expected_current,
        seq=signed.release_seq,
        update=signed.update_id,
        evidence=signed.evidence,
    )
    return promotion(made_up, signed=back.signed)


def test_a_release_is_no_way_back_though_its_bytes_ran_before(
    client: NodeClient, people: People, root: Path, tmp_path: Path
) -> None:
    """It would go out without a decision, and to Mainframes at once."""
    first = running(client).bundle if client.state().current else None
    if first is None:
        wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-1")
        assert perform(client, wanted).status == "succeeded"
        first = wanted.bundle
    shipped(client, people, tmp_path, "UPD-7")
    wanted, _ = people.promotion(client, str(first), "UPD-8")
    for decision in (None, wanted.decision):
        swapped = wanted.model_copy(update={"action": "rollback", "decision": decision})
        refused(client, swapped, "untrusted", "as a release of its own", "Promote it instead")
    assert perform(client, wanted).status == "succeeded"


def test_a_way_back_under_another_action_leads_back_and_nowhere_else(
    client: NodeClient, people: People, root: Path, tmp_path: Path
) -> None:
    """What the approvers signed is that these bytes may run under that number; by which action does not matter."""
    if client.state().current is None:
        wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-1")
        assert perform(client, wanted).status == "succeeded"
    before = running(client)
    bundle = push(client, source(tmp_path))
    wanted, back = people.promotion(client, bundle, "UPD-9")
    assert back is not None
    # Before the release that it is the way back from: the number of that is used up, and it has to be approved anew.
    early = as_promotion(back.model_copy(update={"expected_current": before.bundle}))
    assert perform(client, early).status == "succeeded"
    assert running(client).bundle == before.bundle
    refused(client, wanted, "decision_missing", "Approve again")
    refused(client, as_promotion(back), "expected_current")
    again, back = people.promotion(client, bundle, "UPD-9")
    assert perform(client, again).status == "succeeded"
    # After it: the same as the rollback that it is, and from there no way leads to what was rolled back.
    assert back is not None
    assert perform(client, as_promotion(back)).status == "succeeded"
    assert (running(client).bundle, running(client).update_id) == (before.bundle, before.update_id)
    for decision in (None, again.decision):
        forth = again.model_copy(update={"action": "rollback", "expected_current": before.bundle, "decision": decision})
        refused(client, forth, "untrusted", "must be signed anew")


def test_what_was_signed_for_one_region_is_refused_by_another_of_the_same_people(
    client: NodeClient, people: People, root: Path, tmp_path: Path
) -> None:
    with (
        demanding_omega(tmp_path / "eu") as eu,
        eu.client() as there,
    ):
        there.put_trust(people.begin(there, "omega-eu"))
        if client.state().current is None:
            wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-1")
            assert perform(client, wanted).status == "succeeded"
        made = source(tmp_path)
        bundle = push(client, made)
        assert push(there, made) == bundle
        seen = client.state()
        expected = seen.current.bundle if seen.current else None
        # As they sign it for omega-eu, after as many releases as here, so that each number would do here, too.
        decision = decide(bundle, expected=None, seq=seen.release_seq + 1, update="UPD-10", target="omega-eu")
        as_old = there.trust().model_copy(update={"production": client.trust().production})
        proposal = people.propose(as_old, decision)
        signed = proposal.signed_release([proposal.sign(key) for key in people.keys])
        here = decision.model_copy(update={"expected_current": expected})
        refused(client, promotion(here, signed=signed), "untrusted", "approved for omega-eu, and not for omega")
        assert perform(there, promotion(decision, signed=signed)).status == "succeeded"
        assert running(there).bundle == bundle


def test_a_mainframe_believes_the_root_it_came_with_and_no_omega(
    people: People, root: Path, tmp_path: Path, client: NodeClient
) -> None:
    stolen = tmp_path / "stolen"
    with NodeProcess(stolen, role=Role.OMEGA, app=tiny_app()) as thief, thief.client() as theirs:
        bundle = push(theirs, source(tmp_path))
        assert perform(theirs, promotion(decide(bundle, expected=None, seq=9))).status == "succeeded"
        offer(theirs)
        with Customer(tmp_path / "miller", thief, trust_root=str(root)) as miller:
            miller.wait_for("refused", "serves no signed releases")
            theirs.put_trust(People().begin(theirs))
            miller.wait_for("refused", "is refused")
            assert miller.runs is None
            (known,) = [found for found in theirs.mainframes() if found.id == licence_id(miller.key)]
            assert known.result == "failed"
            assert known.reason.startswith("refused: ")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "has no root to know the approvers by"),
        ({"trust_root": "{root}", "minimum_release_seq": 100}, "and 100 is the lowest to accept"),
        ({"trust_root": "{root}", "channel": "beta"}, "Nothing was released on beta"),
        ({"trust_root": "/nowhere/root.json"}, "cannot be read"),
    ],
)
def test_a_mainframe_that_cannot_judge_takes_nothing(
    omega: NodeProcess,
    client: NodeClient,
    people: People,
    root: Path,
    tmp_path: Path,
    settings: dict[str, Any],
    told: str,
) -> None:
    if client.state().offer is None:
        wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-1")
        assert perform(client, wanted).status == "succeeded"
        offer(client)
    given = {name: str(root) if value == "{root}" else value for name, value in settings.items()}
    with Customer(tmp_path / "cook", omega, **given) as cook:
        cook.wait_for("refused", told, "What runs here keeps running.")
        assert cook.runs is None


def test_only_who_may_promote_gives_a_root_and_only_a_licence_reads_the_repository(
    omega: NodeProcess, client: NodeClient, people: People, root: Path
) -> None:
    with omega.client(Scope.READ) as reader:
        assert reader.trust().root == root.read_text()
        with pytest.raises(NodeAuthError):
            reader.put_trust(people.begin(client))
        with pytest.raises(NodeAuthError):
            reader.transport.request("GET", "/v1/mainframe/trust/timestamp.json")
        for name in ("../keys/snapshot.pem", "keys/timestamp.pem", ".lock", "0.root.json"):
            with pytest.raises((NodeAuthError, NodeRefusedError)):
                reader.transport.request("GET", f"/v1/mainframe/trust/{name}")
