"""A Mainframe whose OMEGA answers what it likes keeps asking, and keeps its pace."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from pathlib import Path

from ashat.common.identifiers import new_key
from ashat.protocol.messages import Role
from tests.support.fakes.stranger import OK, stranger
from tests.support.processes.node import NodeProcess
from tests.support.processes.omega import eventually

IDENTITY = json.dumps({"role": "omega", "name": "o", "node_version": "1", "current": None, "status": "x"}).encode()


def _busy(value: str) -> bytes:
    return f"HTTP/1.1 503 Busy\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")


def _answer(body: bytes, more: str = "") -> bytes:
    return OK + f"{more}Content-Length: {len(body)}\r\n\r\n".encode("latin-1") + body


ANSWERS = [
    *map(_busy, ("99999999999", "2592000", "²", "9" * 5000, "-1", "Fri, 31 Dec 9999 23:59:59 GMT")),
    _answer(IDENTITY),
    b"HTTP/1.1 204 No Content\r\nAshat-Journal: " + b"9" * 5000 + b"\r\n\r\n",
    _answer(IDENTITY),
    _answer(b"[" * 100_000),
    _answer(IDENTITY),
    _answer(b'{"release_seq": ' + b"9" * 5000 + b"}"),
    _answer(IDENTITY),
    _answer(b"{}", "Content-Encoding: gzip\r\n"),
]


def test_no_answer_of_omegas_silences_a_mainframe(tmp_path: Path) -> None:
    asked = itertools.count(1)
    count = 0

    def odd(connection: socket.socket, _: threading.Event) -> None:
        nonlocal count
        count = next(asked)
        connection.sendall(ANSWERS[(count - 1) % len(ANSWERS)])

    with (
        stranger(odd) as url,
        NodeProcess(
            tmp_path / "m",
            role=Role.MAINFRAME,
            settings={"poll_interval": 0.05},
            omega=url,
            licence_key=new_key(),
        ) as node,
    ):
        eventually(lambda: count > 2 * len(ANSWERS), "answers to all of them", node)
        with node.client() as client:
            state = client.state()
            assert client.transport.json("GET", "/healthz") == {"status": "ok"}
        assert state.agent is not None
        assert "has ended" not in state.agent.detail
        assert "Traceback" not in node.log()
