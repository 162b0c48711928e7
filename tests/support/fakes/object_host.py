"""A host of objects beside OMEGA, for tests: it serves a store's objects or does what it likes, and notes requests."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Misbehaviour = Callable[[BaseHTTPRequestHandler, bytes], None]


class ObjectHost:
    """`requests` are the paths and headers that came; `misbehaves` answers in place of what is right, if it is set."""

    def __init__(self, url: str, store: Path) -> None:
        self.url, self.store = url, store
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.misbehaves: Misbehaviour | None = None

    def reset(self, misbehaves: Misbehaviour | None = None) -> None:
        self.requests.clear()
        self.misbehaves = misbehaves


def well(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Answer with the object, or the rest of it that was asked for."""
    found = re.fullmatch(r"bytes=([0-9]+)-", handler.headers.get("Range", ""))
    first = int(found[1]) if found else 0
    handler.send_response(206 if found else 200)
    if found:
        handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
    handler.send_header("Set-Cookie", "who=you; Path=/")
    handler.send_header("Content-Length", str(len(content) - first))
    handler.end_headers()
    handler.wfile.write(content[first:])


@contextmanager
def object_host(store: Path) -> Iterator[ObjectHost]:
    """A host that serves `store`/objects at /DIGEST."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host.requests.append((self.path, dict(self.headers)))
            digest = self.path.strip("/")
            try:
                content = (host.store / "objects" / digest[:2] / digest[2:]).read_bytes()
            except OSError:
                content = b""
            with suppress(OSError):
                (host.misbehaves or well)(self, content)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        host = ObjectHost(f"http://127.0.0.1:{server.server_address[1]}", store)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()


def only_for(digest: str, misbehaves: Misbehaviour) -> Misbehaviour:
    """Do so for one object, and what is right for the others."""

    def answer(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        (misbehaves if digest in handler.path else well)(handler, content)

    return answer


def whole(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Answer with the whole object, whatever range was asked for."""
    saying(200, content)(handler, content)


def saying(status: int, content: bytes = b"", **headers: str) -> Misbehaviour:
    """Answer that, with the length of `content` unless `headers` say another."""

    def say(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return say


def other_bytes(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Answer as many other bytes."""
    well(handler, bytes(byte ^ 1 for byte in content))


def cut(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Announce the object, and send half of it."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.close_connection = True


def endless(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Send bytes for ever."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    handler.wfile.write(content)
    until = time.monotonic() + 60
    while time.monotonic() < until:
        handler.wfile.write(bytes(65536))


def dripping(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Send a byte now and then."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.close_connection = True
    for byte in content[:600]:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.1)


def silent(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """Say nothing."""
    time.sleep(20)
    handler.close_connection = True


def rubbish(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    """Say what is no HTTP."""
    handler.wfile.write(b"\x00\xffSSH-2.0\r\n\r\n" * 3)
    handler.close_connection = True
