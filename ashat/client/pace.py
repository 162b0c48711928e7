"""Keep what is fetched within so many bytes a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator


class Pace:
    """At most `rate` bytes a second, of all connections together; any thread may ask. Time that nobody used is not made
    up for."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def keep(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield `chunks`, each once its time has come: a sender that is not read from waits."""
        for chunk in chunks:
            self.spend(len(chunk))
            yield chunk

    def spend(self, size: int) -> None:
        """Wait for as long as `size` bytes take."""
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / self._rate
            until = self._free_at
        time.sleep(max(until - time.monotonic(), 0.0))
