"""Remembers, by digest, which content was searched for credentials and had none, so that a search follows the change.

The memory belongs to this operator's home, as the ledger does. It holds for one state of the rules: with other rules it
begins anew. Whatever is wrong with it, content is searched.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from importlib.metadata import version
from pathlib import Path

from ashat.common.home import home

ROWS_LIMIT = 2_000_000
_BATCH = 500


def rules_version() -> str:
    """Digest the code that searches, and the version of the catalogue that it uses."""
    code = hashlib.sha256(version("kingfisher-secret-scanner").encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()


class Searched:
    """The contents that were searched and had nothing, by digest, in a file of the operator's home."""

    def __init__(self, path: Path | None = None, rules: str = "") -> None:
        self._path = path or home() / "searched.db"
        self._rules = rules or rules_version()

    def clean(self, digests: Collection[str]) -> set[str]:
        """Choose those of `digests` whose content was searched by these rules, and had nothing."""
        found: set[str] = set()
        if not self._path.is_file():
            return found
        with suppress(sqlite3.Error), closing(self._open()) as database:
            wanted = [bytes.fromhex(digest) for digest in digests]
            for start in range(0, len(wanted), _BATCH):
                batch = wanted[start : start + _BATCH]
                marks = ",".join("?" * len(batch))
                query = f"SELECT digest FROM clean WHERE digest IN ({marks})"  # noqa: S608 - marks only
                found.update(digest.hex() for (digest,) in database.execute(query, batch))
        return found

    def remember(self, digests: Collection[str]) -> None:
        """Add contents that had nothing; a memory that cannot be written stays as it was."""
        if not digests or not self._path.parent.is_dir():
            return
        with suppress(sqlite3.Error), closing(self._open()) as database, database:
            (rows,) = next(iter(database.execute("SELECT count(*) FROM clean")))
            if rows + len(digests) > ROWS_LIMIT:
                database.execute("DELETE FROM clean")
            database.executemany("INSERT OR IGNORE INTO clean VALUES (?)", _blobs(digests))

    def _open(self) -> sqlite3.Connection:
        """Open the file, and empty it where it was written under other rules."""
        database = sqlite3.connect(self._path, timeout=2)
        try:
            with database:
                self._path.chmod(0o600)
                database.execute("CREATE TABLE IF NOT EXISTS clean (digest BLOB PRIMARY KEY) WITHOUT ROWID")
                database.execute("CREATE TABLE IF NOT EXISTS rules (version TEXT PRIMARY KEY)")
                if database.execute("SELECT version FROM rules").fetchall() != [(self._rules,)]:
                    database.execute("DELETE FROM clean")
                    database.execute("DELETE FROM rules")
                    database.execute("INSERT INTO rules VALUES (?)", (self._rules,))
        except BaseException:
            database.close()
            raise
        return database


def _blobs(digests: Collection[str]) -> Iterator[tuple[bytes]]:
    return ((bytes.fromhex(digest),) for digest in digests)
