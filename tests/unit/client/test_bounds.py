"""Whatever a server sends, each reader of ours ends in time, with one line, and without keeping what it sends."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
from tuf.api.exceptions import DownloadError

from ashat.client.http import RETRY_AFTER_LIMIT, Timeouts, Transport
from ashat.client.node import NodeClient
from ashat.errors import AshatError, NodeBusyError, NodeError, NodeRefusedError, NodeUnreachableError
from ashat.node.app_process.health import ask as ask_program
from ashat.trust.update_client.fetcher import TransportFetcher
from tasks.checks.kit.http import Web
from tasks.checks.scan.osv_api import ask_osv
from tasks.checks.scan.packages import Package
from tests.support.fakes.scripted_program import Program, context_of
from tests.support.fakes.stranger import OK, Behaviour, dripping, endless, saying, silent, stranger

SECONDS = 0.6
LATEST = 20.0
LIMIT = 64 * 1024
HUGE = 48 * 1024 * 1024

Reader = Callable[[str], object]


def through_transport(url: str) -> object:
    with Transport(url, timeouts=Timeouts(read=SECONDS)) as transport:
        return transport.json("GET", "/", limit=LIMIT)


def through_frames(url: str) -> object:
    with NodeClient(url, timeouts=Timeouts(read=SECONDS)) as client, client.transport.stream("GET", "/") as answer:
        received = 0
        for chunk in answer.iter_raw():
            received += len(chunk)
            if received > LIMIT:
                raise NodeRefusedError("sent more than it was asked for")
    raise NodeRefusedError("ended")


def through_tuf(url: str) -> object:
    with Transport(url) as transport:
        fetcher = TransportFetcher(transport, file_seconds=SECONDS)
        return fetcher.download_bytes(f"{url}/timestamp.json", LIMIT)


def of_the_program(url: str) -> object:
    return ask_program(url, timeout=SECONDS, limit=LIMIT)


def of_a_check(url: str) -> object:
    with Web(context_of(Program(url, {}), "")) as web:
        return web.ask("/", seconds=SECONDS, limit=LIMIT).json()


def of_advisories(url: str) -> object:
    return ask_osv(url, [Package("PyPI", "x", "1")], SECONDS)


READERS: list[Reader] = [
    through_transport,
    through_frames,
    through_tuf,
    of_the_program,
    of_a_check,
    of_advisories,
]
ENDLESS: dict[str, Behaviour] = {
    "says nothing": silent,
    "drips its body": dripping(OK + b"Content-Length: 1000000\r\n\r\n"),
    "drips a body without a length": dripping(OK + b"\r\n"),
    "drips chunks": dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "drips its headers": dripping(OK, b"X-More: yes\r\n"),
    "drips one header": dripping(OK + b"X-Long: ", b"y"),
    "never gets to its answer": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "sends headers for ever": endless(OK, b"X-More: yes\r\n"),
    "sends one header for ever": endless(OK + b"X-Long: ", b"y"),
    "sends a body for ever": endless(OK + b"\r\n", b"[],"),
    "sends chunks for ever": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"5\r\n[0],\n\r\n"),
    "fails and drips why": dripping(b"HTTP/1.1 404 Not Found\r\n\r\n"),
}


@pytest.mark.parametrize("reader", READERS)
def test_an_answer_that_does_not_end_is_given_up(reader: Reader) -> None:
    def wrong(name: str) -> str:
        began = time.monotonic()
        try:
            with stranger(ENDLESS[name]) as url:
                return f"{name}: {reader(url)!r:.100}"
        except (AshatError, DownloadError, ValueError) as error:
            in_time = time.monotonic() - began < LATEST and "\n" not in str(error)
            return "" if in_time else f"{name}: {time.monotonic() - began:.1f} s, {error}"

    with ThreadPoolExecutor(len(ENDLESS)) as threads:  # most of the time nothing is done but waiting
        assert list(filter(None, threads.map(wrong, ENDLESS))) == []


@pytest.mark.parametrize("reader", READERS)
def test_a_compressed_answer_costs_what_it_was_sent_as(reader: Reader) -> None:
    bomb = gzip.compress(b"[" + b" " * HUGE + b"]", 1)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    tracemalloc.start()
    try:
        with stranger(saying(head + bomb)) as url:
            try:
                reader(url)
            except (AshatError, DownloadError, ValueError) as error:
                assert "\n" not in str(error)  # noqa: PT017  those that keep bytes as they come may succeed
        assert tracemalloc.get_traced_memory()[1] < HUGE / 4
    finally:
        tracemalloc.stop()


def test_a_proxy_that_compresses_is_named() -> None:
    answer = OK + b"Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}"
    with stranger(saying(answer)) as url, pytest.raises(NodeRefusedError, match=r"compressed \('br'\)"):
        through_transport(url)


def test_an_answer_above_its_limit_is_no_nodes() -> None:
    answer = OK + b"Content-Length: %d\r\n\r\n" % (LIMIT + 1) + b" " * (LIMIT + 1)
    with stranger(saying(answer)) as url, pytest.raises(NodeRefusedError, match=f"more than {LIMIT} bytes"):
        through_transport(url)


def test_a_server_that_reads_too_slowly_is_given_up() -> None:
    """It takes a few bytes now and then, which a limit on each write would allow for ever."""

    def nibbling(connection: socket.socket, ended: threading.Event) -> None:
        while not ended.wait(0.05):
            connection.recv(512)

    began = time.monotonic()
    with (
        stranger(nibbling, reads=False) as url,
        Transport(url, timeouts=Timeouts(read=SECONDS)) as transport,
        pytest.raises(NodeUnreachableError, match="in time"),
    ):
        transport.request("POST", "/", content=b"x" * 32 * 1024 * 1024)
    assert time.monotonic() - began < LATEST


def test_an_answer_that_comes_steadily_may_take_longer() -> None:
    """8 KiB come each tenth of a second: more than the least, for three times the seconds of a silence."""
    pieces = iter([b"y" * 8192] * 18)

    def steady(connection: socket.socket, ended: threading.Event) -> None:
        connection.sendall(OK + b"Content-Length: %d\r\n\r\n" % (18 * 8192))
        for piece in pieces:
            ended.wait(0.1)
            connection.sendall(piece)

    with stranger(steady) as url, Transport(url, timeouts=Timeouts(read=SECONDS)) as transport:
        assert len(transport.request("GET", "/").content) == 18 * 8192


def test_waiting_for_ourselves_is_not_waiting_for_the_server() -> None:
    def two(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(OK + b"Content-Length: 200000\r\n\r\n" + b"z" * 200000)

    with (
        stranger(two) as url,
        Transport(url, timeouts=Timeouts(read=SECONDS)) as transport,
        transport.stream("GET", "/") as answer,
    ):
        chunks = answer.iter_raw()
        received = len(next(chunks))
        time.sleep(2 * SECONDS)
        assert received + sum(map(len, chunks)) == 200000


@pytest.mark.parametrize(
    "value", ["99999999999", "²", "-1", "NaN", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"], ids=ascii
)
def test_a_wait_that_a_server_asks_for_is_bounded(value: str) -> None:
    head = f"HTTP/1.1 503 Busy\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
    with stranger(saying(head)) as url, pytest.raises(NodeBusyError) as error:
        through_transport(url)
    asked = cast(NodeError, error.value).retry_after
    assert asked is None or 0 <= asked <= RETRY_AFTER_LIMIT


@pytest.mark.parametrize("charset", ["punycode", "idna", "zlib", "nothing-such"])
def test_a_charset_that_costs_more_than_the_text_is_none(charset: str) -> None:
    answer = (
        OK + f"Content-Type: text/plain; charset={charset}\r\nContent-Length: 60000\r\n\r\n".encode() + b"a-" * 30000
    )
    began = time.monotonic()
    with stranger(saying(answer)) as url, Web(context_of(Program(url, {}), "")) as web:
        answered = web.ask("/", seconds=LATEST)
        with pytest.raises(ValueError, match="unknown charset"):
            answered.text()
    assert time.monotonic() - began < LATEST
