"""HTTP to one server: its address, our token or licence, and each failure as an error of one line.

Nothing is retried here: the tasks above know what may be asked twice.
"""

from __future__ import annotations

import ipaddress
import json as jsonlib
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Self, TypedDict, TypeVar, Unpack

import httpcore
import httpx
from pydantic import BaseModel, ValidationError

from ashat.errors import (
    NodeAuthError,
    NodeBusyError,
    NodeConflictError,
    NodeError,
    NodeFaultError,
    NodeRefusedError,
    NodeUnreachableError,
    NodeUntrustedError,
    UsageError,
)

_BUSY = (429, 502, 503, 504)
_Message = TypeVar("_Message", bound=BaseModel)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How many seconds to wait: for a connection, and in silence for an answer or its next bytes."""

    connect: float = 5.0
    read: float = 60.0


DEFAULT_TIMEOUTS: Final = Timeouts()


class RequestOptions(TypedDict, total=False):
    """What a request may hold; `timeout` is how many seconds of silence to allow, instead of the transport's."""

    json: Any
    content: bytes | Iterable[bytes] | None
    params: Mapping[str, Any] | None
    headers: Mapping[str, str] | None
    timeout: float


class Transport:
    """A thread-safe connection to one node. Close it, or use it in a `with` block."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        licence: str | None = None,
        ca: str | Path | None = None,
        insecure_http: bool = False,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        name: str = "",
    ) -> None:
        """`url` may be a bare host or address with a port. `ca` is a PEM file or PEM text: then only certificates of
        that authority are trusted; `trust` is then made of it. `name` is what messages call the server.

        Raises:
            UsageError: the address, the CA, or a token over plain http to another machine.
        """
        self.url = normalise_url(url)
        self.name = name or self.url
        parsed = httpx.URL(self.url)
        loopback = is_loopback(parsed.host)
        if parsed.scheme == "http" and (token or licence) and not loopback and not insecure_http:
            raise UsageError(
                f"{self.name} is plain http on another machine: its token would cross the network readable. "
                "Use https, or allow it with --insecure-http."
            )
        self._timeouts = timeouts
        headers = {"User-Agent": "ashat-deploy", "Accept": "application/json"}
        if token or licence:
            headers["Authorization"] = f"Bearer {token}" if token else f"Licence {licence}"
        self.trust = _trust(ca) if parsed.scheme == "https" else None
        self._client = httpx.Client(
            base_url=self.url,
            headers=headers,
            verify=self.trust or False,
            trust_env=not loopback,
            follow_redirects=False,
            timeout=httpx.Timeout(timeouts.read, connect=timeouts.connect),
        )

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, method: str, path: str, **options: Unpack[RequestOptions]) -> httpx.Response:
        """Ask, and read the whole answer.

        Raises:
            NodeError: of the class that says whose fault it is; 2xx and 304 alone are returned.
        """
        with self.stream(method, path, **options) as response:
            response.read()
            return response

    def json(self, method: str, path: str, **options: Unpack[RequestOptions]) -> dict[str, Any]:
        """Ask, as `request` does, and return the JSON object that is answered.

        Raises:
            NodeError: as `request`; NodeRefusedError where the answer is no JSON object, so no node's.
        """
        response = self.request(method, path, **options)
        body = _decode(response.content)
        if body is None:
            raise NodeRefusedError(
                f"{self.name} answers, but not as an ASHAT node does; check the address {self.url}.",
                server=self.name,
                status=response.status_code,
            )
        return body

    def read(self, kind: type[_Message], content: bytes | Mapping[str, Any]) -> _Message:
        """Read what was answered, as JSON or decoded, as a message.

        Raises:
            NodeRefusedError: it is none.
        """
        try:
            return kind.model_validate_json(content) if isinstance(content, bytes) else kind.model_validate(content)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
            raise NodeRefusedError(
                f"{self.name} answers, but not as this version's {kind.__name__} ({where}); are both up to date?",
                server=self.name,
            ) from None

    @contextmanager
    def stream(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Iterator[httpx.Response]:
        """Ask, and leave the answer's body to be read within the `with` block; raises as `request`."""
        with self.answer(method, path, **options) as response:
            if not response.is_success and response.status_code != 304:
                body = response.read()
                raise self.refusal(response, body)
            yield response

    @contextmanager
    def answer(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Iterator[httpx.Response]:
        """Ask, and hand over whatever answer comes, its body unread; for callers that bound what they read.

        Raises:
            NodeUnreachableError: no answer, or it was cut within the `with` block.
        """
        rest: dict[str, Any] = dict(options)
        if "timeout" in options:
            rest["timeout"] = httpx.Timeout(options["timeout"], connect=self._timeouts.connect)
        try:
            with self._client.stream(method, path, **rest) as response:
                yield response
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error

    def refusal(self, response: httpx.Response, content: bytes) -> NodeError:
        """Make the error that says whose fault an answer with the body `content` is."""
        status = response.status_code
        body = _decode(content) or {}
        detail = body.get("detail") or _guess(self, response)
        kind: type[NodeError] = NodeRefusedError
        if status in (401, 403):
            kind = NodeAuthError
        elif status == 409:
            kind = NodeConflictError
        elif status in _BUSY:
            kind = NodeBusyError
        elif status >= 500:
            kind = NodeFaultError
        return kind(
            f"{self.name}: {detail}",
            server=self.name,
            status=status,
            retry_after=_retry_after(response.headers.get("retry-after")),
            body=body,
        )

    def _no_answer(self, error: httpx.HTTPError) -> NodeError:
        kind: type[NodeError] = NodeUnreachableError
        cause = _root_cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            kind = NodeUntrustedError
            why = f"its TLS certificate is not trusted ({cause.verify_message}); give its authority with --ca FILE"
        elif isinstance(cause, ssl.SSLError):
            kind = NodeUntrustedError
            why = f"no TLS connection could be made ({cause.reason or cause}); does it speak https on that port?"
        elif isinstance(error, httpx.ConnectTimeout):
            why = "no connection within the time allowed; is it up, and is the port open?"
        elif isinstance(error, httpx.TimeoutException):
            why = "it did not answer in time; try again"
        elif isinstance(error, httpx.ConnectError):
            why = f"{_strerror(cause)}; is the node running at {self.url}?"
        elif isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)):
            why = "the connection was cut; try again"
        else:
            kind, why = NodeRefusedError, f"the request could not be made ({error})"
        return kind(f"{self.name}: {why}", server=self.name)


