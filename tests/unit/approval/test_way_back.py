"""Whether a target could be rolled back from what is approved is said before that, from what it runs and keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ashat.deployment.state_machine import Stage, State
from ashat.protocol.messages import App, Current, LostBundle, NodeState, Role, StoreState, TrustState
from ashat.trust.tuf.release_document import CHANNEL
from tasks.approval import way_back as under_test
from tasks.runtime.connections import connections, this_run
from tasks.runtime.deployment import Deployment, deployment
from tests.support.builders.deployments import record
from tests.support.builders.trust_world import World, document, key_pair

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass
class Case:
    """UPD-2 awaits approval for an OMEGA that runs UPD-1."""

    d: Deployment
    ran: State
    world: World

    def seen(self, *, update_id: str = "UPD-1", lost: tuple[LostBundle, ...] = ()) -> NodeState:
        assert self.ran.bundle is not None
        return NodeState(
            role=Role.OMEGA,
            name="production",
            node_version="0",
            time=AT,
            current=Current(bundle=self.ran.bundle, update_id=update_id, attempt=1, since=AT) if update_id else None,
            previous=None,
            release_seq=1,
            lease=None,
            operation=None,
            app=App(status="running", healthy=True),
            offer=None,
            store=StoreState(objects=0, bytes=0, free_bytes=0, lost=lost),
        )

    def trust(self, *, demanding: bool = False, signed: str = "UPD-1") -> TrustState:
        builders = [key_pair("alpha")] if demanding else []
        root, targets = self.world.offline(self.world.approvers, builders=builders)
        last = document(1, update_id=signed, bundle=self.ran.bundle, evidence=self.ran.evidence)
        return TrustState(
            target="omega",
            online={},
            root=root.decode(),
            targets=targets.decode(),
            production=self.world.approve(last, *self.world.approvers[:2]).to_bytes().decode(),
            documents={CHANNEL: last.to_bytes().decode()},
        )

    def told(self, seen: NodeState, trust: TrustState) -> under_test.WayBack:
        return under_test.way_back(self.d, self.d.state, seen, trust)


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> Iterator[Case]:
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(under_test, "presigns_rollback", lambda *_: True)
    with connections():
        ran = record(this_run().ledger, "UPD-1", Stage.COMPLETED)
        record(this_run().ledger, "UPD-2", Stage.AWAITING_APPROVAL)
        yield Case(deployment("UPD-2"), ran, world)


def test_it_is_signed_together_with_the_release_where_that_can_be(case: Case) -> None:
    assert case.told(case.seen(), case.trust()) == (
        "signed",
        "the rollback to UPD-1 is signed together with this approval",
    )


def test_people_are_asked_where_the_policy_has_it_so_or_something_else_was_signed_last(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert case.told(case.seen(), case.trust(signed="UPD-0")).kind == "asked"
    monkeypatch.setattr(under_test, "presigns_rollback", lambda *_: False)
    found = case.told(case.seen(), case.trust())
    assert (found.kind, "the policy has it" in found.why) == ("asked", True)


def test_what_could_never_be_is_said_with_its_reason(case: Case) -> None:
    lost = LostBundle(bundle=case.ran.bundle or "", why="runs", objects=3)
    for seen, trust, why in (
        (case.seen(update_id=""), case.trust(), "runs nothing yet"),
        (case.seen(lost=(lost,)), case.trust(), "lost parts of UPD-1: deploy heal omega first"),
        (case.seen(update_id="BY-HAND"), case.trust(), "the record has no evidence of BY-HAND"),
        (case.seen(), case.trust(demanding=True), "nobody could sign that UPD-1 runs again: "),
    ):
        found = case.told(seen, trust)
        assert found.kind == "never"
        assert why in found.why
