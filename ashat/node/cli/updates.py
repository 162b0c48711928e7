"""`ashat-node updates` and `install`: what waits on a Mainframe by its owner's rules, and the owner's word for it."""

from __future__ import annotations

from pathlib import Path

from ashat.errors import UsageError
from ashat.node.cli.record import open_record
from ashat.node.core.db import Database
from ashat.node.mainframe.own_rules import IMPORTED, OFFERED, WaitingOffer, consent, consented, waiting_offer
from ashat.protocol.messages import Role


def describe_waiting(data: Path) -> str:
    """Say what waits on the Mainframe of that data directory, whether or not it serves.

    Raises:
        UsageError: there is no Mainframe.
    """
    with open_record(data) as database:
        _check_role(database)
        lines = [_line(database, found, how) for found, how in _waiting(database)]
    return "\n".join(lines) or "Nothing waits here."


def _waiting(database: Database) -> list[tuple[WaitingOffer, str]]:
    """What waits, and how it came."""
    known = ((waiting_offer(database, key), how) for key, how in ((OFFERED, ""), (IMPORTED, "  imported")))
    return [(found, how) for found, how in known if found is not None]


def _line(database: Database, found: WaitingOffer, how: str) -> str:
    allowed = "; it is allowed" if consented(database, found.offer) else ""
    offer, since = found.offer, f"{found.since:%Y-%m-%d %H:%M} UTC"
    return f"{offer.update_id}  {offer.bundle[:12]}  here since {since}{how}  waits {found.why or 'no more'}{allowed}"


def allow(data: Path, update_id: str) -> str:
    """Allow the update that waits on the Mainframe of that data directory, which may serve meanwhile.

    Raises:
        UsageError: there is no Mainframe, or another update waits there, or none.
    """
    with open_record(data) as database:
        _check_role(database)
        waiting = [found for found, _ in _waiting(database)]
        if not waiting:
            raise UsageError("Nothing waits here, so nothing was changed.")
        found = next((one for one in waiting if one.offer.update_id == update_id), None)
        if found is None:
            names = ", ".join(one.offer.update_id for one in waiting)
            raise UsageError(f"{names} waits here, not {update_id[:80]}: nothing was changed.")
        if not consented(database, found.offer):
            consent(database, found.offer)
    return f"{update_id} may be installed: the Mainframe does so when it next asks OMEGA, by its other rules."


def _check_role(database: Database) -> None:
    if database.get_meta("role") != Role.MAINFRAME:
        raise UsageError("This node is no Mainframe: nothing waits here.")
