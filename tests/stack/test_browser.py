"""The gate as a person meets it: in Prefect's own UI, in a real browser, against servers that are real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page

from ashat.deployment.state_machine import Stage, State
from ashat.ledger.ledger import Ledger
from tasks.runtime.artifacts import svg_url
from tasks.verify.latency_plot import latency_svg
from tests.support.drivers.browser import PrefectUi, open_browser
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.timeout(1200)]

HOSTILE = "<img src=x onerror=alert(1)> **x** {{ 1/0 }}"
GATE_SECONDS = 45


@dataclass(frozen=True)
class Released:
    """An update that was released from the form: the run of `release`, and what the ledger says."""

    run: str
    state: State

    @property
    def gate(self) -> str:
        """The run of `approve` that has its gate."""
        assert self.state.gate is not None
        return self.state.gate.run

    @property
    def tail(self) -> str:
        """What a person types who has read the evidence."""
        assert self.state.evidence is not None
        return self.state.evidence[-8:]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers that run nothing yet, a source called raos, and a `reconcile` that runs when a test says so."""
    with Stack(tmp_path_factory.mktemp("browser"), mainframes=1, reconciles=True) as running:
        running.deploy("configure", "source", "raos", str(running.source))
        _only_when_told(running, "reconcile/reconcile")
        yield running


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def ui(page: Page, stack: Stack) -> Iterator[PrefectUi]:
    """Prefect's UI; no page of it may run a script that came with a release."""
    used = PrefectUi(page, stack.home)
    yield used
    assert used.scripts == []


@pytest.fixture(scope="module")
def completed(page: Page, stack: Stack) -> Released:
    """UPD-1, which was approved in the browser by the first test."""
    return _released(PrefectUi(page, stack.home), stack, "UPD-1", HOSTILE)


def test_a_release_is_approved_in_the_gate_and_every_server_runs_it(
    ui: PrefectUi, stack: Stack, completed: Released
) -> None:
    evidence = completed.state.evidence
    assert evidence is not None

    ui.show_run(completed.gate, "Suspended")
    gate = ui.open_gate().locator("article").first
    shown = gate.inner_text()
    assert "May UPD-1 go to omega?" in shown
    assert HOSTILE in shown
    assert gate.locator("img").count() == 0
    assert "Will reach omega and 1 Licensed Mainframe" in shown
    assert "omega runs nothing yet: everything is new." in shown
    assert gate.locator("tr", has_text="Chat").locator("td").all_inner_texts()[2:] == ["0", "0"]
    for check in completed.state.checks:
        assert f"✅ {check.title}: {check.seen}" in shown
    assert evidence[:32] in shown
    assert evidence[32:] in shown

    ui.fill_gate("approve", completed.tail, "Kim {{ 1/0 }}", "<b>read</b>")
    assert ui.submit_gate() == "ACCEPT"
    ui.await_state("Completed")
    state = stack.state("UPD-1")
    assert state.stage is Stage.COMPLETED
    assert state.decision is not None
    assert (state.decision.approver, state.decision.comment) == ("Kim {{ 1/0 }}", "<b>read</b>")
    assert set(stack.bundles().values()) == {state.bundle}


def test_the_artifacts_of_a_release_can_be_read_and_do_nothing(
    ui: PrefectUi, stack: Stack, completed: Released
) -> None:
    plan = ui.artifact(completed.run, "plan-upd-1-1")
    assert HOSTILE in plan.inner_text()
    assert plan.locator("img").count() == 0

    table = ui.artifact(completed.run, "verification-upd-1-1").locator("table")
    rows = [row.locator("td").all_inner_texts() for row in table.locator("tbody tr").all()]
    assert rows == [["✅ pass", check.title, check.seen] for check in completed.state.checks]


def test_the_drawing_of_both_releases_latencies_is_shown(ui: PrefectUi, stack: Stack, completed: Released) -> None:
    """As `publish_latencies` leaves it, which only a verification that rehearsed does."""
    url = svg_url(latency_svg([900, 1000, 1100] * 20, [1000, 1200, 1500] * 20))
    image = {"key": "latency-upd-1-1", "type": "image", "data": url, "flow_run_id": completed.run}
    stack.api("POST", "/artifacts/", image)
    shown = ui.drawing(completed.run, "latency-upd-1-1")
    assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100


def test_a_rejection_puts_public_back(ui: PrefectUi, stack: Stack, completed: Released) -> None:
    before = stack.bundles()
    waiting = _released(ui, stack, "UPD-2")
    assert stack.bundles()["staging"] == waiting.state.bundle

    # Runs of another update that is completed are run again meanwhile: they do nothing twice, and leave this gate open.
    known = _events(stack, "UPD-1")
    ui.retry(completed.run, "AwaitingApproval")
    ui.retry(completed.gate, "Completed")
    assert (_ended(stack, completed.run), _ended(stack, completed.gate)) == ("Completed", "Completed")
    assert _events(stack, "UPD-1") == known
    assert stack.state("UPD-2").stage is Stage.AWAITING_APPROVAL
    assert stack.bundles() == {**before, "staging": waiting.state.bundle}

    ui.answer(waiting.gate, "reject", "not looked at", "Kim", "not on a Friday")
    ui.await_state("Rejected")
    state = stack.state("UPD-2")
    assert (state.stage, state.reason) == (Stage.REJECTED, "not on a Friday")
    assert stack.bundles() == before


