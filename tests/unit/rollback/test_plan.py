"""Which servers a rollback puts back, decided from what they run now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ashat.deployment.events import ServerRolledBack
from ashat.deployment.state import PreviousRelease, State
from ashat.deployment.state_machine import Stage
from ashat.errors import SessionError
from ashat.protocol.messages import App, Current, NodeState, Role, StoreState
from tasks.rollback.rollback import RollbackPlan, plan_rollback
from tasks.servers.drift import expected_bundle

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
OLD, NEW = "1" * 64, "2" * 64
PUSHED = State(
    update_id="UPD-2",
    attempt=1,
    version=5,
    stage=Stage.PUSHED,
    bundle=NEW,
    switching=True,
    public_ran=(PreviousRelease(OLD, "UPD-1", 1),),
)
SHIPPED = replace(PUSHED, stage=Stage.COMPLETED, promoting="op", omega_before=OLD, release_seq=2)


def node(role: Role, bundle: str | None, update_id: str = "UPD-2") -> NodeState:
    """A server that runs `bundle`."""
    return NodeState(
        role=role,
        name=role.value,
        node_version="0",
        time=AT,
        current=Current(bundle=bundle, update_id=update_id, attempt=1, since=AT) if bundle else None,
        previous=None,
        release_seq=0,
        lease=None,
        operation=None,
        app=App(status="running", healthy=True),
        offer=None,
        store=StoreState(objects=0, bytes=0, free_bytes=0),
    )


def plan(state: State, public: NodeState, target: NodeState | None) -> RollbackPlan:
    """The plan where Public goes back to what it ran just before."""
    return plan_rollback(state, public, target, state.public_ran[-1])


def test_before_the_gate_only_public_goes_back() -> None:
    assert plan(PUSHED, node(Role.PUBLIC, NEW), None).servers == ("public",)


def test_after_it_everything_goes_back_production_first() -> None:
    way = plan(SHIPPED, node(Role.PUBLIC, NEW), node(Role.OMEGA, NEW))
    assert way.servers == ("omega", "mainframes", "public")
    assert way.kept == {}


def test_a_server_that_runs_something_else_is_left_alone_by_name() -> None:
    way = plan(SHIPPED, node(Role.PUBLIC, OLD, "UPD-3"), node(Role.OMEGA, NEW))
    assert way.servers == ("omega", "mainframes")
    assert "UPD-3" in way.kept["public"]


def test_the_same_bytes_under_another_update_are_not_this_update() -> None:
    with pytest.raises(SessionError, match="no longer runs anywhere"):
        plan(PUSHED, node(Role.PUBLIC, NEW, "UPD-3"), None)


@pytest.mark.parametrize(
    ("state", "telling"),
    [
        (replace(PUSHED, public_ran=(PreviousRelease(None),)), "ran nothing before"),
        (replace(PUSHED, stage=Stage.CANCELLED), "Nothing to roll back"),
        (replace(PUSHED, stage=Stage.ROLLED_BACK), "rolled back already"),
        (replace(PUSHED, switching=False), "reached no server"),
    ],
)
def test_refusals(state: State, telling: str) -> None:
    with pytest.raises(SessionError, match=telling):
        plan(state, node(Role.PUBLIC, NEW), None)


def test_a_first_release_in_production_has_no_way_back_and_nothing_is_half_done() -> None:
    with pytest.raises(SessionError, match="ran nothing before"):
        plan(replace(SHIPPED, omega_before=None), node(Role.PUBLIC, NEW), node(Role.OMEGA, NEW))


def test_an_update_that_production_went_back_to_has_no_approval_for_the_way_further_back() -> None:
    target = node(Role.OMEGA, NEW)
    assert target.current is not None
    brought_back = target.model_copy(update={"current": target.current.model_copy(update={"release_seq": 4})})
    with pytest.raises(SessionError, match="no approval covers the way further back"):
        plan(SHIPPED, node(Role.PUBLIC, NEW), brought_back)
    approved = target.model_copy(update={"current": target.current.model_copy(update={"release_seq": 2})})
    assert plan(SHIPPED, node(Role.PUBLIC, NEW), approved).servers == ("omega", "mainframes", "public")


def test_what_is_approved_and_not_there_yet_is_stopped_wherever_it_runs() -> None:
    under_way = replace(PUSHED, stage=Stage.DEPLOYING, release_seq=2, omega_before=OLD)
    other = node(Role.PUBLIC, OLD, "UPD-3")
    assert plan(under_way, other, None).servers == ()
    promoting = replace(under_way, promoting="op")
    assert plan(promoting, other, node(Role.OMEGA, OLD, "UPD-1")).servers == ()
    alone = plan_rollback(under_way, node(Role.PUBLIC, NEW), None, PreviousRelease(None))
    assert (alone.servers, alone.kept) == ((), {"public": "public ran nothing before"})
    assert plan(promoting, other, node(Role.OMEGA, NEW)).servers == ("omega", "mainframes")


def test_what_a_rollback_stopped_before_it_arrived_is_no_drift() -> None:
    first = replace(SHIPPED, update_id="UPD-1", bundle=OLD, omega_before=None, release_seq=1)
    stopped = replace(SHIPPED, stage=Stage.ROLLED_BACK, promoting=None)
    assert expected_bundle([first, stopped]) == {OLD}
    kept = ServerRolledBack(at=AT, server="omega", to_bundle=OLD, kept="production runs UPD-1 by now")
    assert expected_bundle([first, replace(stopped, promoting="op", rolled_back={"omega": kept})]) == {OLD}
    back = ServerRolledBack(at=AT, server="omega", to_bundle=OLD, release_seq=3)
    assert expected_bundle([first, replace(stopped, promoting="op", rolled_back={"omega": back})]) == {OLD}
    assert expected_bundle([first, SHIPPED]) == {NEW}
