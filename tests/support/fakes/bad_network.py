"""Bad networks for tests: a proxy that cuts connections, a server that answers what it is told, certificates."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class CuttingProxy:
    """Passes TCP on to `port`, and cuts every connection once `up` bytes went there or `down` bytes came back.

    The counts are over all connections together. With `again` it takes new connections then, and counts anew.
    `passed` is how many bytes went each way. Use it in a `with` block.
    """

    def __init__(self, port: int, *, up: int | None = None, down: int | None = None, again: bool = False) -> None:
        self._target = port
        self._limits = {"up": up, "down": down}
        self._left = dict(self._limits)
        self._again = again
        self.passed = {"up": 0, "down": 0}
        self.cuts = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> CuttingProxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open += [client, server]
            self._start(self._pass_on, client, server, "up")
            self._start(self._pass_on, server, client, "down")

    def _pass_on(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        try:
            while data := source.recv(65536):
                with self._lock:
                    left = self._left[direction]
                    if left is not None:
                        data = data[:left]
                        self._left[direction] = left - len(data)
                    self.passed[direction] += len(data)
                if data:
                    target.sendall(data)
                if left is not None and left - len(data) <= 0:
                    self._cut()
                    return
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _cut(self) -> None:
        with self._lock:
            self.cuts += 1
            cut, self._open = self._open, []
            if self._again:
                self._left = dict(self._limits)
        for connection in cut:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


@contextmanager
def answering(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, bodies: dict[str, bytes] | None = None
) -> Iterator[str]:
    """The URL of a server that answers every request so, with the body of `bodies` for a path that is in it."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said = (bodies or {}).get(self.path, body)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(said)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def make_certificate(directory: Path, host: str = "127.0.0.1") -> tuple[Path, Path]:
    """A self-signed certificate for `host` and its key, as PEM files; it is its own authority."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    kind = "IP" if host.replace(".", "").isdigit() else "DNS"
    words = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={host} -addext subjectAltName={kind}:{host}"
    subprocess.run([*words.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key
