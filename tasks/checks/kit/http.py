"""Sends requests to the program with hard limits: on the whole time of an answer, and on its size.

httpx's own timeouts are per read, so a server that sends a byte a second never meets them. Here each exchange, from
connecting to the last byte, ends within its limit. Redirects are not followed. Answers are asked for as they are; one
that comes compressed all the same is decompressed within the limit once its content is looked at.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
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
_ANY_HEADER = zlib.MAX_WBITS | 32  # of zlib or of gzip
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
            content = self.content()
            return load_json(content.decode("utf-8"), limit=len(content), unique_keys=True)
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}") from None
        except DocumentError as error:
            raise ValueError(f"no valid JSON ({error})") from None

    def content(self) -> bytes:
        """Return the body as it was before it was compressed, of at most `BODY_LIMIT` bytes.

        Raises:
            ValueError: it is compressed in a way that is not known, or broken, or has more bytes.
        """
        named = str(self.headers.get("Content-Encoding", "")).strip().lower()
        if named in ("", "identity") or not self.body:
            return self.body
        if named not in ("gzip", "x-gzip", "deflate"):
            raise ValueError(f"compressed with {one_line(named, 40)}, which was not asked for")
        unpacking = zlib.decompressobj(wbits=_ANY_HEADER)
        try:
            content = unpacking.decompress(self.body, BODY_LIMIT + 1)
        except zlib.error:
            raise ValueError(f"no valid {named}, which its Content-Encoding says") from None
        if len(content) > BODY_LIMIT:
            raise ValueError(f"more than {BODY_LIMIT} bytes once it is decompressed")
        if not unpacking.eof:
            raise ValueError(f"{named} that is cut off")
        return content

    def text(self) -> str:
        """Decode the body by the charset that the answer declares, or as UTF-8 where it declares none.

        Raises:
            ValueError: it is not in that charset.
        """
        charset = httpx.Response(200, headers=self.headers).charset_encoding or "utf-8"
        try:
            if codecs.lookup(charset).name in _FOR_NAMES:
                raise LookupError
            return self.content().decode(charset)
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
        content: bytes | None = None,
    ) -> Answer:
        """Send one request; the answer may take `seconds` and have `limit` bytes. `content` is sent as it is, a `body`
        as JSON.

        Raises:
            NoAnswerError: none came, or none within the limits.
            OutOfTimeError: the check's own time is over.
        """
        limits = min(seconds, self._context.left()), limit
        sent = {"content": content} if content is not None else {"json": body}
        answer: Answer = self._portal.call(self._ask, path, method, sent, *limits, headers)
        return answer

    def load(self, load: Load) -> list[Sample]:
        """Put `load` on the program, until the check's own time ends at the latest; return its samples."""
        bounded_load = replace(load, deadline=min(load.deadline, self._context.deadline))
        return self._portal.call(bounded_load.run, self._base, self._context.tls)

    async def _open(self) -> httpx.AsyncClient:
        tls: Any = self._context.tls or self._base.startswith("https:")
        return httpx.AsyncClient(
            verify=tls,
            trust_env=False,
            follow_redirects=False,
            headers={"User-Agent": f"ashat-deploy/{__version__}"},
        )

    async def _ask(
        self,
        path: str,
        method: str,
        sent: dict[str, Any],
        seconds: float,
        limit: int,
        headers: Mapping[str, str] | None,
    ) -> Answer:
        ask = bounded.exchange(
            self._client, method, self._base + path, seconds=seconds, limit=limit, headers=headers, **sent
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
