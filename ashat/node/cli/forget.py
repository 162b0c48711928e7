"""`ashat-node forget-log`: the way on after the ledger was lost, or restored from a backup that is too old."""

from __future__ import annotations

from pathlib import Path

from ashat.errors import UsageError
from ashat.node.core.db import Database
from ashat.node.logs.change_log import append, asked_by, local_operator
from ashat.node.omega.ledger_log import KeptLog
from ashat.protocol.messages import Role
from ashat.trust.release.known_log import RememberedLog


def forget_log(data: Path) -> None:
    """Give up what the node of that data directory, which may serve meanwhile, knows of the ledger's log.

    Raises:
        UsageError: there is no such node, or one that knows of no log.
        TrustError: what it remembers cannot be removed.
    """
    if not (data / "node.db").is_file():
        raise UsageError(f"There is no node in {data}; give --data or --config.")
    database = Database(data / "node.db")
    try:
        with asked_by(local_operator()):
            if database.get_meta("role") == Role.OMEGA:
                known = bool(KeptLog(database).forget().origin)
            elif known := RememberedLog(data / "trust" / "log.json").forget():
                with database.transaction() as connection:
                    append(connection, "log-forgotten")
    finally:
        database.close()
    if not known:
        raise UsageError("This node knows of no log: nothing was changed.")
