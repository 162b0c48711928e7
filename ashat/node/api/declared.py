"""What each call may answer, in the node's OpenAPI document, and a page that shows it without loading anything."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from ashat.node.core.errors import REFUSALS
from ashat.protocol.messages import FRAMES

Responses = dict[int | str, dict[str, Any]]

BYTES = "application/octet-stream"
_ALWAYS = (400, 408, 500, 503, 507)
_METHODS = ("get", "put", "post", "delete")
_REFUSAL = {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}}
_REFUSAL_SCHEMA = {
    "title": "Refusal",
    "type": "object",
    "description": "Why a request was refused: a code, and one line for a person. Some codes come with more fields.",
    "required": ["error", "detail"],
    "properties": {"error": {"type": "string"}, "detail": {"type": "string", "pattern": r"^[^\n]*$"}},
}
_STYLE = "body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:60rem}code{font-weight:bold}td{padding:.2rem .6rem}"


def refused(*statuses: int) -> Responses:
    """Declare that a call may be refused with these `statuses`, beside those that come by its nature."""
    return {status: {"description": REFUSALS[status], "content": _REFUSAL} for status in statuses}


def answered(content: str, *statuses: int) -> Responses:
    """Declare that a call answers bytes of the type `content`, with 200 or one of `statuses`; 304 has none."""
    body = {"content": {content: {"schema": {"type": "string", "format": "binary"}}}}
    if content == "application/json":
        body = {"content": {content: {"schema": {"type": "object"}}}}
    names = {200: "What was asked for", 206: "The range that was asked for", 304: "It is what the caller has"}
    return {status: {"description": names[status], **({} if status == 304 else body)} for status in (200, *statuses)}


def redirected() -> Responses:
    """Declare that a call may say where else what was asked for is."""
    return {307: {"description": "It is at the address in Location", "headers": {"Location": _ADDRESS}}}


_ADDRESS = {"schema": {"type": "string", "format": "uri"}}
OBJECT = answered(BYTES, 206, 304) | refused(404, 416)
DOCUMENT = answered("application/json", 304) | refused(404)
OBJECTS = answered(FRAMES) | refused(404)


def declare(app: FastAPI) -> None:
    """Complete the OpenAPI document of `app`: what any call may answer, and what those with a token or a body may."""
    made = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            document.setdefault("components", {}).setdefault("schemas", {})["Refusal"] = _REFUSAL_SCHEMA
            for unused in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(unused, None)
            for _, _, call in _calls(document):
                _complete(call)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]  # as FastAPI's documentation says
    app.add_route("/docs", lambda _: HTMLResponse(_page(app.openapi()), headers=_NOTHING_ELSE), include_in_schema=False)


_NOTHING_ELSE = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def _complete(call: dict[str, Any]) -> None:
    answers: dict[str, Any] = call["responses"]
    answers.pop("422", None) if "HTTPValidationError" in str(answers.get("422")) else None
    statuses = [*_ALWAYS]
    if "security" in call:
        statuses += [401, 403]
    if "requestBody" in call:
        statuses += [413, 422]
    elif call.get("parameters"):
        statuses += [422]
    for status in statuses:
        answers.setdefault(str(status), refused(status)[status])


def _calls(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, calls in document["paths"].items():
        for method in _METHODS:
            if method in calls:
                yield method.upper(), path, calls[method]


def _page(document: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{method} {escape(path)}</code><td>{escape(call.get('description', ''))}"
        f"<td>{', '.join(sorted(call['responses']))}</tr>"
        for method, path, call in _calls(document)
    )
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(document['info']['title'])}</title>"
        f"<style>{_STYLE}</style><h1>{escape(document['info']['title'])} {escape(document['info']['version'])}</h1>"
        f'<p>The whole of it is in <a href="openapi.json">openapi.json</a>.</p><table>{rows}</table></html>'
    )
