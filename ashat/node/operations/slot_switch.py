"""Switches a release in beside what runs: started in the free slot, checked there, given the traffic, made current.

What had the traffic runs on, so that the way back needs no start. The link `current` follows the traffic. Each step can
be done again; where the traffic goes is recorded before the proxy is told (`ashat.node.app_process.traffic`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from ashat.common.failpoints import fault_point
from ashat.node.app_process.health import Health
from ashat.node.app_process.slots import SlottedProgram
from ashat.node.app_process.traffic import TrafficError
from ashat.node.core.config import NodeConfig
from ashat.node.operations.settle import Interrupted, UnhealthyError, settle
from ashat.node.store.releases import Release, Releases

log = logging.getLogger("ashat.node")

Stepping = Callable[[str], AbstractContextManager[None]]
"""Times and records a step of an operation by its name."""


class SlotSwitch:
    """Moves the traffic of one node between its two slots, in the thread of its operations, until `stopping` is set."""

    def __init__(
        self, config: NodeConfig, releases: Releases, program: SlottedProgram, stopping: threading.Event
    ) -> None:
        self._config = config
        self._releases = releases
        self._program = program
        self._stopping = stopping
        self._health = {name: Health(config.app, slot) for name, slot in program.slots.items()}

    def bring(self, release: Release | None, step: Stepping) -> None:
        """Make `release` what has the traffic, and current.

        Raises:
            UnhealthyError: it did not become healthy; what ran has the traffic.
            ProgramError: it cannot be started, or the proxy does not send it the traffic.
            Interrupted: the node is stopping.
        """
        with self._program.switching():
            self._bring(release, step)

    def _bring(self, release: Release | None, step: Stepping) -> None:
        with step("start"):
            name = self._warm(release)
            fresh = name is None and release is not None
            if fresh and release is not None:
                name = self._begin(release)
        fault_point("switch.app-started")
        with step("settle"):
            if fresh and name is not None:
                self._settle(name, release)
        with step("traffic"):
            if name is None or release is None:
                self._program.restart(None, None)
            else:
                self._program.direct(name, release.bundle, keep=self._config.slots.warm)
        with step("link"):
            self._releases.link(release)
        fault_point("switch.linked")

    def put_back(self, release: Release | None) -> bool:
        """Give the traffic back to `release`, what ran before, and make it current; tell whether it had gone elsewhere.

        Raises:
            UnhealthyError: it is not well; it has the traffic all the same.
            ProgramError: it cannot be started, or the proxy does not send it the traffic.
            Interrupted: the node is stopping.
        """
        with self._program.switching():
            return self._put_back(release)

    def _put_back(self, release: Release | None) -> bool:
        if release is None:
            self._program.restart(None, None)
            self._releases.link(None)
            return True
        before = self._program.traffic.read()
        name = self._program.holding(release)
        moved = before.bundle != release.bundle or not before.applied or name != before.slot
        unwell: UnhealthyError | None = None
        if name is None:
            name = self._begin(release, patient=True)
        if not self._program.is_proven(name):
            try:
                self._settle(name, release)
            except UnhealthyError as error:
                unwell = error
        self._program.direct(name, release.bundle, keep=self._config.slots.drain)
        self._releases.link(release)
        self._program.end_idle()
        if unwell is not None:
            raise unwell
        return moved

    def hold(self, release: Release, *, beside: str | None) -> None:
        """Have `release` run with the traffic, as the record says, and end what runs beside it, unless that is kept or
        is the bundle `beside`. A proxy that does not go by that is told again later.

        Raises:
            ProgramError: it cannot be started.
        """
        with self._program.switching():
            name = self._program.holding(release) or self._program.begin(release, patient=True)
            self._releases.link(release)
            try:
                self._program.direct(name, release.bundle, keep=self._config.slots.drain)
            except TrafficError as error:
                log.warning("%s; it is tried again", error)
                return
            if beside not in self._program.bundles():
                self._program.end_idle()

    @contextmanager
    def taking_over(self) -> Iterator[None]:
        """Take over what an earlier process of the node left in the slots; nothing expires until the block ends.

        Raises:
            ProgramError: something that it left cannot be ended.
        """
        with self._program.switching():
            self._program.take_over()
            yield

    def has_moved(self, bundle: str | None) -> bool:
        """Tell whether the traffic goes to `bundle` by the record."""
        return self._program.traffic.read().bundle == bundle

    def _warm(self, release: Release | None) -> str | None:
        """Find the slot where `release` runs, had the traffic, and is well now; None where there is none."""
        name = self._program.holding(release) if release is not None else None
        if name is None or release is None or not self._program.is_proven(name):
            return None
        seen = self._health[name].look(self._program.slots[name].url, bundle=release.bundle)
        return name if seen.healthy else None

    def _begin(self, release: Release, *, patient: bool = False) -> str:
        """Start it in the free slot, once what had the traffic there had the time to end what it was asked."""
        ends = time.monotonic() + (left := self._program.drain_left(release))
        if left:
            log.info("the free slot is left alone for another %.0f s, for what it was asked to end", left)
        while (left := ends - time.monotonic()) > 0:
            if self._stopping.wait(min(left, 1.0)):
                raise Interrupted
        return self._program.begin(release, patient=patient)

    def _settle(self, name: str, release: Release | None) -> None:
        settle(self._program.slots[name], self._health[name], release, self._config.app, self._stopping)
