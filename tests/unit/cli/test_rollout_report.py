"""The page of a rollout: what it shows is true, and nothing that a Mainframe says becomes a part of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from ashat.cli.commands.rollout_report import DECISIONS, HEIGHT, rollout_report
from ashat.deployment import events as e
from ashat.protocol.fleet import FailureGroup, RolloutState, RolloutStep, Wave
from ashat.protocol.messages import Offer
from ashat.rollouts.policy import RolloutPolicy, WaveRule
from tests.support.drivers.html_page import Page

T0 = datetime(2026, 11, 30, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
EVIL = "</td></svg><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='alert(3)' {{7*7}} \u202e\x1b[31m"
NOTHING_RUNS = {"script", "img", "iframe", "object", "embed", "form", "base", "foreignobject", "animate", "use", "a"}


def rollout(name: str = "canary", why: str = "", **changes: object) -> RolloutState:
    policy = RolloutPolicy(waves=(WaveRule(name="canary", count=3), WaveRule(name="rest", rest=True)))
    fields = {
        "id": "UPD-1.1.7",
        "offer": Offer(release_seq=7, bundle="a" * 64, update_id="UPD-1", attempt=1),
        "policy": policy,
        "status": "paused",
        "why": why,
        "began_at": T0,
        "changed_at": T0 + 30 * MINUTE,
        "version": 3,
        "at": T0 + 60 * MINUTE,
        "waves": [
            Wave(number=0, name=name, opened_at=T0 + MINUTE, succeeded=2, failed=1),
            Wave(number=1, name="rest", waiting=97),
        ],
        **changes,
    }
    return RolloutState.model_validate(fields)


def test_it_shows_how_far_the_rollout_came_when_and_who_decided() -> None:
    steps = [RolloutStep(at=T0 + 2 * MINUTE, succeeded=1), RolloutStep(at=T0 + 30 * MINUTE, succeeded=1, failed=1)]
    failed = [FailureGroup(state="failed", reason="it does not start", count=1, names=["bob"])]
    events = [
        e.RolloutBegan(at=T0, by="kim@ops", rollout="UPD-1.1.7", policy="b" * 64, waves=(("canary", 3), ("rest", 97))),
        e.WaveOpened(at=T0 + MINUTE, by="kim@ops", through=0, why="it begins"),
        e.RolloutStopped(at=T0 + 31 * MINUTE, by="kim@ops", ordinal=1, why="1 failed"),
        e.RolloutAnswered(
            at=T0 + 40 * MINUTE, by="x", ordinal=1, decision="abort", approver="ada", comment="it is bad"
        ),
    ]
    html = rollout_report(rollout(), steps, failed, events, omega="production")
    for words in (
        "production",
        "it does not start",
        "bob",
        "ada",
        "abort: it is bad",
        "canary 3, rest 97",
        "97 waiting",
    ):
        assert words in html, words
    paths = dict(re.findall(r'class="curve (\w+)" d="([^"]*)"', html))
    assert set(paths) == {"good", "bad"}
    heights = [float(y) for y in re.findall(r"V([\d.]+)", paths["good"])]
    scale = (HEIGHT - 16 - 30) / 100
    assert heights == [pytest.approx(HEIGHT - 30 - n * scale, abs=0.06) for n in (1, 2)]
    across = [float(x) for x in re.findall(r"H([\d.]+)", paths["good"])]
    assert across == [pytest.approx(8 + 704 * minute / 60, abs=0.06) for minute in (2, 30, 60)]
    assert Page(html).tags.count("path") == 2


def test_nothing_that_a_stranger_says_becomes_a_part_of_the_page() -> None:
    groups = [FailureGroup(state="failed", reason=EVIL + "x" * 100_000, count=1, names=[EVIL] * 5) for _ in range(20)]
    stop = e.RolloutStopped(at=T0, by=EVIL, ordinal=1, why=EVIL)
    begun = e.RolloutBegan(at=T0, by="x", rollout="r", policy="b" * 64, waves=((EVIL, 1),))
    answered = e.RolloutAnswered(at=T0, by="x", ordinal=1, decision="abort", approver=EVIL, comment=EVIL)
    seen = rollout(name=EVIL, why=EVIL)
    html = rollout_report(seen, [], groups, [begun, stop, answered] * 1000, omega=EVIL)
    page = Page(html)
    assert not NOTHING_RUNS & set(page.tags)
    assert page.addresses == ["data:,"]
    assert "default-src 'none'" in html
    assert not {"\u202e", "\x1b"} & set(html)
    assert "&lt;script&gt;" in html
    assert "{{7*7}}" in html
    assert f"and {3000 - DECISIONS} more" in html
    assert len(html) < 1_000_000


@pytest.mark.parametrize("at", [T0, T0 - MINUTE, T0 + 1000 * MINUTE])
def test_odd_times_stay_within_the_drawing(at: datetime) -> None:
    html = rollout_report(rollout(at=at, changed_at=at), [RolloutStep(at=at, succeeded=10**9)], [], [], omega="o")
    for path in re.findall(r' d="([^"]*)"', html):
        assert all(0 <= float(x) <= 720 for x in re.findall(r"H([\d.-]+)", path))
        assert all(0 <= float(y) <= HEIGHT for y in re.findall(r"V([\d.-]+)", path))
