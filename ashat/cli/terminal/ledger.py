"""Opens the ledger that the settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ashat.ledger.ledger import Ledger


@contextmanager
def open_ledger() -> Iterator[Ledger]:
    """The ledger that the settings name.

    Raises:
        LedgerError: it does not open, or a newer version wrote it.
    """
    from ashat.ledger.ledger import Ledger
    from ashat.settings import Settings

    settings = Settings()
    if not settings.ledger_url:
        settings.ensure_home()
    with Ledger.open(settings.effective_ledger_url) as ledger:
        yield ledger
