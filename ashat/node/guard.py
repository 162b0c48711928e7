"""Around every request: who asks, how much may be sent, what is counted, and what is written down.

The access log and the journal hold the path without its query, and a token's id, never the token.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ashat.errors import UsageError
from ashat.node.context import NodeContext
from ashat.node.db import now
from ashat.node.tokens import Token
from ashat.wire import REQUEST_LIMIT

log = logging.getLogger("ashat.node.access")

STRANGER_LIMIT = 1024 * 1024
_READING = ("GET", "HEAD", "OPTIONS")
_METHODS = (*_READING, "PUT", "POST", "DELETE")
_CLIENT_LEFT = 499
_QUESTIONS = ("/objects/missing", "/objects/fetch", "/probes/database")


@dataclass
class _Exchange:
    """One request and what is known of its answer."""

    method: str
    path: str
    limit: int
    received: int = 0
    sent: int = 0
    status: int = 0
    refusal: bytearray = field(default_factory=bytearray)

    @property
    def journalled(self) -> bool:
        """Whether it is written down: somebody we know asked for more than to read. Strangers could fill the disk."""
        return self.method not in _READING and not self.path.endswith(_QUESTIONS) and self.status != 401

    @property
    def detail(self) -> str:
        """The one line with which it was refused."""
        try:
            return str(json.loads(self.refusal)["detail"])
        except (ValueError, KeyError, TypeError):
            return ""


class Guard:
    """The middleware. It leaves the known token, if any, in the request's state as `token`."""

    def __init__(self, app: ASGIApp, context: NodeContext) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = self._token(Headers(scope=scope))
        scope.setdefault("state", {})["token"] = token
        known = token is not None and not token.expired(now())
        path = scope["path"].encode("unicode_escape").decode("ascii")  # as it is, it could forge lines of a log
        exchange = _Exchange(scope["method"], path, REQUEST_LIMIT if known else STRANGER_LIMIT)
        began = time.monotonic()
        try:
            await self._app(scope, self._counted(exchange, receive), self._seen(exchange, send))
        finally:
            await self._close(exchange, token, time.monotonic() - began)

    def _token(self, headers: Headers) -> Token | None:
        kind, _, presented = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not presented:
            return None
        try:
            return self._context.tokens.identify(presented.strip())
        except UsageError as error:
            log.warning("no token is known: %s", error)
            return None

    def _counted(self, exchange: _Exchange, receive: Receive) -> Receive:
        async def counted() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                size = len(message.get("body", b""))
                exchange.received += size
                self._context.metrics.received.inc(size)
                if exchange.received > exchange.limit:
                    raise HTTPException(413, f"A request may have at most {exchange.limit} bytes.")
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
            await send(message)

        return seen

    async def _close(self, exchange: _Exchange, token: Token | None, seconds: float) -> None:
        method = exchange.method if exchange.method in _METHODS else "other"
        self._context.metrics.requests.labels(method, exchange.status or _CLIENT_LEFT).inc()
        log.info(
            "%s %s %d %d B in, %d B out, %.0f ms, token %s",
            exchange.method,
            exchange.path,
            exchange.status,
            exchange.received,
            exchange.sent,
            seconds * 1000,
            token.id if token else "-",
        )
        if exchange.journalled:
            await run_in_threadpool(
                self._context.journal.append,
                token_id=token.id if token else None,
                method=exchange.method,
                path=exchange.path,
                status=exchange.status,
                detail=exchange.detail,
            )
