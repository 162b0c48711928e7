"""A hostile release, on a node that root runs: what it can do as a user of its own, and as the node's own user."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ashat.client.node import NodeClient
from ashat.errors import NodeAuthError
from ashat.protocol.messages import Scope
from ashat.protocol.probes import DatabaseProbeRequest
from tests.support.needs import SYSTEM_PYTHON, cgroup_root, requires_cgroup, requires_root
from tests.support.processes.leftovers import VARIABLE
from tests.support.processes.node import QUICK, NodeProcess, push, switch
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import eventually

HOSTILE = Path(__file__).parents[1] / "support" / "fakes" / "hostile_program.py"
USER = "nobody"
ATTACKS = (
    "read add_token replace_tokens write_store link_elsewhere change_release signal_them read_memory become_root daemon"
)
EVIL = "ashat_" + secrets.token_urlsafe(32)


def app(**more: Any) -> dict[str, Any]:
    evil = hashlib.sha256(EVIL.encode()).hexdigest()
    command = [SYSTEM_PYTHON, "-I", "-S", "app.py"]
    return {**QUICK, "command": command, "env": {VARIABLE: os.environ[VARIABLE], "EVIL_SHA256": evil}, **more}


def release(directory: Path, attacks: str) -> Path:
    directory.mkdir()
    shutil.copy(HOSTILE, directory / "app.py")
    (directory / "attacks").write_text(attacks)
    return directory


def what_worked(node: NodeProcess) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((node.data / "app-data" / "attacks.json").read_bytes())
    return content


def daemons(node: NodeProcess) -> list[psutil.Process]:
    """The processes that the release left, as far as they still run."""
    pids = [int(line) for line in (node.data / "app-data" / "daemons").read_text().split()]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid) and not is_zombie(pid)]


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def is_an_admin(node: NodeProcess) -> bool:
    with NodeClient(node.url, token=EVIL, name="evil") as client:
        try:
            client.state()
        except NodeAuthError:
            return False
        return True


@requires_root
def test_a_release_that_runs_as_another_user_comes_to_nothing(place: Path, tmp_path: Path) -> None:
    with NodeProcess(place / "public", app=app(user=USER), env={"NODES_SECRET": "x"}) as node:
        tokens = (node.data / "tokens.json").read_bytes()
        with node.client(Scope.PUSH) as client:
            evil = push(client, release(tmp_path / "evil", ATTACKS))
            assert switch(client, evil, expected=None).status == "succeeded"
            assert client.state().app.user == USER
            (daemon,) = daemons(node)
            worked = what_worked(node)
            assert worked.pop("uid") == daemon.uids().real == 65534
            environment = worked.pop("env")
            assert "NODES_SECRET" not in environment
            assert worked.pop("read") == []
            assert set(worked.values()) == {False}, worked
            assert len(worked) == len(ATTACKS.split()) - 2
            assert (node.data / "tokens.json").read_bytes() == tokens
            assert not is_an_admin(node)

            calm = push(client, release(tmp_path / "calm", ""))
            assert switch(client, calm, expected=evil).status == "succeeded"
            assert daemons(node) == []


@requires_root
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_what_it_left_ends_with_the_program_however_the_node_ended(place: Path, tmp_path: Path, how: str) -> None:
    with NodeProcess(place / "public", app=app(user=USER)) as node, node.client() as client:
        calm, evil = push(client, release(tmp_path / "calm", "")), push(client, release(tmp_path / "evil", "daemon"))
        assert switch(client, calm, expected=None).status == "succeeded"
        assert switch(client, evil, expected=calm).status == "succeeded"
        (daemon,) = daemons(node)
        if how == "stopped":
            assert node.stop() == 0
        else:
            node.kill9()
            assert daemons(node) == [daemon], "the program outlives a killed node, and so does what it started"
            node.start()
            wait_until_it_runs(client)
            assert daemons(node) == [daemon], "the program was taken over"
            assert switch(client, calm, expected=evil).status == "succeeded"
        assert daemons(node) == []


@requires_root
def test_a_process_that_is_always_another_one_is_ended_too(place: Path, tmp_path: Path) -> None:
    with NodeProcess(place / "public", app=app(user=USER)) as node, node.client() as client:
        evil = push(client, release(tmp_path / "evil", "runner"))
        assert switch(client, evil, expected=None).status == "succeeded"
        runner = node.data / "app-data" / "runner"
        eventually(runner.exists, "its first", node)
        before = runner.read_text()
        eventually(lambda: runner.read_text() != before, "another", node)
        assert switch(client, None, expected=evil).status == "succeeded"
        after = runner.read_text()
        time.sleep(0.5)
        assert runner.read_text() == after


def wait_until_it_runs(client: NodeClient) -> None:
    deadline = time.monotonic() + 60
    while client.state().app.status != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)


@requires_root
def test_a_release_that_runs_as_the_nodes_own_user_can_do_what_the_node_can(place: Path, tmp_path: Path) -> None:
    """As docs/node.md says; but what it leaves behind is ended all the same."""
    with NodeProcess(place / "public", app=app()) as node, node.client() as client:
        evil = push(client, release(tmp_path / "evil", "read add_token signal_them daemon"))
        assert switch(client, evil, expected=None).status == "succeeded"
        assert client.state().app.user == ""
        worked = what_worked(node)
        assert {"tokens.json", "node.db", "store"} <= set(worked["read"])
        assert (worked["add_token"], worked["signal_them"]) == (True, True)
        assert is_an_admin(node)
        assert len(daemons(node)) == 1
        assert switch(client, None, expected=evil).status == "succeeded"
        assert daemons(node) == []


@requires_root
@requires_cgroup
def test_a_release_that_kills_what_keeps_it_is_ended_by_its_control_group(place: Path, tmp_path: Path) -> None:
    group = Path(cgroup_root(), f"ashat-test-{os.getpid()}")
    group.mkdir()
    try:
        os.setxattr(group, "trusted.delegate", b"1")
        with NodeProcess(place / "public", app=app(start_timeout=3)) as node, node.client() as client:
            (group / "cgroup.procs").write_text(str(node.pid))
            evil = push(client, release(tmp_path / "evil", "daemon orphans"))
            operation = switch(client, evil, expected=None)
            assert operation.status == "failed"
            assert "somebody had killed the process that keeps it" in operation.reason
            assert daemons(node) == []
            assert not [path for path in group.iterdir() if path.is_dir()], "its group is gone, too"
    finally:
        deadline = time.monotonic() + 30
        while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        group.rmdir()


@requires_root
def test_a_secret_that_the_programs_user_could_reach_is_refused_by_name(place: Path) -> None:
    node = NodeProcess(place / "public", app=app(user=USER), start=False)
    tokens = place / "shared" / "tokens.json"
    tokens.parent.mkdir()
    shutil.copy(node.data / "tokens.json", tokens)
    for path, mode, words in [
        (tokens.parent, 0o777, f"could change {tokens.parent}"),
        (tokens, 0o644, f"could read {tokens}, which holds a secret; run: chmod 600 {tokens}"),
        (tokens, 0o602, f"could change {tokens}"),
        (node.config, 0o666, f"could change {node.config}"),
        (place, 0o700, f"cannot reach what lies in {place}; run: chmod o+x {place}"),
    ]:
        before = path.stat().st_mode & 0o777
        path.chmod(mode)
        assert words in refusal(node, "--token-file", str(tokens)), words
        path.chmod(before if path != tokens else 0o600)
    for user, words in [
        ("no-such-user", "there is no user 'no-such-user' here; make it (useradd --system no-such-user)"),
        ("root", "'root' is the node's own user"),
    ]:
        assert words in refusal(node, "--app-user", user)


@requires_root
def test_the_hook_runs_as_that_user_too(place: Path, tmp_path: Path) -> None:
    hook = ["/bin/sh", "-c", "id -u; id -G; echo $HOME $NODES_SECRET; exit 3"]
    settings = {**QUICK, "hook": hook, "url": "http://127.0.0.1:1", "user": USER}
    with NodeProcess(place / "public", app=settings, env={"NODES_SECRET": "x"}) as node, node.client() as client:
        bundle = push(client, release(tmp_path / "calm", ""))
        assert switch(client, bundle, expected=None).status == "failed"
        assert (node.data / "hook.log").read_text().split() == ["65534", "65534", "/nonexistent"] * 2
        assert client.state().app.user == USER
        assert "the hook runs as nobody" in node.log()


@requires_root
def test_the_nodes_look_at_its_database_touches_nothing_that_the_program_could_not(place: Path, tmp_path: Path) -> None:
    database = {"dsn": "sqlite:///{data}/raos.db"}
    with NodeProcess(place / "public", app=app(user=USER), database=database, start=False) as node:
        node.config.chmod(0o600)
        node.start()
        tokens = (node.data / "tokens.json").read_bytes()
        with node.client() as client:
            calm = push(client, release(tmp_path / "calm", "database"))
            assert switch(client, calm, expected=None).status == "succeeded"
            look = client.probe_database(DatabaseProbeRequest(tables=["t"]))
            assert (look.ok, look.writable) == (True, True), look
            evil = push(client, release(tmp_path / "evil", "database links"))
            assert switch(client, evil, expected=calm).status == "succeeded"
            look = client.probe_database(DatabaseProbeRequest(tables=["meta"]))
            assert (look.ok, look.writable) == (False, False), look
            assert (node.data / "tokens.json").read_bytes() == tokens


def refusal(node: NodeProcess, *flags: str) -> str:
    """What `serve` says, on one line, before it ends."""
    run = ashat_node("serve", "--config", str(node.config), *flags)
    assert run.returncode == 2, run
    assert run.stderr.count("\n") == 1, run.stderr
    return run.stderr
