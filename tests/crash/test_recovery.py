"""What a killed control plane and a bad network do to a release: it is late, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ashat.deployment.state_machine import Stage
from ashat.protocol.messages import Scope
from tests.support.fakes.flaky_proxy import Away, Busy, Changed, Cut, MoodyProxy
from tests.support.processes.fragile_stack import FragileStack, journal

pytestmark = [pytest.mark.xdist_group("fragile"), pytest.mark.timeout(1200)]

APPROVE = "approve/approve"


def test_a_control_plane_killed_at_the_gate_and_while_it_promotes(fragile: FragileStack) -> None:
    fragile.change("the control plane dies")
    fragile.deploy("push", "KILL-1", "It outlives its control plane", "--allow-dirty")
    fragile.deploy("verify", "KILL-1")
    gate = fragile.wait_asked("KILL-1").gate
    before = fragile.bundles()
    seq = fragile.standing(fragile.omega).release_seq

    fragile.kill_control_plane()
    assert "KILL-1" in fragile.deploy("status").stdout
    assert fragile.bundles() == before
    fragile.deploy("up", "--detach")
    state = fragile.wait_asked("KILL-1")
    assert state.gate == gate, "the same question still waits"

    fragile.arm("switch.linked")
    assert fragile.answer(state, "approve")["status"] == "ACCEPT"
    fragile.omega.wait_until_dead(120)
    fragile.wait_killed("switch.linked")
    fragile.kill_control_plane()
    state = fragile.state("KILL-1")
    assert state.stage is Stage.DEPLOYING
    assert state.reached_omega

    fragile.omega.start()
    fragile.deploy("up", "--detach")
    assert fragile.state("KILL-1").stage is Stage.DEPLOYING, "nobody goes on unless told to"
    run = fragile.start_run("reconcile/reconcile")
    assert fragile.wait_ended(run)["state_name"] == "Reconciled"
    state = fragile.wait("KILL-1", lambda state: state.ended, 120)
    assert (state.stage, state.release_seq) == (Stage.COMPLETED, seq + 1)
    assert fragile.settle(APPROVE)["state_name"] == "Completed"
    for kind in ("gate_opened", "asked", "answered", "promoting", "promoted", "distributed"):
        assert len(fragile.events("KILL-1", kind)) == 1, kind
    assert fragile.standing(fragile.omega).release_seq == seq + 1
    fragile.check_runs("KILL-1", *fragile.servers)


@pytest.fixture
def public(fragile: FragileStack) -> Iterator[MoodyProxy]:
    with fragile.between("public", fragile.public, Scope.PUSH) as proxy:
        yield proxy


@pytest.fixture
def omega(fragile: FragileStack) -> Iterator[MoodyProxy]:
    with fragile.between("omega", fragile.omega, Scope.ADMIN) as proxy:
        yield proxy


def test_what_no_time_mends_is_asked_once(fragile: FragileStack, public: MoodyProxy) -> None:
    fragile.change("refused")
    before = fragile.bundles()
    push = ["push", "NO-1", "Refused", "--allow-dirty"]

    def refused(status: int, method: str, path: str, mood: Changed, said: str) -> None:
        written = len(journal(fragile.public, method, path))
        asked = len(public.requests(method, path))
        public.expect(method, path, mood)
        done = fragile.deploy(*push, check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert [seen.status for seen in public.requests(method, path)[asked:]] == [status]
        if status in (409, 422):
            assert [seen for _, seen in journal(fragile.public, method, path)[written:]] == [status]
        push[4:] = ["--resume"]

    def somebody(token: str) -> Changed:
        return Changed(headers={"authorization": f"Bearer {token}"})

    def as_if_another_ran(body: bytes) -> bytes:
        return json.dumps({**json.loads(body), "expected_current": "f" * 64}).encode()

    refused(401, "POST", "/v1/objects/missing", somebody("unknown"), "token")
    refused(403, "POST", "/v1/objects/missing", somebody(fragile.public.token(Scope.READ)), "scope")
    refused(422, "PUT", "/v1/bundles", Changed(body=lambda raw: raw + b" "), "manifest")
    refused(409, "PUT", "/v1/operations", Changed(body=as_if_another_ran), "not ffffffffffff")
    assert fragile.bundles() == before
    assert fragile.state("NO-1").stage is Stage.PLANNING
    fragile.flow("cancel", update_id="NO-1")


def test_what_passes_by_itself_is_tried_again(fragile: FragileStack, public: MoodyProxy, omega: MoodyProxy) -> None:
    fragile.change("a bad network")
    for proxy in (public, omega):
        proxy.expect("POST", "/v1/objects/missing", Busy(retry_after=1))
        proxy.expect("POST", "/v1/objects$", Cut())
        proxy.expect("PUT", "/v1/bundles", Cut(heard=True))
        proxy.expect("PUT", "/v1/operations", Cut(heard=True))
        proxy.expect("GET", "/v1/operations", Away(seconds=2))
    public.expect("PUT", "/v1/lease", Busy(retry_after=1))
    fragile.deploy("push", "NET-1", "Through a bad network", "--allow-dirty")
    assert public.pending == []
    fragile.check_runs("NET-1", fragile.public)
    fragile.deploy("verify", "NET-1")

    omega.expect("PUT", "/v1/rollouts/", Cut(heard=True))
    omega.expect("POST", "/v1/rollouts/.*/open", Cut(heard=True))
    omega.expect("GET", "/v1/mainframes", Busy(retry_after=1))
    fragile.answer(fragile.wait_asked("NET-1"), "approve")
    state = fragile.wait("NET-1", lambda state: state.ended, 120)
    assert fragile.settle(APPROVE)["state_name"] == "Completed"
    assert omega.pending == []
    assert state.stage is Stage.COMPLETED
    for kind in ("created", "packaged", "pushed", "answered", "promoting", "promoted", "distributed"):
        assert len(fragile.events("NET-1", kind)) == 1, kind
    fragile.check_runs("NET-1", *fragile.servers)
    for proxy, path in ((public, "/v1/objects/missing"), (public, "/v1/lease"), (omega, "/v1/objects/missing")):
        busy, after = [seen for seen in proxy.asked if path in seen.path][:2]
        assert busy.status == 503
        assert after.at - busy.at >= 1, "it came back when it was asked to"
