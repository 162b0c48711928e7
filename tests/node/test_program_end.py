"""How the program and the node end: one may outlive the other, and what cannot be ended is said to run."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil

from ashat.client.node import NodeClient
from tests.support.needs import SYSTEM_PYTHON, requires_root
from tests.support.processes.node import QUICK, NodeProcess, below, push, switch, tiny_app, tiny_bundle
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import eventually

# A root that may signal nobody else, as a user may not whom it ran something as by sudo.
WEAK = ["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill", "--", sys.executable, "-m", "ashat.node"]


def wait_until_it_runs(client: NodeClient) -> None:
    deadline = time.monotonic() + 60
    while client.state().app.status != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_node_that_restarts_on_sighup_does_not_stop_the_program(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", app=tiny_app()) as node, node.client() as client:
        bundle = push(client, tiny_bundle(tmp_path / "source"))
        switch(client, bundle, expected=None)
        before = client.state().app
        os.kill(node.pid, signal.SIGHUP)
        assert node.wait_until_dead() == 0
        assert psutil.pid_exists(before.pid or 0)
        node.start()
        wait_until_it_runs(client)
        after = client.state().app
        assert (after.pid, after.started_at, after.restarts) == (before.pid, before.started_at, 0)
        assert node.stop() == 0
        assert below(node.data) == []


def test_a_program_that_was_started_and_not_recorded_is_ended_and_started_anew(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", app=tiny_app()) as node, node.client() as client:
        bundle = push(client, tiny_bundle(tmp_path / "source"))
        switch(client, bundle, expected=None)
        pid = client.state().app.pid
        node.kill9()
        with closing(sqlite3.connect(node.data / "node.db")) as database, database:
            database.execute("DELETE FROM program")
        node.start()
        wait_until_it_runs(client)
        eventually(lambda: client.probe_health().bundle == bundle, "its health", node)
        assert client.state().app.pid != pid
        assert len(below(node.data / "releases")) == 1


def test_status_says_as_whom_the_program_runs(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", app=tiny_app()) as node:
        lines = ashat_node("status", "--data", node.data).stdout.splitlines()
        own = psutil.Process().username()
        assert f"the program runs as {own}, as the node does: a release can do whatever the node can" in lines


@requires_root
def test_a_program_that_the_node_may_not_end_goes_on_and_the_switch_says_whose_it_is(
    place: Path, tmp_path: Path
) -> None:
    command = ["setpriv", "--reuid=65534", "--clear-groups", SYSTEM_PYTHON, "-I", "-S", "app.py"]
    node = NodeProcess(place / "public", app={**QUICK, "command": command}, start=False)
    node.data.chmod(0o711)
    (node.data / "app-data").mkdir(mode=0o711)
    with node, open(node.directory / "log", "ab") as log:
        serve = [*WEAK, "serve", "--config", str(node.config)]
        node._process = subprocess.Popen(serve, stdout=log, stderr=log)  # type: ignore[assignment]
        node.wait_until_up()
        with node.client() as client:
            old, new = (push(client, tiny_bundle(tmp_path / name, name=name)) for name in ("old", "new"))
            assert switch(client, old, expected=None).status == "succeeded"
            pid = client.state().app.pid
            operation = switch(client, new, expected=old)
            assert (operation.status, operation.switched_back) == ("failed", True)
            said = f"the program that ran still runs, because this node cannot end pid {pid} of the user nobody"
            assert operation.reason == said
            state = client.state()
            assert (state.current.bundle if state.current else None, state.app.pid) == (old, pid)
            assert client.probe_health().bundle == old
        assert node.stop() == 0
        assert said in node.log()
        psutil.Process(pid).kill()


@requires_root
def test_a_hook_that_the_node_may_not_end_is_said_to_run(tmp_path: Path) -> None:
    hook = ["/bin/sh", "-c", "setpriv --reuid=65534 --clear-groups sleep 60; true"]
    settings = {**QUICK, "hook": hook, "hook_timeout": 0.3, "url": "http://127.0.0.1:1"}
    node = NodeProcess(tmp_path / "public", app=settings, start=False)
    with node, open(node.directory / "log", "ab") as log:
        serve = [*WEAK, "serve", "--config", str(node.config)]
        node._process = subprocess.Popen(serve, stdout=log, stderr=log)  # type: ignore[assignment]
        node.wait_until_up()
        with node.client() as client:
            operation = switch(client, push(client, tiny_bundle(tmp_path / "source")), expected=None)
        left = [process for process in below(node.data) if process.name() == "sleep"]
        assert operation.status == "failed"
        said = "the hook took longer than 0.3 s and still runs, because this node cannot end pid "
        assert operation.reason.startswith(said)
        assert f"pid {left[0].pid} of the user nobody" in operation.reason
