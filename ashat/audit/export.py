"""A log as one file that can be checked by whoever has it, without the ledger and without a network.

JSON lines, each of them canonical JSON (`ashat.common.canonical_json`), so that no byte of the file can be another:

    {"checkpoint": the signed checkpoint that covers every event below, "format": "ashat-audit-2",
     "roots": {the name of an OMEGA: its TUF roots as they were signed, as text, oldest first}}
    {"document": a document that the next event is the first to name}
    {"leaf": {"attempt", "event", "update_id", "version"}, "root": the tree's root once it was appended, in hex}

The last two repeat, in the order of the log.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ashat.audit.auditor import Document
from ashat.common.canonical_json import canonical_json
from ashat.common.documents import load_json
from ashat.common.files import sync_directory
from ashat.errors import AuditError
from ashat.ledger.leaf import Record

FORMAT = "ashat-audit-2"
LINE_LIMIT = 8 * 1024 * 1024
_FIELDS = {"checkpoint", "format", "roots"}
_LEAF = {"attempt": int, "event": dict, "update_id": str, "version": int}


def write_export(
    path: Path, note: str, items: Iterable[Record | Document], roots: Mapping[str, Sequence[bytes]]
) -> None:
    """Write the log that the signed checkpoint `note` covers, and the roots by which its approvals count; the file is
    there in full, or as it was before.

    Raises:
        AuditError: the file cannot be written. Whatever `items` raises passes through.
    """
    staging = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with staging.open("xb") as file:
            texts = {target: [root.decode() for root in known] for target, known in roots.items()}
            _line(file, {"checkpoint": note, "format": FORMAT, "roots": texts})
            for item in items:
                _line(file, _spelled(item))
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise AuditError(f"{path} was not written: {error.strerror or error}.") from None
    finally:
        with suppress(OSError):
            staging.unlink()


class Export:
    """An export, opened to be read once: `note` is its checkpoint, `roots` are those that came with it. A context
    manager."""

    def __init__(self, path: Path) -> None:
        """Open it and read its first line.

        Raises:
            AuditError: it cannot be read, or is no export that this version knows.
        """
        self.path = path
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise AuditError(f"{path} cannot be read: {error.strerror or error}.") from None
        try:
            self.note, self.roots = self._header()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def items(self) -> Iterator[Record | Document]:
        """Read the events in order, each after the documents that it is the first to name.

        Raises:
            AuditError: a line is none that an export has; the message names the event that it should hold.
        """
        seq, last = 0, "at the beginning"
        for number, raw in enumerate(iter(self._next, b""), 2):
            value = _canonical(raw)
            item = _item(value, seq) if value is not None else None
            if item is None:
                raise AuditError(
                    f"Event {seq + 1}, {last}, does not fit: line {number} of {self.path} was altered or cut off.",
                    event=seq + 1,
                )
            if isinstance(item, Record):
                seq, last = seq + 1, f"after {item.name}"
            yield item

    def _next(self) -> bytes:
        """Read a line, as far as a line may go."""
        return self._file.readline(LINE_LIMIT + 1)

    def _header(self) -> tuple[str, dict[str, list[bytes]]]:
        first = _canonical(self._next())
        if not isinstance(first, dict) or "format" not in first:
            raise AuditError(f"{self.path} is no export of deploy audit export, or its first line was altered.")
        if first["format"] != FORMAT or first.keys() != _FIELDS:
            raise AuditError(f"{self.path} has the format {first['format']!r}, and this version reads {FORMAT}.")
        return str(first["checkpoint"]), self._roots(first["roots"])

    def _roots(self, value: Any) -> dict[str, list[bytes]]:
        try:
            return {target: [root.encode() for root in known] for target, known in value.items()}
        except (AttributeError, TypeError):
            raise AuditError(f"{self.path} holds no roots that this version can read: it was altered.") from None


def is_export(path: Path) -> bool:
    """Tell whether the file is an export rather than a checkpoint, by its first byte.

    Raises:
        AuditError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(1) == b"{"
    except OSError as error:
        raise AuditError(f"{path} cannot be read: {error.strerror or error}.") from None


def _line(file: BinaryIO, value: Any) -> None:
    file.write(canonical_json(value) + b"\n")


def _spelled(item: Record | Document) -> dict[str, Any]:
    if isinstance(item, Document):
        return {"document": item.content}
    return {"leaf": json.loads(item.leaf), "root": item.root}


def _canonical(raw: bytes) -> Any:
    """Parse a line; None where it is not the one spelling of anything."""
    try:
        value = load_json(raw, limit=LINE_LIMIT)
        return value if canonical_json(value) + b"\n" == raw else None
    except ValueError:
        return None


def _item(value: Any, seq: int) -> Record | Document | None:
    match value:
        case {"document": content} if len(value) == 1:
            return Document(content)
        case {"leaf": dict(leaf), "root": str(root)} if len(value) == 2 and leaf.keys() == _LEAF.keys():
            if all(type(leaf[name]) is kind for name, kind in _LEAF.items()):
                body = canonical_json(leaf["event"]).decode()
                return Record(leaf["update_id"], leaf["attempt"], leaf["version"], body, seq, root)
    return None
