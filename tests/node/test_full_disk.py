"""A node on a small disk: what runs there goes on running, whatever the disk refuses, and everything says why."""

from __future__ import annotations

import os
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ashat.bundle.pack import pack_directory
from ashat.client.node import NodeClient
from ashat.client.transfer import lacking
from ashat.common import rotation
from ashat.errors import NodeFaultError
from ashat.node.store.reserve import FILES
from ashat.protocol.frames import frame_header
from ashat.protocol.messages import FRAMES, Role
from tests.support.needs import requires_mount
from tests.support.processes.node import QUICK, NodeProcess, push, switch, tiny_app, tiny_bundle
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import licence, ship
from tests.support.processes.small_disk import MIB, SmallDisk, small_disk

pytestmark = requires_mount


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def node(disk: SmallDisk) -> Iterator[NodeProcess]:
    with NodeProcess(disk.path / "public", app=tiny_app()) as node:
        yield node


def until(seen: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def runs(client: NodeClient, bundle: str) -> bool:
    """Whether the program of that bundle answers, and the record says so."""
    current = client.state().current
    return client.probe_health().bundle == bundle and current is not None and current.bundle == bundle


def program_of(client: NodeClient) -> int:
    pid = client.state().app.pid
    assert pid is not None
    return pid


def test_a_day_on_a_disk_of_100_mb(node: NodeProcess, disk: SmallDisk, tmp_path: Path) -> None:
    with node.client() as client:
        first = push(client, tiny_bundle(tmp_path / "first"))
        second = push(client, tiny_bundle(tmp_path / "second", big="x" * (6 * MIB)))
        assert switch(client, first, expected=None).status == "succeeded"
        pid = program_of(client)

        # Its log takes half of the disk, somebody else the rest: it is cut, though there is no room for a copy.
        log = node.data / "app.log"
        with log.open("ab") as program:
            program.write(b"x" * (rotation.FILE_BYTES + 30 * MIB))
        disk.fill()
        until(lambda: log.stat().st_size <= rotation.FILE_BYTES)
        assert sum(path.stat().st_size for path in node.data.glob("app.log*")) <= 2 * rotation.FILE_BYTES
        assert program_of(client) == pid

        # A switch for which there is no room is refused or fails as that, and what runs is left alone.
        fill_while_others_give_back(disk)
        assert re.match(r"(disk_full|failed): .*is full", _refused_switch(client, second, first))
        assert program_of(client) == pid
        with pytest.raises(NodeFaultError, match=r"has 0\.0 MB free, and \d+\.\d MB are needed") as refused:
            push(client, tiny_bundle(tmp_path / "third", big="y" * MIB))
        assert refused.value.body["error"] == "disk_full"

        # The program ends on the full disk: it is started again at once.
        os.kill(pid, signal.SIGKILL)
        until(lambda: program_of_or_none(client) not in (None, pid))
        until(lambda: runs(client, first))

        # The node is killed, and stopped: each time it starts on the full disk, and runs what it recorded.
        node.kill9()
        node.start()
        until(lambda: runs(client, first))
        for _ in range(2):
            disk.fill()
            node.restart()
            until(lambda: runs(client, first))

        # There is room again: everything goes on, and the node keeps a reserve anew.
        disk.free_again()
        until(lambda: len(list((node.data / "reserve").glob("*"))) == FILES)
        until(lambda: client.state().operation is None or client.state().operation.status != "running")
        if not runs(client, second):
            assert switch(client, second, expected=first).status == "succeeded"
        until(lambda: runs(client, second))
    assert "Traceback" not in node.log()


def fill_while_others_give_back(disk: SmallDisk) -> None:
    """Take all room, until for half a second nothing that is written or rotated beside us gives any back."""

    def stays_full() -> bool:
        disk.fill()
        time.sleep(0.5)
        return disk.free == 0

    until(stays_full)


def _refused_switch(client: NodeClient, bundle: str, running: str) -> str:
    try:
        operation = switch(client, bundle, expected=running)
    except NodeFaultError as error:
        return f"{error.body['error']}: {error}"
    return f"{operation.status}: {operation.reason}"


def program_of_or_none(client: NodeClient) -> int | None:
    return client.state().app.pid


def staged(node: NodeProcess) -> list[str]:
    return os.listdir(node.data / "store" / "staging")


def large(directory: Path, size: int) -> Path:
    source = tiny_bundle(directory)
    (source / "large").write_bytes(os.urandom(size))
    return source


def test_what_does_not_fit_is_refused_with_both_figures_before_its_first_byte(
    node: NodeProcess, disk: SmallDisk, tmp_path: Path
) -> None:
    with node.client() as client:
        until(lambda: len(list((node.data / "reserve").glob("*"))) == FILES)
        free = disk.free
        with pytest.raises(NodeFaultError) as refused:
            push(client, large(tmp_path / "large", 45 * MIB))
        words = r"has (\S+) MB free, and (\S+) MB are needed: (\S+) MB .* (\S+) MB for the release"
        told = re.search(words, str(refused.value))
        assert told, refused.value
        has, needs, lacking, release = (float(figure) for figure in told.groups())
        assert abs(has - free / 1e6) < 1
        assert (47 < lacking < 49, 47 < release < 49, needs > lacking + release) == (True, True, True)
        assert (abs(disk.free - free) < MIB, staged(node)) == (True, [])
        assert switch(client, push(client, large(tmp_path / "fits", 30 * MIB)), expected=None).status == "succeeded"


def test_what_was_staged_goes_when_it_cannot_be_used_or_is_called_off(
    node: NodeProcess, disk: SmallDisk, tmp_path: Path
) -> None:
    with node.client() as client, pack_directory(large(tmp_path / "large", 30 * MIB)) as packed:
        digests = list(packed.manifest.objects)
        for ending in ("full", "called off"):
            lacking(client.transport, digests, packed.manifest.digest)
            sent = digests[:3]
            frames = b"".join(
                frame_header(digest, len(content)) + content
                for digest, content in ((digest, packed.read_object(digest)) for digest in sent)
            )
            client.transport.request("POST", "/v1/objects", content=frames, headers={"Content-Type": FRAMES})
            assert len(staged(node)) == 3
            if ending == "full":
                disk.fill(leave=20 * MIB)
                with pytest.raises(NodeFaultError, match="are needed"):
                    client.push_bundle(packed)
                disk.free_again()
            else:
                client.abandon(packed.manifest.digest)
            assert staged(node) == []
        assert client.push_bundle(packed).bytes_sent == sum(packed.manifest.objects.values())


def test_a_mainframe_looks_for_room_before_it_pulls(disk: SmallDisk, tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app()) as omega, omega.client() as client:
        ship(client, large(tmp_path / "large", 45 * MIB))
        with (
            NodeProcess(
                disk.path / "mainframe",
                role=Role.MAINFRAME,
                app=tiny_app(),
                settings={"poll_interval": 0.2},
                omega=omega.url,
                licence_key=licence(client, "mainframe"),
            ) as node,
            node.client() as customer,
        ):
            until(lambda: (agent := customer.state().agent) and "are needed" in agent.detail)
            assert staged(node) == []
            agent = customer.state().agent
            assert agent
            assert re.search(r"could not be pulled: The disk of .* has \S+ MB free, and \S+ MB are", agent.detail)


def test_a_mainframe_lets_go_what_it_does_not_need_before_it_refuses(tmp_path: Path) -> None:
    """A release of 12 MiB takes 24 of the disk's 110: the store's objects, and the release's files."""
    with (
        small_disk(tmp_path / "disk", size=110 * MIB) as disk,
        NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app()) as omega,
        omega.client() as client,
        NodeProcess(
            disk.path / "mainframe",
            role=Role.MAINFRAME,
            app=tiny_app(),
            settings={"poll_interval": 0.2},
            omega=omega.url,
            licence_key=licence(client, "mainframe"),
        ) as node,
        node.client() as customer,
    ):
        shipped = [ship(client, large(tmp_path / "0", 12 * MIB)).bundle]
        for number in range(1, 4):
            until(lambda: customer.state().current is not None and runs(customer, shipped[-1]))
            shipped.append(ship(client, large(tmp_path / str(number), 12 * MIB)).bundle)
        until(lambda: runs(customer, shipped[-1]))
        assert "for want of room, what was not needed was let go: 1 bundles and" in node.log()
        kept = set(os.listdir(node.data / "store" / "bundles"))
        assert kept == set(shipped[1:])
        assert shipped[0] not in os.listdir(node.data / "releases")

        pid = program_of(customer)
        disk.fill(leave=10 * MIB)
        late = ship(client, large(tmp_path / "late", 12 * MIB)).bundle
        asks = omega.log().count(f"/v1/mainframe/bundles/{late}")
        until(lambda: "It goes on by itself" in _agent(customer))
        assert re.search(r"has \d+\.\d MB free, and \d+\.\d MB are needed", _agent(customer))
        os.kill(pid, signal.SIGKILL)
        until(lambda: program_of_or_none(customer) not in (None, pid))
        until(lambda: omega.log().count(f"/v1/mainframe/bundles/{late}") > asks + 3)
        reports = client.transport.json("GET", f"/v1/mainframes/{client.mainframes()[0].id}/reports")["reports"]
        told = [report for report in reports if report["bundle"] == late]
        assert [(report["result"], report["times"]) for report in told] == [("failed", 1)], "it says so once"
        assert node.log().count("could not be pulled") == 1
        disk.free_again()
        until(lambda: runs(customer, late))
    assert "Traceback" not in node.log()


