"""The connections to a node, and what each may cost it: descriptors, time for its headers, its body and its answer.

There is always room for one more. Where an address, or all together, hold as many as they may, the oldest connection
is cut on which nobody showed a token or a licence that is known here; then one on which a licence did. So strangers
push out strangers, and an owner gets through. What asyncio would do instead where descriptors run out: fail to accept
a thousand times a second, and write a line each time.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import os
import resource
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ashat.node.plain_requests import PlainReader, PlainRequest, plain_cycle, read_plain

log = logging.getLogger("ashat.node")

MOST_DESCRIPTORS = 65_536
RESERVED_DESCRIPTORS = 256
MOST_CONNECTIONS = 16_384
MOST_OF_AN_ADDRESS = 256
HEADER_SECONDS = 15.0
BODY_SECONDS = 60.0
STALL_SECONDS = 60.0
SLOWEST = 4096
LOOK_EVERY = 1.0
_AT_ONCE = 32
_PASSING = 256 * 1024
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def raise_descriptor_limit() -> int:
    """Allow this process as many descriptors as it may have, up to `MOST_DESCRIPTORS`; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return most if soft == resource.RLIM_INFINITY else soft


@dataclass(eq=False)
class Connection:
    """A connection since it was accepted; `protocol` is None until its TLS is agreed on."""

    socket: socket.socket
    address: str
    since: float = field(default_factory=time.monotonic)
    protocol: NodeProtocol | None = None

    @property
    def rank(self) -> int:
        """Say whose it is: 0 a stranger's, 1 that of a licence, 2 that of a token."""
        return self.protocol.rank if self.protocol else 0

    @property
    def age(self) -> float:
        """How many seconds ago it was accepted."""
        return time.monotonic() - self.since

    def overdue(self, passed: float) -> bool:
        """Tell whether what it waits for has not come in time; `passed` are the seconds since the last look."""
        return self.protocol.overdue(passed) if self.protocol else self.age > HEADER_SECONDS

    def cut(self, *, politely: bool) -> None:
        """End it, `politely` with an answer; whoever serves it finds that its peer has gone."""
        if self.protocol and politely:
            self.protocol.end(_TOO_SLOW)
        elif self.protocol:
            self.protocol.transport.abort()
        else:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)


