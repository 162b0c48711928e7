"""Requests without a pause, from several connections, each of which counts: answered as it should be, or failed."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

_SECONDS = 10.0
_KEPT = 20


@dataclass
class Counted:
    """What became of the requests: `answered` by the bundle that answered, `failed` with the first reasons.

    `reconnects` counts requests on a connection that was kept alive and closed before a byte of the answer came: such a
    request is sent once more on a new connection, as RFC 9112 (9.3.1) lets a client do, and counts by what comes then.
    """

    answered: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    reconnects: int = 0
    reasons: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(self.answered.values()) + self.failed


class Load:
    """GETs `url` from `connections` threads for as long as the `with` block lasts; half of them keep their connection
    alive, and half open one for each request. A body is JSON that names its `bundle`."""

    def __init__(self, url: str, connections: int = 8) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._path = parts.path or "/"
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number % 2 == 0,), daemon=True) for number in range(connections)
        ]
        self.counted = Counted()

    def wait_for(self, requests: int, seconds: float = 60.0) -> None:
        """Wait until there were so many more requests."""
        wanted, deadline = self.counted.requests + requests, time.monotonic() + seconds
        while self.counted.requests < wanted:
            assert time.monotonic() < deadline, self.counted
            time.sleep(0.01)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * _SECONDS)

    def _ask(self, keeps: bool) -> None:
        connection, used = self._connection(), False
        while not self._stop.is_set():
            try:
                bundle = self._once(connection, used)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._note_failure(f"{type(error).__name__}: {error}")
                bundle = ""
            else:
                with self._lock:
                    self.counted.answered[bundle] += 1
            used = keeps and bool(bundle)
            if not used:
                connection.close()
        connection.close()

    def _once(self, connection: http.client.HTTPConnection, used: bool) -> str:
        """Send one request on a connection, which was `used` before; the bundle that answered."""
        try:
            connection.request("GET", self._path)
            answer = connection.getresponse()
        except ConnectionError:  # among them "closed without an answer": not a byte of one came
            if not used:
                raise
            with self._lock:
                self.counted.reconnects += 1
            connection.close()
            return self._once(connection, False)
        body = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status}: {body[:80]!r}")
        return str(json.loads(body)["bundle"])

    def _note_failure(self, reason: str) -> None:
        with self._lock:
            self.counted.failed += 1
            if len(self.counted.reasons) < _KEPT:
                self.counted.reasons.append(reason)

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self._address, timeout=_SECONDS)