def test_a_refused_approval_does_not_beat_the_rejection_that_follows(ui: PrefectUi, stack: Stack) -> None:
    before = stack.bundles()
    waiting = _released(ui, stack, "UPD-3")

    ui.answer(waiting.gate, "approve", "00000000", "Kim")
    again = stack.wait_asked("UPD-3", 2)
    assert stack.bundles()["production"] == before["production"]
    ui.show_run(waiting.gate, "Suspended")
    assert "Asked again: the evidence typed is not the evidence shown" in ui.open_gate().inner_text()

    ui.fill_gate("reject", waiting.tail, "Kim")
    assert ui.submit_gate() == "ACCEPT"
    ui.await_state("Rejected")
    assert again.gate is not None
    assert again.gate.run == waiting.gate
    assert stack.state("UPD-3").stage is Stage.REJECTED
    assert stack.bundles() == before


def test_a_gate_cancelled_in_the_ui_asks_anew_when_retried_and_is_cancelled_by_reconcile(
    ui: PrefectUi, stack: Stack
) -> None:
    before = stack.bundles()
    waiting = _released(ui, stack, "UPD-4")

    ui.show_run(waiting.gate, "Suspended")
    assert not ui.can_be_retried()
    ui.cancel(waiting.gate)
    ui.retry(waiting.gate, "Cancelled")
    state = stack.wait_asked("UPD-4", 2)
    assert state.decision is None
    assert stack.bundles() == {**before, "staging": waiting.state.bundle}

    ui.cancel(waiting.gate)
    _reconcile(ui)
    assert stack.state("UPD-4").stage is Stage.CANCELLED
    assert stack.bundles() == before

    known = _events(stack, "UPD-4")
    ui.retry(waiting.gate, "Cancelled")
    assert _ended(stack, waiting.gate) == "Cancelled"
    assert _events(stack, "UPD-4") == known
    assert stack.bundles() == before


def test_a_gate_that_nobody_answers_expires_and_takes_no_late_answer(ui: PrefectUi, stack: Stack) -> None:
    before = stack.bundles()
    stack.change("UPD-5")
    stack.deploy("push", "UPD-5", "Nobody reads this", "--allow-dirty")
    stack.deploy("verify", "UPD-5", env={"ASHAT_GATE_TIMEOUT": str(GATE_SECONDS)})
    waiting = Released("", stack.wait_asked("UPD-5"))
    assert waiting.state.gate is not None

    ui.show_run(waiting.gate, "Suspended")
    ui.open_gate()
    ui.fill_gate("approve", waiting.tail, "Kim")
    _wait_until(waiting.state.gate.expires)
    assert ui.submit_gate() in ("REJECT", "ABORT")
    _reconcile(ui)

    state = stack.state("UPD-5")
    assert (state.stage, state.decision) == (Stage.EXPIRED, None)
    assert stack.bundles() == before
    ui.show_run(waiting.gate, "Expired")


def _released(ui: PrefectUi, stack: Stack, update_id: str, description: str = "A changed byte") -> Released:
    """Release a changed source from the form of `release`, up to the gate."""
    stack.change(update_id)
    run = ui.run("release/release", "allow_dirty", update_id=update_id, description=description)
    stack.wait_run(run, "AwaitingApproval", seconds=100)
    return Released(run, stack.wait_asked(update_id))


def _reconcile(ui: PrefectUi) -> None:
    ui.show_run(ui.run("reconcile/reconcile"), "Reconciled")


def _ended(stack: Stack, run: str, seconds: float = 240) -> str:
    """The state that a retried run ends in."""
    deadline = time.monotonic() + seconds
    while (found := stack.run(run))["state_type"] not in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED"):
        assert time.monotonic() < deadline, f"run {run} is still {found['state_name']}"
        time.sleep(0.1)
    return str(found["state_name"])


def _events(stack: Stack, update_id: str) -> int:
    with Ledger.open(f"sqlite:///{stack.home / 'ledger.db'}") as ledger:
        return ledger.load(update_id).version


def _wait_until(when: datetime) -> None:
    while (left := (when - datetime.now(UTC)).total_seconds()) > 0:
        time.sleep(left)


def _only_when_told(stack: Stack, deployment: str) -> None:
    """Switch a deployment's schedule off, once it was seen to have planned runs."""
    found = stack.api("GET", f"/deployments/name/{deployment}")
    planned = {
        "deployments": {"id": {"any_": [found["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    deadline = time.monotonic() + 240
    while not stack.api("POST", "/flow_runs/count", planned):
        assert time.monotonic() < deadline, f"no run of {deployment} is planned: does Prefect's scheduler work?"
        time.sleep(0.1)
    for schedule in found["schedules"]:
        stack.api("PATCH", f"/deployments/{found['id']}/schedules/{schedule['id']}", {"active": False})
