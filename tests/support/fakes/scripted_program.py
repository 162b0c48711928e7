"""A program that answers what a test tells it to, over real HTTP, and the context in which checks ask it."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.client.node import NodeClient
from ashat.raos_toml.load import NAME, raos_toml_of
from tasks.checks import CheckContext

LEAST = '[raos]\nname = "RaOS"\nversion = "1"\n'


@dataclass(frozen=True)
class Reply:
    """One answer. `body` is sent as JSON unless it is bytes; `echoes` sends the request's Authorization header back;
    `to_head`: the body is sent in answer to HEAD, too."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    echoes: bool = False
    to_head: bool = False


@dataclass
class Program:
    """What is answered, by "METHOD /path", and what was asked, with the Authorization header of each request.

    `by_header` gives the status of an answer by that header, before `replies` are looked at.
    """

    url: str
    replies: dict[str, Reply]
    by_header: dict[str, dict[str | None, int]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@contextmanager
def replying(replies: Mapping[str, Reply]) -> Iterator[Program]:
    """The program, until the end of the block; HEAD is answered as GET, and what it was not told to answer is 404."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            self.rfile.read(length)
            what = f"{self.command} {self.path}"
            sent = self.headers.get("Authorization")
            program.asked.append((what, sent))
            like_get = f"GET {self.path}" if self.command == "HEAD" and what not in program.replies else what
            reply = program.replies.get(like_get, Reply({"error": "not found"}, 404))
            if like_get in program.by_header:
                reply = Reply({}, program.by_header[like_get][sent])
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode("utf-8")
            kind = {} if isinstance(reply.body, bytes) else {"Content-Type": "application/json"}
            if reply.echoes:
                body = body.replace(b"ECHO", (sent or "").encode("utf-8"))
            self.send_response(reply.status)
            headers = {**kind, **reply.headers}
            for name, value in headers.items():
                self.send_header(name, value.replace("ECHO", sent or "") if reply.echoes else value)
            if not {"Content-Length", "Transfer-Encoding"} & headers.keys():
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD" or reply.to_head:
                self.wfile.write(body)

        do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        program = Program(f"http://127.0.0.1:{server.server_port}", dict(replies))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield program
        finally:
            server.shutdown()


def bundle(toml: str, files: Mapping[str, str] | None = None) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest and the contents of a bundle with that raos.toml and those other files."""
    contents = {path: text.encode("utf-8") for path, text in {NAME: toml, **(files or {})}.items()}
    entries = [FileEntry(path, len(raw), 0o644, hashlib.sha256(raw).hexdigest()) for path, raw in contents.items()]
    return Manifest.from_files(entries), contents


def context_of(program: Program, toml: str, files: Mapping[str, str] | None = None, **more: Any) -> CheckContext:
    """What a check is given of a release with that raos.toml (the [raos] table comes by itself)."""
    manifest, contents = bundle(LEAST + toml, files)
    given: dict[str, Any] = {
        "public": cast(NodeClient, None),
        "app_url": program.url,
        "bundle": manifest.digest,
        "manifest": manifest,
        "raos": raos_toml_of(manifest, contents.__getitem__),
        "source": contents.__getitem__,
        "time_limit": 20.0,
    }
    return CheckContext(**{**given, **more})
