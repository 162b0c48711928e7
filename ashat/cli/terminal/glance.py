"""The list of deployments without the libraries that the ledger needs, so that `deploy status` answers at once.

SQLAlchemy and the types of events take 0.3 s to import, twice what all else of a reading command costs. A ledger in
SQLite is read here with the standard library alone, from the index that `ashat.ledger.ledger` keeps beside the events;
for any other ledger, or one whose schema this module does not know, `ashat.ledger.ledger` is asked, and gives the same
list.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

_SCHEMAS = ("1", "2")  # the index is the same in both


def summaries() -> list[dict[str, Any]]:
    """`State.summary()` of every attempt, the newest first: what `Ledger.summaries` gives, by the quickest way.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    found = None if os.environ.get("ASHAT_LEDGER_URL") else _from_sqlite(home() / "ledger.db")
    return _from_ledger() if found is None else found


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


def _from_ledger() -> list[dict[str, Any]]:
    from ashat.ledger.ledger import Ledger
    from ashat.settings import Settings

    with Ledger.open(Settings().effective_ledger_url) as ledger:
        return ledger.summaries()


def home() -> Path:
    """Where our files are: `ASHAT_HOME`, or `~/.ashat`, as `ashat.settings` has it."""
    named = os.environ.get("ASHAT_HOME")
    return Path(named) if named is not None else Path.home() / ".ashat"
