"""A release goes to a server only while that is open: it waits, visibly and without a process, and goes by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ashat.deployment.stages import Stage
from ashat.deployment.state_machine import State
from tests.support.processes.stack import Stack, eventually

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]

FREEZE = "FREQ=DAILY P1D UTC"


@pytest.fixture(autouse=True)
def opened(stack: Stack) -> Iterator[None]:
    yield
    listed = json.loads(stack.deploy("freeze", "list", "--json").stdout)
    servers = [*listed["servers"], *listed["fleets"]]
    for kind, identity in {(entry["kind"], entry["id"]) for server in servers for entry in server["entries"]}:
        stack.deploy(kind, "remove", identity)


def freeze(stack: Stack, on: str, why: str) -> str:
    """Freeze a server for ever; the freeze's id."""
    told = stack.deploy("freeze", "add", FREEZE, "--on", on, "--why", why).stdout
    assert f"closed, a freeze holds: {why}" in told
    return told.split("has the freeze ")[1].split(":")[0]


def approve(stack: Stack, update_id: str, *words: str) -> str:
    state = stack.wait_asked(update_id)
    assert state.evidence is not None
    given = ("--evidence", state.evidence[-8:], "--comment", "however noisy it was", *words)
    return stack.deploy("approve", update_id, *given).stdout


def reconcile(stack: Stack) -> None:
    run = stack.api("POST", f"/deployments/{stack.deployment('reconcile/reconcile')}/create_flow_run", {"state": None})
    eventually(lambda: stack.run(run["id"])["state_type"] in ("COMPLETED", "FAILED"), "reconcile to end")


def kinds(stack: Stack, update_id: str) -> list[str]:
    listed = json.loads(stack.deploy("history", update_id, "--json").stdout)["events"]
    return [event["kind"] for event in listed]


def test_what_is_approved_in_a_freeze_waits_and_goes_once_that_is_over(stack: Stack) -> None:
    identity = freeze(stack, "omega", "the year ends")
    stack.change("in a freeze")
    stack.deploy("push", "UPD-F1", "In a freeze", "--allow-dirty")
    stack.deploy("verify", "UPD-F1")
    told = approve(stack, "UPD-F1")
    assert "is closed:** a freeze holds: the year ends" in told
    assert "'UPD-F1' waits for production: a freeze holds: the year ends; no opening is in sight" in told
    state = stack.state("UPD-F1")
    assert state.stage is Stage.AWAITING_WINDOW
    assert state.gate is not None
    run = stack.wait_run(state.gate.run, "AwaitingWindow")
    assert run["state_type"] == "SCHEDULED"
    assert "a freeze holds" in stack.deploy("status").stdout
    assert "AwaitingWindow" in stack.deploy("status", "UPD-F1").stdout
    assert "waits for production: a freeze holds" in stack.deploy("inbox").stdout
    refused = stack.deploy("approve", "UPD-F1", check=False)
    assert (refused.returncode, "was approved by" in refused.stderr, "--override-freeze" in refused.stderr) == (1, 1, 1)
    reconcile(stack)
    assert stack.state("UPD-F1").stage is Stage.AWAITING_WINDOW, "it is still frozen"
    stack.deploy("freeze", "remove", identity)
    reconcile(stack)
    state = stack.wait("UPD-F1", lambda state: state.ended)
    assert state.stage is Stage.COMPLETED
    assert [kind for kind in kinds(stack, "UPD-F1") if "window" in kind] == ["window_awaited", "window_opened"]


def test_an_override_needs_a_reason_which_stands_in_the_record_and_in_the_receipt(stack: Stack) -> None:
    freeze(stack, "omega", "nobody is here")
    stack.change("overridden")
    stack.deploy("push", "UPD-F2", "Urgent", "--allow-dirty")
    stack.deploy("verify", "UPD-F2")
    blank = stack.deploy("approve", "UPD-F2", "--evidence", "x" * 8, "--override-freeze", " ", check=False)
    assert (blank.returncode, "needs a reason" in blank.stderr) == (2, True)
    told = approve(stack, "UPD-F2", "--override-freeze", "customers cannot sign in", "--by", "kim")
    assert "is closed, and it goes all the same: customers cannot sign in" in told
    state = stack.state("UPD-F2")
    assert state.stage is Stage.COMPLETED
    assert "customers cannot sign in" in stack.deploy("history", "UPD-F2").stdout
    assert "overridden by kim: customers cannot sign in" in stack.deploy("status", "UPD-F2").stdout
    stack.deploy("receipt", "UPD-F2", "--out", str(stack.home / "f2.json"))
    assert "customers cannot sign in" in (stack.home / "f2.json").read_text()


