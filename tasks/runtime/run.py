"""Say which flow run this code is part of, who runs it, and what time it is: what each event is recorded with."""

from __future__ import annotations

import getpass
import socket

from prefect.runtime import flow_run

from ashat.ledger.ledger import now

__all__ = ["now", "run_id", "whoami"]


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
