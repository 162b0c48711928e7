"""Answers what every Mainframe asks in every rollout, past the framework, which takes eight times as long for it.

The routes of `api_mainframe` and `api_trust` declare these calls and judge whatever is not written here. What is
answered here is a request in the form in which a Mainframe sends it; it goes by the same functions as there, for the
licence, the offer and the report, and a refusal that these raise is put into words by the same handlers. Anything in
another form goes on to the routes, untouched.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ashat.node.api.bundles import manifest_answer, object_answer
from ashat.node.omega.api_mainframe import PREFIX, REDIRECTS, WAIT_LIMIT, MainframeDesk
from ashat.node.omega.trust import OmegaTrust
from ashat.protocol.fleet import MainframeReport

REPORT_LIMIT: Final = 64 * 1024
SMALL: Final = 256 * 1024
REMEMBERED: Final = 16 * 1024 * 1024
_ASKED: Final = re.compile(rb"after=([0-9]{1,15})&wait=([0-9]{1,2}(?:\.[0-9]{1,6})?)(?:&tries=([0-9]{1,15}))?")
_LENGTH: Final = re.compile(r"[0-9]{1,5}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FOR_THE_ROUTES: Final = ("range", "if-none-match", REDIRECTS)
Answer = Response | None


class MainframeCalls:
    """What answers them, around the application `app`."""

    def __init__(self, app: FastAPI, desk: MainframeDesk, trust: OmegaTrust) -> None:
        self._app = app
        self._desk = desk
        self._trust = trust
        self._objects = _SmallAnswers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        body = _Body(receive)
        try:
            answer = await self._answer(scope, body)
        except Exception as error:  # noqa: BLE001  the handlers tell who gets what; what they do not know goes on
            await self._refuse(error, scope, receive, send)
            return
        if answer is None:
            await self._app(scope, body.again, send)
        else:
            await answer(scope, receive, send)

    async def _answer(self, scope: Scope, body: _Body) -> Answer:
        """Answer a request of a known form, None: it is of another."""
        call, _, name = scope["path"][len(PREFIX) + 1 :].partition("/")
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in reversed(scope["headers"])
        }  # the first of a name counts
        if scope["method"] == "POST":
            return await self._report(headers, scope["state"], body) if (call, name) == ("report", "") else None
        if scope["method"] != "GET":
            return None
        if call == "release" and not name:
            return await self._release(headers, scope)
        if any(key in headers for key in _FOR_THE_ROUTES):
            return None
        if call == "trust":
            self._desk.check_licence(headers, scope["state"])
            return Response(self._trust.file(name), media_type="application/json")
        if call in ("bundles", "objects") and _DIGEST.fullmatch(name):
            self._desk.check_licence(headers, scope["state"])
            return await (
                self._bundle(name, scope["state"]) if call == "bundles" else self._object(name, scope["state"])
            )
        return None

    async def _release(self, headers: Mapping[str, str], scope: Scope) -> Answer:
        asked = _ASKED.fullmatch(scope["query_string"])
        if asked is None or float(asked[2]) > WAIT_LIMIT:
            return None
        after, tries = int(asked[1]), int(asked[3]) if asked[3] else None
        return await self._desk.release(headers, scope["state"], after, tries, float(asked[2]))

    async def _report(self, headers: Mapping[str, str], state: dict[str, Any], body: _Body) -> Answer:
        length = headers.get("content-length", "")
        if headers.get("content-type") != "application/json" or not _LENGTH.fullmatch(length):
            return None
        content = await body.whole(REPORT_LIMIT) if int(length) <= REPORT_LIMIT else None
        if content is None:
            return None
        try:
            report = MainframeReport.model_validate_json(content)
        except ValidationError:
            return None
        await self._desk.report(self._desk.check_licence(headers, state), report)
        return Response(status_code=204)

    async def _bundle(self, digest: str, state: Mapping[str, Any]) -> Response:
        self._desk.offered.check_bundle(digest)
        known = self._objects.find(digest, digest)
        if known is None:
            read = partial(run_in_threadpool, manifest_answer, self._desk.store, digest)
            return await self._admitted(state, digest, digest, read)
        return known

    async def _object(self, digest: str, state: Mapping[str, Any]) -> Response:
        offered = self._desk.offered.effective_bundle()
        known = self._objects.find(offered, digest)
        if known is None:
            await run_in_threadpool(self._desk.offered.check_objects, [digest])
            read = partial(run_in_threadpool, object_answer, self._desk.store, digest)
            return await self._admitted(state, offered, digest, read)
        return known

    async def _admitted(
        self, state: Mapping[str, Any], bundle: str | None, digest: str, read: Callable[[], Awaitable[Response]]
    ) -> Response:
        admitted = await self._desk.downloads.counted(state["licence"], read)
        self._objects.remember(bundle, digest, admitted.answer)
        return admitted

    async def _refuse(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        async def refused(*_: object) -> None:
            raise error

        scope["app"] = self._app
        handlers: dict[Any, Any] = dict(self._app.exception_handlers)
        of_any = handlers.pop(Exception)
        try:
            await ExceptionMiddleware(refused, handlers)(scope, receive, send)
        except Exception:
            await (await of_any(Request(scope), error))(scope, receive, send)
            raise  # so that it is in the log, whole


class _SmallAnswers:
    """Small answers of one bundle, checked as they were read, which go out at once to however many ask; bounded in
    bytes, and forgotten with the bundle."""

    def __init__(self) -> None:
        self._bundle: str | None = None
        self._kept: dict[str, Response] = {}
        self._size = 0

    def find(self, bundle: str | None, digest: str) -> Response | None:
        """Find the answer for `digest`, which is part of that bundle."""
        return self._kept.get(digest) if bundle == self._bundle else None

    def remember(self, bundle: str | None, digest: str, answer: Response) -> None:
        """Keep an answer, if it is small and there is room."""
        if bundle != self._bundle:
            self._bundle, self._kept, self._size = bundle, {}, 0
        size = len(answer.body)
        if size <= SMALL and self._size + size <= REMEMBERED and digest not in self._kept:
            self._kept[digest] = answer
            self._size += size


class _Body:
    """The body of a request, which can be read twice: here, and by who judges it then."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._had: list[Message] = []

    async def whole(self, limit: int) -> bytes | None:
        """Read the body; None where it is cut, or longer than `limit`."""
        content = bytearray()
        while True:
            message: Message = await self._receive()
            self._had.append(message)
            content += message.get("body", b"")
            if message["type"] != "http.request" or len(content) > limit:
                return None
            if not message.get("more_body", False):
                return bytes(content)

    async def again(self) -> Message:
        """Receive the next message, as ASGI has it, from the first on."""
        return self._had.pop(0) if self._had else await self._receive()