def _agent(client: NodeClient) -> str:
    agent = client.state().agent
    return agent.detail if agent else ""


_FILLS = """
import os, sys
with open(os.path.join(os.environ["RAOS_DATA"], "everything"), "ab", buffering=0) as file:
    while True:
        try:
            file.write(bytes(1 << 20))
        except OSError:
            sys.exit(3)
"""


def test_a_release_that_fills_the_disk_and_ends_is_switched_back(
    node: NodeProcess, disk: SmallDisk, tmp_path: Path
) -> None:
    greedy = tiny_bundle(tmp_path / "greedy")
    (greedy / "app.py").write_text(_FILLS)
    with node.client() as client:
        first, second = push(client, tiny_bundle(tmp_path / "first")), push(client, greedy)
        switch(client, first, expected=None)
        operation = switch(client, second, expected=first)
        assert (operation.status, operation.switched_back) == ("failed", True)
        assert disk.free < MIB
        assert runs(client, first)


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def healthy() -> Iterator[str]:
    """The address of a program that is always well."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_hook_puts_back_what_ran_on_a_disk_that_filled_meanwhile(
    disk: SmallDisk, healthy: str, tmp_path: Path
) -> None:
    hook = tmp_path / "hook"
    hook.write_text(
        "#!/bin/sh\n"
        f'if [ -e "$ASHAT_RELEASE/greedy" ]; then cat /dev/zero > {disk.path}/everything; exit 1; fi\n'
        f'echo "$ASHAT_BUNDLE" > {tmp_path}/runs\n'
    )
    hook.chmod(0o755)
    app = {**QUICK, "hook": [str(hook)], "url": healthy}
    with NodeProcess(disk.path / "public", app=app) as node, node.client() as client:
        first = push(client, tiny_bundle(tmp_path / "first"))
        second = push(client, tiny_bundle(tmp_path / "second", greedy="yes"))
        assert switch(client, first, expected=None).status == "succeeded"
        operation = switch(client, second, expected=first)
        assert (operation.status, operation.switched_back) == ("failed", True)
        assert operation.reason.startswith("the hook ended with exit code 1"), operation.reason
        assert "not well either" not in operation.reason
        assert (tmp_path / "runs").read_text().strip() == first
        assert disk.free < MIB


def test_without_inodes_what_runs_goes_on_and_the_node_starts(
    node: NodeProcess, disk: SmallDisk, tmp_path: Path
) -> None:
    with node.client() as client:
        first = push(client, tiny_bundle(tmp_path / "first"))
        switch(client, first, expected=None)
        disk.crowd()
        with pytest.raises(NodeFaultError, match=r"has 0 inodes free, and \d+ are needed") as refused:
            push(client, tiny_bundle(tmp_path / "second", more="more"))
        assert (refused.value.status, refused.value.body["error"]) == (507, "disk_full")
        pid = program_of(client)
        os.kill(pid, signal.SIGKILL)
        until(lambda: program_of_or_none(client) not in (None, pid))
        until(lambda: runs(client, first))
        node.restart()
        until(lambda: runs(client, first))
    assert "Traceback" not in node.log()


def test_a_node_without_descriptors_starts_its_program_again_once_it_has_some(
    node: NodeProcess, tmp_path: Path
) -> None:
    with node.client() as client:
        first = push(client, tiny_bundle(tmp_path / "first"))
        switch(client, first, expected=None)
        pid = program_of(client)
        before = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        os.kill(pid, signal.SIGKILL)
        until(lambda: "as many files open as it may" in node.log())
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, before)
        until(lambda: program_of_or_none(client) not in (None, pid))
        until(lambda: runs(client, first))


def test_a_disk_that_is_read_only_is_named_as_that(node: NodeProcess, disk: SmallDisk) -> None:
    node.stop()
    disk.remount("ro")
    for command in ("serve --config", "token add --scope read --config"):
        ended = ashat_node(*command.split(), node.config)
        assert ended.returncode in (1, 2)
        assert re.fullmatch(r"ashat-node: .*read-only.*\n", ended.stderr, re.IGNORECASE)
    disk.remount("rw")
