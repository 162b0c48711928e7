"""kill -9 of every flow and node at every named fault point: run again, all of it comes to its end, once."""

from __future__ import annotations

import json

import pytest

from ashat.common.failpoints import FAULT_POINTS
from ashat.deployment.state_machine import Stage
from tests.support.processes.fragile_stack import FragileStack

pytestmark = [pytest.mark.xdist_group("fragile"), pytest.mark.timeout(1200)]

PUSH = (
    "push.attested",
    "push.packaged",
    "push.objects-sent",
    "push.manifest-acknowledged",
    "push.switch-recorded",
    "push.switched",
)
PROMOTE = (
    "log.sent",
    "promote.accepted",
    "promote.switched",
    "promote.recorded",
    "distribute.offered",
    "distribute.wave-opened",
    "distribute.recorded",
)
PUBLISH = ("trust.proven", "trust.published")
ROLLBACK = ("rollback.started", "rollback.omega-switched", "rollback.omega-recorded", "rollback.public-switched")
STORE = ("store.objects-staged", "store.objects-renamed", "store.manifest-written")
# A node takes a switch up three times, then undoes it: the last point is come to in a second operation.
SWITCH = (
    "switch.intended",
    "switch.materialised",
    "switch.migrating",
    "switch.migrated",
    "switch.linked",
    "switch.app-started",
    "switch.recorded",
)
MAINFRAME = ("trust.log-remembered", "trust.accepted", "mainframe.pulled", "mainframe.switched", "mainframe.reported")
ELSEWHERE = {
    "switch.taken-back",  # a Mainframe is killed there in node/test_mainframe_watch.py
    "switch.traffic-recorded",  # a node with two slots at these in node/test_slots.py
    "switch.snippet-written",
    "switch.proxy-reloaded",
    "switch.traffic-switched",
    "rollout.began",  # and an OMEGA at these in node/test_rollouts.py
    "rollout.opened",
    "rollout.decided",
    "rollout.stopped",
}
APPROVE = "approve/approve"


def test_the_flows_of_a_release_and_the_mainframe_that_takes_it(fragile: FragileStack) -> None:
    push = ("push", "UPD-1", "The first release", "--allow-dirty")
    fragile.arm(*PUSH)
    for number, point in enumerate(PUSH):
        fragile.see_killed(point, fragile.warm.deploy(*push, *(["--resume"] if number else [])))
        assert fragile.state("UPD-1").stage is Stage.PLANNING
    fragile.deploy(*push, "--resume")
    assert [len(fragile.events("UPD-1", kind)) for kind in ("created", "packaged", "pushed")] == [1, 1, 1]
    assert fragile.state("UPD-1").public_ran[-1].bundle is None
    fragile.check_runs("UPD-1", fragile.public)

    for point in ("verify.evidence-kept", "verify.attested", "verify.recorded"):
        fragile.arm(point)
        fragile.see_killed(point, fragile.warm.deploy("verify", "UPD-1"))
        assert fragile.state("UPD-1").stage is Stage.TESTING
    fragile.arm("gate.opened", "gate.taken", "trust.begun", "approval.asked")
    fragile.see_killed("gate.opened", fragile.begin_flow("reconcile"))
    for number, point in enumerate(("gate.taken", "trust.begun", "approval.asked"), 1):
        # Where it is slow enough to see the run die that it started, one `reconcile` starts the next, too.
        if (fragile.faults / point).exists():
            fragile.flow("reconcile")
        fragile.wait_killed(point)
        assert fragile.crashes(APPROVE) >= number
    fragile.flow("reconcile")
    state = fragile.wait_asked("UPD-1", 2)
    assert len(fragile.events("UPD-1", "gate_opened")) == 1

    fragile.arm("approval.judged", "promote.objects-relayed", *PROMOTE, *PUBLISH, *MAINFRAME)
    assert fragile.answer(state, "approve")["status"] == "ACCEPT"
    fragile.wait_killed("approval.judged")
    fragile.wait_crashed(APPROVE)
    fragile.flow("reconcile")
    fragile.wait_killed("promote.objects-relayed")
    fragile.wait_crashed(APPROVE)
    for point in PROMOTE:
        shipping = fragile.begin_flow("approve", update_id="UPD-1")
        if point == "distribute.offered":
            fragile.keep_up(fragile.omega, *PUBLISH)
        fragile.see_killed(point, shipping)
        if point == "distribute.wave-opened":
            fragile.keep_up(fragile.mainframes[0], *MAINFRAME)
    assert "Completed" in fragile.flow("approve", update_id="UPD-1")
    check_completed(fragile, "UPD-1", release_seq=1)


