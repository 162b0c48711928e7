"""What an approver's machine refuses to sign: all but what follows, and the return to what was signed last."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Targets

from ashat.deployment.state_machine import State
from ashat.errors import AshatError, MixAndMatchError, UnsignedError
from ashat.trust.release.proposal import Proposal
from ashat.trust.release.release import Release
from ashat.trust.tuf.metadata import PRODUCTION
from ashat.trust.tuf.release_document import ReleaseDocument
from tasks.approval.signing import four_eyes_shortfall
from tests.support.builders.trust_world import World, document, key_pair

DAY = 86400.0
NOW = datetime.now(UTC)
SOON = NOW + timedelta(days=1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Where release 5 was signed last."""
    made = World(tmp_path / "repository")
    made.publish(document(5, expires=SOON))
    return made


def proposed(world: World, release: ReleaseDocument, rollback: ReleaseDocument | None, **changes: Any) -> Proposal:
    raw = world.repository.read().raw
    last = world.repository.release("stable")
    given: dict[str, Any] = {"lifetime": DAY, "now": NOW, "replaced": last} | changes
    return Proposal.make(raw["targets"], raw[PRODUCTION], (release, rollback), **given)


def honest(world: World) -> tuple[ReleaseDocument, ReleaseDocument]:
    return document(6, expires=SOON), document(5, expires=SOON, release_seq=7)


def refuse(proposal: Proposal, telling: str, kind: type[AshatError] = MixAndMatchError) -> None:
    with pytest.raises(kind, match=telling):
        proposal.check(lifetime=DAY, now=NOW)


def test_what_follows_and_the_way_back_to_what_was_signed_last_may_be_signed(world: World) -> None:
    release, back = honest(world)
    proposal = proposed(world, release, back)
    proposal.check(lifetime=DAY, now=NOW)
    proposed(world, release, None).check(lifetime=DAY, now=NOW)
    again = Proposal.from_json(proposal.to_json())
    again.check(lifetime=DAY, now=NOW)
    assert again.to_json() == proposal.to_json()


@pytest.mark.parametrize(
    ("approvers", "pushed_by", "told"),
    [
        (("kim", "lee", "noa"), "kim@alpha", ""),
        (("kim", "lee"), "eve@alpha", ""),
        (("kim", "lee"), "Kim@alpha", "four eyes, and kim pushed it: of 2 who must sign, lee may."),
    ],
)
def test_four_eyes_of_too_few_are_told_before_anybody_signs(
    tmp_path: Path, approvers: tuple[str, ...], pushed_by: str, told: str
) -> None:
    world = World(tmp_path / "repository", approvers=[key_pair(name) for name in approvers])
    proposal = Proposal.make(world.repository.read().raw["targets"], None, (document(1), None), lifetime=DAY, now=NOW)
    why = four_eyes_shortfall(State(update_id="UPD-1", attempt=1, pushed_by=pushed_by), proposal)
    assert told in why
    assert bool(why) == bool(told)


def test_what_an_older_version_proposed_is_read_and_not_signed(world: World) -> None:
    content = proposed(world, *honest(world)).to_json()
    del content["replaced"]
    refuse(Proposal.from_json(content), "to what nobody ever signed")


@pytest.mark.parametrize(
    "changes", [{"bundle": "f" * 64}, {"update_id": "UPD-4"}, {"attempt": 2}, {"evidence": "a" * 64}]
)
def test_a_way_back_that_leads_elsewhere_is_refused(world: World, changes: dict[str, Any]) -> None:
    release, back = honest(world)
    refuse(proposed(world, release, back.model_copy(update=changes)), "is not the return to")


@pytest.mark.parametrize("changes", [{"release_seq": 9}, {"target": "omega-eu"}, {"provenance": "b" * 64}])
def test_a_way_back_under_another_number_or_name_is_refused(world: World, changes: dict[str, Any]) -> None:
    release, back = honest(world)
    refuse(proposed(world, release, back.model_copy(update=changes)), "is not the return to")


def test_what_is_said_to_be_replaced_has_to_be_signed(world: World) -> None:
    """A stolen control plane makes up a last release, to have the rollback to it signed."""
    forged = document(5, expires=SOON, bundle="f" * 64)
    back = forged.model_copy(update={"release_seq": 7})
    unsigned: Metadata[Targets] = world.approve(forged)
    unsigned.signatures.clear()
    release, _ = honest(world)
    lie = dataclasses.replace(proposed(world, release, back), replaced=Release(forged, unsigned))
    refuse(lie, "production version 2 is signed by 0 of 2", UnsignedError)
    held = proposed(world, release, back).replaced
    assert held is not None
    refuse(dataclasses.replace(lie, replaced=Release(forged, held.production)), "is not what was signed last")


def test_an_old_release_that_was_signed_once_is_no_place_to_go_back_to(world: World) -> None:
    old = proposed(world, *honest(world)).replaced
    assert old is not None
    world.publish(document(8, expires=SOON, bundle="c" * 64))
    release = document(9, expires=SOON)
    back = old.document.model_copy(update={"release_seq": 10, "expires": release.expires})
    refuse(dataclasses.replace(proposed(world, release, back), replaced=old), "does not follow on what was signed last")


@pytest.mark.parametrize(
    ("seq", "telling"), [(5, "has the release_seq 5, and 5 was signed last"), (2**53 - 3, "would end the channel")]
)
def test_a_number_that_would_end_the_channel_is_refused(world: World, seq: int, telling: str) -> None:
    refuse(proposed(world, document(6, expires=SOON, release_seq=seq), None), telling)


def test_what_would_hold_for_ever_is_refused(world: World) -> None:
    for_ever = {"lifetime": 9000 * DAY}
    late = document(6, expires=NOW + timedelta(days=9000))
    refuse(proposed(world, late, None, **for_ever), "longer than ASHAT_APPROVAL_LIFETIME here")


def test_what_would_release_more_than_it_says_is_refused(world: World) -> None:
    release, back = honest(world)
    proposal = proposed(world, release, back)
    other = proposed(world, document(6, expires=SOON, bundle="d" * 64), None).release.production
    refuse(dataclasses.replace(proposal, release=Release(release, other)), "would release more than it says")