def test_it_goes_at_a_time_and_can_be_let_go_earlier_or_be_called_off(stack: Stack) -> None:
    stack.change("at two")
    stack.deploy("push", "UPD-F3", "At two", "--allow-dirty")
    stack.deploy("verify", "UPD-F3")
    passed = stack.deploy("approve", "UPD-F3", "--at", "2026-01-01T02:00Z", check=False)
    assert "has passed" in passed.stderr
    assert "waits for production: it is approved for" in approve(stack, "UPD-F3", "--at", "02:00")
    state = stack.state("UPD-F3")
    assert state.gate is not None
    due = stack.wait_run(state.gate.run, "AwaitingWindow")["next_scheduled_start_time"]
    assert due.split("T")[1].startswith("02:00:00")
    told = stack.deploy("approve", "UPD-F3", "--override-freeze", "it is quiet now").stdout
    assert "goes to production now" in told
    assert stack.wait("UPD-F3", lambda state: state.ended).stage is Stage.COMPLETED


def test_a_push_waits_until_public_opens_and_goes_by_itself(stack: Stack) -> None:
    identity = freeze(stack, "public", "a demo is shown")
    stack.change("for a closed Public")
    told = stack.deploy("push", "UPD-F4", "Later", "--allow-dirty").stdout
    assert "was sent, and waits for staging: a freeze holds: a demo is shown" in told
    assert sent(stack.state("UPD-F4"))
    reconcile(stack)
    assert sent(stack.state("UPD-F4"))
    assert "--resume --override-freeze" in stack.deploy("inbox").stdout
    stack.deploy("freeze", "remove", identity)
    reconcile(stack)
    state = stack.wait("UPD-F4", lambda state: state.stage is Stage.PUSHED)
    assert state.window is None
    stack.deploy("cancel", "UPD-F4")


def test_a_scheduled_release_sleeps_while_public_is_closed_and_then_goes_on_to_its_gate(stack: Stack) -> None:
    identity = freeze(stack, "public", "a demo is shown")
    stack.change("on a schedule")
    stack.deploy("configure", "source", "windowed", str(stack.source))
    given = {"source": "windowed", "update_id": "UPD-F6", "allow_dirty": True}
    path = f"/deployments/{stack.deployment('release/release')}/create_flow_run"
    run = stack.api("POST", path, {"parameters": given})["id"]
    assert stack.wait_run(run, "AwaitingWindow")["state_type"] == "SCHEDULED"
    assert sent(stack.state("UPD-F6"))
    stack.deploy("freeze", "remove", identity)
    reconcile(stack)
    assert stack.wait_asked("UPD-F6").stage is Stage.AWAITING_APPROVAL
    stack.wait_run(run, "AwaitingApproval")
    assert kinds(stack, "UPD-F6").count("packaged") == 1, "what was sent is not packed again"
    stack.deploy("cancel", "UPD-F6")


def test_a_mainframe_that_a_freeze_holds_is_counted_apart_until_somebody_overrides_that(stack: Stack) -> None:
    asked = ("--mainframe", "mainframe-1", "--omega", "omega")
    added = stack.deploy("freeze", "add", FREEZE, "--why", "they migrate", *asked).stdout
    assert "1 Mainframes are held now: mainframe-1" in added
    assert "they migrate" in stack.deploy("freeze", "list").stdout
    assert "offered nothing now: a freeze holds: they migrate" in stack.deploy("fleet", "--omega", "omega").stdout
    stack.change("for the others")
    stack.deploy("push", "UPD-F5", "For the others", "--allow-dirty")
    stack.deploy("verify", "UPD-F5")
    evidence = stack.wait_asked("UPD-F5").evidence or ""
    given = ("--evidence", evidence[-8:], "--comment", "however noisy it was")
    assert stack.deploy("approve", "UPD-F5", *given, check=False).returncode == 3, "not every Mainframe has it"
    state = stack.state("UPD-F5")
    assert (state.stage, state.reach.running, state.reach.total) == (Stage.COMPLETED, 1, 2)
    shown = json.loads(stack.deploy("rollout", "show", "UPD-F5", "--json").stdout)
    assert [wave["held"] for wave in shown["waves"]] == [1]
    blank = stack.deploy("rollout", "override-freeze", "UPD-F5", "--why", " ", check=False)
    assert (blank.returncode, "needs a reason" in blank.stderr) == (2, True)
    stack.deploy("rollout", "override-freeze", "UPD-F5", "--why", "customers cannot sign in")
    runs = stack.state("UPD-F5").bundle
    eventually(lambda: stack.bundles()["mainframe-1"] == runs, "the Mainframe to run it")
    assert "Mainframes: customers cannot sign in" in stack.deploy("history", "UPD-F5").stdout


def sent(state: State) -> bool:
    return state.stage is Stage.PLANNING and state.sent and state.window is not None and not state.switching
