"""Serve one page of metrics over HTTP, for Prometheus to scrape: few connections, each with a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, SHUT_RDWR, socket
from socketserver import TCPServer
from time import monotonic
from typing import Any, Final

from ashat.errors import AshatError, UsageError

CONNECTIONS: Final = 16
CONNECTION_SECONDS: Final = 15.0
KEPT_SECONDS: Final = 5.0


class Exporter(ThreadingHTTPServer):
    """Answers `GET /metrics` with what `read` returns, which is asked at most each `KEPT_SECONDS`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], read: Callable[[], bytes], content_type: str) -> None:
        """Listen on `address` (host and port; 0 takes a free one); `read` may raise an `AshatError`.

        Raises:
            UsageError: nothing can listen there.
        """
        self.content_type = content_type
        self._read = read
        self._lock = threading.Lock()
        self._kept: tuple[float, bytes] | None = None
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        if ":" in address[0]:
            self.address_family = AF_INET6
        try:
            super().__init__(address, _Handler)
        except (OSError, OverflowError) as error:
            raise UsageError(f"Nothing can listen on {address[0]}:{address[1]}: {error}.") from None

    def server_bind(self) -> None:
        """Bind the socket, without asking a name server what this machine is called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def page(self) -> bytes:
        """Return the metrics, read now or a moment ago.

        Raises:
            AshatError: the record cannot be read.
        """
        with self._lock:
            if self._kept is None or monotonic() - self._kept[0] > KEPT_SECONDS:
                self._kept = monotonic(), self._read()
            return self._kept[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, unless as many connections are open as may be: then hang up."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection, which ends after `CONNECTION_SECONDS`."""
        deadline = threading.Timer(CONNECTION_SECONDS, _hang_up, [request])
        deadline.daemon = True
        deadline.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away or was hung up on."""


def _hang_up(request: socket) -> None:
    try:
        request.shutdown(SHUT_RDWR)
    except OSError:
        return  # it is closed already


class _Handler(BaseHTTPRequestHandler):
    server: Exporter
    server_version = "ashat-deploy"
    sys_version = ""
    timeout = CONNECTION_SECONDS

    def do_GET(self) -> None:
        """Answer with the metrics, at their one path."""
        if self.path.partition("?")[0] != "/metrics":
            self._answer(404, "text/plain; charset=utf-8", b"The metrics are at /metrics.\n")
            return
        try:
            self._answer(200, self.server.content_type, self.server.page())
        except AshatError as error:
            self._answer(503, "text/plain; charset=utf-8", f"{error}\n".encode())

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log no request."""