def test_public_and_omega(fragile: FragileStack) -> None:
    fragile.change("the nodes die")
    with open(fragile.source / "raos.toml", "a") as file:
        file.write('[migrate]\ncommand = ["true"]\n')
    fragile.arm(*STORE, *SWITCH)
    pushing = fragile.warm.deploy("push", "UPD-2", "The second release", "--allow-dirty")
    fragile.keep_up(fragile.public, *STORE, *SWITCH)
    assert pushing.wait() == 0, pushing.output
    fragile.check_runs("UPD-2", fragile.public)
    fragile.configure_policy("rehearsing", rehearses=True)
    for point in ("verify.rehearsed-back", "verify.rehearsed-forward"):
        fragile.arm(point)
        fragile.see_killed(point, fragile.warm.deploy("verify", "UPD-2", "--policy", "rehearsing"))
        assert fragile.state("UPD-2").stage is Stage.TESTING
    fragile.deploy("verify", "UPD-2")
    fragile.check_runs("UPD-2", fragile.public)

    fragile.arm("store.objects-renamed", *SWITCH)
    fragile.answer(fragile.wait_asked("UPD-2"), "approve", comment="however noisy it was")
    fragile.keep_up(fragile.omega, "store.objects-renamed", *SWITCH)
    fragile.wait("UPD-2", lambda state: state.ended, 120)
    assert fragile.settle(APPROVE)["state_name"] == "Completed"
    check_completed(fragile, "UPD-2", release_seq=2)


def test_a_cancellation(fragile: FragileStack) -> None:
    fragile.change("called off")
    fragile.deploy("push", "UPD-3", "Called off", "--allow-dirty")
    fragile.deploy("verify", "UPD-3")
    fragile.wait_asked("UPD-3")
    fragile.configure_policy(rehearses=False, evidence_max_age=77)
    fragile.arm("approval.withdrawn")
    fragile.see_killed("approval.withdrawn", fragile.begin_flow("reconcile"))
    assert "people are asked anew" not in fragile.flow("reconcile"), "the question was taken back already"
    state = fragile.wait_asked("UPD-3", 2)
    assert state.gate is not None
    assert "policy is another one" in state.gate.obstacle
    fragile.configure_policy(rehearses=False)
    fragile.arm("cancel.recorded", "cancel.switched-back")
    fragile.see_killed("cancel.recorded", fragile.begin_flow("cancel", update_id="UPD-3", reason="a test"))
    assert fragile.state("UPD-3").stage is Stage.CANCELLED
    fragile.see_killed("cancel.switched-back", fragile.begin_flow("reconcile"))
    assert ", 0 not, 0 drifted" in fragile.flow("reconcile")
    (restored,) = fragile.events("UPD-3", "public_restored")
    assert restored.kind == "public_restored"
    assert restored.kept == ""
    assert state.gate is not None
    assert fragile.run(state.gate.run)["state_type"] == "CANCELLED", "nobody is asked about it any more"
    fragile.check_runs("UPD-2", *fragile.servers)


def test_a_rollback(fragile: FragileStack) -> None:
    fragile.arm(*ROLLBACK)
    for point in ROLLBACK[:-1]:
        fragile.see_killed(point, fragile.begin_flow("rollback", update_id="UPD-2", reason="a test"))
    fragile.flow("reconcile")
    fragile.wait_killed(ROLLBACK[-1])
    fragile.wait_crashed("rollback/rollback")
    fragile.flow("reconcile")
    state = fragile.wait("UPD-2", lambda state: state.stage is Stage.ROLLED_BACK)
    assert fragile.settle("rollback/rollback")["state_name"] == "RolledBack"
    assert {place: event.kept for place, event in state.rolled_back.items()} == {
        "omega": "",
        "mainframes": "",
        "public": "",
    }
    assert len(fragile.events("UPD-2", "rolled_back")) == 1
    assert fragile.standing(fragile.omega).release_seq == 3
    fragile.check_runs("UPD-1", *fragile.servers)