class Connections:
    """All connections of a node: how many there are at once, and how many of one address, unless it shows that it is
    known here."""

    def __init__(self, descriptors: int) -> None:
        self.most = min(max(descriptors - RESERVED_DESCRIPTORS, descriptors // 2), MOST_CONNECTIONS)
        self.most_of_an_address = min(MOST_OF_AN_ADDRESS, max(self.most // 4, 1))
        self._known: dict[int, Connection] = {}
        self._strangers: dict[Connection, None] = {}
        self._of_address: dict[str, dict[Connection, None]] = {}
        self._looked = time.monotonic()

    def admit(self, accepted: socket.socket, host: str) -> None:
        """Take one in, and cut another where there are too many."""
        connection = Connection(accepted, _network(host))
        self._known[accepted.fileno()] = connection
        self._strangers[connection] = None
        of_address = self._of_address.setdefault(connection.address, {})
        of_address[connection] = None
        oldest = self._oldest_stranger(of_address) if len(of_address) > self.most_of_an_address else None
        if oldest is not None and oldest is not connection:
            self._cut(oldest, f"{connection.address} has more than {self.most_of_an_address}")
        if len(self._known) > self.most:
            self.make_room(connection)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._known)

    def find(self, number: int) -> Connection | None:
        """Find the one with that descriptor."""
        return self._known.get(number)

    def forget(self, number: int) -> None:
        """Take one out that is closed."""
        if connection := self._known.pop(number, None):
            self._no_stranger(connection)

    def look(self) -> None:
        """Cut those that are overdue."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * LOOK_EVERY), now  # more is our own delay
        for connection in list(self._known.values()):
            if connection.overdue(passed):
                self._cut(connection, "it is too slow", politely=True)

    def make_room(self, but: Connection | None = None) -> None:
        """Cut the oldest that matters least, `but` that one."""
        oldest = self._oldest_stranger(self._strangers)
        if oldest is None or oldest is but:
            others = [each for each in self._known.values() if each is not but]
            oldest = min(others, key=lambda each: (each.rank, each.since), default=None)
        if oldest is not None:
            self._cut(oldest, f"there are {self.count}")

    def _oldest_stranger(self, among: dict[Connection, None]) -> Connection | None:
        while connection := next(iter(among), None):
            if connection.rank == 0:
                return connection
            self._no_stranger(connection)
        return None

    def _cut(self, connection: Connection, why: str, *, politely: bool = False) -> None:
        log.warning("cut a connection of %s after %.0f s: %s", connection.address, connection.age, why)
        self._no_stranger(connection)
        connection.cut(politely=politely)

    def _no_stranger(self, connection: Connection) -> None:
        self._strangers.pop(connection, None)
        of_address = self._of_address.get(connection.address, {})
        of_address.pop(connection, None)
        if not of_address:
            self._of_address.pop(connection.address, None)


class Listening(socket.socket):
    """A listening socket that admits what it accepts to `connections`, whatever becomes of the descriptors."""

    def __init__(self, family: int, connections: Connections) -> None:
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, so that asyncio sets TCP_NODELAY
        self._connections = connections
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._at_once = 0

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept one, as `socket.accept` does; after some it says that there is none, so that what was cut is closed.

        Raises:
            BlockingIOError: there is none now.
        """
        self._at_once += 1
        if self._at_once > _AT_ONCE:
            self._at_once = 0
            raise BlockingIOError
        try:
            number, address = self._accept()  # type: ignore[attr-defined]  # as socket.accept itself does
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise
            self._turn_away()
            raise BlockingIOError from None
        accepted = _Accepted(self._connections, self.family, self.type, self.proto, number)
        self._connections.admit(accepted, address[0])
        return accepted, address

    def close(self) -> None:
        """Close it."""
        super().close()
        with suppress(OSError):
            os.close(self._spare)

    def _turn_away(self) -> None:
        """Take the descriptor that is kept for this to close the connection that is first in the queue."""
        log.warning("no descriptor is free: a connection is turned away, and the oldest is cut")
        self._connections.make_room()
        os.close(self._spare)
        try:
            os.close(self._accept()[0])  # type: ignore[attr-defined]
        except OSError:
            pass  # it has gone
        finally:
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


class _Accepted(socket.socket):
    def __init__(self, connections: Connections, family: int, kind: int, proto: int, number: int) -> None:
        super().__init__(family, kind, proto, fileno=number)
        self._connections = connections

    def close(self) -> None:
        self._connections.forget(self.fileno())
        super().close()


class NodeProtocol(H11Protocol):
    """uvicorn's protocol, with an end to the waits for a request's headers, its body, and whoever takes the answer.

    A large body of announced length passes h11 by: it would only copy it, three times, on the one thread that all
    connections share. h11 then never hears of its end, and each such request is followed by a fresh `h11.Connection`.
    Of a plain request h11 hears nothing at all; what follows one waits for its answer.
    """

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._connections = connections
        self._in_headers = True
        self._received = 0
        self._waited = 0.0
        self._stalled = 0.0
        self._rank = 0
        self._passes = False
        self._plain = False
        self._reader = PlainReader()
        self._left = 0
        self._next = b""
        self._of_connection: dict[str, Any] = {}

    @property
    def rank(self) -> int:
        """As `Connection.rank`: of the requests so far."""
        state = self.scope["state"] if self.scope else {}
        now = 2 if state.get("known") else 1 if state.get("licence") else 0
        self._rank = max(self._rank, now)
        return self._rank

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(transport)
        self._of_connection = {
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
        }
        if connection := self._connections.find(transport.get_extra_info("socket").fileno()):
            connection.protocol = self

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._passes:
            self._received += len(data)
            self._pass_on(data)
            return
        if self._plain:
            self._next += data
            self.flow.pause_reading()
            return
        if self._between and (plain := read_plain(data, self._reader)):
            self._serve(plain)
            return
        if self.conn.their_state is h11.IDLE and not self._in_headers:
            self._in_headers, self._received, self._waited = True, 0, 0.0
        self._received += len(data)
        super().data_received(data)
        if self._in_headers and self.conn.their_state is not h11.IDLE:
            self._in_headers, self._received, self._waited = False, 0, 0.0
            self._begin_to_pass()

    @property
    def _between(self) -> bool:
        """Whether h11 has nothing of a request."""
        return (
            self.conn.their_state is h11.IDLE
            and self.conn.our_state is h11.IDLE
            and self.conn.trailing_data == (b"", False)
        )

    def _serve(self, request: PlainRequest) -> None:
        """Serve a request that is here as a whole."""
        self._unset_keepalive_if_required()
        self._plain, self._in_headers = True, False
        self._received, self._waited = 0, 0.0
        self.headers = request.headers
        self.scope = cast(Any, {**request.scope(self._of_connection), "state": self.app_state.copy()})
        self.cycle = plain_cycle(request, cast(Any, self.scope), self)
        task = self.loop.create_task(self.cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        """Be ready for the next request."""
        self._rank = self.rank  # the next request has a state of its own
        super().on_response_complete()
        if self._plain:
            self._plain = False
            following, self._next = self._next, b""
            if following and not self.transport.is_closing():
                self.data_received(following)
        if self._passes and not self._left:
            self._renew()

    def _begin_to_pass(self) -> None:
        """Let the rest of the request's body pass h11 by, where that pays and its length is known."""
        if self.conn.their_state is not h11.SEND_BODY or self.conn.they_are_waiting_for_100_continue:
            return
        headers = dict(self.headers)
        if b"transfer-encoding" in headers:
            return
        self._left = int(headers.get(b"content-length", 0)) - len(self.cycle.body)
        self._passes = self._left >= _PASSING

    def _pass_on(self, data: bytes) -> None:
        """Hand what came of the body to whoever serves the request; what follows the body waits for its answer."""
        body, after = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
        self._left -= len(body)
        self._next += after
        if not self.cycle.response_complete:
            self.cycle.body = self.cycle.body + body if self.cycle.body else cast(bytearray, body)
            self.cycle.more_body = self._left > 0
            self.cycle.message_event.set()
            if len(self.cycle.body) >= _PASSING or self._next:
                self.flow.pause_reading()
        elif not self._left:
            self._renew()

    def _renew(self) -> None:
        """Begin to read the next request."""
        self._passes = False
        self.conn = h11.Connection(h11.SERVER, self.conn._max_incomplete_event_size)
        following, self._next = self._next, b""
        if following:
            self.data_received(following)

    def overdue(self, passed: float) -> bool:
        """Tell whether the peer was waited for too long; `passed` are the seconds since the last look."""
        self._stalled = self._stalled + passed if self.flow.write_paused else 0.0
        if self._in_headers:
            allowed = HEADER_SECONDS
        elif self.conn.their_state is h11.SEND_BODY and (self._left or not self._passes):
            allowed = BODY_SECONDS + self._received / SLOWEST
        else:
            return self._stalled > STALL_SECONDS
        self._waited += 0.0 if self.flow.read_paused else passed
        return self._waited > allowed or self._stalled > STALL_SECONDS

    def end(self, answer: bytes) -> None:
        """Answer so, where no answer has begun, and close."""
        begun = self._plain and self.cycle.response_started
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not begun and not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()
        else:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the words of a node."""
        self.end(_MALFORMED)


def _answer(status: str, code: str, detail: str) -> bytes:
    body = json.dumps({"error": code, "detail": detail}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


_TOO_SLOW = _answer("408 Request Timeout", "too_slow", "The request did not come in time; send it again.")
_MALFORMED = _answer("400 Bad Request", "bad_request", "This is no HTTP request that can be read.")


def _network(host: str) -> str:
    """Name whose address it is: of an IPv6 address the network that one household or machine has."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))
