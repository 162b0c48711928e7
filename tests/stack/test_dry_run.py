"""`--dry-run` of each command that changes something says what would be done, and changes nothing anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ashat.common.identifiers import new_key
from ashat.deployment.stages import Stage
from ashat.ledger.ledger import Ledger
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(1200)]

# How far the events were told, which a look of the control plane's own moves on.
_MOVE_ON = ("ashat_told",)


def world(stack: Stack) -> dict[str, Any]:
    """What each place keeps that a command could change: the record, Prefect's objects, and the servers."""
    with Ledger.open(stack.ledger_url) as ledger:
        record = (ledger.log_head(), sorted(ledger.document_digests()))
    blocks = stack.api("POST", "/block_documents/filter", {"limit": 200})
    variables = stack.api("POST", "/variables/filter", {"limit": 200})
    runs = stack.api("POST", "/flow_runs/count", {})
    release = stack.api("GET", "/deployments/name/release/release")
    with stack.public.client() as public, stack.omega.client() as omega:
        servers = [(seen.current, seen.previous, seen.offer) for seen in (public.state(), omega.state())]
        fleet = [(one.id, one.labels, one.result) for one in omega.mainframes()]
        licences = [(one.id, one.expires, one.status) for one in omega.licences()]
        freezes = omega.freezes()
    return {
        "record": record,
        "blocks": sorted((one["name"] or "", one["updated"]) for one in blocks if not one["is_anonymous"]),
        "variables": sorted((one["name"], one["updated"]) for one in variables if one["name"] not in _MOVE_ON),
        "runs": runs,
        "schedules": release["schedules"],
        "servers": servers,
        "fleet": fleet,
        "licences": licences,
        "freezes": freezes,
        "keys": sorted(str(path) for path in (stack.home / "trust").rglob("*")),
    }


@pytest.fixture
def before(stack: Stack) -> Iterator[None]:
    """The test changes nothing."""
    seen = world(stack)
    yield
    assert world(stack) == seen


def dry(stack: Stack, *words: str, stdin: str = "") -> str:
    done = stack.deploy(*words, "--dry-run", stdin=stdin)
    assert done.stdout.rstrip().endswith("Dry run: nothing was changed."), done.stdout
    return done.stdout


def unchanged(stack: Stack, *words: str) -> str:
    """What a dry run of an update's command says, and that it changed nothing."""
    seen = world(stack)
    told = dry(stack, *words)
    assert world(stack) == seen
    return told


def test_an_updates_way_is_told_at_each_step(stack: Stack) -> None:
    stack.change("told before it is done")
    told = unchanged(stack, "push", "UPD-D1", "Told", "--allow-dirty")
    assert "Would push 'UPD-D1': bundle " in told
    assert "with uncommitted changes" in told
    assert "(Public Server, " in told
    sent = next(line for line in told.splitlines() if "Sent: " in line)
    assert not sent.strip().startswith("Sent: 0 of ")
    stack.deploy("push", "UPD-D1", "Told", "--allow-dirty")
    bundle = stack.state("UPD-D1").bundle
    assert bundle is not None
    assert bundle[:12] in told, "what is pushed is what was told"
    again = unchanged(stack, "push", "UPD-D2", "Told", "--allow-dirty")
    assert "Sent: 0 of " in again

    told = unchanged(stack, "verify", "UPD-D1")
    assert "Rehearse the way back: to " in told
    assert "Run: " in told
    assert "was not looked at" in told
    refused = stack.deploy("approve", "UPD-D1", "--dry-run", check=False)
    assert (refused.returncode, "is not verified yet" in refused.stderr) == (1, True)
    told = unchanged(stack, "cancel", "UPD-D1")
    assert "Would cancel 'UPD-D1', which is Pushed" in told

    stack.deploy("verify", "UPD-D1")
    state = stack.wait_asked("UPD-D1")
    assert state.evidence is not None
    given = ("--evidence", state.evidence[-8:], "--comment", "noisy")
    told = unchanged(stack, "approve", "UPD-D1", *given)
    assert "Would approve 'UPD-D1'" in told
    assert "2 Mainframes" in told
    assert "would receive bundle " in told
    assert "Would reject 'UPD-D1'" in unchanged(stack, "approve", "UPD-D1", "--reject", "--reason", "no")
    wrong = stack.deploy("approve", "UPD-D1", "--evidence", "00000000", "--dry-run", check=False)
    assert (wrong.returncode, "would not count: the evidence typed" in wrong.stderr) == (1, True)
    assert stack.state("UPD-D1").stage is Stage.AWAITING_APPROVAL

    stack.deploy("approve", "UPD-D1", *given)
    told = unchanged(stack, "rollback", "UPD-D1")
    assert "Would roll back 'UPD-D1'" in told
    assert "would run again" in told
    assert "Mainframes" in told
    assert "change nothing" in unchanged(stack, "public", "restore")
    assert "lost nothing" in unchanged(stack, "heal", "omega")
    ended = stack.deploy("rollout", "pause", "UPD-D1", "--dry-run", "--omega", "omega", check=False)
    assert (ended.returncode, "is completed" in ended.stderr) == (1, True)
    retried = unchanged(stack, "rollout", "retry-failed", "UPD-D1", "--omega", "omega")
    assert "have 0 Mainframes try 'UPD-D1' again" in retried


