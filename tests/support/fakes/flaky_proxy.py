"""A proxy in front of a node that plays its part badly, as told: cuts, is busy, is away, or changes what passes."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}


@dataclass
class SeenRequest:
    """A request, and how it ended: `status` is 0 where it got no answer. `at` is on the monotonic clock."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)
    status: int = 0


@dataclass(frozen=True)
class Cut:
    """Cut the connection: before the node sees the request, or, if `heard`, once it has done what was asked."""

    heard: bool = False


@dataclass(frozen=True)
class Busy:
    """Answer 503 instead of the node, with that Retry-After."""

    retry_after: int = 1


@dataclass(frozen=True)
class Away:
    """Be away for so many seconds, from this request on."""

    seconds: float


@dataclass(frozen=True)
class Changed:
    """Pass the request on with other headers (their names in lower case) or another body."""

    headers: dict[str, str] = field(default_factory=dict)
    body: Callable[[bytes], bytes] = bytes


@dataclass(frozen=True)
class Lies:
    """Pass the request on, and answer something else than the node does."""

    answer: Callable[[bytes], bytes]


Mood = Cut | Busy | Away | Changed | Lies


class MoodyProxy:
    """Passes HTTP on to the node at `port`. `asked` is every request, in the order of arrival.

    It refuses bodies of more than `most` bytes, as nginx does. Use it in a `with` block.
    """

    def __init__(self, port: int, *, most: int | None = None) -> None:
        self.asked: list[SeenRequest] = []
        self._most = most
        self._node = port
        self._moods: list[tuple[str, re.Pattern[str], Mood]] = []
        self._away_until = 0.0
        self._lock = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy._answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                return

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def expect(self, method: str, path: str, mood: Mood) -> None:
        """Be in that mood at the next request of `method` whose path matches; each mood is for one request."""
        self._moods.append((method, re.compile(path), mood))

    def pass_on_to(self, port: int) -> None:
        """From now on, pass requests on to the node at `port`."""
        self._node = port

    @property
    def pending(self) -> list[str]:
        """The moods that no request has met yet."""
        return [f"{method} {path.pattern} {mood}" for method, path, mood in self._moods]

    def requests(self, method: str, path: str) -> list[SeenRequest]:
        """What was asked so."""
        return [asked for asked in self.asked if asked.method == method and re.search(path, asked.path)]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = SeenRequest(handler.command, handler.path, dict(handler.headers.items()), b"")
        with self._lock:
            self.asked.append(asked)
            mood = self._mood(asked)
        if isinstance(mood, Cut) and not mood.heard:
            handler.rfile.read(int(handler.headers.get("Content-Length") or 0) // 2)
            _cut(handler)
            return
        asked.body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        if self._most is not None and len(asked.body) > self._most:
            asked.status = 413
            _send(handler, 413, {"Content-Type": "text/html"}, b"<html><h1>413 Request Entity Too Large</h1></html>")
            return
        if isinstance(mood, Busy):
            asked.status = 503
            _send(handler, 503, {"Retry-After": str(mood.retry_after)}, b'{"error": "busy", "detail": "come back"}')
            return
        if isinstance(mood, Changed):
            asked.headers = {k: v for k, v in asked.headers.items() if k.lower() not in mood.headers} | mood.headers
            asked.body = mood.body(asked.body)
        status, headers, body = self._pass_on(asked)
        if isinstance(mood, Cut):
            _cut(handler)
            return
        asked.status = status
        _send(handler, status, headers, mood.answer(body) if isinstance(mood, Lies) else body)

    def _mood(self, asked: SeenRequest) -> Mood | None:
        if time.monotonic() < self._away_until:
            return Cut()
        for number, (method, path, mood) in enumerate(self._moods):
            if method == asked.method and path.search(asked.path):
                del self._moods[number]
                if isinstance(mood, Away):
                    self._away_until = time.monotonic() + mood.seconds
                    return Cut()
                return mood
        return None

    def _pass_on(self, asked: SeenRequest) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._node, timeout=90)
        try:
            headers = {name: value for name, value in asked.headers.items() if name.lower() not in _HOP}
            connection.request(asked.method, asked.path, asked.body or None, headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of the test's business."""


def _send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    handler.send_response_only(status)
    for name, value in headers.items():
        if name.lower() not in _HOP:
            handler.send_header(name, value)
    if status != 204:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _cut(handler: BaseHTTPRequestHandler) -> None:
    """Reset the connection, as a node that is killed does."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
