"""The list of deployments, read at once.

`Ledger.summaries` gives the same list. A ledger in SQLite is read here with the standard library alone, because
SQLAlchemy and the types of events take 0.4 s to import, more than all else of `deploy status` takes.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ashat.common.home import home
from ashat.ledger.opening import open_ledger

_SCHEMAS = ("1", "2")  # the index is the same in both


def summaries() -> list[dict[str, Any]]:
    """`State.summary()` of every attempt in the ledger that the settings name, the newest first.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    found = None if os.environ.get("ASHAT_LEDGER_URL") else _from_sqlite(home() / "ledger.db")
    if found is not None:
        return found
    with open_ledger() as ledger:
        return ledger.summaries()


def _from_sqlite(path: Path) -> list[dict[str, Any]] | None:
    if not path.exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=30)) as connection:
            schema = connection.execute("SELECT value FROM ashat_meta WHERE key = 'schema'").fetchone()
            if schema is None or schema[0] not in _SCHEMAS:
                return None
            rows = connection.execute("SELECT summary FROM sessions ORDER BY updated_at DESC, update_id").fetchall()
    except sqlite3.Error:
        return None  # the ledger itself says what is wrong
    return [json.loads(row[0]) for row in rows]
