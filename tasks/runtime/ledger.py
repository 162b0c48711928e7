"""Read the ledger and the clock, and say which run and which person this is."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.runtime import flow_run

from ashat.ledger.ledger import Ledger, now
from tasks.runtime.connections import connections

__all__ = ["ledger", "now", "run_id", "whoami"]


@contextmanager
def ledger() -> Iterator[Ledger]:
    """Use the ledger that the settings name: this run's, if a run has it open.

    Raises:
        LedgerError: it does not open, or a newer version wrote it.
    """
    with connections() as opened:
        yield opened.ledger


def run_id() -> str:
    """Return the id of the flow run that this code is part of; "" outside any."""
    return str(flow_run.id or "")


def whoami() -> str:
    """Name the person or account that runs this process, as user@host. Self-asserted."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
