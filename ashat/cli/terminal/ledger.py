"""Open the ledger, once a command needs more than the list of deployments."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ashat.ledger.ledger import Ledger


def open_ledger() -> Ledger:
    """Open the ledger that the settings name; close it, or use it in a `with` block.

    Raises:
        LedgerError: it does not open, or a newer version wrote it.
    """
    from ashat.ledger.ledger import Ledger

    return Ledger.configured()
