"""Hold a release back while a window is not open, or a freeze holds, on the server that it goes to."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ashat.common.calendar import Calendar, Closed
from ashat.deployment.events import FreezeOverridden, WindowAwaited, WindowOpened
from ashat.deployment.state_machine import State
from ashat.errors import NotConfiguredError, UsageError
from tasks.runtime.deployment import Deployment
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now, whoami

Server = Literal["public", "omega"]


def closed_now(d: Deployment, server: Server) -> Closed | None:
    """Say why the update may not go to the server now; None where it may. A server that is not configured is not
    closed: what asks it says so."""
    try:
        calendar = d.server(server).calendar()
    except NotConfiguredError:
        return None
    except UsageError as error:
        name = d.public_name if server == "public" else d.target_name
        return Closed(f"its windows and freezes cannot be read ({error} deploy window list {name})", None)
    return _closed(d.state, server, calendar, now())


def closed_to(d: Deployment, server: Server) -> Closed | None:
    """Say why the update waits for the server; None where it is open, or somebody overrides that."""
    return None if server in d.state.overridden else closed_now(d, server)


def _closed(state: State, server: Server, calendar: Calendar, at: datetime) -> Closed | None:
    approved_for = state.gate.not_before if server == "omega" and state.gate and state.gate.decision else None
    if approved_for is not None and at < approved_for:
        return Closed(f"it is approved for {approved_for:%Y-%m-%d %H:%M} UTC", calendar.opens(approved_for))
    return calendar.closed(at)


def hold(d: Deployment, server: Server, override: str = "", by: str = "") -> Closed | None:
    """Record that the update waits for the server, which is closed, or that somebody overrides that, with the reason
    `override`; why it waits, None where it goes on."""
    state = d.state
    if server in state.overridden:
        return None
    closed = closed_now(d, server)
    if closed is not None and override:
        event = FreezeOverridden(at=now(), by=by or whoami(), server=server, reason=override, closed=closed.words)
        d.advance(lambda newest: None if server in newest.overridden else event)
        reporter().say(f"{d.update_id} goes on although {closed.why}: {override}")
        return None
    if closed is None:
        opened = WindowOpened(at=now(), by=whoami(), server=server)
        d.advance(lambda newest: opened if newest.window is not None and newest.window.server == server else None)
        return None
    waits = WindowAwaited(at=now(), by=whoami(), server=server, why=closed.why, opens=closed.opens)

    def awaited(newest: State) -> WindowAwaited | None:
        known = newest.window
        same = known is not None and (known.server, known.why, known.opens) == (server, closed.why, closed.opens)
        return None if same or server in newest.overridden else waits

    state = d.advance(awaited)
    reporter().say(f"{d.update_id} {state.window_line}")
    return None if server in state.overridden else closed
