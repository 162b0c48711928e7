"""Sends the traffic to one of two slots: a recorded intent, a snippet for the proxy, and the command that has it read.

The record says where the traffic is to go before anything changes, and that it goes there once the proxy was reloaded
and answers. So a crash in between leaves the proxy with the old slot or the new one, both of which run, and the next
start of the node does again what the record says.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ashat.common.clocks import uptime
from ashat.common.failpoints import fault_point
from ashat.common.files import read_bounded, replace_file
from ashat.common.shortage import reason, shortage
from ashat.node.app_process.bounded_command import BoundedCommand, CommandError
from ashat.node.app_process.health import check_health
from ashat.node.app_process.place import SLOTS
from ashat.node.app_process.process import ProgramError
from ashat.node.core.config import NodeConfig, SlotsConfig
from ashat.node.core.db import Database

log = logging.getLogger("ashat.node")

RELOAD_LOG = "reload.log"
_SNIPPET_LIMIT = 64 * 1024
_LOOK_EVERY = 0.1
_HEAD = "# Written by ashat-node at each switch; do not edit. The traffic goes to the slot {slot}.\n"
_BODY = {
    "nginx": "server 127.0.0.1:{port};\n",
    "caddy": "to 127.0.0.1:{port}\n",
    "haproxy": "backend {backend}\n    server {slot} 127.0.0.1:{port}\n",
}


class TrafficError(ProgramError):
    """The proxy could not be told where the traffic goes, or does not send it there."""


@dataclass(frozen=True)
class Direction:
    """Where the traffic goes by the record: to `slot`, for the release `bundle` ("": none runs).

    It is `applied` once the proxy was reloaded for it, at `since` by the clock that counts since the machine started.
    Until `idle_until` on that clock what runs in the other slot is kept; None: it never had the traffic. `ports` are
    those of the slots, in their order.
    """

    slot: str
    bundle: str
    applied: bool
    since: float
    idle_until: float | None
    ports: tuple[int, ...]

    @property
    def other(self) -> str:
        """The slot without the traffic."""
        return SLOTS[1 - SLOTS.index(self.slot)]

    def rests(self) -> bool:
        """Tell whether nothing is to be done: the proxy goes by it, and nothing has been kept for long enough."""
        return self.applied and (self.idle_until is None or uptime() <= self.idle_until)


def snippet(settings: SlotsConfig, slot: str) -> str:
    """Write what the proxy reads, for the traffic to go to `slot`.

    For nginx it stands within an `upstream`, for Caddy within a `reverse_proxy`; for HAProxy it is a file of its own.
    """
    port = settings.ports[SLOTS.index(slot)]
    text = _HEAD + _BODY[settings.proxy]
    return text.format(slot=slot, port=port, backend=settings.backend)


class Traffic:
    """The traffic of a node with two slots. One thread at a time may change it."""

    def __init__(self, config: NodeConfig, db: Database, spend: Callable[[Callable[[], None]], None]) -> None:
        """Open it; `spend` does a work that takes a little room, on a full disk too."""
        assert config.slots.snippet is not None
        self._config = config
        self._db = db
        self._spend = spend
        self._path = config.slots.snippet
        self._ports = tuple(config.slots.ports)
        self._command = BoundedCommand(
            "the reload of the proxy", config.slots.reload, config.data / RELOAD_LOG, "slots.reload_timeout"
        )
        found = direction(db)
        if found is None or found.ports != self._ports:
            self._write(found or Direction(SLOTS[0], "", False, 0, None, self._ports))

    def read(self) -> Direction:
        """Read where it goes."""
        found = direction(self._db)
        assert found is not None
        return found

    def direct(self, slot: str, bundle: str, *, keep: float) -> None:
        """Send it to `slot`, which runs `bundle`, and keep what runs in the other one for `keep` seconds.

        Raises:
            TrafficError: the proxy was not told, or does not send it there; the record says that it should.
            sqlite3.Error: that cannot be recorded, and nothing was changed.
        """
        now = self.read()
        if (now.slot, now.bundle, now.applied) == (slot, bundle, True) and self._stands(slot):
            return
        kept = now.idle_until if now.slot == slot else uptime() + keep
        intent = replace(now, slot=slot, bundle=bundle, applied=False, idle_until=kept)
        self._write(intent)
        fault_point("switch.traffic-recorded")
        self._apply(slot, bundle)
        at = uptime()
        kept = now.idle_until if now.slot == slot else at + keep
        self._write(replace(intent, applied=True, since=at, idle_until=kept))
        fault_point("switch.traffic-switched")

    def apply(self) -> None:
        """Have the proxy go by what the record says, where it is not known to.

        Raises:
            TrafficError: it does not.
        """
        now = self.read()
        if now.applied and self._stands(now.slot):
            return
        self._apply(now.slot, now.bundle or None)
        at = uptime()
        kept = None if now.idle_until is None else max(now.idle_until, at + self._config.slots.drain)
        self._write(replace(now, applied=True, since=at, idle_until=kept))

    def note(self, *, bundle: str | None = None, idle_until: float | None) -> None:
        """Record what runs where the traffic goes, if that is another, and for how long the other slot is kept."""
        now = self.read()
        self._write(replace(now, bundle=now.bundle if bundle is None else bundle, idle_until=idle_until))

    def drain_left(self) -> float:
        """Count the seconds for which the slot that had the traffic before is to be left alone."""
        drain = self._config.slots.drain
        return min(max(self.read().since + drain - uptime(), 0.0), drain)

    def _apply(self, slot: str, bundle: str | None) -> None:
        content = snippet(self._config.slots, slot).encode()
        try:
            self._spend(lambda: replace_file(self._path, content))
            self._path.chmod(0o644)
        except OSError as error:
            if shortage(error):
                raise
            raise TrafficError(
                f"the traffic was not switched: {self._path} cannot be written: {reason(error)}"
            ) from error
        fault_point("switch.snippet-written")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("ASHAT_")}
        environment = {**inherited, "ASHAT_SLOT": slot, "ASHAT_SNIPPET": str(self._path)}
        try:
            self._command.run(environment, self._config.slots.reload_timeout)
        except CommandError as error:
            raise TrafficError(f"the traffic was not switched: {error}") from error
        fault_point("switch.proxy-reloaded")
        self._look(bundle)

    def _look(self, bundle: str | None) -> None:
        """Wait until the proxy answers with the release, where the settings say where that can be asked."""
        settings = self._config.slots
        ends = time.monotonic() + settings.reload_timeout
        while settings.url and bundle:
            seen = check_health(settings.url, self._config.app, bundle=bundle)
            if seen.healthy:
                return
            if time.monotonic() > ends:
                raise TrafficError(
                    f"the proxy at {settings.url} does not answer with the release within "
                    f"{settings.reload_timeout:g} s of its reload: {seen.detail}"
                )
            time.sleep(_LOOK_EVERY)

    def _stands(self, slot: str) -> bool:
        """Tell whether the snippet sends it there."""
        try:
            return read_bounded(self._path, _SNIPPET_LIMIT) == snippet(self._config.slots, slot).encode()
        except OSError:
            return False

    def _write(self, to: Direction) -> None:
        def write() -> None:
            with self._db.transaction() as connection:
                connection.execute(
                    "INSERT OR REPLACE INTO traffic (only, slot, bundle, applied, since, idle_until, ports)"
                    " VALUES (1, ?, ?, ?, ?, ?, ?)",
                    (to.slot, to.bundle, int(to.applied), to.since, to.idle_until, ",".join(map(str, self._ports))),
                )

        self._spend(write)


def direction(db: Database) -> Direction | None:
    """Read where the traffic goes by the record; None for a node without slots."""
    row = db.one("SELECT * FROM traffic")
    if row is None:
        return None
    ports = tuple(map(int, row["ports"].split(",")))
    return Direction(row["slot"], row["bundle"], bool(row["applied"]), row["since"], row["idle_until"], ports)
