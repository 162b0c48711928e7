"""Tell the trackers of what happened to the releases that bring their tasks.

What happened is read from the ledger, as for events, and a variable of Prefect for each tracker holds how far that was
told. It moves on behind what was told, so that whatever dies in between tells it again; a tracker's block asks first
whether the comment is there, by its marker. A tracker that does not answer holds up no other, and no deployment.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any

from prefect.blocks.core import Block
from prefect.variables import Variable

from ashat.common.text import cut, printable
from ashat.common.trackers import TaskComment, Tracker
from ashat.deployment.task_comments import comments_of
from ashat.errors import TaskRefusedError, TrackerBusyError, TrackerError
from ashat.ledger.ledger import Ledger
from blocks import trackers as kinds
from tasks.runtime.connections import this_run
from tasks.runtime.events import told_at
from tasks.runtime.in_time import in_time
from tasks.runtime.notify import forget_others, note
from tasks.runtime.reporting import reporter
from tasks.runtime.run import now
from tasks.runtime.trackers import known_trackers

TRACKER = "tracker"
COMMENT_SECONDS = 20.0
LOOK_SECONDS = 30.0
GIVEN_UP = timedelta(days=1)
_AT_ONCE = 200
_LINES = 3
_NOT_THERE = (404, 410)


@dataclass(frozen=True)
class Place:
    """How far a tracker was told of the ledger `log`: its first `events` events, and so many `comments` of the next; it
    is told no more before `wait`."""

    log: str
    events: int
    wait: datetime | None = None
    comments: int = 0


@dataclass(frozen=True)
class _Due:
    """The comments of the event at the place `seq` that were not told yet, behind so many that were."""

    seq: int
    comments: tuple[TaskComment, ...]
    told: int


@dataclass
class _Look:
    """What one look told a tracker: how far it got, what it could not do, how many comments it took, and which tasks it
    does not have."""

    place: Place
    wrong: list[str]
    told: int = 0
    gone: set[str] = field(default_factory=set)


def tell_trackers() -> None:
    """Tell each tracker what happened since it was told last, all of them at once; what went wrong is noted where
    `deploy status` reads it, and nothing is raised."""
    trackers = known_trackers()
    try:
        forget_others([tracker.block for tracker in trackers], TRACKER)
        if trackers:
            _tell(this_run().ledger, trackers)
    except Exception as error:  # noqa: BLE001  no deployment waits for, or ends by, what a tracker is told
        reporter().say(f"⚠️ The trackers were not told what happened: {_line(error)}")


def tell_from_now_on(tracker: Tracker) -> None:
    """Let a tracker that is new hear of what happens from now on; one that is known goes on where it was."""
    _place(tracker.block, *this_run().ledger.log_head())


def read_place(block: str, log: str) -> Place | None:
    """Read how far a tracker was told of the ledger of that name; None where that is not known."""
    kept: object = Variable.get(variable_of(block))
    if not isinstance(kept, dict) or kept.get("ledger") != log or not isinstance(kept.get("events"), int):
        return None
    comments = kept.get("comments")
    told = max(comments, 0) if isinstance(comments, int) else 0
    return Place(log, max(int(kept["events"]), 0), _moment(kept.get("wait")), told)


def keep_place(block: str, place: Place) -> None:
    """Keep how far a tracker was told."""
    wait = place.wait.isoformat() if place.wait else None
    kept = {"tracker": block, "ledger": place.log, "events": place.events, "comments": place.comments, "wait": wait}
    Variable.set(variable_of(block), kept, overwrite=True)


def forget_place(block: str) -> None:
    """Forget how far a tracker was told that is not there any more."""
    Variable.unset(variable_of(block))


def variable_of(block: str) -> str:
    """Name the variable that holds how far a tracker was told."""
    return f"ashat_tracker_{sha256(block.encode()).hexdigest()[:16]}"


def load_tracker(block: str) -> kinds.Tracker:
    """Load the block of a tracker.

    Raises:
        TrackerError: there is none, or it is something else.
    """
    try:
        found: object = Block.load(block)
    except Exception as error:  # noqa: BLE001  Prefect's, of whatever it cannot read
        raise TrackerError(f"its block cannot be loaded: {_line(error)}") from None
    if not isinstance(found, kinds.Tracker):
        raise TrackerError(f"its block is a {type(found).__name__}, which is no tracker")
    return found


def _tell(ledger: Ledger, trackers: Sequence[Tracker]) -> None:
    log, size = ledger.log_head()
    begun: dict[Tracker, tuple[Place, Place, list[_Due]]] = {}
    for tracker in trackers:
        place = in_time(COMMENT_SECONDS, partial(_place, tracker.block, log, size), TRACKER)
        if place.events < size and (place.wait is None or place.wait <= now()):
            begun[tracker] = (place, *_due(ledger, tracker, place))
    if not begun:
        return
    with ThreadPoolExecutor(len(begun)) as pool:
        context = copy_context()
        looks = {
            tracker: pool.submit(context.copy().run, _look, tracker.block, place, reached, due)
            for tracker, (place, reached, due) in begun.items()
        }
    for tracker, look in looks.items():
        _note(tracker.block, look.result())


def _place(block: str, log: str, size: int) -> Place:
    """Read how far a tracker was told; one of which that is not known hears of what happens from now on."""
    found = read_place(block, log)
    if found is None:
        found = Place(log, size)
        keep_place(block, found)
    return found


def _due(ledger: Ledger, tracker: Tracker, place: Place) -> tuple[Place, list[_Due]]:
    """Find what a tracker is to be told next, and how far that reaches."""
    records = list(ledger.records(_AT_ONCE, first=place.events))
    due = []
    for record in records:
        told = told_at(ledger, place.log, record)
        comments = comments_of(told, tracker) if told else []
        before = place.comments if record.seq == place.events else 0
        if comments[before:]:
            due.append(_Due(record.seq, tuple(comments[before:]), before))
    return Place(place.log, records[-1].seq + 1 if records else place.events), due


def _look(block: str, begins: Place, reached: Place, due: Sequence[_Due]) -> _Look:
    """Tell a tracker what is due, in their order, until it does not answer or the time is over."""
    look = _Look(replace(begins, wait=None), [])
    ends = time.monotonic() + LOOK_SECONDS
    try:
        tracker = in_time(COMMENT_SECONDS, partial(load_tracker, block), TRACKER) if due else None
        for one in due:
            for told, comment in enumerate(one.comments, one.told):
                look.place = replace(reached, events=one.seq, comments=told)
                if time.monotonic() > ends:
                    raise TimeoutError
                _tell_task(tracker, comment, look)
            look.place = replace(reached, events=one.seq + 1)
            in_time(COMMENT_SECONDS, partial(keep_place, block, look.place), TRACKER)
        look.place = reached
    except TimeoutError:
        pass  # the rest is told by the next look
    except TrackerBusyError as error:
        look.place = replace(look.place, wait=now() + timedelta(seconds=error.seconds))
        look.wrong.append(str(error))
    except Exception as error:  # noqa: BLE001  as above
        look.wrong.append(_line(error))
    try:
        in_time(COMMENT_SECONDS, partial(keep_place, block, look.place), TRACKER)
    except Exception as error:  # noqa: BLE001  as above
        look.wrong.append(f"how far it was told was not kept: {_line(error)}")
    return look


def _tell_task(tracker: kinds.Tracker | None, comment: TaskComment, look: _Look) -> None:
    """Tell one task of one event; what it refuses, or what is a day old by now, is noted and not tried again.

    Raises:
        TrackerError: the tracker does not answer as it should.
    """
    if tracker is None or comment.key in look.gone:
        return
    what = f"{comment.key}: of {comment.event.rpartition('.')[2]} of {comment.payload['update_id']}"
    if comment.occurred < now() - GIVEN_UP:
        look.wrong.append(f"{what} it was not told within a day")
        return
    try:
        in_time(COMMENT_SECONDS, lambda: tracker.comment(comment), TRACKER)
        look.told += 1
    except TaskRefusedError as error:
        look.wrong.append(f"{what} it was not told: {error}")
        look.gone |= {comment.key} if error.status in _NOT_THERE else set()
        return
    except TimeoutError:
        raise TrackerError(f"it did not answer within {COMMENT_SECONDS:g} s") from None
    if not comment.completes:
        return
    try:
        in_time(COMMENT_SECONDS, lambda: tracker.finish(comment.key), TRACKER)
    except TaskRefusedError as error:
        look.wrong.append(f"{comment.key} was not moved to its last state: {error}")
    except TimeoutError:
        raise TrackerError(f"it did not answer within {COMMENT_SECONDS:g} s") from None


def _note(block: str, look: _Look) -> None:
    """Say what went wrong, and note the first of it until the tracker is told something again."""
    for line in look.wrong[_LINES:]:
        reporter().say(f"⚠️ {block}: {line}")
    more = len(look.wrong) - _LINES
    rest = [f"and {more} more, in the log of reconcile"] if more > 0 else []
    if look.wrong or look.told:
        note(block, "; ".join([*look.wrong[:_LINES], *rest]), sent=True, kind=TRACKER)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return cut(printable(text), 300) or type(error).__name__


def _moment(kept: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(kept)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
