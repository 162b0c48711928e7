"""The ledger and the clock, as the steps and flows use them."""

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
    """The ledger that the settings name: this run's, where one has it open.

    Raises:
        LedgerError: it does not open, or a newer version wrote it.
    """
    with connections() as opened:
        yield opened.ledger


def run_id() -> str:
    """The id of the flow run that this code runs in; "" outside any."""
    return str(flow_run.id or "")


def whoami() -> str:
    """The person or account that runs this process, as user@host. Self-asserted."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
