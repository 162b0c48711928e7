"""Sends requests to the program with hard limits: on the whole time of an answer, and on its size.

httpx's own timeouts are per read, so a server that sends a byte a second never meets them. Here each exchange, from
connecting to the last byte, ends within its limit. Redirects are not followed, answers are not decompressed.
"""

from __future__ import annotations

import codecs
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ashat import __version__
from ashat.client import bounded
from ashat.common.documents import load_json
from ashat.errors import AshatError, DocumentError
from tasks.checks.kit.base import CheckContext, one_line
from tasks.checks.kit.load import Load
from tasks.checks.kit.samples import Sample

BODY_LIMIT = 1024 * 1024
# These codecs are for domain names, and take time that grows with the square of the text's length.
_FOR_NAMES = ("idna", "punycode")


class NoAnswerError(AshatError):
    """There was no whole answer within the limits; the message says why."""


class Answer(bounded.Answer):
    """What the program answered, to be read as JSON or as text."""

    __slots__ = ()

    def json(self) -> Any:
        """Read the body, which was bounded when it was asked for, as JSON.

        Raises:
            ValueError: it is none, or exceeds what is read of one; the message says which.
        """
        try:
            return load_json(self.body.decode("utf-8"), limit=len(self.body))
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}") from None
        except DocumentError as error:
            raise ValueError(f"no valid JSON ({error})") from None

    def text(self) -> str:
        """Decode the body by the charset that the answer declares, or as UTF-8 where it declares none.

        Raises:
            ValueError: it is not in that charset.
        """
        charset = httpx.Response(200, headers=self.headers).charset_encoding or "utf-8"
        try:
            if codecs.lookup(charset).name in _FOR_NAMES:
                raise LookupError
            return self.body.decode(charset)
        except LookupError:
            raise ValueError(f"an unknown charset, {one_line(charset, 40)!r}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"not {charset} at byte {error.start}") from None


class Web:
    """An HTTP client of the program that `context` names. A context manager, not for several threads."""

    def __init__(self, context: CheckContext) -> None:
        self._context = context
        self._base = context.app_url.rstrip("/")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._portal: BlockingPortal = self._stack.enter_context(start_blocking_portal())
        self._client = self._portal.call(self._open)
        self._stack.callback(self._portal.call, self._client.aclose)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: Any = None,
        seconds: float = 10,
        limit: int = BODY_LIMIT,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request; the answer may take `seconds` and have `limit` bytes.

        Raises:
            NoAnswerError: none came, or none within the limits.
            OutOfTimeError: the check's own time is over.
        """
        limits = min(seconds, self._context.left()), limit
        answer: Answer = self._portal.call(self._ask, path, method, body, *limits, headers)
        return answer

    def load(
        self,
        paths: Sequence[str],
        requests: int,
        concurrency: int,
        seconds: float,
        *,
        warm_up: int = 0,
        within: float = math.inf,
    ) -> list[Sample]:
        """Request `paths` in turn, `requests` times in all, `concurrency` at once; each may take `seconds`.

        Before them come `warm_up` requests that do not count. Fewer samples come back where `within` seconds, or the
        check's own time, ended first.
        """
        deadline = min(self._context.deadline, time.monotonic() + within)
        load = Load(paths, requests, concurrency, seconds, BODY_LIMIT, warm_up, deadline)
        return self._portal.call(load.run, self._base, self._context.tls)

    async def _open(self) -> httpx.AsyncClient:
        tls: Any = self._context.tls or self._base.startswith("https:")
        return httpx.AsyncClient(
            verify=tls,
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": f"ashat-deploy/{__version__}"},
        )

    async def _ask(
        self, path: str, method: str, body: Any, seconds: float, limit: int, headers: Mapping[str, str] | None
    ) -> Answer:
        ask = bounded.exchange(
            self._client, method, self._base + path, seconds=seconds, limit=limit, json=body, headers=headers
        )
        try:
            answer = await ask
        except bounded.TooLargeError:
            raise NoAnswerError(f"the answer has more than {limit} bytes") from None
        except TimeoutError:
            raise NoAnswerError(f"no whole answer within {seconds:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise NoAnswerError(f"no answer: {one_line(error) or type(error).__name__}") from None
        return Answer(answer.status, answer.headers, answer.body, answer.us)
