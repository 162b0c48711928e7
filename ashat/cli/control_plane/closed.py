"""What Prefect's server has no setting for: it would answer by any name, and to the pages of any other server.

A name that somebody else's DNS turns into 127.0.0.1 would make their page one of ours.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ashat.cli.control_plane import sign_in
from ashat.cli.control_plane.state import HOST
from ashat.cli.control_plane.vouched import VOUCHED

_LARGEST_FORM = 4096
_YEAR = 365 * 86400
_PROBES = ("/api/health", "/api/ready")
# What a browser shows instead of the password where a proxy vouches for it, and shows the password itself.
_PROXYS = "proxy:proxy"
_NOT_KEPT = {"Cache-Control": "no-store"}


class Closed:
    """An ASGI application that passes on to `app` what is addressed to `HOST`, or to one of `public`, and comes of no
    foreign page. `public` are the addresses of proxies in front of it, such as `https://prefect.example.com`.

    A browser that has not shown the `password` gets a page that asks for it, and is signed in by `POST` to
    `sign_in.PATH`: from then on Prefect's pages show it.
    """

    def __init__(self, app: ASGIApp, password: str, port: int, *, public: Sequence[str] = ()) -> None:
        self._app = app
        self._password = password
        self._origins = [f"http://{HOST}:{port}", *public]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        sending = _bounded(send, next(filter(lambda own: _host_of(own) == headers.get("host"), self._origins), ""))
        signs_in = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] == sign_in.PATH
        refusal = refuse_stranger(headers, *self._origins, any_page=signs_in)
        if self._is_probe(scope):
            refusal = None
        if refusal is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": bytes(refusal.body).decode()})
        elif refusal is not None:
            await refusal(scope, receive, send)
        elif signs_in:
            answer = await self._sign_in(Request(scope, receive))
            await answer(scope, receive, sending)
        elif scope["type"] == "http" and "text/html" in headers.get("accept", "") and not self._is_signed_in(scope):
            if scope.get(VOUCHED):
                page = self._let_in(Request(scope), _PROXYS, scope["path"])
            else:
                page = HTMLResponse(sign_in.ask(scope["path"]), 401, headers=_NOT_KEPT)
            await page(scope, receive, sending)
        else:
            await self._app(scope, receive, sending)

    def _is_probe(self, scope: Scope) -> bool:
        """Say whether somebody asks for a sign of life only, as Kubernetes does of an address that has no name."""
        return (
            len(self._origins) > 1 and scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in _PROBES
        )

    def _is_signed_in(self, scope: Scope) -> bool:
        return Request(scope).cookies.get(_cookie(scope)) == sign_in.mark(self._password)

    async def _sign_in(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST_FORM:
                return PlainTextResponse("The form is too large.", 413)
        form = parse_qs(body.decode("utf-8", "replace"))
        password, to = form.get("password", [""])[0], form.get("to", ["/"])[0]
        if not hmac.compare_digest(password.encode(), self._password.encode()):
            return HTMLResponse(sign_in.ask(to, "That is not the password."), 401, headers=_NOT_KEPT)
        return self._let_in(request, password, to)

    def _let_in(self, request: Request, shown: str, to: str) -> Response:
        """Answer with the page that lets this browser show `shown` as its password from now on."""
        answer = HTMLResponse(sign_in.signed_in(shown, to), headers=_NOT_KEPT)
        secure = f"https://{request.headers['host']}" in self._origins
        name, mark = _cookie(request.scope), sign_in.mark(self._password)
        answer.set_cookie(name, mark, _YEAR, secure=secure, httponly=True, samesite="lax")
        return answer


def refuse_stranger(headers: Headers, *own: str, any_page: bool = False) -> PlainTextResponse | None:
    """Refuse a request that asks for another server than at the addresses `own`, or that the page of another server
    makes; None if it is neither.

    With `any_page` only the host counts.
    """
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    asked = next((each for each in own if hosts == [_host_of(each)]), None)
    if asked is None:
        return PlainTextResponse(f"This server answers as {_host_of(own[-1])} only.", 421)
    if not any_page and any(origin != asked for origin in origins):
        return PlainTextResponse("This server takes no requests from the pages of another.", 403)
    return None


def _host_of(origin: str) -> str:
    return origin.partition("://")[2]


def _cookie(scope: Scope) -> str:
    """Name the cookie; those of a host are shared by all its ports."""
    return f"ashat-signed-in-{Headers(scope=scope)['host'].partition(':')[2]}"


def _bounded(send: Send, own: str) -> Send:
    """Let no other page show the answer within itself, where it could lead a person's clicks, and let the answer's page
    take from other servers pictures only: some of Prefect's would have one record what a person does.
    """
    sources = f"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob: {own.replace('http', 'ws', 1)}"
    policy = f"{sources}; img-src 'self' data: blob: https:; frame-ancestors 'none'"

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["X-Frame-Options"] = "DENY"
            headers["Content-Security-Policy"] = policy
        await send(message)

    return sending
