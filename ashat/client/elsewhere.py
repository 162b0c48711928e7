"""Objects from where OMEGA says that they are: another host, which is told nothing of us and believed nothing.

Whatever goes wrong there, the objects come from OMEGA itself. Where OMEGA may send us: by https, or by http where OMEGA
itself is asked by http; to no address that is nearer than OMEGA's own (this machine is nearer than a private network,
and that is nearer than the internet), and never to one of the link alone (169.254.0.0/16, where clouds hand out
secrets).
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httpx

from ashat.client.bounded import BoundedTransport
from ashat.client.environment import proxy_of
from ashat.client.http import normalise_url, trust_of
from ashat.client.pace import Pace
from ashat.errors import AshatError, UsageError
from ashat.protocol.frames import frame_header
from ashat.protocol.object_address import check_object_address, object_address

log = logging.getLogger("ashat.client.elsewhere")

SILENCE: Final = 15.0
"""Seconds for which the other host may say nothing."""

CONNECT: Final = 5.0
IN_A_ROW: Final = 3
"""How many objects in a row may fail there before it is left alone."""

ALONE: Final = 900.0
"""Seconds for which a host that does not serve is left alone."""

_PORTS: Final = {"http": 80, "https": 443}
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_HEADERS: Final = {"User-Agent": "ashat-deploy", "Accept": "*/*", "Accept-Encoding": "identity"}
Batch = list[tuple[str, int]]
Tell = Callable[[int], None]
Feed = Callable[[Iterable[bytes]], None]


class Part(NamedTuple):
    """What is asked for in one request: the objects of `batch`; or what follows the first `begun` bytes of its one."""

    batch: Batch
    prefix: str = "/v1"
    begun: int = 0
    compress: bool = False
    """Whether frames may come compressed."""


class ElsewhereError(AshatError):
    """The other host did not send the object; `hopeless` where it is not asked for another."""

    def __init__(self, why: str, *, hopeless: bool = False) -> None:
        super().__init__(why)
        self.hopeless = hopeless


@dataclass(frozen=True)
class Wanted:
    """What is asked for: an object of `size` bytes, of which the first `begun` are here."""

    digest: str
    size: int
    begun: int = 0


class Elsewhere:
    """The other hosts of one OMEGA; any thread may ask."""

    def __init__(self, omega: str, ca: Path | None, pace: Pace | None = None) -> None:
        """`omega` is its URL; `ca` a PEM file whose authority is trusted there, too; `pace` bounds what comes."""
        self._omega, self._ca, self._pace = omega, ca, pace
        self._lock = threading.Lock()
        self._origin = ""
        self._client: httpx.Client | None = None
        self._failed = 0
        self._alone_until = 0.0
        self._said = False

    def follows(self) -> bool:
        """Tell whether to ask OMEGA where objects are, rather than for the objects."""
        return time.monotonic() >= self._alone_until

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            client, self._client, self._origin = self._client, None, ""
        if client:
            client.close()

    def move(self, address: str, part: Part, feed: Feed, tell: Tell) -> Batch:
        """Fetch the objects of `part`, or the rest of its one, and `feed` them as frames.

        `address` is where OMEGA says that they are. Returns those that did not come, or not as they should be. `tell`
        is called with the bytes that came and were fed; whoever stops the transfer raises there.
        """
        left: Batch = []
        for digest, size in part.batch:
            wanted = Wanted(digest, size, part.begun)
            if not self.follows():
                left.append((digest, size))
                continue
            try:
                content = self._fetch(address, wanted, tell)
            except ElsewhereError as error:
                self._note_failure(error)
                left.append((digest, size))
                continue
            self._note_success()
            feed([content] if part.begun else [frame_header(digest, size), content])
            tell(len(content))
        return left

    def _fetch(self, address: str, wanted: Wanted, tell: Tell) -> bytes:
        """Fetch one object, verified; or the rest of one, which whoever has its beginning verifies.

        Raises:
            ElsewhereError: it cannot be had.
        """
        try:
            omega = httpx.URL(normalise_url(self._omega))
            check_object_address(address, plain_http=omega.scheme == "http", is_open=not wanted.begun)
            url = httpx.URL(object_address(address, wanted.digest))
            content = self._get(self._client_for(url, omega), url, wanted, tell)
        except UsageError as error:
            raise ElsewhereError(f"OMEGA sends this Mainframe where it does not go: {error}", hopeless=True) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError) as error:  # or closed meanwhile
            hopeless = isinstance(error, (httpx.TimeoutException, httpx.ConnectError))
            raise ElsewhereError(f"{_host(address)}: {error or type(error).__name__}", hopeless=hopeless) from error
        if not wanted.begun and hashlib.sha256(content).hexdigest() != wanted.digest:
            why = f"{_host(address)} sent other bytes than those of {wanted.digest[:12]}"
            raise ElsewhereError(why, hopeless=True)
        return content

    def _get(self, client: httpx.Client, url: httpx.URL, wanted: Wanted, tell: Tell) -> bytes:
        asked = {"Range": f"bytes={wanted.begun}-"} if wanted.begun else {}
        with client.stream("GET", url, headers=asked) as answer:
            skip = _judge(url, answer, wanted)
            most, content = wanted.size - wanted.begun + skip, bytearray()
            for chunk in answer.iter_raw():
                if self._pace:
                    self._pace.spend(len(chunk))
                tell(0)
                content += chunk
                if len(content) > most:
                    raise ElsewhereError(
                        f"{url.host} sent more than the object {wanted.digest[:12]} has", hopeless=True
                    )
        if len(content) < most:
            raise ElsewhereError(f"{url.host} cut the object {wanted.digest[:12]}")
        return bytes(content[skip:])

    def _client_for(self, url: httpx.URL, omega: httpx.URL) -> httpx.Client:
        """The client for the host of `url`; that for another host is closed.

        Raises:
            UsageError: the proxy's variable or the trusted certificates cannot be used.
        """
        origin = f"{url.scheme}://{url.netloc.decode('ascii')}"
        with self._lock:
            if self._client is None or origin != self._origin:
                stale, self._client = self._client, self._connect(url, omega)
                self._origin = origin
                if stale:
                    stale.close()
            return self._client

    def _connect(self, url: httpx.URL, omega: httpx.URL) -> httpx.Client:
        proxy = proxy_of(url)
        farness = _farness_of(omega)
        try:
            near = _farness(url.host) < farness
        except ValueError:  # a name, whose addresses are looked at once they are known
            near = False
        if near:
            raise UsageError(f"{url.host} is nearer than OMEGA, or of the link alone.")
        verify: ssl.SSLContext | bool = False
        if url.scheme == "https":
            verify = trust_of(None)
            if self._ca:
                verify.load_verify_locations(self._ca)
        allowed = None if proxy else lambda address: _farness(address) >= farness
        return httpx.Client(
            headers=_HEADERS,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            transport=BoundedTransport(verify=verify, proxy=proxy, allowed=allowed),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(SILENCE, connect=CONNECT),
        )

    def _note_failure(self, error: ElsewhereError) -> None:
        with self._lock:
            self._failed += 1
            if error.hopeless or self._failed >= IN_A_ROW:
                self._alone_until, self._failed = time.monotonic() + ALONE, 0
            said, self._said = self._said, True
        if not said:
            log.warning("objects come from OMEGA itself where they do not come from elsewhere: %s", error)

    def _note_success(self) -> None:
        with self._lock:
            self._failed = 0
            if 0 < self._alone_until <= time.monotonic():  # it serves again; not: one that was under way came well
                self._alone_until, self._said = 0.0, False


def _judge(url: httpx.URL, answer: httpx.Response, wanted: Wanted) -> int:
    """See that what comes is the object, or its rest; how many bytes of it to leave out.

    Raises:
        ElsewhereError: it is not.
    """
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ElsewhereError(f"{url.host} answers compressed", hopeless=True)
    length = answer.headers.get("content-length", "")
    if wanted.begun and answer.status_code == HTTPStatus.PARTIAL_CONTENT:
        expected, skip = wanted.size - wanted.begun, 0
        said = re.sub(r"\s+", " ", answer.headers.get("content-range", "").strip())
        if said != f"bytes {wanted.begun}-{wanted.size - 1}/{wanted.size}":
            raise ElsewhereError(f"{url.host} sends another part than it was asked for")
    elif answer.status_code == HTTPStatus.OK:
        expected, skip = wanted.size, wanted.begun
    else:
        raise ElsewhereError(f"{url.host} answers {answer.status_code} for the object {wanted.digest[:12]}")
    if length and length != str(expected):
        raise ElsewhereError(f"{url.host} sends another number of bytes than {wanted.digest[:12]} has", hopeless=True)
    return skip


def _farness_of(omega: httpx.URL) -> int:
    """How far OMEGA is: 0 this machine, 1 a private network, 2 the internet, or where nobody here can tell."""
    try:
        found = socket.getaddrinfo(omega.host, omega.port or _PORTS[omega.scheme], type=socket.SOCK_STREAM)
    except OSError:
        return 2
    return max(min((_farness(str(address[0])) for *_, address in found), default=2), 0)


def _farness(text: str) -> int:
    """How far an address is, as `_farness_of`; -1 for one that is nobody's to send us to.

    Raises:
        ValueError: it is no address.
    """
    address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        else:
            address = address.ipv4_mapped or address.sixtofour or address
    if address.is_loopback:
        return 0
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved:
        return -1
    return 2 if address.is_global else 1


def _host(address: str) -> str:
    return urlsplit(address).hostname or "there"
