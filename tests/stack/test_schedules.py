"""Releases by a schedule: it is added, rests, goes on and is removed; slots that were missed are made up for once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.processes.stack import Stack, eventually

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]


def schedules(stack: Stack) -> dict[str, dict[str, Any]]:
    """What `deploy schedule list` says of each."""
    return {one["name"]: one for one in json.loads(stack.deploy("schedule", "list", "--json").stdout)["schedules"]}


def runs(stack: Stack, source: str) -> list[dict[str, Any]]:
    """Every run of `release` that a schedule made for a source, the earliest slot first."""
    wanted = {"deployments": {"id": {"any_": [stack.deployment("release/release")]}}}
    found = stack.api("POST", "/flow_runs/filter", {**wanted, "sort": "EXPECTED_START_TIME_ASC", "limit": 200})
    return [run for run in found if run["auto_scheduled"] and run["parameters"].get("source") == source]


def test_a_schedule_is_added_rests_goes_on_and_is_removed(stack: Stack) -> None:
    assert schedules(stack)["weeknights"]["active"] is False
    stack.deploy("schedule", "add", "fridays", "--cron", "0 20 * * 5", "--timezone", "Europe/Berlin")
    by_rule = "FREQ=WEEKLY;BYDAY=SA;BYHOUR=4;BYMINUTE=30;BYSECOND=0"
    stack.deploy("schedule", "add", "rule", "--rrule", by_rule, "--source", "other", "--unanswered", "supersede")
    planned = eventually(
        lambda: found if all((found := schedules(stack))[name]["next"] for name in ("fridays", "rule")) else None,
        "both to be planned",
    )
    friday, rule = (datetime.fromisoformat(planned[name]["next"]) for name in ("fridays", "rule"))
    assert (friday.weekday(), friday.minute) == (4, 0)
    assert friday.astimezone(UTC).hour in (18, 19)
    assert (rule.weekday(), rule.hour, rule.minute) == (5, 4, 30)
    assert timedelta() < friday - datetime.now(UTC) < timedelta(days=8)
    assert (planned["rule"]["source"], planned["fridays"]["source"]) == ("other", "raos")
    assert runs(stack, "other")[0]["parameters"]["unanswered"] == "supersede"

    stack.deploy("schedule", "pause", "rule")
    assert (schedules(stack)["rule"]["active"], schedules(stack)["rule"]["next"]) == (False, None)
    stack.deploy("schedule", "resume", "rule")
    assert schedules(stack)["rule"]["active"] is True
    for words, says in (
        (("add", "fridays", "--cron", "0 1 * * *"), "already"),
        (("add", "x"), "--cron or --rrule"),
        (("add", "x", "--cron", "61 1 * * *"), "no schedule"),
        (("add", "x", "--cron", "@reboot"), "five fields"),
        (("add", "x", "--rrule", "FREQ=NEVER"), "no schedule"),
        (("add", "x", "--cron", "0 1 * * *", "--timezone", "Mars/Base"), "no schedule"),
        (("pause", "none"), "There is no schedule"),
        (("remove", "weeknights"), "deploy schedule pause"),
    ):
        refused = stack.deploy("schedule", *words, check=False)
        assert (refused.returncode in (1, 2), refused.stderr.count("\n")) == (True, 1), refused.stderr
        assert says in refused.stderr
    for name in ("fridays", "rule"):
        stack.deploy("schedule", "remove", name)
    assert set(schedules(stack)) == {"weeknights"}
    assert runs(stack, "other") == []


def test_of_the_slots_that_passed_while_no_worker_was_there_one_run_stands_for_all(stack: Stack) -> None:
    stack.api("PATCH", "/work_pools/alpha", {"is_paused": True})
    try:
        stack.deploy("schedule", "add", "often", "--rrule", "FREQ=SECONDLY;INTERVAL=10", "--source", "not-there")
        late = eventually(
            lambda: (
                found
                if len(found := [run for run in runs(stack, "not-there") if run["state_name"] == "Late"]) >= 3
                else None
            ),
            "three slots to pass",
        )
    finally:
        stack.api("PATCH", "/work_pools/alpha", {"is_paused": False})

    def all_ended() -> bool:
        return all(stack.run(run["id"])["state_name"] in ("Missed", "NotDone") for run in late)

    try:
        eventually(all_ended, "the late runs to end")
    finally:
        stack.deploy("schedule", "remove", "often")
    began = sorted((run for run in runs(stack, "not-there") if run["start_time"]), key=lambda run: run["start_time"])
    first = began[0]
    assert first["state_name"] == "NotDone", first  # it went on, and its source is nowhere
    passed = [run["state_name"] for run in began[1:] if run["expected_start_time"] <= first["start_time"]]
    assert len(passed) >= 2
    assert set(passed) == {"Missed"}
