"""How many Mainframes may download from OMEGA at once: more are told when to come back, which is no error."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Response
from starlette.types import Receive, Scope, Send

from ashat.node.core.errors import DOWNLOADS_FULL, ApiError

CONNECTIONS: Final = 8
"""Of one licence at once; a Mainframe uses six at most."""

SOONEST, LATEST = 5, 15
"""Seconds after which who was turned away is to ask again; each is told another number between them."""

KEPT: Final = 0.5
"""Seconds for which a Mainframe keeps its turn between two answers."""

_random = random.SystemRandom()


class Downloads:
    """Counts the Mainframes that download, by licence; any thread may ask. An answer costs the same for any fleet, and
    `limit` licences at most are remembered.

    Who got a part keeps its turn for `KEPT` seconds, in which it asks for the next.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._under_way: dict[str, int] = {}
        self._between: dict[str, float] = {}

    async def counted(self, licence: str, make: Callable[[], Awaitable[Response]]) -> AdmittedAnswer:
        """Make an answer with bytes of a release, counted from now until it is sent; raises as `admit`."""
        ended = self.admit(licence)
        try:
            return AdmittedAnswer(await make(), ended)
        except BaseException:
            ended()
            raise

    def admit(self, licence: str) -> Callable[[], None]:
        """Admit one more answer for that licence; call what is returned once the answer has ended.

        A Mainframe with an answer under way gets further ones, so that its connections do not cut each other.

        Raises:
            ApiError: 503 `downloads_full`, as many Mainframes download as may; 429 `downloads_full`, this one has as
                many connections as it may.
        """
        with self._lock:
            held = self._under_way.get(licence, 0)
            if held >= CONNECTIONS:
                raise _later(429, f"this licence has {CONNECTIONS} downloads under way already")
            if not held and self._between.pop(licence, None) is None and self._is_full():
                raise _later(503, f"{self._limit} Mainframes download from OMEGA already")
            self._under_way[licence] = held + 1
        return lambda: self._end(licence)

    def under_way(self) -> int:
        """Count the Mainframes that download now."""
        return len(self._under_way)

    def _is_full(self) -> bool:
        now = time.monotonic()
        while self._between and (first := next(iter(self._between.items())))[1] <= now:
            del self._between[first[0]]
        return len(self._under_way) + len(self._between) >= self._limit

    def _end(self, licence: str) -> None:
        with self._lock:
            left = self._under_way.pop(licence, 0) - 1
            if left > 0:
                self._under_way[licence] = left
            else:
                self._between[licence] = time.monotonic() + KEPT


class AdmittedAnswer(Response):
    """An answer that calls `ended` when its last byte is sent, or its connection is gone."""

    def __init__(self, answer: Response, ended: Callable[[], None]) -> None:
        super().__init__(status_code=answer.status_code)
        self.answer, self._ended = answer, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            await self.answer(scope, receive, send)
        finally:
            self._ended()


def _later(status: int, why: str) -> ApiError:
    return ApiError(
        status,
        DOWNLOADS_FULL,
        f"Come back later: {why}.",
        headers={"Retry-After": str(_random.randint(SOONEST, LATEST))},
    )
