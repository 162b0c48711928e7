"""Keeps repeated lines from filling a log: whoever can make a node write lines could fill its disk with them."""

from __future__ import annotations

import logging
import threading
import time

WARNINGS = 50
LINES_OF_STRANGERS = 1000
SECONDS = 10.0
_STRANGERS = "ashat.node.access.strangers"
_KINDS = 1000
_START = 60


class LineThrottle(logging.Filter):
    """Lets so many warnings of a kind, and lines about strangers, through in `SECONDS`; the next counts what was not.

    Lines are of a kind when their logger, their level and the start of their unfilled text are the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is written."""
        if record.levelno < logging.WARNING and record.name != _STRANGERS:
            return True
        limit = LINES_OF_STRANGERS if record.name == _STRANGERS else WARNINGS
        kind = (record.name, record.levelno, str(record.msg)[:_START])
        now = time.monotonic()
        with self._lock:
            since, count = self._seen.get(kind, (now, 0))
            left_out = max(count - limit, 0)
            if now - since >= SECONDS:
                since, count = now, 0
            if len(self._seen) > _KINDS:
                self._seen.clear()
            self._seen[kind] = since, count + 1
        if count == 0 and left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more such lines were left out before)", ()
        return count < limit
