"""A node's refusals: `{"error": CODE, "detail": ...}` with the statuses of `docs/node-api.md`."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from ashat.common.numbers import LARGEST
from ashat.common.shortage import Kind, shortage
from ashat.common.text import without_secrets
from ashat.errors import (
    AshatError,
    FleetDatabaseError,
    FrameError,
    FrameTooLargeError,
    IntegrityError,
    ManifestError,
    NotStoredError,
    ObjectsMissingError,
    StoreError,
    StoreFullError,
)
from ashat.protocol.messages import OUT_OF_RANGE

log = logging.getLogger("ashat.node")

MISSING_SHOWN = 1000
# The code of a refusal of bytes, since as many Mainframes download as may: to come back later, which is no error.
DOWNLOADS_FULL = "downloads_full"
REFUSALS = {
    400: "The body or a parameter is malformed",
    401: "The caller is unknown",
    403: "The caller may not do this",
    404: "There is no such thing here",
    405: "There is no such call at that address",
    408: "The request did not come in time",
    409: "The server is not in the state that the caller expected",
    413: "A frame or a body is over the limit",
    415: "The body is encoded in a way that is not known here",
    416: "The range is not in the object",
    422: "The bytes or the document break the rules, or a number is beyond what is kept",
    423: "Another update holds the server",
    429: "Come back later",
    500: "The node failed; its log says why",
    503: "Come back later",
    507: "The disk is full, or cannot be written to; nothing was kept of the request",
}
_HTTP_CODES = {401: "unauthenticated", 403: "forbidden", 404: "not_found", 413: "too_large", 503: "busy"}
_STORE_ERRORS: tuple[tuple[type[AshatError], int, str], ...] = (
    (FrameTooLargeError, 413, "too_large"),
    (FrameError, 422, "bad_frames"),
    (ManifestError, 422, "bad_manifest"),
    (NotStoredError, 404, "not_found"),
    (StoreFullError, 507, "disk_full"),
    (StoreError, 500, "internal"),
)
_RETRY_SECONDS = "5"
_LACKING = {Kind.FULL: 507, Kind.READ_ONLY: 507, Kind.OPEN: 503, Kind.FAILED: 500}


class ApiError(Exception):
    """A refusal: the status, the code, one line for a person, and the fields the code promises."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.fields = fields

    def response(self) -> JSONResponse:
        """Return the refusal as it goes out."""
        body = {"error": self.code, "detail": self.detail, **self.fields}
        return JSONResponse(body, status_code=self.status, headers=self.headers)


def install_error_handlers(app: FastAPI) -> None:
    """Make every way that a request to `app` can fail answer in the documented shape."""
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ObjectsMissingError, _objects_missing)
    app.add_exception_handler(IntegrityError, _integrity)
    for kind, status, code in _STORE_ERRORS:
        app.add_exception_handler(kind, _store_error(status, code))
    app.add_exception_handler(FleetDatabaseError, _fleet)
    app.add_exception_handler(OSError, _lacking)
    app.add_exception_handler(sqlite3.Error, _lacking)
    app.add_exception_handler(Exception, _internal)


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error.response()


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if all(_is_out_of_range(item) for item in error.errors()):
        return ApiError(422, "out_of_range", f"A number or a time is beyond what is kept: {_places(error)}.").response()
    return ApiError(400, "bad_request", f"The request is malformed: {_places(error)}.").response()


def _is_out_of_range(item: Mapping[str, Any]) -> bool:
    """Tell whether a request is well formed, but for a number in its address or a time that no record could hold."""
    place = item["loc"][0]
    too_large = item["type"] == "int_parsing_size" or item.get("ctx", {}).get("le") == LARGEST
    return item["type"] == OUT_OF_RANGE or (too_large and place in ("query", "path"))


def _places(error: RequestValidationError) -> str:
    wrong = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:3]]
    return "; ".join(wrong)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "bad_request")
    headers = {"Allow": _methods_at(request)} if error.status_code == 405 else error.headers
    return ApiError(error.status_code, code, str(error.detail), headers=headers).response()


def _methods_at(request: Request) -> str:
    """List what may be done at an address, which is what is declared of it."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    here = request.url.path
    of_shape = (calls for path, calls in paths.items() if compile_path(path)[0].match(here))
    return ", ".join(sorted(method.upper() for method in paths.get(here) or next(of_shape, {})))


async def _objects_missing(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ObjectsMissingError)
    shown = error.missing[:MISSING_SHOWN]
    return ApiError(409, "objects_missing", str(error), missing=shown, count=len(error.missing)).response()


async def _integrity(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, IntegrityError)
    return ApiError(422, "digest_mismatch", str(error), digest=error.digest).response()


def _store_error(status: int, code: str) -> Any:
    async def handler(request: Request, error: Exception) -> JSONResponse:
        if status >= 500:
            log.error("%s %s failed: %s", request.method, without_secrets(request.url.path), error)
        return ApiError(status, code, str(error)).response()

    return handler


async def _fleet(request: Request, error: Exception) -> JSONResponse:
    if shortage(error) is not None:
        return await _lacking(request, error)
    log.error("%s %s failed: %s", request.method, without_secrets(request.url.path), error)
    detail = "The fleet's database does not answer; the server's log says why. Try again."
    return ApiError(503, "unavailable", detail, headers={"Retry-After": _RETRY_SECONDS}).response()


async def _lacking(request: Request, error: Exception) -> JSONResponse:
    """Answer what this machine lacks as that, and what is no such failure as any other of ours."""
    lack = shortage(error, request.app.state.context.config.data)
    if lack is None:
        return await _internal(request, error)
    log.error("%s %s failed: %s", request.method, without_secrets(request.url.path), lack.words)
    return ApiError(_LACKING[lack.kind], lack.kind.value, str(lack)).response()


async def _internal(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed: %s: %s", request.method, without_secrets(request.url.path), type(error).__name__, error)
    return ApiError(500, "internal", "The server failed; its log says why.").response()
