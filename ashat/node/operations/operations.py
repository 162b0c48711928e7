"""Changes of what runs: asked for by id, checked and recorded in one transaction, carried out one at a time."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from ashat.common.failpoints import fault_point
from ashat.common.shortage import reason, shortage
from ashat.node.app_process.commands import refusal
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database
from ashat.node.core.errors import ApiError
from ashat.node.core.metrics import Metrics
from ashat.node.operations import lease, records
from ashat.node.operations.records import RunningRelease, Unfinished
from ashat.node.operations.settle import Interrupted
from ashat.node.operations.switcher import Switcher
from ashat.node.store.store import Store
from ashat.protocol.messages import Operation, OperationRequest, Role

log = logging.getLogger("ashat.node")

_RETRY_AFTER = 5.0
STOP_TIMEOUT = 60.0
_LOOK_EVERY = 0.1
_TAKE_UP = ""  # no operation's id

Rule = Callable[[sqlite3.Connection, OperationRequest, RunningRelease], int | None]
"""Refuses an operation by raising `ApiError`, or returns the `release_seq` that it is given (None: not by this rule).

It is called inside the transaction that records the operation, so what it writes is kept exactly if that is.
"""

_ACTIONS = {Role.PUBLIC: {"switch"}, Role.OMEGA: {"promote", "rollback"}, Role.MAINFRAME: {"switch"}}


@dataclass
class _LetGo:
    """Asks for room for the bundle `spare`."""

    spare: str
    done: threading.Event = field(default_factory=threading.Event)


class Operations:
    """The changes of one node; `under_way` is the id of the one that is being carried out."""

    def __init__(self, config: NodeConfig, db: Database, store: Store, switcher: Switcher, metrics: Metrics) -> None:
        self._config = config
        self._db = db
        self._store = store
        self._switcher = switcher
        self._metrics = metrics
        self._rules: list[Rule] = []
        self.under_way: str | None = None
        self._queue: queue.SimpleQueue[str | _LetGo | None] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None

    def add_rule(self, rule: Rule) -> None:
        """Have `rule` judge every operation before it is accepted."""
        self._rules.append(rule)

    def submit(self, operation_id: str, request: OperationRequest, *, release_seq: int | None = None) -> Operation:
        """Accept a change, durably, and begin it; or return the same one if it was accepted before.

        `release_seq` is kept with it where no rule gives it one.

        Raises:
            ApiError: the id is in use for something else, another change is under way, another update holds the
                server, something else runs than expected, the bundle is not here, this node does not run what it
                names, or a rule refuses.
        """
        unfit = refusal(self._config, self._store, request.bundle) if request.bundle else None
        with self._db.transaction() as connection:
            known = connection.execute("SELECT * FROM operations WHERE id = ?", (operation_id,)).fetchone()
            if known:
                if OperationRequest.model_validate_json(known["request"]) != request:
                    raise _refusal("operation_differs", "was asked for with other words; choose a new id", known)
                return records.to_operation(known)
            now = records.read_standing(connection)
            self._check(connection, request, now)
            if unfit is not None:
                raise unfit
            given = [rule(connection, request, now) for rule in self._rules]
            seq = next((number for number in given if number is not None), release_seq)
            records.begin(connection, operation_id, request, running=now.bundle, release_seq=seq)
        fault_point("switch.intended")
        self._queue.put(operation_id)
        return self.get(operation_id)

    def get(self, operation_id: str) -> Operation:
        """Read the operation with that id.

        Raises:
            ApiError: there is none (404).
        """
        found = records.find(self._db, operation_id)
        if found is None:
            raise ApiError(404, "not_found", f"There is no operation {operation_id!r} here.")
        return found

    def latest(self) -> Operation | None:
        """Read the operation under way, else the last one, else None."""
        return records.latest(self._db)

    def start(self) -> None:
        """Finish or undo what an earlier process left, then carry out what is submitted, in the background."""
        left = records.unfinished(self._db)
        self.thread = threading.Thread(target=self._work, args=(left,), name="operations", daemon=True)
        self.thread.start()

    def take_back(self, operation_id: str, reason: str, output: Sequence[str] = ()) -> bool:
        """Run again, in the background, what ran before that operation; it has failed then, because of `reason`.

        False, and nothing happens, where the operation is not what brought what runs, or nothing else ran before.
        """
        taken = records.take_back(self._db, operation_id, reason, output)
        if taken:
            fault_point("switch.taken-back")
            self.take_up()
        return taken

    def take_up(self) -> None:
        """See to it, in the background, that what the record says runs."""
        self._queue.put(_TAKE_UP)

    def let_go(self, spare: str) -> None:
        """Delete the release directories but the current, the previous and that of the bundle `spare`, once no change
        is under way; what cannot be deleted stays. It waits for that, and not beyond the node's end."""
        asked = _LetGo(spare)
        self._queue.put(asked)
        while not asked.done.wait(_LOOK_EVERY) and not self._switcher.stopping.is_set():
            pass

    def stop(self) -> None:
        """Stop between two steps; what is under way is taken up at the next start."""
        self._switcher.stopping.set()
        self._queue.put(None)
        if self.thread:
            self.thread.join(timeout=STOP_TIMEOUT)

    def _check(self, connection: sqlite3.Connection, request: OperationRequest, now: RunningRelease) -> None:
        role = self._config.role
        if request.action not in _ACTIONS[role]:
            raise ApiError(400, "bad_request", f"A node of the role {role} does not {request.action}.")
        running = connection.execute("SELECT * FROM operations WHERE status = 'running'").fetchone()
        if running:
            raise _refusal("busy", "is under way; wait for it to end", running)
        lease.check_holder(connection, request.holder)
        if request.expected_current != now.bundle:
            raise ApiError(
                409,
                "expected_current",
                f"This server runs {_short(now.bundle)}, not {_short(request.expected_current)}; look again at what "
                "it runs and decide anew.",
                current=now.current.model_dump(mode="json") if now.current else None,
            )
        if request.bundle is not None and not self._store.has_bundle(request.bundle):
            raise ApiError(404, "not_found", f"The bundle {request.bundle} is not here; push it first.")

    def _work(self, left: Unfinished | None) -> None:
        try:
            self._carry_out(left.operation.id if left else None, partial(self._switcher.recover, left))
            while (operation_id := self._queue.get()) is not None:
                if isinstance(operation_id, _LetGo):
                    self._tidy(operation_id.spare)
                    operation_id.done.set()
                elif operation_id == _TAKE_UP:
                    self._carry_out(None, self._take_up)
                else:
                    self._carry_out(operation_id, partial(self._perform, operation_id))
        except Interrupted:
            log.info("the node stops between two steps; its next start goes on from there")

    def _carry_out(self, operation_id: str | None, work: Callable[[], None]) -> None:
        self.under_way = operation_id
        self._until_done(work)
        self.under_way = None
        if operation_id is not None:
            with suppress(sqlite3.Error):
                ended = self.get(operation_id)
                self._metrics.operations.labels(ended.action, ended.status).inc()
        self._tidy()

    def _tidy(self, spare: str | None = None) -> None:
        try:
            self._switcher.tidy(spare)
        except (OSError, sqlite3.Error) as error:
            log.warning("old releases could not be deleted: %s", reason(error, self._config.data))

    def _until_done(self, work: Callable[[], None]) -> None:
        """Do `work`; where it fails for a reason that no rule covers, take up from the record what it left."""
        while True:
            try:
                work()
                return
            except Interrupted:
                raise
            except Exception as error:  # noqa: BLE001  # which is logged, and what was left is taken up
                self._complain(error)
                if self._switcher.stopping.wait(_RETRY_AFTER):
                    raise Interrupted from None
                work = self._take_up

    def _complain(self, error: Exception) -> None:
        lack = shortage(error, self._config.data)
        if lack is None:
            log.exception("a change failed unexpectedly; it is taken up again in %g s", _RETRY_AFTER)
            return
        log.warning("a change cannot go on: %s; it is taken up again in %g s", lack.words, _RETRY_AFTER)

    def _perform(self, operation_id: str) -> None:
        self._switcher.perform(self.get(operation_id))

    def _take_up(self) -> None:
        self._switcher.recover(records.unfinished(self._db))


def _refusal(code: str, why: str, row: sqlite3.Row) -> ApiError:
    operation = records.to_operation(row)
    return ApiError(
        409, code, f"The operation {operation.id!r} {why}.", operation=operation.model_dump(mode="json", by_alias=True)
    )


def _short(bundle: str | None) -> str:
    return bundle[:12] if bundle else "nothing"
