"""`ashat-node forget-log` and `forget-journal`: the way on after the ledger was lost, or OMEGA was built anew."""

from __future__ import annotations

from pathlib import Path

from ashat.common.files import sync_directory
from ashat.errors import UsageError
from ashat.node.cli.record import open_record
from ashat.node.logs.change_log import append
from ashat.node.mainframe.omega_witness import memory_of
from ashat.node.omega.ledger_log import KeptLog
from ashat.protocol.messages import Role
from ashat.trust.release.known_log import log_witness


def forget_log(data: Path) -> None:
    """Give up what the node of that data directory, which may serve meanwhile, knows of the ledger's log.

    Raises:
        UsageError: there is no such node, one that knows of no log, or what it remembers cannot be removed.
    """
    with open_record(data) as database:
        if database.get_meta("role") == Role.OMEGA:
            known = bool(KeptLog(database).forget().origin)
        else:
            try:
                known = log_witness(data / "trust").forget()
            except OSError as error:
                raise UsageError(f"{error.filename} cannot be removed: {error.strerror}.") from None
            if known:
                with database.transaction() as connection:
                    append(connection, "log-forgotten")
    if not known:
        raise UsageError("This node knows of no log: nothing was changed.")


def forget_change_log(data: Path) -> None:
    """Give up what the Mainframe of that data directory, which may serve meanwhile, remembers of OMEGA's change log.

    Raises:
        UsageError: there is no Mainframe, it remembers nothing, or that cannot be removed.
    """
    with open_record(data) as database:
        kept = [path for path in memory_of(data) if path.exists()]
        if database.get_meta("role") != Role.MAINFRAME or not kept:
            raise UsageError("This node remembers no OMEGA's journal of changes: nothing was changed.")
        try:
            for path in kept:
                path.unlink()
            sync_directory(kept[0].parent)
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be removed: {error.strerror}.") from None
        with database.transaction() as connection:
            append(connection, "omega-journal-forgotten")
