"""When a rollback that was signed with a release still counts, and why people have to sign another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ashat.errors import TrustError
from ashat.protocol.messages import SignedRelease, TrustState
from ashat.trust.release.proposal import Proposal
from ashat.trust.tuf.metadata import PRODUCTION
from tasks.rollback.signed_rollback import check_signed_rollback
from tests.support.builders.trust_world import World, document, key_pair

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Where release 5 was signed last."""
    made = World(tmp_path / "repository")
    made.publish(document(5))
    return made


def trusted(world: World) -> TrustState:
    raw = {role: text.decode() for role, text in world.repository.read().raw.items()}
    return TrustState(
        target="omega", online={}, root=raw["root"], targets=raw["targets"], production=raw.get(PRODUCTION)
    )


def released(world: World, **changes: Any) -> SignedRelease:
    """Release 6 is published; its rollback, to release 5, as it was signed with it."""
    raw, last = world.repository.read().raw, world.repository.release("stable")
    proposal = Proposal.make(
        raw["targets"],
        raw[PRODUCTION],
        (document(6), last.model_copy(update={"release_seq": 7})),
        **{"lifetime": DAY.total_seconds(), "now": NOW, **changes},
    )
    signatures = [proposal.sign(key) for key in world.approvers[:2]]
    signed, back = proposal.signed_release(signatures), proposal.signed_rollback(signatures)
    world.repository.publish(signed.production.encode(), signed.document.encode(), world.online)
    assert back is not None
    return back


def refused(signed: SignedRelease | None, world: World, telling: str, *, at: datetime = NOW) -> None:
    with pytest.raises(TrustError, match=telling):
        check_signed_rollback(signed, trusted(world), at)


def test_the_rollback_counts_as_long_as_nothing_else_was_published(world: World) -> None:
    back = released(world)
    check_signed_rollback(back, trusted(world), NOW)
    world.publish(document(8))
    refused(back, world, "no longer follows on what was signed last")


def test_where_none_was_signed_or_its_time_is_over_people_are_asked(world: World) -> None:
    back = released(world)
    refused(None, world, "no rollback was signed with its approval")
    check_signed_rollback(back, trusted(world), NOW + DAY / 2)
    refused(back, world, "ended at", at=NOW + DAY)


def test_a_signature_of_who_no_longer_approves_does_not_count(world: World) -> None:
    back = released(world)
    root, targets = world.offline([*world.approvers[1:], key_pair("zoe")])
    trust = trusted(world).model_copy(update={"root": root.decode(), "targets": targets.decode()})
    with pytest.raises(TrustError, match=r"1 of 2 needed \(lee\)"):
        check_signed_rollback(back, trust, NOW)


def test_what_it_returns_to_needs_the_provenance_that_is_demanded_by_now(world: World) -> None:
    back = released(world)
    _, targets = world.offline(world.approvers, builders=[key_pair("alpha")])
    trust = trusted(world).model_copy(update={"targets": targets.decode()})
    with pytest.raises(TrustError, match="provenance"):
        check_signed_rollback(back, trust, NOW)
