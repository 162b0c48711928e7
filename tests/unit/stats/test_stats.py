"""DORA's four figures from the record: what counts, what is not known, and what people and scripts are shown of it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ashat.bundle.git import commit_time
from ashat.deployment import events as e
from ashat.deployment.state_machine import Stage
from ashat.protocol.messages import Source
from ashat.stats.deliveries import Entry, deliveries
from ashat.stats.dora import Times, deployed, figures, grouped, month_of
from tests.support.builders.deployments import open_ledger, record
from tests.support.drivers.html_page import Page
from tests.support.processes.deploy_cli import deploy, environment

T0 = datetime(2026, 9, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def story(update_id: str, *events: e.Event, attempt: int = 1) -> list[Entry]:
    return [Entry(update_id, attempt, event.model_dump(mode="json")) for event in events]


def created(at: datetime, target: str = "omega") -> e.Created:
    return e.Created(at=at, description="x", target=target, public="public")


def packaged(at: datetime, source: Source | None = None) -> e.Packaged:
    return e.Packaged(at=at, bundle="a" * 64, files=1, size=1, source=source or Source(name="raos"))


def promoted(at: datetime) -> e.Promoted:
    return e.Promoted(at=at, from_bundle=None, release_seq=1)


def shipped(update_id: str, at: datetime, source: Source | None = None, *after: e.Event) -> list[Entry]:
    """One that was pushed an hour before production ran it."""
    events = (created(at - HOUR), packaged(at - HOUR, source), e.Promoting(at=at, operation="op"), promoted(at))
    return story(update_id, *events, *after)


def back(at: datetime, kept: str = "") -> e.ServerRolledBack:
    return e.ServerRolledBack(at=at, server="omega", to_bundle=None, kept=kept)


def test_the_four_figures_of_a_month() -> None:
    committed = Source(name="raos", commit="c" * 40, committed=T0 - 5 * HOUR)
    found = deliveries(
        [
            *shipped("A", T0, committed),
            *shipped("B", T0 + HOUR, None, e.RollbackStarted(at=T0 + 2 * HOUR), back(T0 + 4 * HOUR)),
            *story(
                "C", created(T0), e.Promoting(at=T0 + HOUR, operation="op"), e.Failed(at=T0 + 2 * HOUR, reason="ill")
            ),
            *shipped("D", T0 + 9 * HOUR, None, e.RollbackStarted(at=T0 + 10 * HOUR)),
        ]
    )
    got = figures(deployed(found))
    assert (got.deployments, got.failures, got.rate, got.unrecovered) == (4, 3, 0.75, 1)
    assert got.lead == Times(1, 5 * 3600, 5 * 3600)
    assert got.from_push == Times(3, 3600, 3600)
    assert got.recovery == Times(2, 2 * 3600, 3 * 3600)  # B: three hours, C switched back by itself after one


def test_what_never_reached_production_is_no_deployment_and_none_are_no_figures() -> None:
    found = deliveries(
        [
            *story("A", created(T0), e.Failed(at=T0, reason="a check failed")),
            *story("B", created(T0), e.Cancelled(at=T0)),
            *story("C", created(T0), e.RollbackStarted(at=T0), back(T0)),
        ]
    )
    assert [one.ended for one in found] == ["failed", "cancelled", ""]
    assert deployed(found) == []
    none = figures([])
    assert (none.deployments, none.rate, none.lead, none.recovery) == (
        0,
        None,
        Times(0, None, None),
        Times(0, None, None),
    )


def test_a_rollback_that_was_called_off_or_left_the_target_alone_is_no_failure() -> None:
    found = deliveries(
        [
            *shipped("A", T0, None, e.RollbackStarted(at=T0), e.RollbackStopped(at=T0)),
            *shipped("B", T0, None, back(T0, kept="it runs something newer")),
        ]
    )
    assert figures(deployed(found)).failures == 0


def test_a_commit_with_changes_or_a_clock_ahead_tells_no_lead_time() -> None:
    dirty = Source(name="raos", commit="c" * 40, committed=T0 - HOUR, dirty=True)
    ahead = Source(name="raos", commit="c" * 40, committed=T0 + HOUR)
    got = figures(deployed(deliveries([*shipped("A", T0, dirty), *shipped("B", T0, ahead), *shipped("C", T0)])))
    assert (got.lead.n, got.lead.median, got.from_push.n) == (0, None, 3)


def test_months_sources_and_since_share_deployments_out() -> None:
    found = deliveries(
        [
            *shipped("A", datetime(2026, 9, 30, 23, 30, tzinfo=UTC)),
            *shipped("B", datetime(2026, 10, 1, 0, 30, tzinfo=UTC), Source(name="other")),
        ]
    )
    assert {month: len(group) for month, group in grouped(deployed(found), month_of).items()} == {
        "2026-09": 1,
        "2026-10": 1,
    }
    assert [one.update_id for one in deployed(found, since=datetime(2026, 10, 1, tzinfo=UTC))] == ["B"]
    assert [one.update_id for one in deployed(found, source="raos")] == ["A"]


def test_the_decision_is_the_last_accepted_answer_and_every_verifications_checks_are_kept() -> None:
    outcome = {"name": "health", "title": "t", "seen": "s"}
    checks = [(e.CheckOutcome(outcome=each, **outcome),) for each in ("fail", "pass")]  # type: ignore[arg-type]
    verified = [e.Verified(at=T0, evidence="e" * 64, outcome="passed", checks=each) for each in checks]
    answers = [
        e.ApprovalAnswered(at=T0 + n * HOUR, ordinal=1, decision="approve", accepted=accepted)
        for n, accepted in enumerate((True, True, False))
    ]
    (one,) = deliveries(story("A", created(T0), *verified, *answers))
    assert (one.checks, one.decided) == ((("health", "fail"), ("health", "pass")), T0 + HOUR)
    assert one.final_decision is None  # others may sign yet
    rejected = e.ApprovalAnswered(at=T0, ordinal=1, decision="reject", accepted=True)
    assert deliveries(story("A", created(T0), rejected))[0].ended == "rejected"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with releases of three months, among them one of a source that means harm."""
    home = tmp_path_factory.mktemp("stats") / "home"
    with open_ledger(home) as ledger:
        for number, month in enumerate((6, 6, 8)):
            record(ledger, f"UPD-{number}", Stage.COMPLETED, at=datetime(2026, month, 2 + number, tzinfo=UTC))
        record(ledger, "UPD-back", Stage.ROLLED_BACK, at=datetime(2026, 8, 20, tzinfo=UTC))
        state = ledger.create("UPD-evil", created(datetime(2026, 8, 21, tzinfo=UTC)))
        evil = Source(name="<script>alert(1)</script>\u202e")
        ledger.append(state, packaged(datetime(2026, 8, 21, tzinfo=UTC), evil))
    return home


