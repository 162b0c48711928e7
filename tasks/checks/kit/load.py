"""Puts a steady load on the program, some requests at once, each followed by the next, and times each.

The client must cost far less than what it measures: a request takes the sample program about half a millisecond, and
as long again in httpx, so that a slower program would hide behind a busy client. Here a request is one write and one
read of a socket, with h11 (the parser that httpx itself stands on) in between.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass

import h11
import httpx

from ashat import __version__
from ashat.errors import AshatError
from tasks.checks.kit.base import one_line
from tasks.checks.kit.samples import Sample

_CHUNK = 64 * 1024
_HEAD_LIMIT = 64 * 1024


class _NoAnswerError(AshatError):
    """There was no whole answer; the message says why."""


class _ClosedError(_NoAnswerError):
    """The server closed a connection before it answered anything on it."""


@dataclass(frozen=True)
class Load:
    """`paths` in turn, `requests` times after `warm_up` more that do not count, `concurrency` at once.

    `seconds` is how long each may take, from the first byte sent to the last received; `deadline`, on the clock of
    `time.monotonic()`, ends the whole; `limit` is the most bytes that an answer may have. After `requests`, as many as
    `more` follow while the clock is before `more_until`.
    """

    paths: Sequence[str]
    requests: int
    concurrency: int
    seconds: float
    limit: int
    warm_up: int = 0
    deadline: float = float("inf")
    more: int = 0
    more_until: float = float("inf")

    async def run(self, base: str, tls: ssl.SSLContext | None) -> list[Sample]:
        """Send the requests; return their samples as they end, fewer than `requests` where the deadline came first."""
        url = httpx.URL(base)
        secure = (tls or httpx.create_ssl_context(trust_env=False)) if url.scheme == "https" else None
        samples: list[Sample] = []
        turns = iter(range(-self.warm_up, self.requests + self.more))

        async def work() -> None:
            connection = _Connection(url, secure, self.limit)
            try:
                for turn in turns:
                    left = self.deadline - time.monotonic()
                    if left <= 0 or (turn >= self.requests and time.monotonic() >= self.more_until):
                        return
                    sample = await connection.sample(self.paths[turn % len(self.paths)], min(self.seconds, left))
                    cut_short = sample.error and time.monotonic() >= self.deadline
                    if turn >= 0 and not cut_short:
                        samples.append(sample)
            finally:
                connection.close()

        await asyncio.gather(*(work() for _ in range(self.concurrency)))
        return samples


class _Connection:
    """One connection, opened when it is needed, and again after the server closed it."""

    def __init__(self, url: httpx.URL, tls: ssl.SSLContext | None, limit: int) -> None:
        self._host = url.host
        self._port = url.port or (443 if tls else 80)
        self._prefix = url.raw_path.rstrip(b"/")
        self._tls = tls
        self._limit = limit
        self._headers = [
            (b"Host", url.netloc),
            (b"User-Agent", f"ashat-deploy/{__version__}".encode()),
            (b"Accept", b"*/*"),
            (b"Accept-Encoding", b"identity"),
        ]
        self._writer: asyncio.StreamWriter | None = None

    async def sample(self, path: str, seconds: float) -> Sample:
        """Time one request, and the opening of the connection where there is none."""
        began, size = time.perf_counter_ns(), 0
        try:
            async with asyncio.timeout(seconds):
                status, size = await self._ask(self._prefix + path.encode("ascii"))
            error = "" if 200 <= status < 300 else f"status {status}"
        except TimeoutError:
            error = f"no whole answer within {seconds:g} s"
        except _NoAnswerError as reason:
            error = str(reason)
        except (h11.RemoteProtocolError, OSError) as reason:
            error = f"no answer: {one_line(reason) or type(reason).__name__}"
        took = (time.perf_counter_ns() - began) // 1000
        if error and not error.startswith("status"):
            self.close()
        return Sample(path, took, error, size)

    def close(self) -> None:
        """Drop the connection, whatever was under way on it."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    async def _ask(self, target: bytes) -> tuple[int, int]:
        if self._writer is not None:
            try:
                return await self._exchange(target)
            except _ClosedError:
                self.close()  # a server may close an idle connection at any time: RFC 9112, 9.3.1 and 9.5
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT)
        return await self._exchange(target)

    async def _exchange(self, target: bytes) -> tuple[int, int]:
        """Send a request on the open connection; return the status and the bytes of the answer's body."""
        assert self._writer is not None
        head = self._http.send(h11.Request(method=b"GET", target=target, headers=self._headers))
        assert head is not None
        self._writer.write(head)
        self._http.send(h11.EndOfMessage())
        status = size = 0
        heard = ended = False
        while not isinstance(event := self._http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                data = await self._read(heard)
                heard, ended = True, not data
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > self._limit:
                    raise _NoAnswerError(f"the answer has more than {self._limit} bytes")
            elif not isinstance(event, h11.InformationalResponse):
                raise _NoAnswerError("no answer: the server changed the protocol")
        if ended or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            self.close()
        else:
            self._http.start_next_cycle()
        return status, size

    async def _read(self, heard: bool) -> bytes:
        try:
            data = await self._reader.read(_CHUNK)
        except ConnectionError as error:
            if heard:
                raise
            raise _ClosedError(f"no answer: {one_line(error)}") from None
        if not data and not heard:
            raise _ClosedError("no answer: the server closed the connection")
        return data
