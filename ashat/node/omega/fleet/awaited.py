"""Waiting on the event loop for what the writer thread makes, at one wake-up of the loop for a whole group."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Future
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
_arrivals: WeakKeyDictionary[asyncio.AbstractEventLoop, _Arrivals] = WeakKeyDictionary()


async def awaited(future: Future[T]) -> T:
    """Wait for `future`; raises what it raises. Who is cancelled meanwhile cancels it, if nobody works on it yet.

    `asyncio.wrap_future` does the same, and writes a byte to the loop's own socket for each.
    """
    loop = asyncio.get_running_loop()
    arrivals = _arrivals.get(loop)
    if arrivals is None:
        arrivals = _arrivals[loop] = _Arrivals()
    target: asyncio.Future[None] = loop.create_future()
    future.add_done_callback(lambda _: arrivals.add(loop, target))
    try:
        await target
    except asyncio.CancelledError:
        future.cancel()
        raise
    return future.result()


class _Arrivals:
    """What has come for a loop since it was woken."""

    def __init__(self) -> None:
        self._ready: deque[asyncio.Future[Any]] = deque()
        self._woken = False

    def add(self, loop: asyncio.AbstractEventLoop, target: asyncio.Future[None]) -> None:
        """Add one, from any thread."""
        self._ready.append(target)
        if not self._woken and not loop.is_closed():
            self._woken = True
            loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._woken = False  # before they are taken, so that none that comes now is left
        while self._ready:
            target = self._ready.popleft()
            if not target.done():
                target.set_result(None)
