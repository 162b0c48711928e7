"""A Mainframe's agent: it asks OMEGA with its licence, installs what is offered, and reports what came of it.

Whatever goes wrong between it and OMEGA, the program that runs keeps running.
"""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from fastapi import FastAPI

from ashat.common.clocks import uptime
from ashat.common.documents import STATE_LIMIT, load_json
from ashat.common.failpoints import fault_point
from ashat.errors import (
    AshatError,
    DocumentError,
    LicenceError,
    NodeAuthError,
    NodeBusyError,
    NodeError,
    NodeRefusedError,
    StoreFullError,
    TrustError,
    UsageError,
    WrongRoleError,
)
from ashat.node.app_process.commands import is_urgent
from ashat.node.app_process.health import Repeated
from ashat.node.context import NodeContext
from ashat.node.core.db import Database, from_text, now
from ashat.node.core.errors import DOWNLOADS_FULL, ApiError
from ashat.node.mainframe.barrier import barrier
from ashat.node.mainframe.importer import Importer
from ashat.node.mainframe.omega_client import OmegaClient
from ashat.node.mainframe.omega_witness import OmegaWitness, WitnessStatus
from ashat.node.mainframe.own_rules import OwnRules
from ashat.node.mainframe.plan import Failed, Idle, Install, Position, Running, plan
from ashat.node.mainframe.room_maker import RoomMaker
from ashat.node.mainframe.watch import ProgramWatch
from ashat.node.operations import records
from ashat.protocol.fleet import MainframeReport
from ashat.protocol.messages import NOT_ALLOWED, MainframeStatus, Offer, OperationRequest

log = logging.getLogger("ashat.node.mainframe")

CLOCK = "omega_clock"
AGENT = "agent"
WAIT_LIMIT = 30.0
SLOW = 4
_LOOK_EVERY = 0.1
_LOOK_FOR_IMPORTS = 1.0
_LONGEST_PAUSE = 86_400.0
_random = random.SystemRandom()
_REASON_LENGTH = 1000
_KEEPS_RUNNING = "What runs here keeps running."
_NEWEST = """
SELECT to_bundle, status, release_seq, reason, ended_at, interrupted FROM operations
WHERE release_seq = (SELECT max(release_seq) FROM operations) ORDER BY seq
"""

Status = Literal["starting", "waiting", "pulling", "switching", "running", "failed", "refused", "unreachable"]


def install(app: FastAPI, context: NodeContext) -> None:
    """Make `context` a Mainframe."""
    agent = MainframeAgent(context)
    context.services += [agent, Repeated(agent.watch.look, context.config.app.health_interval, "watch")]
    context.agent = agent.state
    context.keep.append(agent.importer.keeps)


class Stopping(Exception):
    """The node stops; what is under way goes on at its next start."""


@dataclass
class Patience:
    """How many seconds to wait before asking again: longer after each failure, never in step with other Mainframes."""

    interval: float
    failures: int = 0
    turns: int = 0

    def after_failure(self, at_least: float | None = None) -> float:
        """Wait, after one more failure to reach OMEGA or to do what it offers: 1 s, doubling up to the slow pace."""
        self.failures, self.turns = self.failures + 1, 0
        pause = min(2.0 ** min(self.failures - 1, 10), SLOW * self.interval) * _random.uniform(0.75, 1.25)
        return max(pause, at_least or 0.0)

    def until_turn(self, at_least: float | None) -> float:
        """Wait for a turn to download, which is no failure: as OMEGA says, longer each time, up to the slow pace."""
        self.turns += 1
        pause = min(max(2.0 ** min(self.turns, 10), at_least or 0.0), SLOW * self.interval)
        return pause * _random.uniform(1.0, 1.5)

    def after_refusal(self) -> float:
        """Wait, after OMEGA refused the licence: the slow pace."""
        return SLOW * self.interval * _random.uniform(0.75, 1.25)

    def after_answer(self, took: float | None) -> float:
        """Wait, after an answer that took so many seconds while OMEGA was asked to wait: what is left of the interval.

        None where it was not asked to wait: it is now.
        """
        self.failures = 0
        if took is None:
            return 0.0
        return max(self.interval * _random.uniform(0.9, 1.1) - took, 0.0)


