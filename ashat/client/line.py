"""What is known of the line to a server, and how a transfer adapts to it: connections, and compression."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ashat.client.http import Transport

CONNECTIONS, FAR_CONNECTIONS = 3, 6
FAR_SECONDS = 0.03
# Bytes a second and connection below which a processor compresses faster than the line takes what it saves.
SLOW_RATE = 4_000_000
_SMALLEST_SAMPLE = 128 * 1024


class Line:
    """The line to one server, or through one to another; any thread may ask.

    A line is far where the quickest answer took more than `FAR_SECONDS`: there one connection is mostly waited for,
    and more are used. It is slow where a batch went at less than `SLOW_RATE`.
    """

    def __init__(self, *transports: Transport, connections: int | None = None) -> None:
        self._transports: Sequence[Transport] = transports
        self._given = connections
        self._rate = 0.0
        self.decompresses = False
        """Whether the target said that it reads what is compressed."""
        self._lock = threading.Lock()

    @property
    def far(self) -> bool:
        """Whether answers take long."""
        return any(transport.round_trip > FAR_SECONDS for transport in self._transports)

    @property
    def connections(self) -> int:
        """How many connections to use at once."""
        return self._given or (FAR_CONNECTIONS if self.far else CONNECTIONS)

    @property
    def compresses(self) -> bool:
        """Whether what can be made smaller should be."""
        return self.far or 0 < self._rate < SLOW_RATE

    def saw(self, size: int, seconds: float) -> None:
        """Take note that a batch of `size` bytes took so many `seconds`."""
        if size >= _SMALLEST_SAMPLE and seconds > 0:
            with self._lock:
                self._rate = max(self._rate, size / seconds)
