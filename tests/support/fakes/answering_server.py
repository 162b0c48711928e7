"""A server for tests that answers each path with JSON, over http or TLS: a node's identity, or Prefect's API."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ashat import __version__
from tasks.selftest.faults.certificates import Identity

Answers = Mapping[str, Any]


def a_node(role: str = "public", *, version: str = __version__, lost: int = 0) -> dict[str, Any]:
    """What a node that runs nothing says of itself."""
    who = {"role": role, "name": role, "node_version": version, "current": None, "status": "idle", "lost": lost}
    return {"/v1/identity": who}


@contextmanager
def answering(
    answers: Answers,
    *,
    tls: Identity | None = None,
    date: datetime | None = None,
    allowed: Callable[[str], bool] = lambda authorization: True,
) -> Iterator[str]:
    """The URL of a server that answers so: 404 where it has no answer for a path, 401 unless `allowed`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer()

        def _answer(self) -> None:
            path = self.path.partition("?")[0]
            status = 200 if path in answers else 404
            if not allowed(self.headers.get("Authorization", "")):
                status = 401
            body = json.dumps(answers.get(path, {}) if status == 200 else {}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(date, usegmt=True) if date else super().date_time_string(timestamp)

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
