"""Around every request: who asks, how much may be sent, what is counted, and what is written down.

The access log holds the path without its query, and the id of a token or a licence, never itself.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ashat.common.numbers import read_count
from ashat.common.text import without_secrets
from ashat.errors import UsageError
from ashat.node.access.tokens import Token
from ashat.node.context import NodeContext
from ashat.node.core.db import now
from ashat.node.logs.access_log import cleaned
from ashat.node.logs.change_log import asked_by
from ashat.protocol.messages import REQUEST_LIMIT, AccessLogLine

log = logging.getLogger("ashat.node.access")
_of_strangers = logging.getLogger("ashat.node.access.strangers")

STRANGER_LIMIT = 1024 * 1024
# Of what is parsed as a whole, which may take thirty times its size; objects and manifests are read as they come.
JSON_LIMIT = 16 * 1024 * 1024
_LARGE = re.compile(r"/v1/(objects(/(?!missing$|fetch$).*)?|bundles/.*)")
_METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE")
_CLIENT_LEFT = 499


@dataclass
class _Exchange:
    """One request and what is known of its answer. `state` is what the routes leave in the request's state."""

    method: str
    path: str
    client: str
    announced: int
    limit: int
    state: dict[str, Any]
    began: float = field(default_factory=time.monotonic)
    received: int = 0
    sent: int = 0
    status: int = 0
    refusal: bytearray = field(default_factory=bytearray)
    closed: bool = False

    @property
    def detail(self) -> str:
        """The one line with which it was refused."""
        if not self.refusal:
            return ""
        try:
            return str(json.loads(self.refusal)["detail"])
        except (ValueError, KeyError, TypeError):
            return ""

    def refuse_above_limit(self) -> None:
        """Refuse a body that is announced to have more bytes than the limit, or has had more by now.

        Raises:
            HTTPException: 413.
        """
        if max(self.announced, self.received) > self.limit:
            raise HTTPException(413, f"A request may have at most {self.limit} bytes.")


class RequestLogMiddleware:
    """The middleware. It leaves the known token, if any, in the request's state as `token`; `licence` there is the id
    of the licence that asks, once a route knows it."""

    def __init__(self, app: ASGIApp, context: NodeContext) -> None:
        self._app = app
        self._context = context
        self._counters: dict[tuple[str, int], Counter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked, announced = _of_headers(scope["headers"])
        token = self._token(asked)
        state = scope.setdefault("state", {})
        known = token is not None and not token.expired(now())
        state |= {"token": token, "licence": "", "known": known}
        path = scope["path"].encode("unicode_escape").decode("ascii")  # as it is, it could forge lines of a log
        exchange = _Exchange(
            scope["method"],
            without_secrets(path),
            (scope.get("client") or ("",))[0],
            read_count(announced) or 0,
            _limit(scope["path"]) if known else STRANGER_LIMIT,
            state,
        )
        try:
            with asked_by(f"token {token.id}" if token else "a stranger"):
                await self._app(scope, self._counted(exchange, receive), self._seen(exchange, send))
        except ClientDisconnect:
            raise
        except Exception:
            exchange.status = exchange.status or 500  # answered outside of this middleware
            raise
        finally:
            self._close(exchange)

    def _token(self, authorization: str) -> Token | None:
        kind, _, presented = authorization.partition(" ")
        if kind.lower() != "bearer" or not presented:
            return None
        try:
            return self._context.tokens.identify(presented.strip())
        except UsageError as error:
            log.warning("no token is known: %s", error)
            return None

    def _counted(self, exchange: _Exchange, receive: Receive) -> Receive:
        async def counted() -> Message:
            exchange.refuse_above_limit()
            message = await receive()
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                exchange.received += size
                self._context.metrics.received.inc(size)
                exchange.refuse_above_limit()
            return message

        return counted

    def _seen(self, exchange: _Exchange, send: Send) -> Send:
        async def seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
            elif message["type"] == "http.response.body":
                body = message.get("body", b"")
                exchange.sent += len(body)
                self._context.metrics.sent.inc(len(body))
                if exchange.status >= 400 and len(exchange.refusal) < STRANGER_LIMIT:
                    exchange.refusal += body
                if not message.get("more_body", False):
                    self._close(exchange)  # first, so that whoever has an answer is in the access log
            await send(message)

        return seen

    def _close(self, exchange: _Exchange) -> None:
        if exchange.closed:
            return
        exchange.closed = True
        method = exchange.method if exchange.method in _METHODS else "other"
        status = exchange.status or _CLIENT_LEFT
        counter = self._counters.get((method, status))
        if counter is None:
            counter = self._counters[method, status] = self._context.metrics.requests.labels(method, status)
        counter.inc()
        token: Token | None = exchange.state["token"]
        line = cleaned(
            AccessLogLine.model_construct(  # by us, of what is of the types already
                at=now(),
                method=exchange.method,
                path=exchange.path,
                status=status,
                token=token.id if token else "",
                licence=exchange.state["licence"],
                client=exchange.client,
                ms=round((time.monotonic() - exchange.began) * 1000),
                received=exchange.received,
                sent=exchange.sent,
                detail=exchange.detail,
            )
        )
        (log if line.token or line.licence else _of_strangers).info(
            "%s %s %d %d B in, %d B out, %d ms, token %s",
            line.method,
            line.path,
            line.status,
            line.received,
            line.sent,
            line.ms,
            line.token or "-",
        )
        self._context.access_log.append(line)


def _of_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str]:
    """Find the first `Authorization` and the first `Content-Length`, "" where there is none."""
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name in (b"authorization", b"content-length"):
            found.setdefault(name, value.decode("latin-1"))
    return found.get(b"authorization", ""), found.get(b"content-length", "")


def _limit(path: str) -> int:
    """Tell how many bytes a request to `path` may have, of somebody who is known."""
    return REQUEST_LIMIT if _LARGE.fullmatch(path) else JSON_LIMIT
