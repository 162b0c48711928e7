"""Requests in the plainest form that HTTP/1.1 has, served past h11, which takes ten times as long for them.

Plain is: GET or POST, whole in one piece of at most 64 KiB, with one `Host`, a body only of announced length, nothing
about how the connection or the encoding goes on, and no character beyond printable ASCII. Whatever is otherwise is
h11's, from its first byte. What is plain is read here as h11 reads it: `tests/unit/node/test_plain_requests.py`
compares them.
"""

from __future__ import annotations

import asyncio
import http
import re
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote

from uvicorn.protocols.http.h11_impl import RequestResponseCycle

PLAIN_LIMIT: Final = 64 * 1024
_HEAD: Final = re.compile(
    rb"(GET|POST) ([!-~]+) HTTP/1\.1\r\n((?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:[\t -~]*\r\n)+)\r\n"  # RFC 9112, 3 and 5
)
_LENGTH: Final = re.compile(rb"[0-9]{1,5}")
_NOT_PLAIN: Final = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer"))
_NO_BODY: Final = (204, 304)
_NAME: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[^\x00\r\n]*")
_STATUS: Final = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n".encode() for each in http.HTTPStatus}
_CLOSE: Final = (b"connection", b"close")


class PlainRequest(NamedTuple):
    """A request as it came; the names of its `headers` in small letters."""

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def scope(self, of_connection: dict[str, Any]) -> dict[str, Any]:
        """Describe it as ASGI does; `of_connection` says what is the same of each on that connection."""
        raw_path, _, query = self.target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            **of_connection,
            "type": "http",
            "http_version": "1.1",
            "method": self.method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
        }


class _Lines(NamedTuple):
    """The header lines of a request, read, and the length of the body that they announce."""

    headers: list[tuple[bytes, bytes]]
    length: int | None


def read_plain(data: bytes, reader: PlainReader | None = None) -> PlainRequest | None:
    """Read the request that `data` is, all of it; None where it is not plain. `reader` knows the one before it."""
    if len(data) > PLAIN_LIMIT:
        return None
    found = _HEAD.match(data)
    if found is None:
        return None
    lines = (reader or PlainReader()).read(found[3])
    method, body = found[1].decode(), data[found.end() :]
    if lines is None or (lines.length is None) != (method == "GET") or (lines.length or 0) != len(body):
        return None
    return PlainRequest(method, found[2], list(lines.headers), body)


class PlainReader:
    """Reads the header lines of one connection's requests: most are those of the request before."""

    def __init__(self) -> None:
        self._block = b""
        self._lines: _Lines | None = None

    def read(self, block: bytes) -> _Lines | None:
        """Read the lines; None where they are not plain."""
        if block != self._block:
            self._lines, self._block = _read_lines(block), block
        return self._lines


def _read_lines(block: bytes) -> _Lines | None:
    headers, count, length = [], {b"host": 0, b"content-length": 0}, b"0"
    for line in block.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name in _NOT_PLAIN or (name == b"connection" and value.lower() != b"keep-alive"):
            return None
        if name in count:
            count[name] += 1
            length = value if name == b"content-length" else length
        headers.append((name, value))
    if count[b"host"] != 1 or count[b"content-length"] > 1 or not _LENGTH.fullmatch(length):
        return None
    return _Lines(headers, int(length) if count[b"content-length"] else None)


class PlainCycle(RequestResponseCycle):
    """The answer to a plain request, written as h11 would, its head together with the first of its body."""

    def __init__(self, request: PlainRequest, **given: Any) -> None:
        super().__init__(**given)
        self._content: bytes | None = request.body
        self._head = b""
        self._left: int | None = 0
        """How many bytes of the body are to come; None: it goes out in chunks."""

    async def receive(self) -> Any:
        """Hand over the body, which is here; then wait until the peer has gone, or has its answer."""
        if self._content is None and not (self.disconnected or self.response_complete):
            await self.message_event.wait()
        if self._content is None or self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        content, self._content = self._content, None
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(self, message: Any) -> None:
        """Send a part of the answer.

        Raises:
            RuntimeError: it is out of turn, or not what its head says.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            _require(message["type"] == "http.response.start", "an answer begins with its head")
            self.response_started = True
            self._begin(message["status"], [*self.default_headers, *message.get("headers", [])])
            return
        _require(message["type"] == "http.response.body" and not self.response_complete, "this is out of turn")
        self._go_on(message.get("body", b""), more=message.get("more_body", False))

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if not self.keep_alive and _CLOSE not in headers:
            headers.append(_CLOSE)
        lines, length = [_STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status], None
        for name, value in headers:
            _require(_NAME.fullmatch(name) and _VALUE.fullmatch(value), "a header cannot be written")
            lower = name.lower()
            _require(lower != b"transfer-encoding", "how an answer goes out is not the application's to say")
            length = int(value) if lower == b"content-length" else length
            self.keep_alive = self.keep_alive and not (lower == b"connection" and value.lower() == b"close")
            lines.append(b"%s: %s\r\n" % (name, value))
        self._left = 0 if status in _NO_BODY else length
        if self._left is None:
            lines.append(b"transfer-encoding: chunked\r\n")
        self._head = b"".join((*lines, b"\r\n"))

    def _go_on(self, body: bytes, *, more: bool) -> None:
        head, self._head = self._head, b""
        if self._left is None:
            chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
            self.transport.write(head + chunk + (b"" if more else b"0\r\n\r\n"))
        else:
            _require(len(body) <= self._left, "an answer is longer than it says")
            self._left -= len(body)
            _require(more or not self._left, "an answer is shorter than it says")
            self.transport.write(head + body if len(body) < PLAIN_LIMIT else head)
            if len(body) >= PLAIN_LIMIT:
                self.transport.write(body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


def plain_cycle(request: PlainRequest, scope: dict[str, Any], protocol: Any) -> PlainCycle:
    """Make the cycle that answers `request` on the connection of uvicorn's `protocol`."""
    return PlainCycle(
        request,
        scope=cast(Any, scope),
        conn=protocol.conn,
        transport=protocol.transport,
        flow=protocol.flow,
        logger=protocol.logger,
        access_logger=protocol.access_logger,
        access_log=False,
        default_headers=protocol.server_state.default_headers,
        message_event=asyncio.Event(),
        on_response=protocol.on_response_complete,
    )


def _require(holds: object, why: str) -> None:
    if not holds:
        raise RuntimeError(f"The application's answer cannot be sent: {why}.")
