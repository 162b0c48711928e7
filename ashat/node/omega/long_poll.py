"""Waiting for another offer: one look at the record for all who wait, and none while nobody does."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

from starlette.concurrency import run_in_threadpool

from ashat.node.omega.offers import Offers
from ashat.protocol.messages import Offer

LOOK_EVERY = 0.5


class OfferLongPoll:
    """Tells those who wait when the offer changes, whichever way it does. For one event loop.

    Once `stopping` is set nobody waits any longer.
    """

    def __init__(self, offers: Offers, stopping: threading.Event) -> None:
        self._offers = offers
        self._stopping = stopping
        self._waiting: dict[asyncio.Future[Offer | None], int] = {}
        self._watching: asyncio.Task[None] | None = None

    async def other_than(self, known: int | None, seconds: float) -> Offer | None:
        """Return the offer as soon as its `release_seq` is not `known` (0: none), else what it is after `seconds`.

        Raises:
            sqlite3.Error: the record cannot be read.
        """
        offer = await self._look()
        if known is None or _number(offer) != known or seconds <= 0:
            return offer
        changed: asyncio.Future[Offer | None] = asyncio.get_running_loop().create_future()
        self._waiting[changed] = known
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            return await asyncio.wait_for(changed, seconds)
        except TimeoutError:
            return offer
        finally:
            del self._waiting[changed]

    async def _watch(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(LOOK_EVERY)
                await self._tell()
        finally:
            self._watching = None

    async def _tell(self) -> None:
        """Look once, and answer those for whom it is news; a look that fails is their answer too."""
        offer, failure = None, None
        try:
            offer = await self._look()
        except sqlite3.Error as error:
            failure = error
        for changed, known in self._waiting.items():
            if changed.done():
                continue
            if failure is not None:
                changed.set_exception(failure)
            elif _number(offer) != known or self._stopping.is_set():
                changed.set_result(offer)

    async def _look(self) -> Offer | None:
        return await run_in_threadpool(self._offers.effective)


def _number(offer: Offer | None) -> int:
    return offer.release_seq if offer else 0
