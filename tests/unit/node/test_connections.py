"""What a connection may cost a node in time, on real sockets, and which of them are cut first."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import pytest
import uvicorn

from ashat.node import connections as subject
from ashat.node.connections import Connections, Listening, NodeProtocol
from ashat.node.logs.line_throttle import LINES_OF_STRANGERS, WARNINGS, LineThrottle

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
LATEST = 20.0


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body; `/known` is somebody who is known here, `/large` an answer that never fits into a socket,
    `/digest` is that of the body, `/early` comes without the body being read, and `/late` a while after it was."""
    path = scope["path"]
    scope["state"]["known"] = path == "/known"
    digest, more = hashlib.sha256(), path != "/early"
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body")
    await asyncio.sleep(1.5 if path == "/late" else 0)
    body = {"/large": b"x" * 64 * 1024 * 1024, "/digest": digest.hexdigest().encode() + b"ok"}.get(path, b"ok")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    for start in range(0, len(body), 1 << 20):
        await send({"type": "http.response.body", "body": body[start : start + (1 << 20)], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADER_SECONDS", "BODY_SECONDS", "STALL_SECONDS"):
        monkeypatch.setattr(subject, name, 0.5)


@contextmanager
def serving(descriptors: int = 1000) -> Iterator[tuple[int, Connections]]:
    connections = Connections(descriptors)
    with Listening(socket.AF_INET, connections) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        config = uvicorn.Config(
            app, loop="asyncio", http=cast(Any, partial(NodeProtocol, connections)), ws="none", lifespan="off",
            log_config=None, access_log=False, timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)

        async def run() -> None:
            serve = asyncio.create_task(server.serve(sockets=[listening]))
            while not serve.done():
                await asyncio.sleep(0.05)
                connections.look()

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        try:
            yield listening.getsockname()[1], connections
        finally:
            server.should_exit = True
            thread.join(30)


def connect(port: int, first: bytes = b"", host: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 30, (host, 0))
    connection.sendall(first)
    return connection


def asked(connection: socket.socket, request: bytes = b"") -> bytes:
    """What comes of `request`, a small answer."""
    connection.sendall(request)
    received = b""
    while not received.endswith(b"ok") and (data := connection.recv(100)):
        received += data
    return received


def everything(connection: socket.socket) -> bytes:
    """What comes until the end."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionError:
        pass
    return received


def drip(connection: socket.socket, piece: bytes) -> None:
    """Send that now and then, until nobody takes it."""
    began = time.monotonic()
    with suppress(ConnectionError):
        while time.monotonic() - began < LATEST:
            connection.sendall(piece)
            time.sleep(0.05)
    assert time.monotonic() - began < LATEST


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (b"", b"408"),
        (GET, b"408"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", b"408"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", b"408"),
        (b"no http at all\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100_000, b"400"),
    ],
    ids=["nothing", "half of the headers", "half of a body", "half of a chunk", "no HTTP", "endless headers"],
)
def test_a_request_that_does_not_come_is_ended_with_a_line(first: bytes, answer: bytes) -> None:
    with serving() as (port, _), connect(port) as connection:
        try:
            connection.sendall(first)
        except ConnectionError:
            return  # it was answered before all of it was sent
        told = everything(connection)
        assert not told or (told.startswith(b"HTTP/1.1 " + answer) and b'"detail"' in told)


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (GET, b"X: y\r\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", b"z"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nz\r\n"),
        (GET + b"\r\n" + GET, b"X: y\r\n"),
    ],
    ids=["headers", "a body", "chunks", "the headers of a second request"],
)
def test_what_drips_is_ended(first: bytes, piece: bytes) -> None:
    with serving() as (port, _), connect(port, first) as connection:
        drip(connection, piece)


def test_an_answer_that_nobody_takes_is_ended() -> None:
    with serving() as (port, connections), connect(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        connection.recv(1)
        deadline = time.monotonic() + LATEST
        while connections.count and time.monotonic() < deadline:
            time.sleep(0.05)
        assert connections.count == 0


def test_a_body_that_comes_steadily_may_take_longer() -> None:
    with serving() as (port, _):
        size = 30 * 4096
        with connect(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size) as connection:
            for _ in range(30):
                connection.sendall(b"z" * 4096)
                time.sleep(0.05)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_strangers_push_out_strangers_and_never_who_is_known() -> None:
    known = b"GET /known HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(descriptors=16) as (port, connections):
        assert (connections.most, connections.most_of_an_address) == (8, 2)
        with connect(port) as owner:
            assert asked(owner, known).endswith(b"ok")
            strangers = [connect(port, host=f"127.0.1.{number + 1}") for number in range(20)]
            assert asked(owner, known).endswith(b"ok")
            time.sleep(0.3)
            assert connections.count <= connections.most
            for stranger in strangers:
                stranger.close()


def test_who_is_known_may_be_cut_for_another_where_all_are() -> None:
    known = b"GET /known HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(descriptors=16) as (port, connections):
        held = []
        for number in range(20):
            held.append(connect(port, host=f"127.0.1.{number + 1}"))
            assert asked(held[-1], known).endswith(b"ok")
        assert connections.count <= connections.most
        for connection in held:
            connection.close()


def test_repeated_lines_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    throttle, at = LineThrottle(), 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ashat.node.logs.line_throttle.time.monotonic", lambda: at)

        def line(level: int, name: str, text: str, *args: object) -> logging.LogRecord | None:
            record = logging.LogRecord(name, level, "", 0, text, args, None)
            return record if throttle.filter(record) else None

        kept = [line(logging.WARNING, "a", "number %d", number) for number in range(WARNINGS + 1000)]
        assert sum(record is not None for record in kept) == WARNINGS
        assert line(logging.WARNING, "a", "something else")
        assert all(line(logging.INFO, "a", "number %d", number) for number in range(WARNINGS + 1))
        strangers = "ashat.node.access.strangers"
        assert (
            sum(bool(line(logging.INFO, strangers, "%s", number)) for number in range(LINES_OF_STRANGERS + 9))
            == LINES_OF_STRANGERS
        )
        at = 11.0
        record = line(logging.WARNING, "a", "number %d", 1)
    assert record is not None
    assert record.getMessage() == "number 1 (1000 more such lines were left out before)"


def post(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("seed", range(3))
def test_requests_of_all_sizes_follow_each_other_on_a_connection_however_they_are_cut(seed: int) -> None:
    draw = random.Random(seed)
    bodies = [draw.randbytes(size) for size in (0, 1, 70_000, 262_143, 262_144, 262_145, 1 << 20, 3_000_000)] * 2
    draw.shuffle(bodies)
    stream = b"".join(post("/digest", body) for body in bodies)

    def send(connection: socket.socket) -> None:
        start = 0
        while start < len(stream):
            end = start + draw.choice((1, 100, 5_000, 300_000, 2_000_000))
            connection.sendall(stream[start:end])
            start = end

    with serving() as (port, _), connect(port) as connection:
        sending = threading.Thread(target=send, args=[connection])
        sending.start()
        received = b""
        while received.count(b"HTTP/1.1 200") < len(bodies) or not received.endswith(b"ok"):
            received += connection.recv(65536)
        sending.join()
    answers = received.split(b"HTTP/1.1 200")[1:]
    assert [answer[-66:-2].decode() for answer in answers] == [hashlib.sha256(body).hexdigest() for body in bodies]


@pytest.mark.parametrize("size", [10, 100_000, 5_000_000])
def test_what_follows_a_body_that_nobody_read_is_read(size: int) -> None:
    with serving() as (port, _), connect(port) as connection:
        assert asked(connection, post("/early", bytes(size))).endswith(b"ok")
        assert hashlib.sha256(b"abc").hexdigest().encode() in asked(connection, post("/digest", b"abc"))


def test_nobody_is_cut_whose_large_body_came_and_whose_answer_takes_its_time() -> None:
    with serving() as (port, _), connect(port) as connection:
        assert asked(connection, post("/late", bytes(1_000_000))).endswith(b"ok")


def test_a_large_body_that_ends_early_is_no_request() -> None:
    with serving() as (port, _), connect(port) as connection:
        connection.sendall(post("/digest", bytes(1_000_000))[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert b"200" not in everything(connection)