def normalise_url(text: str) -> str:
    """Read `text` as a URL: a bare host or address, with or without a port, becomes http.

    Raises:
        UsageError: it cannot be a server's address.
    """
    text = text.strip()
    bare = not _SCHEME.match(text)
    try:
        url = httpx.URL(f"http://{text}" if bare else text)
        host, scheme = url.host, url.scheme
    except (httpx.InvalidURL, ValueError):
        host = scheme = ""
    if scheme not in ("http", "https") or not host or not 0 < (url.port or 1) < 65536 or re.search(r"\s", text):
        raise UsageError(
            f"{text[:100]!r} is not a server's address; give a URL such as https://omega.example:8443 or HOST:PORT."
        )
    if url.userinfo or url.query or url.fragment:
        raise UsageError("A server's address holds no user, password, query or fragment; the token is given apart.")
    return str(url).rstrip("/")


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine, so that what is sent there crosses no network."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _trust(ca: str | Path | None) -> ssl.SSLContext:
    if ca is None:
        return httpx.create_ssl_context()
    pem = isinstance(ca, str) and "-----BEGIN" in ca
    try:
        return ssl.create_default_context(cadata=str(ca)) if pem else ssl.create_default_context(cafile=ca)
    except OSError as error:
        where = "The CA given" if pem else f"The CA file {ca}"
        raise UsageError(
            f"{where} cannot be used: {error.strerror or error}. It must hold PEM certificates."
        ) from error


def _decode(content: bytes) -> dict[str, Any] | None:
    try:
        body = jsonlib.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _guess(transport: Transport, response: httpx.Response) -> str:
    """What to say of an answer that is not in a node's words."""
    status = response.status_code
    if response.is_redirect:
        return f"it redirects to {response.headers.get('location', '?')[:200]}; configure the address it should have."
    if status in _BUSY:
        return f"it is not available now (HTTP {status}); try again."
    if status >= 500:
        return f"it failed (HTTP {status}); see its log."
    return f"HTTP {status}, and not as an ASHAT node answers; check the address {transport.url}."


def _retry_after(value: str | None) -> float | None:
    """`Retry-After` in seconds from now (RFC 9110, 10.2.3: seconds, or a date)."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - datetime.now(UTC)).total_seconds(), 0.0)


def _root_cause(error: BaseException) -> BaseException:
    """What the socket or the TLS library said; httpcore cuts the chain of causes, but leaves the context."""
    while cause := error.__cause__ or (error.__context__ if isinstance(error, httpcore.NetworkError) else None):
        error = cause
    return error


def _strerror(cause: BaseException) -> str:
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return text or type(cause).__name__
