"""Connections that strangers hold, drip into and do not read from stop no node, and do not keep its owner out."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from ashat.protocol.messages import Role
from tests.support.fakes.bad_network import make_certificate
from tests.support.processes.node import NodeProcess, push, switch, tiny_app, tiny_bundle
from tests.support.processes.omega import eventually

DESCRIPTORS = 1024
IDLE = 1200
GET = b"GET /v1/identity HTTP/1.1\r\nHost: node\r\n"


@contextmanager
def idle(node: NodeProcess, count: int, first: bytes = b"", own_address: bool = True) -> Iterator[list[socket.socket]]:
    """So many connections that send `first` and then nothing, from several addresses of loopback or from one."""
    with ExitStack() as stack:
        opened = []
        for number in range(count):
            source = f"127.0.{number % 40 + 1 if own_address else 9}.1"
            connection = socket.create_connection(("127.0.0.1", node.port), 30, (source, 0))
            opened.append(stack.enter_context(connection))
            with suppress(OSError):
                connection.sendall(first)
        yield opened


def still_open(connections: list[socket.socket]) -> int:
    count = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            count += bool(connection.recv(1))
        except BlockingIOError:
            count += 1
        except OSError:
            continue
    return count


@pytest.fixture(params=["http", "https"])
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[NodeProcess]:
    tls = make_certificate(tmp_path) if request.param == "https" else None
    with NodeProcess(
        tmp_path / "public", app=tiny_app(), tls=(*tls, tls[0]) if tls else None, descriptors=DESCRIPTORS
    ) as started:
        yield started


@pytest.mark.parametrize("own_address", [True, False], ids=["many addresses", "one address"])
def test_an_owner_gets_through_more_idle_connections_than_there_are_descriptors(
    node: NodeProcess, tmp_path: Path, own_address: bool
) -> None:
    with node.client() as client:
        first = push(client, tiny_bundle(tmp_path / "one"))
        second = push(client, tiny_bundle(tmp_path / "two", more="2"))
        assert switch(client, first, expected=None).status == "succeeded"
        assert switch(client, second, expected=first).status == "succeeded"
        with idle(node, IDLE, b"" if node.ca else GET, own_address) as opened:
            assert psutil.Process(node.pid).num_fds() < DESCRIPTORS
            with node.client() as late:
                assert switch(late, first, expected=second).status == "succeeded"
            assert client.state().current is not None
            kept = still_open(opened)
            assert 0 < kept <= (DESCRIPTORS - 256 if own_address else 192)
    assert len(node.log()) < 64 * 1024


def test_where_no_descriptor_is_free_connections_are_turned_away(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "public", app=tiny_app()) as node, node.client() as client:
        client.identity()
        process = psutil.Process(node.pid)
        resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (process.num_fds() + 4, DESCRIPTORS))
        with idle(node, 100):
            assert client.identity().role is Role.PUBLIC
            spent = process.cpu_times().user
            time.sleep(1)
            assert process.cpu_times().user - spent < 0.9
        eventually(lambda: _answers(node), "an answer once they have gone", node)
        assert len(node.log()) < 64 * 1024


def _answers(node: NodeProcess) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{node.url}/healthz").status_code == 200
    return False