def test_a_rollback_that_a_person_is_asked_about(fragile: FragileStack) -> None:
    fragile.configure_policy("asks", rehearses=False, presign_rollback=False)
    fragile.change("no rollback is signed")
    fragile.deploy("push", "UPD-4", "No rollback", "--allow-dirty")
    fragile.deploy("verify", "UPD-4", "--policy", "asks")
    fragile.answer(fragile.wait_asked("UPD-4"), "approve", comment="however noisy it was")
    fragile.wait("UPD-4", lambda state: state.stage is Stage.COMPLETED)

    fragile.arm("approval.asked")
    fragile.start_run("rollback/rollback", update_id="UPD-4", reason="a test")
    fragile.wait_killed("approval.asked")
    fragile.wait_crashed("rollback/rollback")
    run = fragile.start_run("rollback/rollback", update_id="UPD-4", reason="a test")
    fragile.wait_run(run, "Suspended")
    fragile.check_runs("UPD-4", *fragile.servers)
    fragile.arm("approval.judged")
    told = fragile.deploy("approve", "UPD-4", "--evidence", (fragile.state("UPD-1").evidence or "")[-8:], check=False)
    assert told.returncode == 1
    fragile.wait_killed("approval.judged")
    fragile.wait_crashed("rollback/rollback")
    fragile.flow("reconcile")
    fragile.wait("UPD-4", lambda state: state.stage is Stage.ROLLED_BACK)
    events = [event.name for kind in ("asked", "answered", "rolled_back") for event in fragile.events("UPD-4", kind)]
    counted = [events.count(name) for name in ("rollback asked", "rollback answered", "rolled back")]
    assert counted == [2, 1, 1]
    fragile.check_runs("UPD-1", *fragile.servers)


def test_a_change_of_who_signs(fragile: FragileStack) -> None:
    here, there = ("trust.planned", "trust.sent", "trust.kept"), ("trust.intended", "trust.installed")
    fragile.arm(*here, *there)
    fragile.see_killed("trust.planned", fragile.warm.deploy("trust", "renew"))
    publishing = fragile.warm.deploy("trust", "publish")
    fragile.keep_up(fragile.omega, *there)
    assert publishing.wait() != 0, "nobody answered, or it died itself"
    for point in here[1:]:
        if (fragile.faults / point).exists():
            fragile.see_killed(point, fragile.warm.deploy("trust", "publish"))
        fragile.wait_killed(point)
        assert json.loads(fragile.deploy("trust", "status", "--as", "omega", "--json").stdout)["change"]["complete"]
    told = fragile.deploy("trust", "publish").stdout
    assert "omega keeps root version 2" in told
    status = json.loads(fragile.deploy("trust", "status", "--as", "omega", "--json").stdout)
    assert (status["mode"], status["change"]) == ("one-person", None)
    assert [role["version"] for role in status["roles"].values()] == [2, 2]
    with fragile.omega.client() as client:
        kept = client.trust()
    assert kept.root is not None
    assert json.loads(kept.root)["signed"]["version"] == 2
    assert "under way" in fragile.deploy("trust", "publish", check=False).stderr


def test_no_point_was_left_out(fragile: FragileStack) -> None:
    assert fragile.killed == FAULT_POINTS - ELSEWHERE
    assert list(fragile.faults.iterdir()) == []


def check_completed(fragile: FragileStack, update_id: str, *, release_seq: int) -> None:
    """It is completed, each thing that may happen once happened once, and every server runs what ALPHA's tree makes."""
    state = fragile.state(update_id)
    assert (state.stage, state.release_seq) == (Stage.COMPLETED, release_seq)
    for kind in ("created", "gate_opened", "answered", "promoting", "promoted", "distributed"):
        assert len(fragile.events(update_id, kind)) == 1, kind
    assert [mainframe.result for mainframe in state.mainframes] == ["running"]
    assert fragile.standing(fragile.omega).release_seq == release_seq
    assert state.bundle == fragile.packed()
    fragile.check_runs(update_id, *fragile.servers)