def stats(home: Path, *words: str) -> Any:
    done = deploy(home, "stats", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_command_shows_months_without_any_and_what_is_not_known(home: Path) -> None:
    shown = stats(home)
    assert list(shown["months"]) == ["2026-06", "2026-07", "2026-08"]
    assert [month["deployments"] for month in shown["months"].values()] == [2, 0, 2]
    assert shown["months"]["2026-07"]["rate"] is None
    assert shown["all"]["failures"] == 1
    assert shown["all"]["lead"] == {"n": 0, "median": None, "longest": None}
    assert stats(home, "--since", "2026-08-01")["all"]["deployments"] == 2
    assert stats(home, "--source", "nobody")["all"]["deployments"] == 0
    assert stats(home, "--target", "elsewhere")["months"] == {}
    text = deploy(home, "stats").stdout
    assert "Change failure rate" in text
    assert "25 % (1 of 4)" in text
    assert re.search(r"Lead time, from the commit\s+not known \(n = 0\)", text)
    assert "None. What the figures would be is not known." in deploy(home, "stats", "--source", "nobody").stdout
    wrong = deploy(home, "stats", "--since", "soon")
    assert (wrong.returncode, "is no time" in wrong.stderr) == (2, True)


def test_the_page_stands_by_itself_and_runs_nothing(home: Path, tmp_path: Path) -> None:
    with open_ledger(home) as ledger:
        evil = ledger.load("UPD-evil")
        for event in (
            e.PublicSwitching(at=T0, from_bundle=None),
            e.Pushed(at=T0, url="http://public"),
            e.VerificationStarted(at=T0),
            e.Verified(at=T0, evidence="e" * 64, outcome="passed", checks=()),
            e.GateOpened(at=T0, opening=1, expires=T0 + HOUR),
            e.ApprovalRequested(at=T0, ordinal=1, target_bundle=None),
            e.ApprovalAnswered(at=T0, ordinal=1, decision="approve", accepted=True, release_seq=900),
            e.Promoting(at=T0, operation="op"),
            promoted(T0).model_copy(update={"release_seq": 900}),
        ):
            evil = ledger.append(evil, event)
    file = tmp_path / "stats.html"
    done = deploy(home, "stats", "--html", str(file))
    assert (done.returncode, f"📄 {file}: 5 deployments" in done.stdout) == (0, True), done.stderr
    html = file.read_text("utf-8")
    page = Page(html)
    assert page.tags.count("svg") == 4
    assert page.tags.count("rect") > 20
    assert "script" not in page.tags
    assert page.addresses == ["data:,", "https://dora.dev/guides/dora-metrics/"]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in html
    assert "\u202e" not in html
    assert "default-src 'none'" in html
    assert "not known" in html
    assert deploy(home, "stats", "--html", str(tmp_path / "missing/page.html")).returncode == 2


def test_ten_thousand_releases_are_summed_up_in_a_moment() -> None:
    entries = [entry for n in range(10_000) for entry in shipped(f"U{n}", T0 + n * HOUR)]
    began = time.process_time()
    assert figures(deployed(deliveries(entries))).deployments == 10_000
    assert time.process_time() - began < 5


def test_a_commit_says_when_it_was_made(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=kim", "-c", "user.email=kim@example.com"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    dated = {**environment(tmp_path), "GIT_COMMITTER_DATE": "2026-09-20T14:00:00+02:00"}
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "x"], check=True, env=dated)
    assert commit_time(tmp_path, "HEAD") == T0
    assert commit_time(tmp_path, "nothing") is None
