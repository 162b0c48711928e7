"""Goes on watching the program that an offer brought, after its switch held: what runs is what is reported.

A program that ends, or is no longer healthy, is reported as failed until it has been well again for a minute. While
`watch_seconds` of its switch are not over, the Mainframe takes the switch back: a switch that held for seconds and not
for minutes has failed all the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ashat.common.clocks import uptime
from ashat.node.context import NodeContext
from ashat.node.core.db import now
from ashat.protocol.fleet import PROGRAM_ENDED, PROGRAM_UNHEALTHY
from ashat.protocol.messages import App, Operation
from ashat.protocol.probes import HealthProbe

log = logging.getLogger("ashat.node.mainframe")

CALM_SECONDS = 60.0
LOOKS = 3  # so many unhealthy ones in a row are no slow answer
ENDS = 2  # a program that ended by itself so often does not run


@dataclass
class Watched:
    """What was seen of one release since it was switched to: `since` counts on a clock that nobody sets.

    `unhealthy` are the unhealthy looks in a row, `detail` is what the last of them said. `ended` is how often the
    program ended by itself, of which nobody looked at the first `before`; `ended_at` is when that was last seen, on the
    same clock.
    """

    operation: str
    since: float
    before: int = 0
    unhealthy: int = 0
    detail: str = ""
    ended: int = 0
    ended_at: float | None = None
    failure: str = ""

    def see(self, app: App, health: HealthProbe | None, at: float) -> None:
        """Take in one look, at `at` by that clock."""
        ended = app.restarts + (app.status == "backing-off")
        if ended > max(self.ended, self.before):
            self.ended_at, self.failure = at, app.failure
        self.ended = ended
        if app.status == "backing-off" or health is None or health.healthy:
            self.unhealthy = 0
        else:
            self.unhealthy, self.detail = self.unhealthy + 1, health.detail

    def ill(self, at: float) -> str:
        """Say what is wrong with the program; "" where it is well."""
        if self.ended_at is not None and (at - self.ended_at < CALM_SECONDS):
            often = f"{self.ended} times" if self.ended > 1 else "once"
            why = f"; the last time, {self.failure}" if self.failure else ""
            return f"{PROGRAM_ENDED} {often} since it was switched to{why}"
        if self.unhealthy >= LOOKS:
            return f"{PROGRAM_UNHEALTHY}: {self.detail}"
        return ""

    def does_not_hold(self, at: float, watch_seconds: float) -> bool:
        """Tell whether the switch is to be taken back."""
        return at - self.since < watch_seconds and (self.ended - self.before >= ENDS or self.unhealthy >= LOOKS)


class ProgramWatch:
    """Looks, when told to, at what this Mainframe runs."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._watched: Watched | None = None

    def look(self) -> None:
        """See how the program gets on; take its switch back if it does not hold."""
        operation = self._context.operations.latest()
        if operation is None or operation.status != "succeeded" or operation.to is None:
            self._watched = None
            return
        at, app = uptime(), self._context.program.state()
        if self._watched is None or self._watched.operation != operation.id:
            self._watched = _first_sight(operation, app, at)
        self._watched.see(app, self._context.health.latest if app.status != "stopped" else None, at)
        if self._watched.does_not_hold(at, self._context.config.watch_seconds):
            why = self._watched.ill(at)
            reason = f"it held at first, but {why}"
            output = self._context.program.output(operation.to)
            if self._context.operations.take_back(operation.id, reason, output):
                log.warning("%s is taken back: %s", operation.update_id, reason)

    def ill(self) -> str:
        """Say what was wrong at the last look; "" where nothing was, or nobody looked yet."""
        return self._watched.ill(uptime()) if self._watched else ""


def _first_sight(operation: Operation, app: App, at: float) -> Watched:
    """Begin to watch what an operation brought. Where that was long ago, as after a restart of the node, what became of
    the program since is not known."""
    ago = max((now() - operation.ended_at).total_seconds(), 0.0) if operation.ended_at else 0.0
    return Watched(operation.id, at - ago, before=app.restarts if ago > CALM_SECONDS else 0)
