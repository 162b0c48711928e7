"""What is read past h11 is read as h11 reads it, and is written as h11 would: both are held against each other."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ashat.node.plain_requests import PLAIN_LIMIT, PlainCycle, PlainReader, PlainRequest, plain_cycle, read_plain

GET = b"GET /v1/mainframe/release?after=0&wait=30.0 HTTP/1.1\r\nHost: omega\r\n"
POST = b"POST /v1/mainframe/report HTTP/1.1\r\nHost: omega\r\n"
_names = st.sampled_from(
    [
        "Host",
        "host",
        "Accept",
        "Connection",
        "Content-Length",
        "Transfer-Encoding",
        "Expect",
        "Upgrade",
        "X-A",
        "Bad Name",
    ]
)
_values = st.sampled_from(
    [
        "omega",
        "keep-alive",
        "close",
        "0",
        "3",
        "03",
        "+3",
        "3, 3",
        "chunked",
        "100-continue",
        " x \t",
        "",
        "\x00",
        "\x7f",
        "é",
    ]
)
_targets = st.sampled_from(["/", "/a%2fb?x=%20", "/?a?b", "*", "http://other/", "/a b", "/\x7f", "/é", "//x", ""])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Requests, most of them nearly right."""
    method = draw(st.sampled_from(["GET", "POST", "HEAD", "get", "PUT"]))
    version = draw(st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/1.1 ", "http/1.1"]))
    end = draw(st.sampled_from(["\r\n", "\r\n", "\n"]))
    fields = draw(st.lists(st.tuples(_names, st.sampled_from([":", ": ", " :"]), _values), max_size=4))
    lines = [f"{method} {draw(_targets)} {version}", *draw(st.sampled_from([["Host: omega"], []]))]
    lines += [f"{name}{colon}{value}" for name, colon, value in fields]
    body = draw(st.sampled_from(["", "abc", "GET / HTTP/1.1\r\n\r\n"]))
    return (end.join(lines) + end + end + body).encode("latin-1")


def by_h11(data: bytes) -> tuple[h11.Request, bytes]:
    """The request and its body, which are all that `data` is."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request, body = connection.next_event(), b""
    assert isinstance(request, h11.Request)
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert connection.trailing_data == (b"", False)
    return request, body


@given(requests())
@example(GET + b"\r\n")
@example(POST + b"Content-Length: 3\r\n\r\nabc")
def test_what_is_plain_is_what_h11_reads(data: bytes) -> None:
    plain = read_plain(data)
    if plain is None:
        return
    request, body = by_h11(data)
    assert (plain.method.encode(), plain.target, plain.body) == (request.method, request.target, body)
    assert plain.headers == [(name.lower(), value) for name, value in request.headers]
    assert request.http_version == b"1.1"


@pytest.mark.parametrize(
    "data",
    [
        GET + b"\r\n" + GET + b"\r\n",
        GET + b"Host: other\r\n\r\n",
        GET + b"Content-Length: 0\r\n\r\n",
        GET + b"Connection: close\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        GET + b" folded: line\r\n\r\n",
        GET + b"X:" + b"y" * PLAIN_LIMIT + b"\r\n\r\n",
        GET,
        POST + b"\r\n",
        POST + b"Content-Length: 3\r\n\r\nab",
        POST + b"Content-Length: 3\r\n\r\nabcd",
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
        b"\r\n" + GET + b"\r\n",
        GET.replace(b"1.1", b"1.0") + b"\r\n",
        GET.replace(b"\r\n", b"\n") + b"\n",
    ],
)
def test_what_is_not_plain_is_left_to_h11(data: bytes) -> None:
    assert read_plain(data) is None


def test_a_connection_reads_each_request_by_its_own_lines() -> None:
    reader = PlainReader()
    sent = [
        GET + b"\r\n",
        GET + b"\r\n",
        POST + b"Content-Length: 1\r\n\r\na",
        GET + b"Connection: close\r\n\r\n",
        GET + b"\r\n",
    ]
    for data in sent:
        assert read_plain(data, reader) == read_plain(data)


def test_what_a_mainframe_sends_is_plain() -> None:
    head = b"Accept: application/json\r\nConnection: keep-alive\r\nAuthorization: Licence RACORE-1\r\n"
    assert read_plain(GET + head + b"\r\n") is not None
    report = b'{"result":"running"}'
    sent = POST + head + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(report) + report
    plain = read_plain(sent)
    assert plain is not None
    assert plain.body == report
    scope = PlainRequest("GET", b"/a%20b?c=%20", [], b"").scope({})
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"c=%20")


class _Peer:
    """The other end of a connection: what it was sent, and whether it was closed."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True


def answered(*messages: dict[str, Any], keep_alive: bool = True) -> _Peer:
    """What comes of those messages of an application."""
    peer = _Peer()

    async def answer() -> None:
        flow, logger = SimpleNamespace(write_paused=False), None
        protocol = SimpleNamespace(
            conn=h11.Connection(h11.SERVER), transport=peer, flow=flow, logger=logger, access_logger=None,
            server_state=SimpleNamespace(default_headers=[(b"date", b"today")]), on_response_complete=lambda: None,
        )  # fmt: skip
        cycle: PlainCycle = plain_cycle(PlainRequest("GET", b"/", [], b""), {}, protocol)
        cycle.keep_alive = keep_alive
        for message in messages:
            await cycle.send(message)

    asyncio.run(answer())
    return peer


def start(status: int, **headers: bytes) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": named}


def body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more}


@pytest.mark.parametrize(
    ("messages", "content"),
    [
        ([start(200, content_length=b"3"), body(b"abc")], b"abc"),
        ([start(200, content_length=b"3"), body(b"a", more=True), body(b"bc")], b"abc"),
        ([start(200, content_length=b"70000"), body(bytes(70_000))], bytes(70_000)),
        ([start(200), body(b"a", more=True), body(b"bc", more=True), body(b"")], b"abc"),
        ([start(204), body(b"")], b""),
        ([start(304, etag=b'"7"'), body(b"")], b""),
    ],
)
def test_an_answer_is_read_as_what_it_is(messages: list[dict[str, Any]], content: bytes) -> None:
    peer = answered(*messages)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "omega")]))
    client.send(h11.EndOfMessage())
    client.receive_data(peer.sent)
    response, received = client.next_event(), b""
    assert isinstance(response, h11.Response)
    assert response.status_code == messages[0]["status"]
    while isinstance(event := client.next_event(), h11.Data):
        received += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert (received, client.trailing_data) == (content, (b"", False))
    assert not peer.closed


@pytest.mark.parametrize(
    "messages",
    [
        [start(200, content_length=b"3"), body(b"abcd")],
        [start(200, content_length=b"3"), body(b"ab")],
        [start(200, x=b"a\r\nSet-Cookie: b"), body(b"")],
        [start(200, content_length=b"0"), body(b""), body(b"")],
        [start(204), body(b"abc")],
        [start(200, transfer_encoding=b"chunked"), body(b"")],
        [body(b"")],
    ],
)
def test_an_answer_that_would_tear_the_connection_is_not_sent(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(RuntimeError, match="cannot be sent"):
        answered(*messages)


def test_a_node_that_goes_down_says_so_and_closes() -> None:
    peer = answered(start(200, content_length=b"2"), body(b"ok"), keep_alive=False)
    assert b"connection: close\r\n" in peer.sent
    assert peer.closed