@pytest.mark.usefixtures("before")
def test_what_is_configured_is_told_and_kept_as_it_is(stack: Stack, tmp_path: Path) -> None:
    policy, waves = tmp_path / "policy.toml", tmp_path / "waves.toml"
    policy.write_text('warns = ["performance"]\n')
    waves.write_text('waves = ["first: 1", "everyone: rest"]\n')
    url = stack.public.url
    assert "Would change the server" in dry(stack, "configure", "public", url, "Other")
    assert "Would configure a server" in dry(stack, "configure", "omega", stack.omega.url, "New", "--as", "omega-new")
    assert f"Location: {tmp_path}" in dry(stack, "configure", "source", "other", str(tmp_path))
    assert "Would configure the verification policy" in dry(stack, "configure", "policy", "default", str(policy))
    stack.deploy("configure", "rollout-policy", "default", str(waves), "--dry-run")
    assert "Would release raos to omega" in dry(stack, "schedule", "add", "mondays", "--cron", "0 2 * * 1")
    assert "Would let the schedule weeknights rest" in dry(stack, "schedule", "pause", "weeknights")
    assert "Would let the schedule weeknights go on" in dry(stack, "schedule", "resume", "weeknights")
    told = dry(stack, "notify", "add", "webhook", "ours", "--secrets", "-", stdin="https://hooks.example.com/x9\n")
    assert "x9" not in told
    assert "closed, a freeze holds: the year ends" in dry(
        stack, "freeze", "add", "FREQ=DAILY P1D UTC", "--why", "the year ends"
    )
    assert "every Mainframe" in dry(stack, "window", "add", "FREQ=DAILY PT1H UTC", "--fleet", "--omega", "omega")


@pytest.mark.usefixtures("before")
def test_what_a_fleet_is_told_and_kept_as_it_is(stack: Stack, tmp_path: Path) -> None:
    of = ("--omega", "omega")
    key, out, rows = new_key(), tmp_path / "key", tmp_path / "licences.csv"
    rows.write_text(f"{key},customer\n")
    assert "label mainframe-1: ring=internal" in dry(stack, "fleet", "label", "mainframe-1", "ring=internal", *of)
    assert f"write its key to {out}" in dry(stack, "licences", "create", "customer", "--out", str(out), *of)
    assert not out.exists()
    told = dry(stack, "licences", "import", str(rows), *of)
    assert (key in told, "customer" in told, "  new" in told) == (False, True, True)
    assert "count until 2100-01-01 00:00 UTC" in dry(
        stack, "licences", "renew", "mainframe-1", "--expires", "2099-12-31", *of
    )
    assert "for good" in dry(stack, "licences", "revoke", "mainframe-1", *of)


def test_what_is_there_is_taken_away_only_in_words(stack: Stack) -> None:
    added = stack.deploy("freeze", "add", "2099-12-20 P2W UTC", "--why", "far away").stdout
    identity = added.split("has the freeze ")[1].split(":")[0]
    try:
        assert "Would take the freeze from " in unchanged(stack, "freeze", "remove", identity)
        listed = json.loads(stack.deploy("freeze", "list", "omega", "--json").stdout)
        assert [entry["id"] for entry in listed["servers"][0]["entries"]] == [identity]
    finally:
        stack.deploy("freeze", "remove", identity)
        omega = stack.api("GET", "/block_types/slug/raos-server/block_documents/name/omega")
        assert omega["data"]["freezes"] == []
