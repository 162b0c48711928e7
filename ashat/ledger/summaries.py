"""The list of deployments, read at once.

`Ledger.summaries` gives the same list. A ledger in SQLite is read here with the standard library alone, one on
PostgreSQL with its driver alone, because SQLAlchemy and the types of events take 0.4 s to import, more than all else of
`deploy status` takes.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ashat.common.home import home
from ashat.deployment.stages import ENDED, Stage
from ashat.ledger.index import summary_from_json
from ashat.ledger.opening import open_ledger
from ashat.ledger.remembered import require_ledger, sqlite_address

if TYPE_CHECKING:
    from ashat.ledger.ledger import Ledger

TROUBLES = "troubles"
CHANNELS = "channels"
_SCHEMAS = ("2",)
_ALL = "SELECT summary FROM sessions ORDER BY updated_at DESC, update_id"
# All that goes on, or waits, and so many of those that ended.
_OPEN = (
    "SELECT summary FROM (SELECT o.*, "
    "ROW_NUMBER() OVER (PARTITION BY ended ORDER BY updated_at DESC, update_id) AS place FROM ("
    "SELECT summary, updated_at, update_id, stage IN ({ended}) "
    'AND summary NOT LIKE \'%"rolling_back": true%\' AND summary NOT LIKE \'%"rollback_expires": "%\' AS ended '
    "FROM sessions) o) s WHERE NOT ended OR place <= {most} ORDER BY updated_at DESC, update_id"
)
_POSTGRESQL = re.compile(r"postgresql(?:\+psycopg)?://(?:(\w+)(?::[^@/?#]*)?@)?([\w.-]+)(?::(\d{1,5}))?/(\w+)")
_CONNECT_SECONDS = 10
_NEWEST = (
    "SELECT body FROM documents JOIN ashat_meta ON digest = value "
    "WHERE key IN ('newest:troubles', 'newest:channels') ORDER BY key DESC"
)


def summaries() -> list[dict[str, Any]]:
    """`State.summary()` of every attempt in the ledger that the settings name, the newest first.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    return glance()[0]


def glance(most_ended: int | None = None) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """`summaries`, and what was last seen to be wrong: `server`, `kind`, `what`, `since`. `reconcile` looks at the
    servers; of the kind `channel` is a notification block by which no message gets through, and `tracker` one of tasks.

    With `most_ended` it may leave out deployments that have ended, but for at least so many, the newest.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    query = _ALL if most_ended is None else _OPEN.format(ended=_quoted(ENDED), most=most_ended)
    url = os.environ.get("ASHAT_LEDGER_URL")
    found = _from_postgresql(home(), url, query) if url else _from_sqlite(home(), query)
    if found is not None:
        return found
    with open_ledger() as ledger:
        return ledger.summaries(), troubles_in(ledger)


def troubles_in(ledger: Ledger) -> list[dict[str, str]]:
    """Read from a ledger that is open what was last seen to be wrong, as `glance` does."""
    noted = (ledger.newest(name) or {} for name in (TROUBLES, CHANNELS))
    return [trouble for found in noted for trouble in found.get("troubles", [])]


def document(digest: str) -> dict[str, Any]:
    """Read a document of the ledger that the settings name by its digest, as quickly as `summaries`.

    Raises:
        LedgerError: there is none, or its bytes no longer match the digest.
    """
    body = None if os.environ.get("ASHAT_LEDGER_URL") else _body_from_sqlite(home() / "ledger.db", digest)
    if body is not None and sha256(body.encode()).hexdigest() == digest:
        return summary_from_json(body)
    with open_ledger() as ledger:
        return ledger.document(digest)


def with_requests(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fold anew each deployment that waits for people and whose summary an earlier version wrote, without their
    questions.

    Raises:
        LedgerError: the ledger cannot be read.
    """
    lacking = [n for n, one in enumerate(found) if "requests" not in one and _waits(one)]
    if not lacking:
        return found
    with open_ledger() as ledger:
        anew = {n: ledger.load(found[n]["update_id"], found[n]["attempt"]).summary() for n in lacking}
    return [anew.get(n, one) for n, one in enumerate(found)]


def _waits(summary: dict[str, Any]) -> bool:
    return bool(summary.get("stage") == Stage.AWAITING_APPROVAL or summary.get("rollback_expires"))


def last_messages() -> dict[str, dict[str, str]]:
    """Read when a message was sent last by each channel (`at`), and why it did not get through (`why`, "" if it did).

    Raises:
        LedgerError: the ledger cannot be read.
    """
    with open_ledger() as ledger:
        found: dict[str, dict[str, str]] = (ledger.newest(CHANNELS) or {}).get("last", {})
    return found


def _body_from_sqlite(path: Path, digest: str) -> str | None:
    try:
        with closing(_connect(path)) as connection:
            row = connection.execute("SELECT body FROM documents WHERE digest = ?", (digest,)).fetchone()
    except sqlite3.Error:
        return None  # the ledger itself says what is wrong
    return str(row[0]) if row else None


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=30)


def _quoted(stages: Sequence[Stage] | frozenset[Stage]) -> str:
    return ", ".join(f"'{stage.value}'" for stage in sorted(stages))


_Read = Callable[[str], Sequence[Sequence[Any]]]
_Found = tuple[list[dict[str, Any]], list[dict[str, str]]]


def _from_sqlite(root: Path, query: str) -> _Found | None:
    path = root / "ledger.db"
    address = sqlite_address(root, path)
    if not path.exists():
        require_ledger(root, address, origin="", events=0)
        return [], []
    try:
        with closing(_connect(path)) as connection:
            return _read_all(root, address, query, lambda words: connection.execute(words).fetchall())
    except (sqlite3.Error, TypeError):
        return None  # the ledger itself says what is wrong


def _from_postgresql(root: Path, url: str, query: str) -> _Found | None:
    parts = _POSTGRESQL.fullmatch(url)
    if parts is None:
        return None  # the ledger itself reads every address that there is
    user, host, port, name = parts.groups()
    scheme = url.partition("://")[0]
    address = f"{scheme}://{f'{user}@' if user else ''}{host}{f':{port}' if port else ''}/{name}"
    try:
        import psycopg
    except ImportError:
        return None
    plain = url.replace("postgresql+psycopg", "postgresql", 1)
    try:
        with psycopg.connect(plain, connect_timeout=_CONNECT_SECONDS) as connection:
            return _read_all(root, address, query, lambda words: connection.execute(words.encode()).fetchall())
    except (psycopg.Error, TypeError):
        return None


def _read_all(root: Path, address: str, query: str, read: _Read) -> _Found | None:
    """Read the deployments and the troubles; None where the schema is another one."""
    schema = read("SELECT value FROM ashat_meta WHERE key = 'schema'")
    if not schema or schema[0][0] not in _SCHEMAS:
        return None
    ((origin, events),) = read("SELECT origin, size FROM log")
    rows = read(query)
    noted = read(_NEWEST)
    require_ledger(root, address, str(origin), events if isinstance(events, int) else 0)
    return (
        [summary_from_json(row[0]) for row in rows],
        [trouble for row in noted for trouble in summary_from_json(row[0])["troubles"]],
    )
