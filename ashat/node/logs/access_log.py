"""Every request that reaches a node: when, who asked, from where, for what, and what came of it. Never a secret.

One JSON object a line, in files that are rotated and bounded: those of tokens, of licences and of strangers each in
their own, so that neither many Mainframes nor whoever is not let in push out what operators did. `tokens.jsonl.1` is
the file before `tokens.jsonl`, and so on.

A line is handed to the system before the answer's last byte is sent, and not waited for on the disk: a node that is
killed loses none, a loss of power may take the last seconds.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ashat.common.files import replace_file
from ashat.common.text import without_secrets
from ashat.node.core.db import Database, now
from ashat.protocol.messages import Caller, JournalLine

log = logging.getLogger("ashat.node")

DIRECTORY = "journal"
DETAIL_LENGTH = 500
PATH_LENGTH = 500
FILE_BYTES = 16 * 1024 * 1024
_FILES = {Caller.TOKENS: 8, Caller.LICENCES: 4, Caller.ANONYMOUS: 2}
_OLD_ROWS = 100_000


class Journal:
    """The requests of one node, in `directory`. Safe to use from many threads."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._files = {asker: _Rotated(directory, asker) for asker in Caller}
        self._failed = False

    def append(self, line: JournalLine) -> None:
        """Add a line. Where the disk takes none, the log says so once, and the request is served all the same."""
        asker = Caller.TOKENS if line.token else Caller.LICENCES if line.licence else Caller.ANONYMOUS
        try:
            self._files[asker].append(line.model_dump_json(exclude_defaults=True).encode() + b"\n")
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning("requests are not written down: %s", error)
            self._failed = True

    def adopt(self, database: Database) -> None:
        """Take over what a node of before these files kept in its record."""
        if not database.one("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'journal'"):
            return
        rows = database.all(
            "SELECT * FROM (SELECT * FROM journal ORDER BY seq DESC LIMIT ?) ORDER BY seq", (_OLD_ROWS,)
        )
        if rows:
            lines = (_of_row(dict(row)).model_dump_json(exclude_defaults=True) + "\n" for row in rows)
            oldest = _path(self._directory, Caller.TOKENS, _FILES[Caller.TOKENS] - 1)
            replace_file(oldest, "".join(lines).encode(), mode=0o600)
        database.ensure("DROP TABLE journal")

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def entry(
    *,
    method: str,
    path: str,
    status: int,
    token: str = "",
    licence: str = "",
    client: str = "",
    detail: str = "",
    milliseconds: int = 0,
    received: int = 0,
    sent: int = 0,
) -> JournalLine:
    """A line, stamped now. `path` is without its query."""
    return JournalLine(
        at=now(),
        method=_printable(method)[:20],
        path=without_secrets(path)[:PATH_LENGTH],
        status=status,
        token=token,
        licence=licence,
        client=_printable(client)[:64],
        ms=milliseconds,
        received=received,
        sent=sent,
        detail=_printable(without_secrets(detail))[:DETAIL_LENGTH],
    )  # fmt: skip


def read_journal(directory: Path, asker: Caller = Caller.TOKENS, *, limit: int, of: str = "") -> list[JournalLine]:
    """The newest `limit` lines, newest first; those of the token or licence with the id `of` only, where it is given.

    A line that a loss of power tore is left out.
    """
    found: list[JournalLine] = []
    for raw in _newest_first(directory, asker):
        try:
            line = JournalLine.model_validate_json(raw)
        except ValidationError:
            continue
        if of in ("", line.token, line.licence):
            found.append(line)
        if len(found) == limit:
            break
    return found


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


class _Rotated:
    def __init__(self, directory: Path, asker: Caller) -> None:
        self._directory = directory
        self._asker = asker
        self._lock = threading.Lock()
        self._fd, self._size = -1, 0
        self._open()

    def append(self, line: bytes) -> None:
        with self._lock:
            if self._size + len(line) > FILE_BYTES:
                self._rotate()
            self._size += os.write(self._fd, line)

    def close(self) -> None:
        with self._lock:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(_path(self._directory, self._asker), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._size += os.write(self._fd, b"\n")

    def _rotate(self) -> None:
        for number in range(_FILES[self._asker] - 2, -1, -1):
            path = _path(self._directory, self._asker, number)
            if path.exists():
                os.replace(path, _path(self._directory, self._asker, number + 1))
        before = self._fd
        self._open()
        os.close(before)


def _path(directory: Path, asker: Caller, number: int = 0) -> Path:
    return directory / (f"{asker}.jsonl.{number}" if number else f"{asker}.jsonl")


def _newest_first(directory: Path, asker: Caller) -> Iterator[bytes]:
    for number in range(_FILES[asker]):
        try:
            content = _path(directory, asker, number).read_bytes()
        except FileNotFoundError:
            continue
        yield from reversed(content.splitlines())


def _of_row(row: dict[str, Any]) -> JournalLine:
    return JournalLine(
        at=row["ts"],
        method=row["method"],
        path=row["path"],
        status=row["status"],
        token=row["token_id"] or "",
        detail=row["detail"],
    )