@dataclass
class LastFailure:
    """The newest failure that the record has: how long ago it was counts from when it was first seen here, by a clock
    that nobody sets. What the record says of a time to come was just now."""

    _at: datetime | None = None
    _began: float = 0.0

    def seconds_ago(self, at: datetime | None) -> float:
        """Count the seconds since the failure that was at `at` by the clock then (None: there was none)."""
        if at is not None and at != self._at:
            self._at, self._began = at, uptime() - max((now() - at).total_seconds(), 0.0)
        return uptime() - self._began


class MainframeAgent:
    """Works in a thread of its own from `start` to `stop`."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self.watch = ProgramWatch(context)
        self._own_rules = OwnRules(context.config, context.db)
        self._omega = OmegaClient(context.config)
        self._witness = OmegaWitness(context.config.data, context.db)
        self._witnessed = WitnessStatus()
        self._room = RoomMaker(context)
        self._lack: tuple[Offer, str] | None = None
        self.importer = Importer(
            context,
            switch=self._switch,
            position=lambda: read_position(context.db),
            witness=self._witness,
            room=self._room.require,
            progress=self._progress,
        )
        self._interval = context.config.poll_interval
        self._patience = Patience(self._interval)
        self._stopping = context.stopping
        self._failure = LastFailure()
        self._asking = False
        self._just_started = True
        self._offer: Offer | None = None
        self._known: int | None = None
        self._reported: MainframeReport | None = None
        self._state = MainframeStatus(status="starting", detail="OMEGA has not been asked yet.")
        self.thread = threading.Thread(target=self._run, name="mainframe", daemon=True)

    def state(self) -> MainframeStatus:
        """Report how the agent gets on."""
        if not (self.thread.ident is None or self.thread.is_alive() or self._stopping.is_set()):
            detail = f"The agent has ended, and OMEGA is asked no more; restart the node. {_KEEPS_RUNNING}"
            return self._state.model_copy(update={"status": "failed", "detail": detail})
        return self._state

    def start(self) -> None:
        """Begin; return at once."""
        if lack := self._omega.lack():
            log.warning("%s", lack)
        self.thread.start()

    def stop(self) -> None:
        """End soon; an answer of OMEGA's that is still awaited is left to the thread, which does nothing with it."""
        self._stopping.set()
        if self.thread.is_alive() and not self._asking:
            self.thread.join(timeout=10)

    def _run(self) -> None:
        pause = 0.0
        try:
            while self._rest(min(pause, _LONGEST_PAUSE)):
                pause = self._survive(self._turn)
        except Stopping:
            log.info("the node stops; what was offered is taken up at its next start")
        finally:
            self._omega.close()

    def _rest(self, seconds: float) -> bool:
        """Wait until so many seconds are over, or a file is handed over; False where the node stops."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._stopping.wait(min(left, _LOOK_FOR_IMPORTS)):
                return False
            with suppress(sqlite3.Error):
                if self.importer.handed_over():
                    break
        return not self._stopping.is_set()

    def _survive(self, turn: Callable[[], float]) -> float:
        """Take a turn; one that fails for a reason that no rule covers is told, and another follows."""
        try:
            return turn()
        except Stopping:
            raise
        except Exception:
            log.exception("the agent failed unexpectedly; it tries again")
            self._say("failed", "The agent failed unexpectedly; the node's log says why.")
            return self._patience.after_failure()

    def _turn(self) -> float:
        """Ask OMEGA once and do what follows; how many seconds to wait before the next turn."""
        try:
            return self._follow()
        except Stopping:
            raise
        except NodeAuthError as error:
            return self._lost("refused", error, self._patience.after_refusal(), contact=True)
        except (LicenceError, WrongRoleError, UsageError) as error:
            return self._lost("refused", error, self._interval)
        except NodeError as error:
            if self._offer and isinstance(error, NodeBusyError) and error.body.get("error") == DOWNLOADS_FULL:
                return self._wait_turn(self._offer, error)
            asked = min(error.retry_after or 0.0, SLOW * self._interval)
            return self._lost("unreachable", error, self._patience.after_failure(asked))
        except ApiError as error:
            self._say("waiting", f"This node cannot switch now: {error.detail}")
        except (AshatError, OSError, sqlite3.Error) as error:
            self._say("failed", str(error))
        return self._patience.after_failure()

    def _follow(self) -> float:
        self._await_operation()
        self.importer.note_licence()
        if self.importer.take():
            return 0.0
        self._omega.open()
        began, waits = time.monotonic(), self._known is not None
        offer = self._ask()
        self._witnessed = self._witness.look(self._omega)
        position = read_position(self._context.db)
        todo = plan(
            offer,
            position,
            failed_ago=self._failure.seconds_ago(position.last_failure),
            retry_delay=SLOW * self._interval,
            just_started=self._just_started or self._omega.try_again,
        )
        self._just_started = False
        self._known = offer.release_seq if offer else 0
        match todo:
            case Idle():
                self._own_rules.done()
                status: Status = "refused" if self._witnessed.refuses else "waiting"
                self._say(
                    status, self._and_doubt(f"OMEGA offers nothing yet. {self._omega.lack()}".rstrip()), contact=True
                )
            case Running(offer):
                self._own_rules.done()
                ill = self.watch.ill()
                self._report(offer, "failed" if ill else "running", f"it runs here, and {ill}" if ill else "")
                self._running(offer, ill)
            case Failed(offer, reason, retry_in):
                detail = f"{_named(offer)} does not run here: {reason}{_when(retry_in)}"
                self._say("failed", detail, contact=True)
                self._report(offer, "failed", reason, records.output_of_release(self._context.db, offer.release_seq))
            case Install(offer, attempt):
                return self._install(offer, attempt, position.current_bundle)
        return self._patience.after_answer(time.monotonic() - began if waits else None)

    def _ask(self) -> Offer | None:
        """What OMEGA offers; once that is dealt with, OMEGA answers as soon as it changes, or after an interval."""
        self._asking = True
        try:
            news, offer = self._omega.ask(self._known, min(self._interval, WAIT_LIMIT))
        finally:
            self._asking = False
        if self._stopping.is_set():
            raise Stopping
        self._note_clock(self._omega.clock)
        if news:
            self._offer = offer
        return self._offer

    def _note_clock(self, words: str) -> None:
        """Keep for `ashat-node status` how far the clock here is from OMEGA's; log it when it has changed."""
        if words == (self._context.db.get_meta(CLOCK) or ""):
            return
        if words:
            log.warning("%s; one of the two is wrong", words)
        with suppress(sqlite3.Error):  # a full disk keeps nobody from asking
            self._context.db.set_meta(CLOCK, words)

    def _running(self, offer: Offer, ill: str) -> None:
        try:
            self._refuse_doubted()
            self._omega.look()
            if any(lost.bundle == offer.bundle for lost in self._context.inventory.lost):
                self._omega.pull(offer, self._context.store, self._room.require, self._progress)
        except TrustError as error:
            self._say("refused", f"{_named(offer)} runs here, and OMEGA is not believed: {error}", contact=True)
            return
        status: Status = "failed" if ill else "running"
        self._say(status, self._and_doubt(f"{_named(offer)} runs here{f', and {ill}' if ill else ''}."), contact=True)

    def _refuse_doubted(self) -> None:
        if self._witnessed.refuses:
            raise TrustError(self._witnessed.words)

    def _and_clock(self, words: str) -> str:
        clock = self._omega.clock
        return f"{words} {clock[0].upper()}{clock[1:]}.".lstrip() if clock else words

    def _and_doubt(self, detail: str) -> str:
        return self._and_clock(f"{detail} {self._witnessed.words}".rstrip())

    def _install(self, offer: Offer, attempt: int, running: str | None) -> float:
        """See that it is signed, pull and switch. The next turn, at once, looks at how that ended and reports it."""
        self._known = None
        try:
            self._refuse_doubted()
            self._omega.check(offer)
        except TrustError as error:
            self._say("refused", f"{_named(offer)} is refused: {error} {_KEEPS_RUNNING}", contact=True)
            self._report(offer, "failed", f"refused: {error}")
            return self._patience.after_failure()
        told = self._lack is not None and self._lack[0] == offer
        if not (self._context.store.has_bundle(offer.bundle) or told or self._patience.turns):
            self._say("pulling", f"Pulling {_named(offer)}.", contact=True)
        try:
            moved = self._omega.pull(offer, self._context.store, self._room.require, self._progress)
        except NodeRefusedError as error:
            self._say("waiting", f"{_named(offer)} could not be had any more: {error}", contact=True)
            return self._patience.after_failure()
        except NodeError:
            raise
        except StoreFullError as error:
            return self._without_room(offer, error)
        except (AshatError, OSError) as error:
            self._say("failed", f"{_named(offer)} could not be pulled: {error}", contact=True)
            self._report(offer, "failed", f"could not be pulled: {error}")
            return self._patience.after_failure()
        self._lack, self._patience.turns = None, 0
        if moved.objects_sent:
            log.info("%s is here: %d bytes came in %.1f s", _named(offer), moved.bytes_sent, moved.seconds)
        fault_point("mainframe.pulled")
        return self._try(offer, attempt, running)

    def _try(self, offer: Offer, attempt: int, running: str | None) -> float:
        """Switch to what is here, unless it cannot be installed on what runs, or waits by the owner's rules."""

        def refused(why: str) -> None:
            self._say("refused", f"{why} {_KEEPS_RUNNING}", contact=True)
            self._report(offer, "failed", why)

        if why := barrier(self._context, offer.bundle, running):
            refused(f"{_named(offer)} is not tried: {why}.")
            return self._patience.after_failure()
        if why := self._own_rules.why_wait(offer, now(), lambda: is_urgent(self._context.store, offer.bundle)):
            return self._wait_for(offer, why)
        return 0.0 if self._switch(offer, attempt, running, refused) else self._patience.after_failure()

    def _without_room(self, offer: Offer, error: StoreFullError) -> float:
        """Say once, with the figures of then, that there is no room for an offer; it is tried again and again."""
        if self._lack is None or self._lack[0] != offer:
            self._lack = offer, str(error)
        words = self._lack[1]
        again = "It goes on by itself once there is room."
        self._say("failed", f"{_named(offer)} could not be pulled: {words} {again}", contact=True)
        self._report(offer, "failed", f"could not be pulled: {words}")
        return self._patience.after_failure()

    def _wait_turn(self, offer: Offer, error: NodeBusyError) -> float:
        """Come back later, as OMEGA asks where enough others download; nothing has failed."""
        self._say("waiting", f"{_named(offer)} waits for its turn to be downloaded: {error}", contact=True)
        return self._patience.until_turn(error.retry_after)

    def _switch(self, offer: Offer, attempt: int, running: str | None, refused: Callable[[str], None]) -> bool:
        """Switch to what is here, and wait for the end, whichever that is. False where the settings of this node do
        not allow what the release names, which `refused` is told."""
        self._say("switching", f"Switching to {_named(offer)}.")
        request = OperationRequest(
            action="switch",
            bundle=offer.bundle,
            expected_current=running,
            update_id=offer.update_id,
            attempt=offer.attempt,
            reason="offered by OMEGA",
        )
        identity = f"mainframe-{offer.release_seq}-{attempt}"
        try:
            self._context.operations.submit(identity, request, release_seq=offer.release_seq)
        except ApiError as error:
            if error.code != NOT_ALLOWED:
                raise
            refused(error.detail)
            return False
        self._await_operation()
        fault_point("mainframe.switched")
        return True

    def _wait_for(self, offer: Offer, why: str) -> float:
        """Leave what is here for later, as the owner's rules say; OMEGA is told."""
        words = f"{_named(offer)} is here and waits {why}"
        self._say("waiting", f"{words}.", contact=True)
        with suppress(NodeRefusedError):  # an OMEGA of before knows no report of this kind
            self._report(offer, "waiting", words)
        self._known = offer.release_seq  # asked again after an interval, and at once where something else is offered
        return 0.0

    def _await_operation(self) -> None:
        """Wait until no change is under way here."""
        while (latest := self._context.operations.latest()) is not None and latest.status == "running":
            if self._stopping.wait(_LOOK_EVERY):
                raise Stopping

    def _report(
        self,
        offer: Offer,
        result: Literal["running", "failed", "waiting"],
        reason: str = "",
        output: Sequence[str] = (),
    ) -> None:
        """Tell OMEGA, unless it was the last thing that it was told."""
        report = MainframeReport(
            release_seq=offer.release_seq,
            bundle=offer.bundle,
            result=result,
            reason=reason[:_REASON_LENGTH],
            journal=self._and_clock(self._witnessed.words)[:_REASON_LENGTH],
            output=tuple(output) if self._context.config.app.report_output else (),
        )
        if report != self._reported:
            self._omega.report(report)
            self._reported = report
            fault_point("mainframe.reported")

    def _progress(self, _done: int, _total: int) -> None:
        if self._stopping.is_set():
            raise Stopping

    def _lost(self, status: Status, error: AshatError, pause: float, *, contact: bool = False) -> float:
        """Begin anew with OMEGA: the licence is read again, and what runs here is reported again."""
        self._omega.close()
        self._known = self._reported = None
        self._say(status, f"{error} {_KEEPS_RUNNING}", contact=contact)
        return pause

    def _say(self, status: Status, detail: str, *, contact: bool = False) -> None:
        """Show how it gets on; a line in the log only where that changed."""
        if (status, detail) != (self._state.status, self._state.detail):
            log.log(logging.WARNING if status in ("failed", "refused", "unreachable") else logging.INFO, "%s", detail)
        seen = now() if contact else self._state.last_contact
        self._state = MainframeStatus(
            status=status, detail=detail, last_contact=seen, journal=self._witnessed.words, clock=self._omega.clock
        )
        with suppress(sqlite3.Error):  # a full disk keeps nobody from asking
            self._context.db.set_meta(AGENT, json.dumps({"status": status, "detail": detail[:_REASON_LENGTH]}))


