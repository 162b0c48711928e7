"""The program in two slots: what runs has the traffic, a new release starts beside it, the one before stays warm.

Each slot is a supervised program with a port, a log, a keeper and a control group of its own. To everybody but the
switch, the program is the one that has the traffic.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from ashat.common.clocks import uptime
from ashat.common.shortage import reason
from ashat.node.app_process.place import SLOTS, Place, slots_of
from ashat.node.app_process.process import Program, ProgramError
from ashat.node.app_process.supervisor import SupervisedProgram, end_left
from ashat.node.app_process.traffic import Direction, Traffic
from ashat.node.app_process.user import ProgramUser
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database
from ashat.node.store.releases import Release
from ashat.protocol.messages import App, AppSlot
from ashat.protocol.probes import ProcessProbe

log = logging.getLogger("ashat.node")


class SlottedProgram(Program):
    """The program of a node with two slots; `slots` are those, by name, `traffic` says which has the traffic.

    `_turn` is held by whoever starts, ends or redirects: the thread of the operations, or `expire`.
    """

    def __init__(
        self,
        config: NodeConfig,
        db: Database,
        user: ProgramUser | None,
        spend: Callable[[Callable[[], None]], None],
    ) -> None:
        self._config = config
        self._db = db
        self._turn = threading.RLock()
        self._switching = 0
        self._taken_over = False
        self._try_at = 0.0
        self.traffic = Traffic(config, db, spend)
        self.slots = {place.name: SupervisedProgram(config, db, user, place) for place in slots_of(config)}

    @property
    def active(self) -> SupervisedProgram:
        """The program that has the traffic."""
        return self.slots[self.traffic.read().slot]

    @property
    def url(self) -> str | None:
        """Where the program that has the traffic answers; None while nothing runs there."""
        return self.active.url

    def take_over(self) -> None:
        """Take over what earlier processes of this node started in the slots, and end what they started elsewhere.

        Raises:
            ProgramError: something cannot be ended.
        """
        with self._turn:
            in_place = Place()
            end_left(self._config, self._db, in_place)
            if in_place.row(self._db) is not None:
                with self._db.transaction() as connection:
                    in_place.forget(connection)
            for slot in self.slots.values():
                if slot.release() is None and not slot.adopt_recorded(self._config.data / "releases"):
                    slot.restart(None, None)
            self._taken_over = True

    @contextmanager
    def switching(self) -> Iterator[None]:
        """Have `expire` end nothing and redirect nothing for as long as the block lasts."""
        with self._turn:
            self._switching += 1
        try:
            yield
        finally:
            with self._turn:
                self._switching -= 1

    def holding(self, release: Release) -> str | None:
        """Find the slot that runs `release`, the one with the traffic first; None where none does."""
        now = self.traffic.read()
        return next((name for name in (now.slot, now.other) if self.slots[name].release() == release), None)

    def is_proven(self, name: str) -> bool:
        """Tell whether what runs in a slot has, or had, the traffic, and never ended by itself."""
        now = self.traffic.read()
        return self.slots[name].failure() is None and (name == now.slot or now.idle_until is not None)

    def begin(self, release: Release, *, patient: bool = False) -> str:
        """Start `release` in the slot that is free for it, beside what has the traffic; the slot's name.

        What still runs in that slot is ended. `patient`: on the way back, or where it is to run in any case, it is
        started also where its port is taken, and started again until it has it.

        Raises:
            ProgramError: it cannot be started, or what runs there cannot be ended.
        """
        with self._turn:
            now = self.traffic.read()
            name = self._free(now, release)
            if name == now.other:
                self.traffic.note(idle_until=None)
            self.slots[name].restart(release, None, patient=patient)
            return name

    def drain_left(self, release: Release) -> float:
        """Count the seconds for which the slot in which `release` would begin has to be left alone."""
        now = self.traffic.read()
        name = self._free(now, release)
        busy = name == now.other and now.idle_until is not None and self.slots[name].release() is not None
        return self.traffic.drain_left() if busy else 0.0

    def direct(self, name: str, bundle: str, *, keep: float) -> None:
        """Send the traffic to a slot, and keep what runs in the other for `keep` seconds.

        Raises:
            TrafficError: the proxy does not go by it.
            sqlite3.Error: it cannot be recorded.
        """
        with self._turn:
            self.traffic.direct(name, bundle, keep=keep)

    def end_idle(self) -> None:
        """End what runs without the traffic, unless it had it."""
        with self._turn:
            now = self.traffic.read()
            if now.idle_until is None and self.slots[now.other].release() is not None:
                self.slots[now.other].restart(None, None)

    def expire(self) -> None:
        """End what has been kept for long enough; have the proxy go by the record, where it did not yet.

        Before `take_over`, and while a switch is under way, that is left to others.
        """
        if not self._taken_over or self.traffic.read().rests():
            return
        with self._turn:
            now = self.traffic.read()
            if self._switching or now.rests() or time.monotonic() < self._try_at:
                return
            pause = self._config.app.health_interval
            self._try_at = time.monotonic() + pause
            try:
                self._expire(now)
            except (ProgramError, OSError) as error:
                log.warning("%s; it is tried again in %g s", reason(error), pause)

    def _expire(self, now: Direction) -> None:
        if not now.applied:
            self.traffic.apply()
            self.end_idle()
            return
        if self.slots[now.other].release() is not None:
            log.info("the slot %s is ended: it was kept for long enough", now.other)
        self.slots[now.other].restart(None, None)
        self.traffic.note(idle_until=None)

    def restart(self, release: Release | None, previous: str | None, *, patient: bool = False) -> None:
        """Run nothing any more; a release is begun with `begin`.

        Raises:
            ProgramError: something cannot be ended.
        """
        assert release is None
        with self._turn:
            for slot in self.slots.values():
                slot.restart(None, None)
            self.traffic.note(bundle="", idle_until=None)

    def failure(self) -> str | None:
        """Say how the program that has the traffic ended since it was started on purpose; None while it did not."""
        return self.active.failure()

    def output(self, bundle: str | None) -> tuple[str, ...]:
        """Return the last lines that the program wrote since it was started on purpose as `bundle`."""
        now = self.traffic.read()
        for name in (now.other, now.slot):
            if bundle is not None and self.slots[name].bundle() == bundle:
                return self.slots[name].output(bundle)
        return ()

    def log_begins(self) -> int | None:
        """Return how many bytes the log of what has the traffic had when it was started."""
        return self.active.log_begins()

    def log_name(self) -> str:
        """Return the name of the log of what has the traffic."""
        return self.active.log_name()

    def slot(self, name: str) -> Program | None:
        """Return the program of a slot."""
        return self.slots.get(name)

    def release(self) -> Release | None:
        """Return the release that has the traffic."""
        return self.active.release()

    def bundles(self) -> set[str]:
        """List what runs, in either slot."""
        return {bundle for slot in self.slots.values() if (bundle := slot.bundle())}

    def state(self) -> App:
        """Return what is known of the program that has the traffic, and of both slots; its address is the proxy's, if
        the settings name that."""
        now = self.traffic.read()
        app = self.slots[now.slot].state()
        url = self._config.slots.url if self._config.slots.url and app.url else app.url
        return app.model_copy(update={"url": url, "slots": tuple(self._slot_state(name, now) for name in SLOTS)})

    def inspect(self) -> ProcessProbe:
        """Look at the processes of what has the traffic."""
        return self.active.inspect()

    def client_ports(self) -> frozenset[int]:
        """Return the ports from which what has the traffic has connections to others."""
        return self.active.client_ports()

    def note_healthy(self, started_at: datetime | None) -> None:
        """Keep how long the latest start took of what has the traffic."""
        self.active.note_healthy(started_at)

    def upkeep(self) -> None:
        """Keep the logs from growing without end."""
        for slot in self.slots.values():
            slot.upkeep()

    def close(self) -> None:
        """End both."""
        for slot in self.slots.values():
            slot.close()

    def _free(self, now: Direction, release: Release) -> str:
        """Choose the slot in which `release` begins: the one with the traffic only where nothing runs there that has
        it for another release."""
        waits = now.bundle == release.bundle and self.slots[now.slot].release() is None
        return now.slot if waits or not now.bundle else now.other

    def _slot_state(self, name: str, now: Direction) -> AppSlot:
        program, kept = self.slots[name], now.idle_until
        app, idle = program.state(), name == now.other
        return AppSlot(
            name=name,
            port=self._config.slots.ports[SLOTS.index(name)],
            traffic=not idle and now.applied,
            status=app.status,
            bundle=program.bundle(),
            pid=app.pid,
            kept_seconds=round(max(kept - uptime(), 0), 1) if idle and kept is not None and program.bundle() else None,
        )
