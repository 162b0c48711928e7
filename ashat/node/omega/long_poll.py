"""Waiting for an offer: one look at the record for all who wait, and none while nobody does.

Those who wait are woken one after the other, in an order that chance makes, so that a wave of ten thousand does not
come in the same moment.
"""

from __future__ import annotations

import asyncio
import math
import random
import sqlite3
import threading
import time
from typing import Final, NamedTuple

from starlette.concurrency import run_in_threadpool

from ashat.errors import AshatError
from ashat.node.omega.fleet.awaited import awaited
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.fleet.together import tell
from ashat.node.omega.offers import Offers
from ashat.protocol.messages import Offer

LOOK_EVERY: Final = 0.5
WOKEN_A_SECOND: Final = 600
LONGEST_JITTER: Final = 18.0
REMEMBERED: Final = 200_000
_WAKE_EVERY: Final = 0.02
_random = random.Random()  # noqa: S311  it only spreads load


class Answer(NamedTuple):
    """What a Mainframe is offered, None: what it knows, or nothing; and how often it was told to try that again."""

    offer: Offer | None
    news: bool
    tries: int = 0


class _Seen(NamedTuple):
    """What a look found: the offer, and what is another thing once anything of a rollout was decided."""

    offer: Offer | None
    version: int


class OfferLongPoll:
    """Tells those who wait when there is something for them. For one event loop.

    Once `stopping` is set nobody waits any longer.
    """

    def __init__(self, offers: Offers, fleet: Fleet, stopping: threading.Event) -> None:
        self._offers = offers
        self._fleet = fleet
        self._stopping = stopping
        self._waiting: set[asyncio.Future[bool]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._found: _Seen | None = None
        self._told_at: tuple[int, int] | None = None
        self._known: dict[str, int | None] = {}

    async def offer_for(self, licence: str, known: int | None, tries: int | None, seconds: float) -> Answer:
        """Answer as soon as something is offered to the Mainframe with that licence that it does not know, else after
        `seconds`. It knows the offer with that `release_seq` (0: none), which it has tried `tries` times anew.

        Raises:
            FleetDatabaseError, sqlite3.Error: the fleet's database, or the record, does not answer.
        """
        ends, seen = time.monotonic() + seconds, await self._look()
        while True:
            told = await self._told(licence, seen)
            number = seen.offer.release_seq if seen.offer else 0
            if told is not None and (number != (known or 0) or known is None or tries not in (None, told)):
                return Answer(seen.offer, True, told)
            if told is None and known and known == number:
                return Answer(None, True)  # it knows what is offered, and may have it no more
            left = ends - time.monotonic()
            if known is None or self._stopping.is_set() or not await self._changes(seen, left):
                return Answer(seen.offer if told is not None else None, False, told or 0)
            seen = await self._look()

    async def _told(self, licence: str, seen: _Seen) -> int | None:
        """Ask whether that Mainframe may have what is offered now: nobody is asked again before anything is decided
        anew, but who waits for others to be done, for what it runs to be another, or for a window."""
        if seen.offer is None:
            return 0
        at = seen.offer.release_seq, seen.version
        if at != self._told_at:
            self._told_at, self._known = at, {}
        if licence in self._known:
            return self._known[licence]
        if licence in self._fleet.freezes.held():
            return await awaited(self._fleet.rollouts.offer_to(licence, seen.offer))
        told = await awaited(tell(self._fleet.database, licence, seen.offer))
        if told.stays and at == self._told_at and len(self._known) < REMEMBERED:
            self._known[licence] = told.tries
        return told.tries

    async def _changes(self, seen: _Seen, seconds: float) -> bool:
        """Wait until a look found something else than `seen`; False where none did within `seconds`."""
        if seconds <= 0:
            return False
        loop = asyncio.get_running_loop()
        changed: asyncio.Future[bool] = loop.create_future()
        self._waiting.add(changed)
        if self._watching is None:
            self._found, self._watching = seen, loop.create_task(self._watch(seen))

        def end() -> None:
            if not changed.done():
                changed.set_result(self._found != seen)

        over = loop.call_later(seconds, end)
        try:
            return await changed
        finally:
            over.cancel()
            self._waiting.discard(changed)

    async def _watch(self, seen: _Seen) -> None:
        """Look now and then while anybody waits; a look that fails is their answer too."""
        waking: asyncio.Task[None] | None = None
        try:
            while self._waiting:
                await asyncio.sleep(LOOK_EVERY)
                try:
                    found = await self._look()
                except (AshatError, sqlite3.Error) as error:
                    self._end(error)
                    continue
                if found != seen or self._stopping.is_set():
                    seen = self._found = found
                    if waking is not None:
                        waking.cancel()  # whom it did not wake yet, the next does
                    waking = asyncio.create_task(self._wake(list(self._waiting)))
        finally:
            self._watching = None

    async def _wake(self, those: list[asyncio.Future[bool]]) -> None:
        """Wake those one after the other; at once where the node goes down."""
        _random.shuffle(those)
        a_second = max(WOKEN_A_SECOND, len(those) / LONGEST_JITTER)
        began, woken = time.monotonic(), 0
        while woken < len(those):
            passed = time.monotonic() - began + _WAKE_EVERY
            due = len(those) if self._stopping.is_set() else min(math.ceil(passed * a_second), len(those))
            for changed in those[woken:due]:
                if not changed.done():
                    changed.set_result(True)
            woken = due
            await asyncio.sleep(_WAKE_EVERY)

    def _end(self, error: Exception) -> None:
        for changed in list(self._waiting):
            if not changed.done():
                changed.set_exception(error)

    async def _look(self) -> _Seen:
        known = self._offers.known()
        offer = known[0] if known is not None else await run_in_threadpool(self._offers.effective)
        return _Seen(offer, self._fleet.rollouts.version())
