"""A small HTTP server: routes with `{parts}`, JSON in and out, security headers on every answer."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from kernel import Kernel

BODY_LIMIT = 64 * 1024
IDLE_SECONDS = 30
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class HttpError(Exception):
    """A request that is answered with `status` and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    parts: Mapping[str, str]

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            HttpError: 400, it is none.
        """
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            raise HttpError(400, "the body is not JSON") from None
        if not isinstance(value, dict):
            raise HttpError(400, "the body must be a JSON object")
        return value

    def text(self, key: str, limit: int) -> str:
        """The text at `key` of the JSON body, of 1 to `limit` characters.

        Raises:
            HttpError: 400, it is missing, empty, too long or no text.
        """
        value = self.json().get(key)
        if not isinstance(value, str) or not 1 <= len(value) <= limit:
            raise HttpError(400, f"{key} must be a text of 1 to {limit} characters")
        return value


@dataclass(frozen=True)
class Response:
    """What is answered."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Response]


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON."""
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Response(json.dumps(value).encode("utf-8"), status, {**kind, **(headers or {})})


class Router:
    """Which handler answers which method and path; `{name}` in a pattern stands for one part."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, list[str], Handler]] = []

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Let `handler` answer `method` on `pattern`."""
        self._routes.append((method, pattern.split("/"), handler))

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        """The handler and the parts that stood for names.

        Raises:
            HttpError: 404, no such path; 405, not by this method.
        """
        wanted = path.split("/")
        other_method = False
        for known, pattern, handler in self._routes:
            parts = _match(pattern, wanted)
            if parts is not None:
                if known == method or (known, method) == ("GET", "HEAD"):
                    return handler, parts
                other_method = True
        raise HttpError(405, f"{method} is not allowed here") if other_method else HttpError(404, "not found")


def _match(pattern: list[str], wanted: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(wanted):
        return None
    parts: dict[str, str] = {}
    for expected, given in zip(pattern, wanted, strict=True):
        if expected.startswith("{") and given:
            parts[expected[1:-1]] = given
        elif expected != given:
            return None
    return parts


class Server(ThreadingHTTPServer):
    """Serves the kernel's routes on `host`:`port`; port 0 takes a free one."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, kernel: Kernel, host: str, port: int) -> None:
        self.kernel = kernel
        self.busy = 0
        self.idle = threading.Condition()
        super().__init__((host, port), _Handler)
        self.url = f"http://{host}:{self.server_port}"

    def drain(self, seconds: float) -> None:
        """Take no new request, and give those under way up to `seconds` to end."""
        self.shutdown()
        deadline = time.monotonic() + seconds
        with self.idle:
            while self.busy and (left := deadline - time.monotonic()) > 0:
                self.idle.wait(left)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what broke, unless it is only that the client went away."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "RaOS"
    sys_version = ""
    timeout = IDLE_SECONDS
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged one by one."""

    def setup(self) -> None:
        """Begin a connection, of which no request is known yet."""
        super().setup()
        self._needed = self._dawdled = 0.0

    def handle_one_request(self) -> None:
        """Answer one request, and see how much of the processor it needs."""
        began, self._dawdled = time.thread_time(), 0.0
        super().handle_one_request()
        self._needed = time.thread_time() - began - self._dawdled

    def do_GET(self) -> None:
        """Answer any method; `Router` decides which are allowed."""
        with self.server.idle:
            self.server.busy += 1
        try:
            response = self._answer()
            self._dawdle()
            if not self.server.kernel.faults.misbehave(self, response):
                self.send(response)
        finally:
            with self.server.idle:
                self.server.busy -= 1
                self.server.idle.notify_all()

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def send(self, response: Response) -> None:
        """Write `response` in one piece."""
        self.send_response(response.status)
        headers = {**self.server.kernel.faults.headers(SECURITY_HEADERS), **response.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        self.wfile.flush()

    def _dawdle(self) -> None:
        """What a seeded slowness costs; the request before on this connection says what one needs, sending included."""
        began = time.thread_time()
        self.server.kernel.faults.dawdle(self._needed)
        self._dawdled = time.thread_time() - began

    def _answer(self) -> Response:
        kernel = self.server.kernel
        try:
            request = self._read()
            handler, parts = kernel.router.find(request.method, request.path)
            response = handler(Request(**{**vars(request), "parts": parts}))
        except HttpError as error:
            response = json_response({"error": str(error)}, status=error.status)
        except Exception:  # noqa: BLE001 - the traceback is for the log, never for the client
            traceback.print_exc()
            response = json_response({"error": "internal error"}, status=500)
        return kernel.faults.change(self.command, urlsplit(self.path).path, response)

    def _read(self) -> Request:
        target = urlsplit(self.path)
        if self.headers.get("Transfer-Encoding"):
            self.close_connection = True
            raise HttpError(411, "send a Content-Length")
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > BODY_LIMIT:
            self.close_connection = True
            raise HttpError(413, f"a body has at most {BODY_LIMIT} bytes")
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(length))
        return Request(self.command, target.path, dict(parse_qsl(target.query)), headers, body, {})