def last_words(kept: str) -> str:
    """Read what the record keeps under `AGENT`: how the agent got on when that last changed; "" where it is empty."""
    try:
        said = load_json(kept.encode(), limit=STATE_LIMIT)
        return f"{said['status']}: {said['detail']}"
    except (DocumentError, KeyError, TypeError):
        return ""


def read_position(db: Database) -> Position:
    """Read from the record what this Mainframe runs, and how the newest release that it accepted went."""
    current = records.standing(db).current
    attempts = db.all(_NEWEST)
    failed = [row for row in attempts if row["status"] == "failed"]
    last = failed[-1] if failed else None
    return Position(
        current_bundle=current.bundle if current else None,
        current_seq=current.release_seq if current else None,
        accepted_seq=attempts[0]["release_seq"] if attempts else 0,
        accepted_bundle=attempts[0]["to_bundle"] if attempts else None,
        failures=len(failed),
        last_failure=from_text(last["ended_at"]) if last else None,
        interrupted=bool(last["interrupted"]) if last else False,
        reason=last["reason"] if last else "",
    )


def _named(offer: Offer) -> str:
    return f"{offer.update_id}/{offer.attempt} ({offer.bundle[:12]}, release_seq {offer.release_seq})"


def _when(retry_in: float | None) -> str:
    return f"; tried again at {now() + timedelta(seconds=retry_in):%H:%M:%S} UTC" if retry_in is not None else ""
