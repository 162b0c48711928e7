"""Give Prefect one event for each moment that somebody may want to act on; docs/events.md lists them.

What happened to an update is read from the ledger, so nothing that appends to it has to think of it. A variable of
Prefect holds how far this server was told: all who share the server ask it, and it is gone when its database is. Each
id is derived from the event of the ledger, so that two who tell of it at once tell of it once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.utilities.urls import url_for
from prefect.variables import Variable

from ashat.common.text import cut, printable
from ashat.deployment.moments import Told, told_of
from ashat.deployment.state_machine import fold
from ashat.ledger.leaf import Record
from ashat.ledger.ledger import Ledger
from tasks.runtime.connections import this_run
from tasks.runtime.in_time import in_time
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now

VARIABLE = "ashat_told"
SECONDS = 10.0
_AT_ONCE = 100
_RECENT = timedelta(hours=1)


def tell_moments() -> None:
    """Tell Prefect what the ledger recorded since it was told last; of what is older than an hour only where it was
    told of something before. A failure is said in a line, and what was to be told is told the next time."""
    try:
        ledger = this_run().ledger
        origin, size = ledger.log_head()
        place = in_time(SECONDS, lambda: _told_until(origin), "events")
        if place is not None and place >= size:
            return
        since = None if place is not None else now() - _RECENT
        _tell_from(ledger, origin, place or 0, since)
    except Exception as error:  # noqa: BLE001  no deployment waits for, or ends by, what is told of it
        _say(error)


def tell(events: Sequence[Told]) -> None:
    """Tell Prefect of these events, which are none of the ledger's; a failure is said in a line."""
    try:
        in_time(SECONDS, lambda: _send(events), "events")
    except Exception as error:  # noqa: BLE001  as above
        _say(error)


def as_prefect_has_it(told: Told) -> dict[str, Any]:
    """Spell an event as Prefect's API takes it, with the address of its run's page."""
    if told.run:
        told = told.linked(url_for("flow-run", obj_id=UUID(told.run)) or "")
    run = [{"prefect.resource.id": f"prefect.flow-run.{told.run}", "prefect.resource.role": "flow-run"}]
    return {
        "id": str(told.id),
        "event": told.event,
        "occurred": told.occurred.isoformat(),
        "resource": {"prefect.resource.id": told.resource, "prefect.resource.name": told.name},
        "related": run if told.run else [],
        "payload": told.payload.model_dump(mode="json"),
    }


def _tell_from(ledger: Ledger, origin: str, place: int, since: datetime | None) -> None:
    """Tell of each event from that place on; of those before `since` nothing."""
    while records := list(ledger.records(_AT_ONCE, first=place)):
        found = [told for record in records if (told := told_at(ledger, origin, record)) is not None]
        events = [told for told in found if since is None or told.occurred >= since]
        place = records[-1].seq + 1
        reached = place

        def send(events: Sequence[Told] = events, reached: int = reached) -> None:
            if events:
                _send(events)
            Variable.set(VARIABLE, {"ledger": origin, "events": reached}, overwrite=True)

        in_time(SECONDS, send, "events")


def told_at(ledger: Ledger, origin: str, record: Record) -> Told | None:
    """Tell of the event at that place of the ledger of the name `origin`; None where it is no moment."""
    happened = ledger.events(record.update_id, record.attempt)[: record.version]
    state = fold(record.update_id, record.attempt, happened)
    return told_of(origin, record.seq, happened, state)


def _told_until(origin: str) -> int | None:
    """Read how many events of the ledger of that name Prefect was told of; None where of none that is known."""
    kept: object = Variable.get(VARIABLE)
    if not isinstance(kept, dict) or kept.get("ledger") != origin or not isinstance(kept.get("events"), int):
        return None
    return int(kept["events"])


def _send(events: Sequence[Told]) -> None:
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[as_prefect_has_it(event) for event in events])


def _say(error: Exception) -> None:
    text = " ".join(str(error).split())
    reporter().say(f"⚠️ Prefect was not told as events what happened: {cut(printable(text), 200)}")
