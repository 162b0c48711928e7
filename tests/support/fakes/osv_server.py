"""A small server that speaks OSV's API (querybatch with pages, vulns by id) over the records it is given."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Osv:
    """The server as a test sees it. It finds a version in the record's `versions`, as a database that lists them.

    `mood` is how it behaves: "" well; `busy-once` and `busy` answer 503; `hang`, `drip`, `html`, `short` (answers of
    fewer questions), `redirect`, `huge`, `forgetful` (no record for an id), `pages` (an id at a time), `endless`.
    """

    url: str
    records: list[dict[str, Any]]
    mood: str = ""
    asked: list[str] = field(default_factory=list)

    def query(self, query: dict[str, Any]) -> dict[str, Any]:
        """What it answers to one question of a batch."""
        package, version = query["package"], query["version"]
        ids = [
            record["id"]
            for record in self.records
            for affected in record["affected"]
            if affected["package"]["name"] == package["name"]
            and affected["package"]["ecosystem"] == package["ecosystem"]
            and version in affected.get("versions", ())
        ]
        if self.mood in ("pages", "endless"):
            page = int(query.get("page_token", "0"))
            more = page + 1 < len(ids) or self.mood == "endless"
            hits = [{"id": one} for one in ids[page : page + 1]]
            return {"vulns": hits, **({"next_page_token": str(page + 1)} if more else {})}
        return {"vulns": [{"id": one, "modified": "2026-11-01T00:00:00Z"} for one in ids]} if ids else {}


class _Handler(BaseHTTPRequestHandler):
    osv: Osv
    over: threading.Event

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.osv.asked.append(self.path)
        if self.path != "/v1/querybatch" or not 0 < len(body["queries"]) <= 1000:
            self._say(400, b"{}")
        elif not self._moody():
            results = [self.osv.query(query) for query in body["queries"]]
            self._say(200, json.dumps({"results": results[:-1] if self.osv.mood == "short" else results}).encode())

    def do_GET(self) -> None:
        self.osv.asked.append(self.path)
        found = [record for record in self.osv.records if self.path == f"/v1/vulns/{record['id']}"]
        if not found or self.osv.mood == "forgetful":
            self._say(404, b'{"code":5,"message":"Bug not found."}')
        else:
            self._say(200, json.dumps(found[0]).encode())

    def _moody(self) -> bool:
        mood = self.osv.mood
        if mood == "busy" or (mood == "busy-once" and len(self.osv.asked) == 1):
            self._say(503, b"")
        elif mood == "hang":
            self.over.wait(30)
        elif mood == "html":
            self._say(200, b"<html>Sign in to the guest network</html>")
        elif mood == "redirect":
            self._say(302, b"", Location=self.path)
        elif mood in ("drip", "huge"):
            self._endless(slowly=mood == "drip")
        else:
            return False
        return True

    def _endless(self, *, slowly: bool) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while not self.over.is_set():
                self.wfile.write(b" " if slowly else b" " * 1024 * 1024)
                self.wfile.flush()
                time.sleep(0.05 if slowly else 0)
        except OSError:
            return

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def osv_server(records: Iterable[dict[str, Any]] = (), mood: str = "") -> Iterator[Osv]:
    """The server, on a free port, until the block ends."""
    osv, over = Osv("", list(records), mood), threading.Event()
    handler = type("Handler", (_Handler,), {"osv": osv, "over": over})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        osv.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield osv
        finally:
            over.set()
            server.shutdown()
            thread.join()
