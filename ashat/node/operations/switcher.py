"""Makes a release the running one: beside the old one, then one link, then a look at its health, or all the way back.

Every step can be done again, and the record says before each change what it is for. So a crash at any instant leaves
the old release or the new one, and the next start goes on from there (`ashat.node.operations.recovery`).
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

from ashat.common.failpoints import fault_point
from ashat.common.shortage import reason as reason_of
from ashat.common.shortage import shortage
from ashat.errors import AshatError
from ashat.node.app_process.health import Health
from ashat.node.app_process.process import Program
from ashat.node.app_process.slots import SlottedProgram
from ashat.node.app_process.traffic import TrafficError
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database
from ashat.node.operations import records, recovery
from ashat.node.operations.migrations import MigrationError, Migrations
from ashat.node.operations.records import Unfinished
from ashat.node.operations.settle import Interrupted, settle
from ashat.node.operations.slot_switch import SlotSwitch
from ashat.node.store.releases import Release, Releases
from ashat.node.store.reserve import Reserve
from ashat.protocol.messages import Operation, Step

log = logging.getLogger("ashat.node")

_FAILURES = (AshatError, OSError, sqlite3.Error)


class Switcher:
    """Carries operations out, one at a time, in one thread, until `stopping` is set."""

    def __init__(
        self,
        config: NodeConfig,
        db: Database,
        releases: Releases,
        program: Program,
        health: Health,
        migrations: Migrations,
        reserve: Reserve,
    ) -> None:
        self._config = config
        self._db = db
        self._releases = releases
        self._program = program
        self._health = health
        self._migrations = migrations
        self.stopping = migrations.stopping
        self._reserve = reserve
        self._slots = None
        if isinstance(program, SlottedProgram):
            self._slots = SlotSwitch(config, releases, program, self.stopping)

    def perform(self, operation: Operation, *, resumed: bool = False) -> None:
        """Make `operation.to` the running release and record it; or put back what ran, and record why.

        Raises:
            Interrupted: the node is stopping.
        """
        touched = self._started = False
        try:
            with self._step(operation, "materialise"):
                release = self._releases.materialise(operation.to) if operation.to else None
            fault_point("switch.materialised")
            release = self._migrate(operation, release, resumed)
            touched = True
            if self._slots is not None:
                self._started = True
                self._slots.bring(release, partial(self._step, operation))
            else:
                self._bring_in_place(operation, release, resumed)
        except _FAILURES as error:
            reason = self._reason(error)
            log.warning("the operation %s failed: %s", operation.id, reason)
            if isinstance(error, MigrationError):
                self._write(records.fail, operation.id, reason, switched_back=False, output=error.output)
            elif touched or resumed:
                told = (self._started or resumed) and not isinstance(error, TrafficError)
                output = self._program.output(operation.to) if told else ()
                self._mark_undoing(operation, reason, output=output)
                self.undo(operation, reason)
            else:
                self._write(records.fail, operation.id, reason, switched_back=False)
            return
        self._write(records.succeed, operation)
        fault_point("switch.recorded")
        log.info("%s runs, for %s", operation.to or "nothing", operation.update_id)

    def undo(self, operation: Operation, reason: str) -> None:
        """Run again what ran before `operation`, and record that it failed because of `reason`.

        Raises:
            Interrupted: the node is stopping.
        """
        moved = True
        try:
            with self._step(operation, "switch-back"):
                moved = self._put_back(operation)
        except _FAILURES as error:
            if shortage(error):
                raise  # and try again until it is not lacking
            if isinstance(error, TrafficError):
                reason = f"{reason}; nor does the proxy go by the way back, which is tried again: {error}"
            else:
                reason = f"{reason}; and what ran before is not well either: {self._reason(error)}"
            log.warning("%s", reason)
        self._write(records.fail, operation.id, reason, switched_back=moved)

    def recover(self, left: Unfinished | None) -> None:
        """Bring the disk and the program in line with the record, when the node starts.

        Raises:
            Interrupted: the node is stopping.
        """
        self._migrations.end_left()
        with self._slots.taking_over() if self._slots is not None else nullcontext():
            self._recover(left)

    def _recover(self, left: Unfinished | None) -> None:
        action = recovery.plan(left)
        match action:
            case recovery.Resume(operation):
                log.warning("taking up the operation %s, which an earlier process left", operation.id)
                self._write(records.mark_resumed, operation.id)
                if self._slots is not None and not self._slots.has_moved(operation.to):
                    self._hold(beside=operation.to)
                self.perform(operation, resumed=True)
            case recovery.Undo(operation, reason, interrupted):
                log.warning("undoing the operation %s, which an earlier process left", operation.id)
                self._mark_undoing(operation, reason, interrupted=interrupted)
                self.undo(operation, reason)
            case recovery.Hold():
                self._hold()

    def tidy(self, spare: str | None = None) -> None:
        """Delete release directories that are neither current, previous nor among the newest; with `spare`, a bundle
        for which room is needed, all but its own, the current and the previous.

        Raises:
            OSError: something could not be deleted; the rest is kept for the next time.
        """
        now = records.standing(self._db)
        keep = [*(current.bundle for current in (now.current, now.previous) if current), *self._program.bundles()]
        if spare is not None:
            self._releases.prune([*keep, spare], 0)
        else:
            self._releases.prune(keep, self._config.keep_releases)

    def _migrate(self, operation: Operation, release: Release | None, resumed: bool) -> Release | None:
        """Migrate, where that is due, while what ran before goes on; the release is then a clean directory again.

        Raises:
            MigrationError: it failed.
            Interrupted: the node is stopping.
        """
        step = self._migrations.due(operation, release)
        if step is None or release is None:
            return release
        if resumed and self._slots is None:
            self._hold()
        with self._step(operation, "migrate"):
            if self._migrations.run(operation, release, step).status == "interrupted":
                raise Interrupted
            release = self._releases.materialise(release.bundle)
        fault_point("switch.migrated")
        return release

    def _mark_undoing(
        self, operation: Operation, reason: str, *, interrupted: bool = False, output: Sequence[str] = ()
    ) -> None:
        """Record that what ran is to be put back. Where the record takes nothing it is put back all the same, and
        what the record says of the operation is taken up once it can be written.

        Raises:
            sqlite3.Error: it was not recorded.
        """
        try:
            self._write(records.mark_undoing, operation.id, reason, interrupted=interrupted, output=output)
        except sqlite3.Error:
            self._put_back(operation)
            raise

    def _write(self, record: Callable[..., None], *facts: object, **more: object) -> None:
        """Record it, on a full disk with room of the reserve."""
        self._reserve.spend(lambda: record(self._db, *facts, **more))

    def _bring_in_place(self, operation: Operation, release: Release | None, resumed: bool) -> None:
        with self._step(operation, "link"):
            self._releases.link(release)
        fault_point("switch.linked")
        with self._step(operation, "start"):
            if not (release is not None and self._may_go_on(operation, resumed) and self._program.adopt(release)):
                self._started = True
                self._program.restart(release, operation.from_)
        fault_point("switch.app-started")
        with self._step(operation, "settle"):
            self._settle(release)

    def _put_back(self, operation: Operation) -> bool:
        """Run again what ran; tell whether anything else had run or had the traffic meanwhile."""
        release = self._whatever_is_left_of(operation.from_)
        if self._slots is not None:
            return self._slots.put_back(release)
        self._releases.link(release)
        if not self._program.adopt(release):
            self._program.restart(release, operation.to, patient=True)
        self._settle(release)
        return True

    def _hold(self, *, beside: str | None = None) -> None:
        bundle = records.standing(self._db).bundle
        linked = self._releases.linked()
        is_linked = (linked.bundle if linked else None) == bundle
        if is_linked and self._slots is None and self._program.adopt(linked):
            return
        try:
            if is_linked and linked is not None and linked.path.exists() and self._program.bundle() == bundle:
                release: Release | None = linked
            else:
                release = self._whatever_is_left_of(bundle)
            if self._slots is not None and release is not None:
                self._slots.hold(release, beside=beside)
                return
            self._releases.link(release)
            self._program.restart(release, None, patient=True)
        except _FAILURES as error:
            if shortage(error):
                raise  # and try again until there is room
            log.warning("the current release cannot be run: %s", self._reason(error))

    def _may_go_on(self, operation: Operation, resumed: bool) -> bool:
        """Whether a program that runs the release already need not be restarted, as where only its number changes."""
        return resumed or (operation.to == operation.from_ and self._program.failure() is None)

    def _whatever_is_left_of(self, bundle: str | None) -> Release | None:
        """The release as it should be; where the store cannot give it any more, as it lay there when it ran."""
        if bundle is None:
            return None
        try:
            return self._releases.materialise(bundle)
        except _FAILURES as error:
            release = self._releases.unverified(bundle)
            if release is None:
                raise
            log.warning("%s cannot be built again (%s); it runs as it lies on disk", bundle[:12], self._reason(error))
            return release

    def _settle(self, release: Release | None) -> None:
        """Wait until the program has been healthy for the settle time without a break.

        Raises:
            UnhealthyError: it ended, or that did not come to be within the start timeout.
        """
        settle(self._program, self._health, release, self._config.app, self.stopping)

    @contextmanager
    def _step(self, operation: Operation, name: str) -> Iterator[None]:
        if self.stopping.is_set():
            raise Interrupted
        began = time.monotonic()
        yield
        self._write(records.add_step, operation.id, Step(name=name, seconds=round(time.monotonic() - began, 3)))

    def _reason(self, error: Exception) -> str:
        return reason_of(error, self._config.data)
