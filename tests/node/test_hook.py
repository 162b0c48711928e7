"""A program that something else runs: the node calls the operator's hook, and judges by the health alone."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from ashat.errors import NodeUnreachableError
from ashat.protocol.messages import OperationRequest
from tests.support.processes.node import QUICK, NodeProcess, free_port, push, switch, tiny_bundle

# What a service manager does, in small: end the old program, start the new one, and return.
HOOK = """
import os, pathlib, signal, subprocess, sys, time
data = pathlib.Path(os.environ["RUN_DATA"])
with open(data / "calls", "a") as calls:
    print(os.environ["ASHAT_BUNDLE"] or "-", os.environ["ASHAT_PREVIOUS"] or "-", file=calls)
pid = data / "pid"
if pid.exists():
    os.kill(int(pid.read_text()), signal.SIGKILL)
    pid.unlink()
release = os.environ["ASHAT_RELEASE"]
if release:
    behaviour = pathlib.Path(release, "behaviour").read_text()
    if "hookfails" in behaviour:
        sys.exit("the service is unknown")
    if "hookhangs" in behaviour:
        time.sleep(60)
    slow = data / "slow"
    if slow.exists():
        time.sleep(float(slow.read_text()))
    environment = {**os.environ, "RAOS_PORT": os.environ["RUN_PORT"], "RAOS_DATA": str(data)}
    program = subprocess.Popen([sys.executable, "app.py"], cwd=release, env=environment, start_new_session=True)
    pid.write_text(str(program.pid))
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    directory = tmp_path_factory.mktemp("hook") / "public"
    directory.mkdir()
    script = directory / "hook.py"
    script.write_text(HOOK)
    port = free_port()
    app = {
        **QUICK,
        "hook": [sys.executable, str(script)],
        "hook_timeout": 3,
        "start_timeout": 3,
        "url": f"http://127.0.0.1:{port}",
        "env": {"RUN_DATA": str(directory), "RUN_PORT": str(port)},
    }
    with NodeProcess(directory, app=app) as started:
        yield started


@pytest.fixture(scope="module")
def client(node: NodeProcess) -> Iterator[NodeClient]:
    with node.client() as opened:
        yield opened


@pytest.fixture
def good(client: NodeClient, tmp_path: Path) -> str:
    """A healthy release that runs now."""
    bundle = push(client, tiny_bundle(tmp_path / "good"))
    current = client.state().current
    assert switch(client, bundle, expected=current.bundle if current else None).status == "succeeded"
    return bundle


def calls(node: NodeProcess) -> list[list[str]]:
    return [line.split() for line in (node.directory / "calls").read_text().splitlines()]


def test_the_hook_is_told_what_to_run_and_the_health_decides(
    node: NodeProcess, client: NodeClient, good: str, tmp_path: Path
) -> None:
    assert calls(node)[-1][0] == good
    app = client.state().app
    assert (app.status, app.healthy, app.pid) == ("hook", True, None)
    assert client.probe_health().bundle == good

    for behaviour, reason in [
        ("sick", "not healthy within 3 s: answers 500 at /health"),
        ("hookfails", "the hook ended with exit code 1: the service is unknown"),
        ("hookhangs", "the hook took longer than 3 s and was killed; app.hook_timeout gives it more time"),
    ]:
        bad = push(client, tiny_bundle(tmp_path / behaviour, behaviour))
        operation = switch(client, bad, expected=good)
        assert (operation.status, operation.switched_back, operation.reason) == ("failed", True, reason)
        assert calls(node)[-2:] == [[bad, good], [good, bad]]
        assert client.probe_health().bundle == good


def test_a_hook_that_takes_longer_than_it_may_has_the_time_to_put_back_what_ran(
    node: NodeProcess, client: NodeClient, good: str, tmp_path: Path
) -> None:
    bundle = push(client, tiny_bundle(tmp_path / "slow", note="slow"))
    (node.directory / "slow").write_text("5")
    operation = switch(client, bundle, expected=good)
    (node.directory / "slow").unlink()
    assert (operation.status, operation.switched_back) == ("failed", True)
    assert operation.reason == "the hook took longer than 3 s and was killed; app.hook_timeout gives it more time"
    assert calls(node)[-2:] == [[bundle, good], [good, bundle]]
    assert client.probe_health().bundle == good


def test_the_program_outlives_the_node_and_is_not_started_again(
    node: NodeProcess, client: NodeClient, good: str
) -> None:
    before, program = len(calls(node)), int((node.directory / "pid").read_text())
    node.restart()
    deadline = time.monotonic() + 30
    while not client.state().app.healthy:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(calls(node)) == before
    os.kill(program, 0)


def test_a_hook_that_may_not_have_ended_is_called_again(
    node: NodeProcess, client: NodeClient, good: str, tmp_path: Path
) -> None:
    bundle = push(client, tiny_bundle(tmp_path / "next", more="more"))
    node.restart({"ASHAT_FAULT": "switch.linked"})
    wanted = OperationRequest(action="switch", bundle=bundle, expected_current=good, update_id="UPD-1", attempt=1)
    with contextlib.suppress(NodeUnreachableError):
        client.start_operation("op:killed", wanted)
    assert node.wait_until_dead() == -signal.SIGKILL
    node.start()
    assert client.wait_operation("op:killed", timeout=90).status == "succeeded"
    assert calls(node)[-1][0] == bundle
    assert client.probe_health().bundle == bundle


def test_the_hook_is_not_called_for_nothing(node: NodeProcess, client: NodeClient, good: str) -> None:
    assert ["-", "-"] not in calls(node)


def test_nothing_can_run_too(node: NodeProcess, client: NodeClient, good: str) -> None:
    assert switch(client, None, expected=good).status == "succeeded"
    assert calls(node)[-1] == ["-", good]
    assert not client.probe_health().healthy
