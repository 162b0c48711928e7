"""What was asked of a node that changes something: when, under which token, and what came of it."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

from ashat.node.db import now, to_text

DETAIL_LENGTH = 500


class Journal:
    """Appends to the table `journal` of the node's record, on a connection of its own.

    That connection does not wait for the disk at each entry (`synchronous=NORMAL`): a loss of power may lose the last
    entries, never tear one, and an upload of many requests does not pay for it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._connection.execute("PRAGMA synchronous=NORMAL")

    def append(self, *, token_id: str | None, method: str, path: str, status: int, detail: str = "") -> None:
        """Add an entry, stamped now."""
        with self._lock:
            self._connection.execute(
                "INSERT INTO journal (ts, token_id, method, path, status, detail) VALUES (?, ?, ?, ?, ?, ?)",
                (to_text(now()), token_id, method, path, status, detail[:DETAIL_LENGTH]),
            )

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
