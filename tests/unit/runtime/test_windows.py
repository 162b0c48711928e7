"""What waits for a server that is closed: when it is held, by which word it goes, and which run is woken."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from ashat.deployment import events as e
from ashat.deployment.state_machine import Stage
from ashat.verification.evidence import Evidence
from blocks.server import RaosServer
from flows.release import _free_name
from tasks.approval import release
from tasks.reconcile import repair
from tasks.runtime.connections import connections, this_run
from tasks.runtime.deployment import Deployment, deployment
from tasks.servers.windows import closed_now, hold
from tests.support.builders.deployments import record
from tests.support.builders.evidence import BEGAN

ALWAYS = "FREQ=DAILY P1D UTC the year ends"


@pytest.fixture
def omega(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RaosServer]:
    """The block of OMEGA, whose windows and freezes a test may change."""
    monkeypatch.setenv("ASHAT_HOME", str(tmp_path / "home"))
    server = RaosServer(role="omega", title="production", url="http://127.0.0.1:9")
    with connections({"omega": server}):
        yield server


def approved(name: str = "UPD-1") -> Deployment:
    record(this_run().ledger, name, Stage.DEPLOYING)
    return deployment(name)


def test_it_waits_while_a_freeze_holds_and_that_is_recorded_once(omega: RaosServer) -> None:
    omega.freezes = [ALWAYS]
    d = approved()
    assert hold(d, "omega") is not None
    assert hold(d, "omega") is not None
    state = d.state
    assert state.stage is Stage.AWAITING_WINDOW
    assert [event.kind for event in d.ledger.events("UPD-1", 1)].count("window_awaited") == 1
    assert "a freeze holds: the year ends; no opening is in sight" in state.window_line
    omega.freezes = []
    assert hold(d, "omega") is None
    assert (d.state.stage, d.state.window) == (Stage.DEPLOYING, None)


def test_a_freeze_that_cannot_be_read_holds_and_says_so(omega: RaosServer) -> None:
    omega.freezes = ["2026-12-20 P2W Mars/Olympus"]
    closed = closed_now(approved(), "omega")
    assert closed is not None
    assert "cannot be read ('Mars/Olympus' is no time zone" in closed.why


def test_an_override_is_recorded_with_its_reason_and_what_it_overrides(omega: RaosServer) -> None:
    omega.freezes = [ALWAYS]
    d = approved()
    assert hold(d, "omega", "customers wait", by="kim") is None
    event = d.ledger.events("UPD-1", 1)[-1]
    assert isinstance(event, e.FreezeOverridden)
    assert (event.by, event.reason) == ("kim", "customers wait")
    assert event.closed.startswith("a freeze holds: the year ends")
    assert hold(d, "omega") is None, "it holds from then on"
    assert d.state.stage is Stage.DEPLOYING


def test_evidence_counts_when_it_goes_not_when_it_is_approved(
    omega: RaosServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    d = approved()
    evidence = Evidence.read(d.ledger.document(d.state.evidence or ""))
    policy = SimpleNamespace(digest=evidence.policy_digest, evidence_max_age=72 * 3600)
    monkeypatch.setattr(release, "load_policy", lambda _: SimpleNamespace(policy=lambda: policy))
    monkeypatch.setattr(release, "current_versions", lambda _: {})
    monkeypatch.setattr(release, "now", lambda: BEGAN + timedelta(hours=1))
    runs = evidence.target.bundle if evidence.target else None
    assert release.Release().stale_reason(d, d.state, runs) == ""
    later = release.Release().stale_reason(d, d.state, runs, BEGAN + timedelta(days=30))
    assert later == "the evidence is older than 72 hours"


def test_what_crashed_while_it_waited_is_woken_in_the_run_that_followed(
    omega: RaosServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []
    monkeypatch.setattr(repair, "wake", lambda run: not woken.append(run))
    monkeypatch.setattr(repair, "follow_dead_run", lambda _state, dead: f"after-{dead}")
    omega.freezes = [ALWAYS]
    d = approved()
    hold(d, "omega")
    assert repair.go_on_once_open(d) == "", "it is closed still"
    omega.freezes = []
    assert repair.go_on_once_open(d) == "00000000-0000-0000-0000-000000000000"
    d.ledger.append(d.state, e.RunDied(at=datetime.now(UTC), run="first", crashed=True))
    assert repair.go_on_once_open(d) == "after-first"
    assert woken == ["00000000-0000-0000-0000-000000000000", "after-first"]


def test_a_tree_that_was_reverted_gets_another_id_the_same_day(omega: RaosServer) -> None:
    name = _free_name("raos", "a" * 64)
    assert name.startswith(f"raos-{datetime.now(UTC):%Y%m%d}-aaaaaaaa")
    at = datetime.now(UTC) - timedelta(minutes=10)
    record(this_run().ledger, name, Stage.COMPLETED, at=at)
    assert _free_name("raos", "a" * 64) == f"{name}-2"
    record(this_run().ledger, f"{name}-2", Stage.ROLLED_BACK, at=at)
    assert _free_name("raos", "a" * 64) == f"{name}-3"
    record(this_run().ledger, f"{name}-3", Stage.REJECTED, at=at)
    assert _free_name("raos", "a" * 64) == f"{name}-3", "what never reached OMEGA is pushed again under its id"
