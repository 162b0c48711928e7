"""A release may say itself what runs it, as far as the node's settings allow that."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest

from ashat.errors import NodeConflictError
from ashat.protocol.messages import OperationRequest, Role
from tests.support.processes.node import QUICK, NodeProcess, push, switch, tiny_app, tiny_bundle


def release(directory: Path, *words: str, behaviour: str = "") -> Path:
    """A source that names `words` as its command; with none it names no command."""
    app = f"[app]\ncommand = {json.dumps(words)}\n" if words else ""
    return tiny_bundle(directory, behaviour, **{"raos.toml": f"[raos]\nname = 'tiny'\nversion = '1.0'\n{app}"})


def test_a_program_that_is_allowed_runs_and_another_is_refused_before_anything_changes(tmp_path: Path) -> None:
    app = {**QUICK, "release_command": [sys.executable, "./serve"]}
    with NodeProcess(tmp_path / "public", app=app) as node, node.client() as client:
        own = (sys.executable, "-I", "-S", "{release}/app.py", "{port}", "{data}")
        good = push(client, release(tmp_path / "good", *own))
        operation = switch(client, good, expected=None)
        assert operation.status == "succeeded", operation.reason
        state = client.state()
        directory = node.data / "releases" / good
        port = (state.app.url or "").rpartition(":")[2]
        assert psutil.Process(state.app.pid).cmdline() == [
            sys.executable,
            "-I",
            "-S",
            f"{directory}/app.py",
            port,
            str(node.data / "app-data"),
        ]

        for words, why in (
            (("sh", "-c", "true"), f"names the program 'sh'.*allows '{sys.executable}', './serve'"),
            (("serve",), "names the program 'serve'"),
            ((), r"has no \[app\] command in its raos\.toml"),
        ):
            other = push(client, release(tmp_path / str(len(words)), *words))
            with pytest.raises(NodeConflictError, match=why) as refused:
                switch(client, other, expected=good)
            assert refused.value.body["error"] == "not_allowed"
            assert "\n" not in str(refused.value)
        assert client.state().operation == operation

        bad = push(client, release(tmp_path / "bad", *own, behaviour="crash"))
        failed = switch(client, bad, expected=good)
        assert (failed.status, failed.switched_back) == ("failed", True)
        psutil.Process(client.state().app.pid).kill()
        deadline = time.monotonic() + 30
        while not (client.state().app.restarts and client.probe_health().healthy):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        node.restart()
        while not client.probe_health().healthy:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert client.probe_health().bundle == good


@pytest.mark.parametrize("role", [Role.PUBLIC, Role.OMEGA], ids=str)
def test_a_node_that_was_told_nothing_allows_none(tmp_path: Path, role: Role) -> None:
    """It is refused by a Public; an OMEGA without a program only keeps it."""
    with NodeProcess(tmp_path / "node", role=role, app=QUICK) as node, node.client() as client:
        bundle = push(client, release(tmp_path / "source", sys.executable, "app.py"))
        if role is Role.PUBLIC:
            with pytest.raises(NodeConflictError, match=r"does not allow: set app\.release_command, or app\.command"):
                switch(client, bundle, expected=None)
            assert client.state().operation is None
            return
        wanted = OperationRequest(
            action="promote",
            bundle=bundle,
            expected_current=None,
            update_id="UPD-1",
            attempt=1,
            decision={  # type: ignore[arg-type]  # which is validated
                "id": "d",
                "decision": "approve",
                "update_id": "UPD-1",
                "attempt": 1,
                "bundle": bundle,
                "evidence": "e" * 64,
                "target": "omega",
                "expected_current": None,
                "release_seq": 1,
                "approver": "kim",
                "at": "2026-11-24T00:00:00Z",
            },
        )
        client.start_operation("op", wanted)
        assert client.wait_operation("op").status == "succeeded"


def test_the_nodes_own_command_wins(tmp_path: Path) -> None:
    app = {**tiny_app(), "release_command": ["*"]}
    with NodeProcess(tmp_path / "public", app=app) as node, node.client() as client:
        operation = switch(client, push(client, release(tmp_path / "source", "false")), expected=None)
        assert operation.status == "succeeded", operation.reason
