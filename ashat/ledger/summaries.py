"""The list of deployments, read at once.

`Ledger.summaries` gives the same list. A ledger in SQLite is read here with the standard library alone, because
SQLAlchemy and the types of events take 0.4 s to import, more than all else of `deploy status` takes.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ashat.common.home import home
from ashat.ledger.index import summary_from_json
from ashat.ledger.opening import open_ledger
from ashat.ledger.remembered import require_ledger, sqlite_address

TROUBLES = "troubles"
_SCHEMAS = ("2",)
_NEWEST = "SELECT body FROM documents JOIN ashat_meta ON digest = value WHERE key = ?"


def summaries() -> list[dict[str, Any]]:
    """`State.summary()` of every attempt in the ledger that the settings name, the newest first.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    return glance()[0]


def glance() -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """`summaries`, and what `reconcile` last saw to be wrong with the servers: `server`, `kind`, `what`, `since`.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    found = None if os.environ.get("ASHAT_LEDGER_URL") else _from_sqlite(home())
    if found is not None:
        return found
    with open_ledger() as ledger:
        return ledger.summaries(), (ledger.newest(TROUBLES) or {}).get("troubles", [])


def _from_sqlite(root: Path) -> tuple[list[dict[str, Any]], list[dict[str, str]]] | None:
    path = root / "ledger.db"
    address = sqlite_address(root, path)
    if not path.exists():
        require_ledger(root, address, origin="", events=0)
        return [], []
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=30)) as connection:
            schema = connection.execute("SELECT value FROM ashat_meta WHERE key = 'schema'").fetchone()
            if schema is None or schema[0] not in _SCHEMAS:
                return None
            origin, events = connection.execute("SELECT origin, size FROM log").fetchone()
            rows = connection.execute("SELECT summary FROM sessions ORDER BY updated_at DESC, update_id").fetchall()
            troubles = connection.execute(_NEWEST, (f"newest:{TROUBLES}",)).fetchone()
    except (sqlite3.Error, TypeError):
        return None  # the ledger itself says what is wrong
    require_ledger(root, address, str(origin), events if isinstance(events, int) else 0)
    return (
        [summary_from_json(row[0]) for row in rows],
        summary_from_json(troubles[0])["troubles"] if troubles else [],
    )
