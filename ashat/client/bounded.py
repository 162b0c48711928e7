"""Bounds on what a server may cost whoever asks it: the time and the size of each answer, and of each request's way.

httpx's time limits are a read's, so a server that sends a byte every few seconds never meets them, and it reads a body
whole, decompressed. Here a server that is waited for must send `SLOWEST` bytes a second beyond the silence allowed:
the wait for an answer, headers included, ends after so many seconds and what its size earns it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import httpcore
import httpx

from ashat.errors import AshatError

SLOWEST = 4096
_PIECE = 256 * 1024


class TooLargeError(AshatError):
    """An answer has more bytes than it may have."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered, its body as it was sent. `us` is how long it took in microseconds, to the last byte."""

    status: int
    headers: httpx.Headers
    body: bytes
    us: int


async def exchange(
    client: httpx.AsyncClient, method: str, url: str, *, seconds: float, limit: int, **options: Any
) -> Answer:
    """Ask, and read the whole answer: the exchange may take `seconds`, from connecting on, and the body `limit` bytes.

    It is asked for as it is, and is never decompressed.

    Raises:
        TimeoutError: it took longer.
        TooLargeError: it has more bytes.
        httpx.HTTPError, httpx.InvalidURL: it cannot be asked.
    """
    began = time.perf_counter_ns()
    headers = {"Accept-Encoding": "identity", **(options.pop("headers", None) or {})}
    async with asyncio.timeout(seconds):
        async with client.stream(method, url, headers=headers, timeout=seconds, **options) as response:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > limit:
                    raise TooLargeError(f"answered more than {limit} bytes")
    return Answer(response.status_code, response.headers, bytes(body), (time.perf_counter_ns() - began) // 1000)


class BoundedTransport(httpx.HTTPTransport):
    """httpx's connections, each with a bound on how long its server may be waited for."""

    def __init__(
        self, *, verify: ssl.SSLContext | bool, proxy: str | None = None, allowed: Callable[[str], bool] | None = None
    ) -> None:
        """`allowed` tells of each address of a host whether to connect to it."""
        super().__init__(verify=verify, trust_env=False, proxy=proxy)
        self._pool._network_backend = _Network(allowed)


class _Network(httpcore.NetworkBackend):
    def __init__(self, allowed: Callable[[str], bool] | None) -> None:
        self._network, self._allowed = httpcore.SyncBackend(), allowed

    def connect_tcp(self, host: str, port: int, *args: Any, **options: Any) -> httpcore.NetworkStream:
        if self._allowed is not None:
            host = _allowed_address(host, port, self._allowed)
        return _Stream(self._network.connect_tcp(host, port, *args, **options))


def _allowed_address(host: str, port: int, allowed: Callable[[str], bool]) -> str:
    """Resolve `host` to the first of its addresses that may be connected to, so that none is looked up anew."""
    try:
        found = [str(address[0]) for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} is not known: {error}") from error
    address = next(filter(allowed, found), None)
    if address is None:
        raise httpcore.ConnectError(f"{host} has no address to which OMEGA may send: {', '.join(found)[:100]}")
    return address


class _Stream(httpcore.NetworkStream):
    """A connection that counts how long its peer was waited for since the direction last changed, and for how much."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._reads = False
        self._waited = 0.0
        self._moved = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._turn(True, timeout, httpcore.ReadTimeout) as left:
            data = self._stream.read(max(max_bytes, _PIECE), left)  # httpcore asks for 64 KiB, and takes more
        self._moved += len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)  # whose parts are no copies: a socket takes what it has room for
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            with self._turn(False, timeout, httpcore.WriteTimeout) as left:
                self._stream.write(cast(bytes, piece), left)
            self._moved += len(piece)

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, *args: Any, **options: Any) -> Self:
        return type(self)(self._stream.start_tls(*args, **options))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    @contextmanager
    def _turn(self, reads: bool, timeout: float | None, too_slow: type[Exception]) -> Iterator[float | None]:
        """Count one wait for the peer, which may last for as long as it yields."""
        if reads is not self._reads:
            self._reads, self._waited, self._moved = reads, 0.0, 0
        left = None if timeout is None else timeout + self._moved / SLOWEST - self._waited
        if left is not None and left <= 0:
            raise too_slow
        began = time.monotonic()
        yield left if left is None or timeout is None else min(left, timeout)
        self._waited += time.monotonic() - began
