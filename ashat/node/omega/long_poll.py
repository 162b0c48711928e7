"""Waiting for an offer: one look at the record for all who wait, and none while nobody does.

Those who wait are woken with jitter, so that a wave of ten thousand does not come in the same moment.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import threading
import time
from typing import Final, NamedTuple

from starlette.concurrency import run_in_threadpool

from ashat.errors import AshatError
from ashat.node.omega.fleet.fleet import Fleet
from ashat.node.omega.offers import Offers
from ashat.protocol.messages import Offer

LOOK_EVERY: Final = 0.5
WOKEN_A_SECOND: Final = 800
LONGEST_JITTER: Final = 12.0
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
        self._waiting: set[asyncio.Future[_Seen]] = set()
        self._watching: asyncio.Task[None] | None = None

    async def offer_for(self, licence: str, known: int | None, tries: int | None, seconds: float) -> Answer:
        """Answer as soon as something is offered to the Mainframe with that licence that it does not know, else after
        `seconds`. It knows the offer with that `release_seq` (0: none), which it has tried `tries` times anew.

        Raises:
            FleetDatabaseError, sqlite3.Error: the fleet's database, or the record, does not answer.
        """
        ends, seen = time.monotonic() + seconds, await self._look()
        while True:
            told = await self._told(licence, seen.offer) if seen.offer else 0
            number = seen.offer.release_seq if seen.offer else 0
            if told is not None and (number != (known or 0) or known is None or tries not in (None, told)):
                return Answer(seen.offer, True, told)
            left = ends - time.monotonic()
            if known is None or left <= 0 or self._stopping.is_set():
                return Answer(seen.offer if told is not None else None, False, told or 0)
            newer = await self._change(seen, left)
            if newer is not None:
                await asyncio.sleep(min(_random.uniform(0, self._jitter()), max(ends - time.monotonic(), 0)))
                seen = newer

    def _jitter(self) -> float:
        """How many seconds to spread those over who wait now."""
        return min(len(self._waiting) / WOKEN_A_SECOND, LONGEST_JITTER)

    async def _told(self, licence: str, offer: Offer) -> int | None:
        return await asyncio.wrap_future(self._fleet.rollouts.offer_to(licence, offer))

    async def _change(self, seen: _Seen, seconds: float) -> _Seen | None:
        """Wait until a look finds something else than `seen`; None where none did within `seconds`."""
        changed: asyncio.Future[_Seen] = asyncio.get_running_loop().create_future()
        self._waiting.add(changed)
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(seen))
        try:
            return await asyncio.wait_for(changed, seconds)
        except TimeoutError:
            return None
        finally:
            self._waiting.discard(changed)

    async def _watch(self, seen: _Seen) -> None:
        """Look now and then while anybody waits; a look that fails is their answer too."""
        try:
            while self._waiting:
                await asyncio.sleep(LOOK_EVERY)
                try:
                    found = await self._look()
                except (AshatError, sqlite3.Error) as error:
                    self._end(error)
                    continue
                if found != seen or self._stopping.is_set():
                    seen = found
                    self._tell(found)
        finally:
            self._watching = None

    def _tell(self, found: _Seen) -> None:
        for changed in list(self._waiting):
            if not changed.done():
                changed.set_result(found)

    def _end(self, error: Exception) -> None:
        for changed in list(self._waiting):
            if not changed.done():
                changed.set_exception(error)

    async def _look(self) -> _Seen:
        known = self._offers.known()
        offer = known[0] if known is not None else await run_in_threadpool(self._offers.effective)
        return _Seen(offer, self._fleet.rollouts.version())
