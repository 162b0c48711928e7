"""Remember which ledger lies at which address, so that nobody begins a new one where that one is missing.

`<home>/audit/<ledger>/address` is the address at which the commands of this home last found the ledger. Beside it lie
the checkpoints of it that were signed here (`ashat.transparency.log_signer`): it has at least the events that they
cover. Nothing but the standard library is imported, because `deploy status` asks here, too.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ashat.common.files import make_directory, read_bounded, replace_file
from ashat.errors import LedgerError

LEDGER_NAME = re.compile(r"ashat-deploy/ledger-[0-9a-f]{16}")
_FILE_BYTES = 1 << 16
_SIZE_DIGITS = 19
_PREFIX = "ashat-deploy/"


@dataclass(frozen=True)
class RememberedLedger:
    """A ledger that this home knows. `address` is empty where none was noted; `events` is how many it has at least."""

    directory: Path
    address: str
    events: int

    @property
    def name(self) -> str:
        """What its log is called, and how much of it was signed here."""
        return f"{self.directory.name} ({self.events} events were signed on this machine)"


def sqlite_address(home: Path, database: Path) -> str:
    """Return the address of a SQLite file: one under the home is found again when the home moves."""
    path = database.absolute()
    return f"sqlite:{path.relative_to(home.absolute()) if path.is_relative_to(home.absolute()) else path}"


def remembered_ledgers(home: Path) -> list[RememberedLedger]:
    """List the ledgers that were opened or signed from this home."""
    found = sorted((home / "audit").glob("ledger-*"))
    return [RememberedLedger(path, _text(path / "address"), _signed_events(path)) for path in found]


def require_ledger(home: Path, address: str, origin: str, events: int) -> None:
    """Check that the ledger at `address` is the one that was there, and has what was signed of it.

    `origin` is the name of the log that is there, with so many `events`; empty where no ledger is there at all.

    Raises:
        LedgerError: it is gone, or shorter, or another; the message names what is missing.
    """
    known = remembered_ledgers(home)
    own = next((ledger for ledger in known if ledger.directory.name == origin.removeprefix(_PREFIX)), None)
    if own is not None and events < own.events:
        raise LedgerError(
            f"Events {events + 1} to {own.events} of the ledger are missing: {own.name}, and {address} holds {events}. "
            f"Restore a newer backup; {_anew(own)}"
        )
    lost = [ledger for ledger in known if ledger.address == address or not (ledger.address or events)]
    if own is None and lost:
        there = f"another one, {origin.removeprefix(_PREFIX)}," if origin else "none"
        raise LedgerError(
            f"The ledger {lost[0].name} is missing: {there} is at {address}. Restore it from a backup; {_anew(lost[0])}"
        )


def remember_ledger(home: Path, address: str, origin: str) -> None:
    """Note that the log called `origin` lies at `address`.

    A home in which nothing can be written remembers nothing: whoever only reads a shared ledger may have one.
    """
    directory = home / "audit" / origin.removeprefix(_PREFIX)
    if _text(directory / "address") != address:
        with contextlib.suppress(PermissionError):
            make_directory(directory.parent, mode=0o700)
            make_directory(directory, mode=0o700)
            replace_file(directory / "address", f"{address}\n".encode(), mode=0o600)


def _anew(ledger: RememberedLedger) -> str:
    return f"to begin a new one instead, move {ledger.directory} away."


def _signed_events(directory: Path) -> int:
    try:
        approved = json.loads(_text(directory / "approved.json"))["checkpoint"]
    except (ValueError, RecursionError, KeyError, TypeError):
        approved = ""
    return max(_size_of(_text(directory / "checkpoint")), _size_of(str(approved)))


def _size_of(checkpoint: str) -> int:
    lines = checkpoint.split("\n", 2)
    size = lines[1] if len(lines) > 1 else ""
    return int(size) if size.isascii() and size.isdigit() and len(size) <= _SIZE_DIGITS else 0


def _text(path: Path) -> str:
    try:
        return read_bounded(path, _FILE_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""
