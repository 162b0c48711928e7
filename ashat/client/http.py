"""HTTP to one server: its address, our token or licence, and each failure as an error of one line.

Nothing is retried here: the tasks above know what may be asked twice.
"""

from __future__ import annotations

import math
import re
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypedDict, TypeVar, Unpack

import httpx
from pydantic import BaseModel, ValidationError

from ashat.client.bounded import BoundedTransport
from ashat.client.environment import default_trust, is_loopback, proxy_of
from ashat.client.no_answer import Asked, speaks_https, why_no_answer
from ashat.client.pace import Pace
from ashat.common.documents import load_json
from ashat.common.numbers import read_retry_after
from ashat.errors import (
    BodyTooLargeError,
    DocumentError,
    NodeAuthError,
    NodeBusyError,
    NodeConflictError,
    NodeError,
    NodeFaultError,
    NodeRefusedError,
    UsageError,
)

ANSWER_LIMIT = 8 * 1024 * 1024
RETRY_AFTER_LIMIT = 86_400.0
_REFUSAL_LIMIT = 1024 * 1024
_BUSY = (429, 502, 503, 504)
_Message = TypeVar("_Message", bound=BaseModel)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How many seconds to wait: for a connection, and for an answer, which may take longer by what its size earns it
    (`ashat.client.bounded`)."""

    connect: float = 5.0
    read: float = 60.0


DEFAULT_TIMEOUTS: Final = Timeouts()


class RequestOptions(TypedDict, total=False):
    """What a request may hold; `timeout` is how many seconds to wait, instead of the transport's."""

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
        self.round_trip = math.inf
        """How many seconds the quickest answer took, from being asked to its headers."""
        headers = {"User-Agent": "ashat-deploy", "Accept": "application/json", "Accept-Encoding": "identity"}
        if token or licence:
            headers["Authorization"] = f"Bearer {token}" if token else f"Licence {licence}"
        self.trust = trust_of(ca) if parsed.scheme == "https" else None
        proxy = proxy_of(parsed)
        self.authority = "--ca FILE"
        """How messages say where `ca` is given."""
        self.pace: Pace | None = None
        """How fast bundles that are pulled may come."""
        self._own_authority, self._direct = ca is not None, proxy is None
        self._client = httpx.Client(
            base_url=self.url,
            headers=headers,
            transport=BoundedTransport(verify=self.trust or False, proxy=proxy),
            trust_env=False,
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

    def request(
        self, method: str, path: str, *, limit: int = ANSWER_LIMIT, **options: Unpack[RequestOptions]
    ) -> httpx.Response:
        """Ask, and read the whole answer, which may have `limit` bytes.

        Raises:
            NodeError: of the class that says whose fault it is; 2xx and 304 alone are returned.
        """
        with self.stream(method, path, **options) as response:
            content = up_to(response, limit)
        if len(content) > limit:
            raise NodeRefusedError(
                f"{self.name} answers more than {limit} bytes, as no ASHAT node does; check the address {self.url}.",
                server=self.name,
                status=response.status_code,
            )
        return httpx.Response(response.status_code, headers=response.headers, content=content)

    def json(
        self, method: str, path: str, *, limit: int = ANSWER_LIMIT, **options: Unpack[RequestOptions]
    ) -> dict[str, Any]:
        """Ask, as `request` does, and return the JSON object that is answered.

        Raises:
            NodeError: as `request`; NodeRefusedError where the answer is no JSON object, so no node's.
        """
        response = self.request(method, path, limit=limit, **options)
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
    def stream(
        self, method: str, path: str, *, passed: Sequence[int] = (), **options: Unpack[RequestOptions]
    ) -> Iterator[httpx.Response]:
        """Ask, and leave the answer's body to be read within the `with` block; raises as `request`, but not at the
        statuses in `passed`."""
        with self.answer(method, path, **options) as response:
            if not response.is_success and response.status_code not in (304, *passed):
                raise self.refusal(response, up_to(response, _REFUSAL_LIMIT))
            yield response

    @contextmanager
    def answer(self, method: str, path: str, **options: Unpack[RequestOptions]) -> Iterator[httpx.Response]:
        """Ask, and hand over whatever answer comes, its body unread; for callers that bound what they read.

        Raises:
            NodeUnreachableError: no answer, or it was cut or came too slowly within the `with` block.
            NodeRefusedError: it is compressed, so that it may have any size; it was not asked to be.
        """
        rest: dict[str, Any] = dict(options)
        if "timeout" in options:
            rest["timeout"] = httpx.Timeout(options["timeout"], connect=self._timeouts.connect)
        began = time.monotonic()
        try:
            with self._client.stream(method, path, **rest) as response:
                self.round_trip = min(self.round_trip, time.monotonic() - began)
                self._refuse_compressed(response, rest.get("headers"))
                yield response
        except httpx.HTTPError as error:
            raise self._no_answer(error) from error

    def _refuse_compressed(self, response: httpx.Response, asked: Mapping[str, str] | None) -> None:
        encoding = response.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity", (asked or {}).get("Accept-Encoding")):
            raise NodeRefusedError(
                f"{self.name} answers compressed ({encoding[:40]!r}), which it was asked not to; is there a proxy that "
                f"compresses in front of {self.url}?",
                server=self.name,
                status=response.status_code,
            )

    def refusal(self, response: httpx.Response, content: bytes) -> NodeError:
        """Make the error that says whose fault an answer with the body `content` is."""
        status = response.status_code
        body = _decode(content) or {}
        detail = body.get("detail") or _guess(self, response, content)
        kind: type[NodeError] = NodeRefusedError
        if status in (401, 403):
            kind = NodeAuthError
        elif status == 409:
            kind = NodeConflictError
        elif status == 413 and "error" not in body:
            kind = BodyTooLargeError
        elif status in _BUSY:
            kind = NodeBusyError
        elif status >= 500:
            kind = NodeFaultError
        return kind(
            f"{self.name}: {detail}",
            server=self.name,
            status=status,
            retry_after=read_retry_after(response.headers.get("retry-after", ""), RETRY_AFTER_LIMIT),
            body=body,
        )

    def _no_answer(self, error: httpx.HTTPError) -> NodeError:
        asked = Asked(self.url, self.authority, self._own_authority, self._direct, math.isfinite(self.round_trip))
        kind, why = why_no_answer(error, asked)
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


def trust_of(ca: str | Path | None) -> ssl.SSLContext:
    """Make what trusts the authority in `ca`, a PEM file or PEM text; None: those that are usual here.

    Raises:
        UsageError: it cannot be used, or `SSL_CERT_FILE` or `SSL_CERT_DIR` cannot.
    """
    if ca is None:
        return default_trust()
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
        body = load_json(content, limit=len(content))
    except DocumentError:
        return None
    return body if isinstance(body, dict) else None


def _guess(transport: Transport, response: httpx.Response, content: bytes) -> str:
    """What to say of an answer that is not in a node's words."""
    status = response.status_code
    if response.is_redirect:
        return f"it redirects to {response.headers.get('location', '?')[:200]}; configure the address it should have."
    if status == 413:
        return (
            "what stands before it, such as a proxy, takes no request of this size (HTTP 413); let it take 64 MiB "
            "(nginx: client_max_body_size)."
        )
    if status in _BUSY:
        return f"it is not available now (HTTP {status}); try again."
    if status >= 500:
        return f"it failed (HTTP {status}); see its log."
    if status == 400 and b"HTTPS" in content and transport.url.startswith("http:"):  # nginx and Go say so in words
        return speaks_https(transport.url)
    return f"HTTP {status}, and not as an ASHAT node answers; check the address {transport.url}."


def up_to(response: httpx.Response, limit: int) -> bytes:
    """Read the body as it was sent, and no further than the chunk that goes beyond `limit` bytes."""
    content = bytearray()
    for chunk in response.iter_raw():
        content += chunk
        if len(content) > limit:
            break
    return bytes(content)
