"""Two slots and what can go wrong with them: the reload, the snippet, a port, a change of the settings."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ashat.client.node import NodeClient
from ashat.errors import NodeRefusedError
from ashat.protocol.messages import AppSlot, Role
from tests.node.test_crash import ask
from tests.support.needs import SYSTEM_PYTHON, requires_root
from tests.support.processes.node import NodeProcess, below, free_port, push, switch, tiny_app, tiny_bundle
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import eventually, promote, roll_back

pytestmark = pytest.mark.timeout(300)


class Rig:
    """A node with two slots whose proxy is the file `reload`: a shell script that may be changed."""

    def __init__(self, directory: Path, **more: Any) -> None:
        self.directory = directory
        self.snippet = directory / "proxy" / "raos.conf"
        self.snippet.parent.mkdir(parents=True)
        self.script = directory / "reload"
        self.reload_with("exit 0")
        self.ports = [free_port(), free_port()]
        slots = {"ports": self.ports, "snippet": str(self.snippet), "reload": [str(self.script)]}
        settings = {"slots": {**slots, "drain": 0.2, "warm": 60, "reload_timeout": 1, **more}}
        self.node = NodeProcess(directory / "node", app=tiny_app(), settings=settings, start=False)

    def reload_with(self, script: str) -> None:
        """Have the reload do that from now on."""
        self.script.unlink(missing_ok=True)
        self.script.write_text(f"#!/bin/sh\n{script}\n")
        self.script.chmod(0o755)

    def sends_to(self) -> int:
        """The port in the snippet."""
        return int(self.snippet.read_text().split("127.0.0.1:")[1].partition(";")[0])


@contextmanager
def running(rig: Rig) -> Iterator[NodeClient]:
    with rig.node as node:
        node.start()
        with node.client() as client:
            yield client


def slots(client: NodeClient) -> tuple[AppSlot, AppSlot]:
    """The slot that runs the current release, and the other."""
    state = client.state()
    first, second = state.app.slots
    assert state.current is not None
    return (first, second) if first.bundle == state.current.bundle else (second, first)


def two(client: NodeClient, directory: Path) -> tuple[str, str]:
    """A release that runs, and another."""
    old, new = (push(client, tiny_bundle(directory / name, note=name)) for name in ("old", "new"))
    assert switch(client, old, expected=None).status == "succeeded"
    return old, new


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo no such proxy; exit 3", "the reload of the proxy ended with exit code 3: no such proxy"),
        (
            "sleep 600",
            "the reload of the proxy took longer than 1 s and was killed; slots.reload_timeout gives it more",
        ),
        (None, "the reload of the proxy '{script}' cannot be run: No such file or directory"),
    ],
    ids=["fails", "hangs", "is-missing"],
)
def test_a_reload_that_fails_leaves_the_old_release_serving(tmp_path: Path, script: str | None, reason: str) -> None:
    rig = Rig(tmp_path)
    with running(rig) as client:
        old, new = two(client, tmp_path)
        pid, port = slots(client)[0].pid, rig.sends_to()
        rig.script.unlink() if script is None else rig.reload_with(script)
        failed = switch(client, new, expected=old)
        assert failed.status == "failed"
        assert failed.reason.startswith(f"the traffic was not switched: {reason.format(script=rig.script)}")
        assert "nor does the proxy go by the way back, which is tried again: " in failed.reason
        active, idle = slots(client)
        assert (active.pid, active.port, rig.sends_to()) == (pid, port, port)
        assert client.probe_health().bundle == old
        assert idle.bundle == new, "for as long as nobody knows where the proxy sends the traffic, both run"
        assert (
            "is to have the traffic: the proxy is not reloaded yet"
            in ashat_node("status", "--data", str(rig.node.data)).stdout
        )

        rig.reload_with("exit 0")
        eventually(lambda: slots(client)[1].status == "stopped", "the new release, ended", rig.node)
        assert (slots(client)[0].pid, slots(client)[0].traffic) == (pid, True)
        assert switch(client, new, expected=old).status == "succeeded"


def test_a_reload_that_fails_once_takes_the_traffic_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with running(rig) as client:
        old, new = two(client, tmp_path)
        port = rig.sends_to()
        rig.reload_with(f"test -e {tmp_path}/again && exit 0; touch {tmp_path}/again; exit 1")
        failed = switch(client, new, expected=old)
        assert failed.reason == "the traffic was not switched: the reload of the proxy ended with exit code 1"
        assert (failed.switched_back, slots(client)[0].traffic, rig.sends_to()) == (True, True, port)
        eventually(lambda: slots(client)[1].status == "stopped", "the new release, ended", rig.node)


def test_a_snippet_that_cannot_be_written_leaves_the_old_release_serving(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with running(rig) as client:
        old, new = two(client, tmp_path)
        rig.snippet.parent.rename(tmp_path / "elsewhere")
        failed = switch(client, new, expected=old)
        assert failed.status == "failed"
        assert failed.reason.startswith(
            f"the traffic was not switched: {rig.snippet} cannot be written: No such file or directory"
        )
        assert client.probe_health().bundle == old
        (tmp_path / "elsewhere").rename(rig.snippet.parent)
        assert switch(client, new, expected=old).status == "succeeded"


def test_a_port_that_something_else_has_is_named(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with running(rig) as client, socket.socket() as other:
        old, new = two(client, tmp_path)
        active, idle = slots(client)
        other.bind(("127.0.0.1", idle.port))
        other.listen()
        failed = switch(client, new, expected=old)
        assert (failed.status, failed.switched_back) == ("failed", False)
        assert (
            failed.reason == f"the port {idle.port} of the slot {idle.name} is taken by something else on this machine"
        )
        assert slots(client)[0].pid == active.pid
        other.close()
        assert switch(client, new, expected=old).status == "succeeded"


def test_the_proxy_is_asked_whether_the_release_answers_there(tmp_path: Path) -> None:
    blind = free_port()
    rig = Rig(tmp_path, url=f"http://127.0.0.1:{blind}")
    with running(rig) as client:
        bundle = push(client, tiny_bundle(tmp_path / "source"))
        failed = switch(client, bundle, expected=None)
        assert failed.status == "failed"
        assert failed.reason.startswith(
            f"the proxy at http://127.0.0.1:{blind} does not answer with the release within 1 s of its reload: no "
        )
        assert client.state().current is None


def test_a_snippet_that_somebody_changed_is_written_anew_at_the_start(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with running(rig) as client:
        two(client, tmp_path)
        pid, port = slots(client)[0].pid, rig.sends_to()
        assert rig.snippet.stat().st_mode & 0o777 == 0o644
        rig.snippet.write_text("server 127.0.0.1:1;\n")
        rig.reload_with(f"touch {tmp_path}/reloaded")
        rig.node.restart_leaving()
        eventually((tmp_path / "reloaded").exists, "a reload", rig.node)
        assert rig.sends_to() == port
        assert slots(client)[0].pid == pid


def test_settings_with_slots_and_without_leave_nothing_behind(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    text = rig.node.config.read_text()
    plain = text.partition("[slots]")[0] + "[app]" + text.partition("[app]")[2]
    rig.node.config.write_text(plain)
    with running(rig) as client:
        old, new = two(client, tmp_path)
        assert client.state().app.slots == ()
        for settings, wanted in ((text, new), (plain, old), (text, new)):
            rig.node.config.write_text(settings)
            rig.node.restart_leaving()
            eventually(lambda: client.probe_health().healthy, "the program", rig.node)
            assert len(below(rig.node.data / "releases")) == 1
            assert switch(client, wanted, expected=old if wanted == new else new).status == "succeeded"
            state = client.state()
            pids = {slot.pid for slot in state.app.slots if slot.pid} or {state.app.pid}
            assert {process.pid for process in below(rig.node.data / "releases")} == pids
            assert len(pids) == (2 if settings == text else 1)


def test_a_port_that_changed_in_the_settings_moves_the_traffic(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with running(rig) as client:
        old, _ = two(client, tmp_path)
        text, ports = rig.node.config.read_text(), [free_port(), free_port()]
        rig.node.config.write_text(text.replace(f"ports = [{rig.ports[0]}, {rig.ports[1]}]", f"ports = {ports}"))
        rig.node.restart_leaving()
        eventually(
            lambda: client.state().app.slots[0].traffic and client.probe_health().healthy, "the traffic", rig.node
        )
        assert rig.sends_to() in ports
        assert client.probe_health().bundle == old
        assert [process.pid for process in below(rig.node.data / "releases")] == [slots(client)[0].pid]


def test_a_machine_that_restarts_in_the_middle_runs_the_old_release_first(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with running(rig) as client:
        old, new = two(client, tmp_path)
        before = slots(client)[0]
        rig.node.restart_leaving({"ASHAT_FAULT": "switch.app-started"})
        ask(client, new, old)
        assert rig.node.wait_until_dead() == -9
        for process in below(tmp_path):
            process.kill()
        rig.node.start()
        assert client.wait_operation("op", timeout=90).status == "succeeded"
        active, idle = slots(client)
        assert (active.bundle, idle.bundle) == (new, old)
        assert (idle.name, idle.pid != before.pid) == (before.name, True)
        assert {process.pid for process in below(rig.node.data / "releases")} == {active.pid, idle.pid}


def test_a_warm_slot_whose_program_ended_is_started_anew(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with running(rig) as client:
        old, new = two(client, tmp_path)
        assert switch(client, new, expected=old).status == "succeeded"
        pid = slots(client)[1].pid
        assert pid is not None
        psutil.Process(pid).kill()
        eventually(lambda: slots(client)[1].pid not in (pid, None), "the program, started again", rig.node)
        again = slots(client)[1].pid
        assert switch(client, old, expected=new).status == "succeeded"
        assert slots(client)[0].pid not in (pid, again), "one that ends by itself is not trusted with the traffic"


def test_nothing_runs_any_more_where_that_is_asked_for(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with running(rig) as client:
        old, new = two(client, tmp_path)
        assert switch(client, new, expected=old).status == "succeeded"
        assert switch(client, None, expected=new).status == "succeeded"
        assert below(rig.node.data / "releases") == []
        assert not (rig.node.data / "current").is_symlink()
        assert switch(client, old, expected=None).status == "succeeded"
        assert client.probe_health().bundle == old


def test_a_rollback_of_omega_starts_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    text = rig.node.config.read_text()
    rig.node.config.write_text(text.replace('role = "public"', 'role = "omega"\nunsigned_releases = true'))
    rig.node.role = Role.OMEGA
    with running(rig) as client:
        old, new = (push(client, tiny_bundle(tmp_path / name, note=name)) for name in ("old", "new"))
        promote(client, old)
        pid = slots(client)[0].pid
        promote(client, new, "UPD-2")
        assert roll_back(client).status == "succeeded"
        assert slots(client)[0].pid == pid
        assert client.probe_health().bundle == old


def test_the_migrate_step_runs_beside_what_has_the_traffic(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    step = f'[migrate]\ncommand = ["sh", "-c", "echo $RAOS_PORT > {tmp_path}/port"]\n'
    with running(rig) as client:
        old, _ = two(client, tmp_path)
        active = slots(client)[0]
        new = push(client, tiny_bundle(tmp_path / "migrating", **{"raos.toml": step}))
        done = switch(client, new, expected=old)
        assert [each.name for each in done.steps] == ["materialise", "migrate", "start", "settle", "traffic", "link"]
        assert int((tmp_path / "port").read_text()) == active.port
        assert slots(client)[1].pid == active.pid


def test_a_node_without_slots_has_none_to_ask(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", app=tiny_app()) as node, node.client() as client:
        with pytest.raises(NodeRefusedError, match="This node has no slots"):
            client.probe_health("blue")
        assert "slot" not in ashat_node("status", "--data", str(node.data)).stdout


@requires_root
def test_programs_of_another_user_cannot_say_where_the_traffic_goes(place: Path) -> None:
    rig = Rig(place)
    text = rig.node.config.read_text()
    command = json.dumps([SYSTEM_PYTHON, "-I", "-S", "app.py"])
    text = re.sub(r"(?m)^command = .*$", f'command = {command}\nuser = "nobody"', text)
    rig.node.config.write_text(text)
    with running(rig) as client:
        old, new = two(client, place)
        assert switch(client, new, expected=old).status == "succeeded"
        assert {psutil.Process(slot.pid).username() for slot in slots(client)} == {"nobody"}
        assert rig.node.stop() == 0
        rig.snippet.parent.chmod(0o777)
        with pytest.raises(
            AssertionError, match=f"'nobody' could change {rig.snippet.parent}, which decides what this"
        ):
            rig.node.start()


def test_logs_of_both_slots_are_apart(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with running(rig) as client:
        old = push(client, tiny_bundle(tmp_path / "old", says="I am the old one\n"))
        new = push(client, tiny_bundle(tmp_path / "new", says="I am the new one\n"))
        assert switch(client, old, expected=None).status == "succeeded"
        first = client.program_log()
        assert (first.log, list(first.lines)) == ("app-blue.log", ["I am the old one"])
        assert switch(client, new, expected=old).status == "succeeded"
        second = client.program_log()
        assert (second.log, list(second.lines)) == ("app-green.log", ["I am the new one"])


def test_what_check_says_of_slots(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    said = ashat_node("check", "--config", str(rig.node.config)).stdout
    assert f"the snippet can be written in {rig.snippet.parent}" in said
    text = rig.node.config.read_text()
    rig.node.config.write_text(text.replace(f'reload = ["{rig.script}"', 'reload = ["no-such-proxy"'))
    rig.snippet.parent.rmdir()
    checked = ashat_node("check", "--config", str(rig.node.config))
    assert checked.returncode == 1
    assert "the reload no-such-proxy is not there, or cannot be executed" in checked.stdout
    assert f"{rig.snippet.parent}, where the snippet is to be, is no directory" in checked.stdout
