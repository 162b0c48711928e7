"""The client that measures: every way in which a server may end an answer, and those in which it should not."""

from __future__ import annotations

import asyncio
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tasks.checks.kit.load import Load
from tasks.checks.kit.samples import Sample
from tests.checks.test_sample import running

OK = b"HTTP/1.1 200 OK\r\n"
LIMIT = 1000
CANNED = {
    "/length": OK + b"Content-Length: 5\r\n\r\nhello",
    "/chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "/early": b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "/close": OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello",
    "/to-the-end": OK + b"\r\nhello",
    "/nothing": b"HTTP/1.1 204 No Content\r\n\r\n",
    "/old": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "/missing": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "/away": b"HTTP/1.1 302 Found\r\nLocation: /away\r\nContent-Length: 0\r\n\r\n",
    "/cut": OK + b"Content-Length: 50\r\n\r\nhello",
    "/garbage": b"\x00\x01\x02\r\n\r\n",
    "/huge": OK + b"Content-Length: 5000\r\n\r\n" + b" " * 5000,
    "/silent": b"",
    "/leaves-quietly": OK + b"Content-Length: 5\r\n\r\nhello",
}
CLOSING = {"/close", "/to-the-end", "/old", "/cut", "/garbage", "/silent", "/leaves-quietly"}


class Canned(socketserver.ThreadingTCPServer):
    """Answers each path with its bytes, and counts the connections."""

    daemon_threads = True
    allow_reuse_address = True
    connections = 0


class Handler(socketserver.StreamRequestHandler):
    server: Canned

    def handle(self) -> None:
        self.server.connections += 1
        while line := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            path = line.split()[1].decode()
            self.wfile.write(CANNED[path.removeprefix("/under")])
            if path in CLOSING:
                return


@contextmanager
def canned() -> Iterator[Canned]:
    with Canned(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(30)


def ask(server: Canned, *paths: str, requests: int = 3, concurrency: int = 1, below: str = "") -> list[Sample]:
    load = Load(paths, requests, concurrency, 2, LIMIT)
    return asyncio.run(load.run(f"http://127.0.0.1:{server.server_address[1]}{below}", None))


@pytest.mark.parametrize("path", ["/length", "/chunked", "/early", "/nothing"])
def test_a_connection_is_used_again(path: str) -> None:
    with canned() as server:
        samples = ask(server, path)
        assert [sample.error for sample in samples] == [""] * 3
        assert server.connections == 1
        assert all(sample.us > 0 for sample in samples)


@pytest.mark.parametrize("path", ["/close", "/to-the-end", "/old", "/leaves-quietly"])
def test_a_server_may_close_after_an_answer(path: str) -> None:
    with canned() as server:
        assert [sample.error for sample in ask(server, path)] == [""] * 3
        assert server.connections == 3


@pytest.mark.parametrize(
    ("path", "error", "connections"),
    [
        ("/missing", "status 404", 1),
        ("/away", "status 302", 1),
        ("/cut", "no answer: peer closed connection", 3),
        ("/garbage", "no answer: illegal status line", 3),
        ("/huge", "the answer has more than 1000 bytes", 3),
        ("/silent", "no answer: the server closed the connection", 3),
    ],
)
def test_what_is_no_good_answer_is_said_and_the_next_is_asked(path: str, error: str, connections: int) -> None:
    with canned() as server:
        samples = ask(server, path)
        assert len(samples) == 3
        assert all(sample.error.startswith(error) for sample in samples), samples
        assert server.connections == connections


def test_paths_take_turns_and_a_prefix_is_kept() -> None:
    with canned() as server:
        samples = ask(server, "/length", "/missing", "/chunked", requests=6, below="/under/")
    assert [sample.path for sample in samples] == ["/length", "/missing", "/chunked"] * 2
    assert [sample.error for sample in samples] == ["", "status 404", ""] * 2


def test_so_many_at_once_and_no_more() -> None:
    with canned() as server:
        assert len(ask(server, "/length", requests=40, concurrency=4)) == 40
        assert server.connections == 4


def test_a_warm_up_does_not_count() -> None:
    with canned() as server:
        load = Load(["/length", "/chunked"], 3, 1, 2, LIMIT, warm_up=5)
        samples = asyncio.run(load.run(f"http://127.0.0.1:{server.server_address[1]}", None))
    assert [sample.path for sample in samples] == ["/length", "/chunked", "/length"]


def test_more_requests_follow_while_there_is_time_and_bytes_are_counted() -> None:
    with canned() as server:
        url, now = f"http://127.0.0.1:{server.server_address[1]}", time.monotonic()
        whole = asyncio.run(Load(["/length", "/chunked"], 3, 2, 2, LIMIT, more=5, more_until=now + 60).run(url, None))
        late = asyncio.run(Load(["/length"], 3, 2, 2, LIMIT, more=5, more_until=now).run(url, None))
    assert (len(whole), len(late)) == (8, 3)
    assert {sample.size for sample in (*whole, *late)} == {5}


def test_nobody_there_is_said_so() -> None:
    with canned() as server:
        port = server.server_address[1]
    samples = asyncio.run(Load(["/"], 2, 1, 2, LIMIT).run(f"http://127.0.0.1:{port}", None))
    assert [sample.error.startswith("no answer: ") for sample in samples] == [True, True]


@pytest.mark.parametrize("fault", ["hang=/health", "drip=/health", "drip-headers=/health"])
def test_a_server_that_dawdles_costs_no_more_than_the_limits(
    tmp_path_factory: pytest.TempPathFactory, fault: str
) -> None:
    with running(tmp_path_factory.mktemp("load") / "data", faults=fault) as program:
        url = f"http://127.0.0.1:{program.port}"
        (late,) = asyncio.run(Load(["/health"], 1, 1, 0.3, LIMIT).run(url, None))
        started = time.monotonic()
        deadline = started + 0.5
        none = asyncio.run(Load(["/health"], 50, 4, 10, LIMIT, deadline=deadline).run(url, None))
        assert time.monotonic() - started < 15
    assert late.error == "no whole answer within 0.3 s"
    assert none == []
