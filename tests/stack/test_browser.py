"""The gate as a person meets it: in Prefect's own UI, in a real browser, against servers that are real."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page

from ashat.deployment.state_machine import Stage, State
from ashat.ledger.ledger import Ledger
from blocks.rollout_policy import RolloutPolicy
from tasks.runtime.artifacts import svg_url
from tasks.verify.latency_plot import latency_svg
from tasks.verify.verification import MARKS
from tests.support.drivers.browser import PrefectUi, PrefectUiV2, open_browser
from tests.support.processes.stack import Stack, eventually

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
    """Servers that run nothing yet, and a source called raos; `reconcile` runs when a test says so."""
    with Stack(tmp_path_factory.mktemp("browser"), mainframes=1) as running:
        running.deploy("configure", "source", "raos", str(running.source))
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
    verdict, size, typed = gate.locator("ol li").all_inner_texts()
    assert re.search(r": 7 checks: 7 \w+", verdict)
    modules = "files outside modules, Auth, Chat, Content and others"
    assert size == f"Files: 24 added in {modules}; production runs nothing."
    assert re.fullmatch(rf"To decide, type {completed.tail}\. Open until .* UTC\. Read the whole page first\.", typed)
    assert gate.locator("ol a").get_attribute("href") == f"{stack.ui_url}/artifacts/key/gate-upd-1-1"
    # In this UI the form's fields leave the text above them no room in most windows.
    asked = ui.read_asked()
    for line in (verdict, size, typed.partition(" Read")[0], str(gate.locator("ol a").get_attribute("href"))):
        assert line in asked
    assert "May UPD-1 go to production?" in shown
    assert HOSTILE in shown
    assert gate.locator("img").count() == 0
    assert "Will reach production and 1 Licensed Mainframe" in shown
    assert "Every Mainframe is offered it at once: nothing stops it." in shown
    bad = gate.locator("tr", has_text="20 %").locator("td").all_inner_texts()
    assert bad == ["20 %", "0", "1", "0", "never", ""]
    assert "production runs nothing yet: everything is new." in shown
    assert gate.locator("tr", has_text="Chat").locator("td").all_inner_texts()[2:] == ["0", "0"]
    for check in completed.state.checks:
        assert f"{MARKS[check.outcome]} {check.title}: {check.seen}" in shown
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
    told = _log(stack, waiting.gate)
    assert "UPD-2 was rejected, by Kim (a name as it was typed): not on a Friday" in told
    assert "Traceback" not in told


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
    _reconcile(stack)
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
    _reconcile(stack)

    state = stack.state("UPD-5")
    assert (state.stage, state.decision) == (Stage.EXPIRED, None)
    assert stack.bundles() == before
    ui.show_run(waiting.gate, "Expired")


def test_in_the_second_ui_resume_is_in_the_menu_and_the_gate_is_the_same(
    ui: PrefectUi, page: Page, stack: Stack, completed: Released
) -> None:
    second = PrefectUiV2(page, stack.home)
    waiting = _released(second, stack, "UPD-6", HOSTILE)
    second.show_run(waiting.gate, "Suspended")
    entries = second.menu()
    assert entries.index("Cancel") < entries.index("Resume") < entries.index("Delete")
    second.show_run(waiting.gate, "Suspended")
    gate = second.open_gate()
    verdict, size, typed = gate.locator("ol li").all_inner_texts()
    assert re.search(r": 7 checks: 7 \w+", verdict)
    assert size == "Files: 1 changed in Chat; production runs UPD-1."
    assert f"type {waiting.tail}." in typed
    assert "+# changed: UPD-6" in gate.locator("pre").inner_text()
    assert HOSTILE in gate.inner_text()
    assert gate.locator("img").count() == 0
    second.fill_gate("reject", waiting.tail, "Kim", "seen in the second UI")
    assert second.submit_gate() == "ACCEPT"
    second.await_state("Rejected")
    assert stack.state("UPD-6").reason == "seen in the second UI"

    # Whoever has chosen the second UI still gets the button where a link leads.
    page.context.add_cookies([{"name": "prefect_ui_version", "value": "v2", "url": stack.ui_url}])
    try:
        page.goto(f"{stack.ui_url}/runs/flow-run/{waiting.gate}")
        page.get_by_role("button", name="Retry").wait_for()
        assert "/v2/" not in page.url
    finally:
        page.context.clear_cookies(name="prefect_ui_version")
    assert second.scripts == []


def test_a_rollout_policy_is_made_in_the_form_of_the_second_ui(page: Page, stack: Stack, completed: Released) -> None:
    ui = PrefectUiV2(page, stack.home)
    form = ui.show_block_form("raos-rollout-policy")
    form.get_by_label("Name").fill("gentle")
    first = form.get_by_role("textbox").filter(has_text="canary: 5")
    first.fill("canary: 1, then ask")
    ui.save_block()
    saved = stack.api("GET", "/block_types/slug/raos-rollout-policy/block_documents/name/gentle")["data"]
    policy = RolloutPolicy.model_validate(saved).policy()
    assert [rule.spelled for rule in policy.rules()] == ["canary: 1, then ask", "early: 10 %", "everyone: rest"]
    assert policy.at_once == 100


def test_a_refusal_is_one_line_of_the_log(ui: PrefectUi, stack: Stack) -> None:
    refused = ui.run("verify/verify", update_id="UPD-99")
    ui.show_run(refused, "NotDone")
    assert "Traceback" not in (told := _log(stack, refused))
    assert "No deployment 'UPD-99' is known." in told
    (stack.source / "device").symlink_to("/dev/null")
    try:
        refused = ui.run("push/push", "allow_dirty", update_id="UPD-98", description="It has a link")
        ui.show_run(refused, "NotDone")
    finally:
        (stack.source / "device").unlink()
    told = _log(stack, refused)
    assert "Traceback" not in told
    assert "device" in told


def test_each_run_is_called_by_its_update_and_tagged_with_it(stack: Stack, completed: Released) -> None:
    for flow, run in (("release", completed.run), ("approve", completed.gate)):
        found = stack.run(run)
        assert found["name"] == f"{flow} UPD-1"
        assert "update:UPD-1" in found["tags"]
    run = stack.api("POST", f"/deployments/{stack.deployment('release/release')}/create_flow_run", {"parameters": {}})[
        "id"
    ]
    ended = stack.wait_run(run, "NotDone")
    assert ended["name"] == "release of raos"
    stack.change("a scheduled release")
    named = {"parameters": {"allow_dirty": True}}
    run = stack.api("POST", f"/deployments/{stack.deployment('release/release')}/create_flow_run", named)["id"]
    ended = stack.wait_run(run, "AwaitingApproval")
    update_id = ended["name"].removeprefix("release ")
    assert stack.state(update_id).run == run
    assert f"update:{update_id}" in ended["tags"]
    stack.deploy("cancel", update_id)


def _released(ui: PrefectUi, stack: Stack, update_id: str, description: str = "A changed byte") -> Released:
    """Release a changed source from the form of `release`, up to the gate."""
    stack.change(update_id)
    run = ui.run("release/release", "allow_dirty", update_id=update_id, description=description)
    stack.wait_run(run, "AwaitingApproval", seconds=100)
    return Released(run, stack.wait_asked(update_id))


def _log(stack: Stack, run: str) -> str:
    """What the log of a run says, once it is written: the run's last word is how it ended."""
    wanted = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}

    def read() -> str:
        lines = [line["message"] for line in stack.api("POST", "/logs/filter", wanted)]
        return "\n".join(lines) if any(line.startswith("Finished in state") for line in lines[-2:]) else ""

    return str(eventually(read, f"the log of run {run}"))


def _reconcile(stack: Stack) -> None:
    """Have reconcile look now; its form has no fields, and its page is shown only while it found something new."""
    run = stack.api("POST", f"/deployments/{stack.deployment('reconcile/reconcile')}/create_flow_run", {})
    assert _ended(stack, run["id"]) in ("Reconciled", "NothingToDo")


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
