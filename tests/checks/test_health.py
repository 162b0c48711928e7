"""Health looked at deeply: a program that answers badly costs no more than the limits, and its node sees it start."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ashat.protocol.messages import App
from ashat.raos_toml.load import load_raos_toml
from tasks.checks import CheckContext, CheckResult, run_check
from tasks.checks import health as health_check
from tasks.checks.health import HealthCheck
from tasks.checks.kit.samples import Block, Rehearsal
from tests.support.processes.node import EXAMPLE, NodeProcess, example_app, push, switch, tiny_app, tiny_bundle
from tests.support.processes.omega import eventually

FAULTS = {
    "hang": "/api/core/status",
    "drip": "/api/chat/rooms",
    "drip-headers": "/api/forum/boards",
    "huge": "/api/market/items",
    "redirect": "/",
    "bad-json": "/modules",
    "bad-charset": "/pages/rules",
}
Ask = Callable[..., CheckResult]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Runs the health check, with other promises, on a program that answers badly at the paths of `FAULTS`."""
    directory = tmp_path_factory.mktemp("health")
    tree = directory / "release"
    shutil.copytree(EXAMPLE, tree, ignore=shutil.ignore_patterns("__pycache__"))
    told = ", ".join(f'"{fault}={path}"' for fault, path in FAULTS.items())
    (tree / "faults.toml").write_text(f"faults = [{told}]\n")
    with NodeProcess(directory / "public", app=example_app()) as node, node.client() as client:
        bundle = push(client, tree)
        operation = switch(client, bundle, expected=None)
        assert operation.status == "succeeded", operation.reason
        promised = load_raos_toml((tree / "raos.toml").read_bytes())
        url = client.state().app.url
        assert url is not None

        def run(rehearsal: Rehearsal | None = None, **promises: Any) -> CheckResult:
            health = promised.health.model_copy(update={"settle_seconds": 0.1, **promises})
            raos = promised.model_copy(update={"health": health})
            manifest = client.manifest(bundle)
            context = CheckContext(client, url, bundle, manifest, raos, source=lambda path: b"")
            return run_check(HealthCheck(), replace(context, rehearsal=rehearsal or Rehearsal()))

        yield run


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_check, "ANSWER_SECONDS", 0.4)
    monkeypatch.setattr(health_check, "MIN_WAIT_SECONDS", 0.0)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("hang", "no whole answer within 0.4 s"),
        ("drip", "no whole answer within 0.4 s"),
        ("drip-headers", "no whole answer within 0.4 s"),
        ("huge", "the answer has more than 65536 bytes"),
        ("redirect", "status 302"),
        ("bad-json", "the answer is no valid JSON"),
        ("bad-charset", "the answer is not UTF-8 at byte 9"),
    ],
)
def test_a_health_answer_costs_no_more_than_the_limits(ask: Ask, fault: str, reason: str) -> None:
    began = time.monotonic()
    result = ask(path=FAULTS[fault], start_seconds=0.1)
    assert time.monotonic() - began < 25
    assert result.outcome == "fail"
    assert result.seen.startswith("not healthy within 0.1 s of its start: ")
    assert reason in result.seen
    assert len(result.seen) < 300


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("hang", "no whole answer within 0.4 s"), ("huge", "more than 65536 bytes"), ("redirect", "status 302")],
)
def test_a_readiness_answer_costs_no_more_than_the_limits(ask: Ask, fault: str, reason: str) -> None:
    began = time.monotonic()
    result = ask(ready=FAULTS[fault], start_seconds=0.1)
    assert time.monotonic() - began < 25
    assert result.seen.startswith("not ready within 0.1 s of its start, though it lives (/health is well): ")
    assert reason in result.seen


def test_what_answers_well_is_ready_whatever_it_says(ask: Ask) -> None:
    result = ask(ready=FAULTS["bad-json"])
    assert result.outcome == "pass", result.seen
    assert "looks healthy and ready over 0.1 s, version 9.4.1, up" in result.seen
    assert result.figures["start_ms"] > 0
    assert (result.figures["restarts"], result.figures["not_ready"], result.figures["not_healthy"]) == (0, 0, 0)
    assert len(result.series["health_us"]) == result.figures["looks"]
    unaware = ask(ready=None)
    assert (unaware.outcome, "healthy and ready" in unaware.seen) == ("pass", False)


def test_a_start_that_took_too_long_fails_though_all_is_well_now(ask: Ask) -> None:
    result = ask(start_seconds=0.001)
    assert result.outcome == "fail"
    assert result.seen.endswith("from its start until it was healthy, over the 0.001 s of raos.toml")
    assert [finding.severity for finding in result.findings] == ["high"]


def test_a_late_start_on_a_busy_host_is_no_failure_where_the_release_before_was_late_as_well(ask: Ask) -> None:
    def after(busy: int, old_start_ms: int) -> CheckResult:
        blocks = (Block("new", (), busy, 3000), Block("old", (), busy, old_start_ms))
        return ask(Rehearsal(blocks), start_seconds=0.001)

    late = after(busy=550, old_start_ms=2500)
    assert late.outcome == "inconclusive"
    assert late.seen.startswith("too noisy to tell: the program took ")
    assert "this host was 55 % busy with other things" in late.seen
    assert {finding.severity for finding in late.findings} == {"low"}
    assert after(busy=50, old_start_ms=2500).outcome == "fail"
    assert after(busy=550, old_start_ms=0).outcome == "fail"


def test_a_node_sees_each_start_of_its_program(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", app=tiny_app()) as node, node.client() as client:
        assert switch(client, push(client, tiny_bundle(tmp_path / "tiny")), expected=None).status == "succeeded"
        first = client.state().app
        assert first.pid is not None
        assert first.started_at is not None
        assert first.healthy_after_ms is not None
        assert (first.restarts, first.failure) == (0, "")
        os.kill(first.pid, signal.SIGKILL)

        def again(app: App) -> bool:
            return app.restarts == 1 and app.healthy_after_ms is not None

        deadline = time.monotonic() + 15
        while not again(client.state().app):
            client.probe_health()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = client.state().app
        assert second.started_at is not None
        assert second.started_at > first.started_at
        assert second.failure.startswith("the program ended by itself on signal 9 after ")
        node.kill9()
        node.start()
        eventually(lambda: client.state().app.pid, "the program to be taken over, which a node does once it serves")
        taken_over = client.state().app
        assert (taken_over.pid, taken_over.restarts, taken_over.healthy_after_ms) == (second.pid, 1, None)
