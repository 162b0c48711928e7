"""Take from a proxy that knows people who answers a gate, and from nobody else.

Prefect's open-source server knows no users. An authenticating proxy in front of a team's API servers does, and says
with each request who asks (`X-Ashat-User`), shown by a secret that only it and the servers have (`X-Ashat-Proxy`). It
goes into the decision, marked as the proxy's word. A request that has a name without the secret is refused, and what a
person types cannot carry the mark.
"""

from __future__ import annotations

import base64
import hmac
import json
import re
import unicodedata
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ashat.common.documents import load_json
from ashat.errors import DocumentError

USER_HEADER, SECRET_HEADER = "X-Ashat-User", "X-Ashat-Proxy"
MARK: Final = "the proxy's word"
# In the scope of a request that the proxy vouches for.
VOUCHED: Final = "ashat.vouched"
_ANSWERS = re.compile(r"/api/flow_runs/[^/]+/(resume|input)/?")
_CLAIM = re.compile(r"\([^()]*prox[^()]*\)?", re.IGNORECASE)
_LARGEST_ANSWER = 1 << 18
_LARGEST_USER, _LARGEST_TYPED = 100, 60


class Vouched:
    """An ASGI application that passes requests on to `app`, those of the proxy that has `secret` with the API's
    `password`, and writes into answers who gave them, if the proxy says it. Without a secret no proxy is believed.
    """

    def __init__(self, app: ASGIApp, password: str, secret: str) -> None:
        self._app = app
        self._password = password
        self._secret = secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        user, why = self._user(headers)
        if why and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": why})
            return
        if why:
            await PlainTextResponse(why, 403)(scope, receive, send)
            return
        if user:
            scope = self._as_the_api_wants(scope)
        if scope["type"] == "http" and scope["method"] == "POST" and _ANSWERS.fullmatch(scope["path"]):
            body = await _read(receive)
            if body is None:
                await PlainTextResponse("The answer is too large.", 413)(scope, receive, send)
                return
            body = with_name(body, user)
            scope = _of_length(scope, len(body))
            receive = _given(body, receive)
        await self._app(scope, receive, send)

    def _user(self, headers: Headers) -> tuple[str, str]:
        """Return who asks by the proxy's word, "" where no proxy vouches, and why the request is refused, if it is."""
        users, secrets = headers.getlist(USER_HEADER), headers.getlist(SECRET_HEADER)
        if not any(users) and not any(secrets):
            return "", ""
        shown = secrets[0] if len(secrets) == 1 else ""
        if not self._secret or not hmac.compare_digest(shown.encode(), self._secret.encode()):
            return "", "Only the proxy says who somebody is."
        name = users[0].strip() if len(users) == 1 else ""
        if not name or len(name) > _LARGEST_USER or not name.isprintable() or _CLAIM.search(name):
            return "", "The proxy named nobody, or by a name that cannot be recorded."
        return name, ""

    def _as_the_api_wants(self, scope: Scope) -> Scope:
        shown = base64.b64encode(self._password.encode()).decode()
        changed = {**scope, "headers": list(scope["headers"]), VOUCHED: True}
        MutableHeaders(scope=changed)["Authorization"] = f"Basic {shown}"
        return changed


def with_name(body: bytes, user: str) -> bytes:
    """Write into the answer of a form who gave it by the proxy's word; without `user`, take such words out of it.

    What is no answer stays as it is: Prefect says what is wrong with it.
    """
    try:
        answer = load_json(body, limit=_LARGEST_ANSWER)
    except (DocumentError, ValueError):
        return body
    given = answer.get("run_input") if isinstance(answer, dict) else None
    if isinstance(given, dict) and "decision" in given:
        typed = _typed(given.get("approver"))
        given["approver"] = _named(user, typed) if user else typed
        return json.dumps(answer).encode()
    if isinstance(answer, dict) and isinstance(answer.get("value"), str):
        answer["value"] = _typed(answer["value"], longest=_LARGEST_ANSWER)
        return json.dumps(answer).encode()
    return body


def _named(user: str, typed: str) -> str:
    also = typed[:_LARGEST_TYPED].replace("(", "").replace(")", "").strip()
    return f"{user} ({MARK})" if also in ("", user) else f"{user} ({MARK}; typed: {also})"


def _typed(name: Any, *, longest: int = 200) -> Any:
    """Return what a person typed without a claim that a proxy said it."""
    if not isinstance(name, str) or len(name) > longest:
        return name
    plain = unicodedata.normalize("NFKC", name)
    return _CLAIM.sub("", plain).strip() if _CLAIM.search(plain) else name


async def _read(receive: Receive) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > _LARGEST_ANSWER:
            return None
        if not message.get("more_body"):
            return body


def _of_length(scope: Scope, length: int) -> Scope:
    changed = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"transfer-encoding"]}
    MutableHeaders(scope=changed)["Content-Length"] = str(length)
    return changed


def _given(body: bytes, receive: Receive) -> Receive:
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return left.pop() if left else await receive()

    return receiving
