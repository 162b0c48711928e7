"""Inspects the TLS of a server: who vouches for its certificate, what is wrong with that, and what else it would take.

Rules: `certificate` (not trusted, for another name or purpose, out of its time), `weak-certificate`,
`certificate-expiry`, `tls-protocol`, `tls-cipher`, `plain-http`; their path is HOST:PORT.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
from cryptography import x509

from ashat.client import tls_causes
from ashat.client.environment import is_loopback
from tasks.checks.kit.base import Finding, one_line
from tasks.checks.scan import hello
from tasks.checks.scan.certificates import inspect_authorities, inspect_certificate

SECONDS = 5.0
CHAIN_LIMIT = 10
_GOOD = ("TLSv1.2", "TLSv1.3")
_OF_ITSELF = (tls_causes.NOT_YET_VALID, tls_causes.EXPIRED, *tls_causes.WRONG_NAME)
_DER = 2  # `_ssl.ENCODING_DER`


@dataclass(frozen=True)
class Server:
    """A server that is to speak TLS; `trust` has the authorities that may vouch for it (None: the usual ones)."""

    host: str
    port: int
    trust: ssl.SSLContext | None = None

    @property
    def place(self) -> str:
        """HOST:PORT, as findings name the server."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class _Seen:
    """One handshake: the protocol agreed on, the server's certificate, and those of authorities that it sent."""

    protocol: str
    certificate: x509.Certificate
    authorities: tuple[x509.Certificate, ...] = ()


def inspect_tls(url: str, trust: ssl.SSLContext | None, now: datetime, soon: timedelta) -> Iterator[Finding]:
    """Find what is wrong with the connection to `url`; plain http is good enough to this machine itself.

    A certificate that ends within `soon` is pointed out.
    """
    parsed = httpx.URL(url)
    server = Server(parsed.host, parsed.port or (443 if parsed.scheme == "https" else 80), trust)
    if parsed.scheme == "https":
        yield from _tls(server, now, soon)
    elif not is_loopback(parsed.host):
        text = f"{server.place} speaks plain http: whoever is on the way can read and change what it says; use https"
        yield Finding("medium", text, "plain-http", server.place)


def unverified() -> ssl.SSLContext:
    """Make a context that connects to any server, to see what an untrusted one shows; nothing secret goes over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _tls(server: Server, now: datetime, soon: timedelta) -> Iterator[Finding]:
    try:
        seen, error = _connected(server)
    except ssl.SSLError as failure:
        yield _no_protocol(server, failure)
        return
    except OSError as failure:
        text = f"{server.place} makes no TLS connection: {one_line(failure.strerror or failure, 80)}"
        yield Finding("high", text, "tls-protocol", server.place)
        return
    except ValueError as failure:
        text = f"the certificate of {server.place} cannot be read: {one_line(failure, 80)}"
        yield Finding("high", text, "certificate", server.place)
        return
    found = list(inspect_certificate(server.place, server.host, seen.certificate, now, soon))
    above = list(inspect_authorities(server.place, seen.authorities, now, soon))
    if error is not None:
        yield from _untrusted(server, seen, error, [*found, *above])
    yield from found
    yield from above
    yield from _protocols(server, seen.protocol)
    yield from _ciphers(server)


def _connected(server: Server) -> tuple[_Seen, ssl.SSLCertVerificationError | None]:
    """Connect and check the certificate; where that fails, connect without, and return the reason too."""
    try:
        return _handshake(server, server.trust or httpx.create_ssl_context()), None
    except ssl.SSLCertVerificationError as error:
        return _handshake(server, unverified()), error


def _untrusted(
    server: Server, seen: _Seen, error: ssl.SSLCertVerificationError, found: Sequence[Finding]
) -> Iterator[Finding]:
    """Say why it is not trusted, unless what was `found` of the certificate itself says so already."""
    cause = tls_causes.distrust(error)
    grave = any(each.severity == "high" for each in found)
    if grave and (cause or error.verify_code in _OF_ITSELF):
        return
    yield Finding(
        "high", f"the certificate of {server.place} {cause or _why(server, seen, error)}", "certificate", server.place
    )


def _why(server: Server, seen: _Seen, error: ssl.SSLCertVerificationError) -> str:
    issuer = one_line(seen.certificate.issuer.rfc4514_string(), 80) or "a nameless authority"
    if error.verify_code == tls_causes.SELF_SIGNED:
        return (
            "is not trusted (it signed itself): configure it as the server's CA, if you know it to be the server's, or "
            "have an authority sign one"
        )
    if error.verify_code in tls_causes.UNKNOWN_AUTHORITY and seen.authorities:
        top = one_line(seen.authorities[-1].issuer.rfc4514_string(), 80)
        return f"is not trusted (the authority {top} is not known here): configure its authority as the server's CA"
    if error.verify_code in tls_causes.UNKNOWN_AUTHORITY:
        return (
            f"is not trusted ({issuer}, which signed it, is neither known here nor sent): have the server send the "
            "whole chain if that is an intermediate, else configure its authority as the server's CA"
        )
    if error.verify_code == tls_causes.EXPIRED:
        return "was signed with one that has expired: renew that"
    if error.verify_code in tls_causes.WRONG_NAME:
        return f"is not for {server.host}: have one made for it"
    return f"is not trusted ({one_line(error.verify_message, 80)})"


def _protocols(server: Server, negotiated: str) -> Iterator[Finding]:
    if negotiated not in _GOOD:
        text = f"{server.place} agreed on {negotiated}, which is forbidden (RFC 8996): have it speak TLS 1.2 or 1.3"
        yield Finding("high", text, "tls-protocol", server.place)
    taken, untried = _taken(server, {name: (version, hello.ANY_OLD) for version, name in hello.OLD.items()})
    if taken:
        text = f"{server.place} still takes {_listed(taken)}, which are forbidden (RFC 8996): turn them off"
        yield Finding("medium", text, "tls-protocol", server.place)
    refused = [name for name in hello.OLD.values() if name not in [*taken, *untried]]
    text = f"{server.place} speaks {negotiated}" + (f"; it refuses {_listed(refused)}" if refused else "")
    yield Finding("low", text)
    if untried:
        text = f"whether {server.place} takes {_listed(untried)} was not looked at: it did not answer"
        yield Finding("low", text, "tls-protocol", server.place, unseen=True)


def _ciphers(server: Server) -> Iterator[Finding]:
    taken, untried = _taken(server, {weak.name: (hello.TLS_1_2, weak.suites) for weak in hello.WEAK})
    for grave in (True, False):
        names = [weak.name for weak in hello.WEAK if weak.name in taken and weak.grave == grave]
        if names:
            text = f"{server.place} takes ciphers with {_listed(names)}, which RFC 9325 forbids: turn them off"
            yield Finding("high" if grave else "medium", text, "tls-cipher", server.place)
    secret, silent = _taken(server, {"forward": (hello.TLS_1_2, hello.NO_SECRECY)})
    if secret:
        text = (
            f"{server.place} takes ciphers without forward secrecy (RSA key exchange), which RFC 9325 advises against"
        )
        yield Finding("low", text, "tls-cipher", server.place)
    if untried or silent:
        text = f"whether {server.place} takes weak ciphers was not looked at to the end: it did not answer"
        yield Finding("low", text, "tls-cipher", server.place, unseen=True)


def _taken(server: Server, offers: dict[str, tuple[int, Sequence[int]]]) -> tuple[list[str], list[str]]:
    """Offer each, and list which were taken, and which could not be tried."""
    taken, untried = [], []
    for name, (version, suites) in offers.items():
        try:
            if hello.takes(server.host, server.port, version, suites):
                taken.append(name)
        except OSError:
            untried.append(name)
    return taken, untried


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _no_protocol(server: Server, error: ssl.SSLError) -> Finding:
    """Find why there was no handshake at all: old protocols only, weak ciphers only, or something that is no TLS."""
    taken, _ = _taken(server, {name: (version, hello.ANY_OLD) for version, name in hello.OLD.items()})
    if taken:
        text = f"{server.place} speaks nothing newer than {taken[-1]}, which is forbidden (RFC 8996): turn TLS 1.3 on"
        return Finding("high", text, "tls-protocol", server.place)
    weak, _ = _taken(server, {each.name: (hello.TLS_1_2, each.suites) for each in hello.WEAK})
    if weak:
        text = f"{server.place} takes only ciphers with {_listed(weak)}, which RFC 9325 forbids: have it take AES-GCM"
        return Finding("high", text, "tls-cipher", server.place)
    why = tls_causes.no_handshake(error) or one_line(error.reason or error, 80)
    return Finding("high", f"{server.place} makes no TLS connection: {why}", "tls-protocol", server.place)


def _handshake(server: Server, context: ssl.SSLContext) -> _Seen:
    with (
        socket.create_connection((server.host, server.port), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=server.host) as secure,
    ):
        certificate = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
        return _Seen(secure.version() or "no TLS", certificate, _authorities(secure))


def _authorities(secure: ssl.SSLSocket) -> tuple[x509.Certificate, ...]:
    """Read the certificates that the server sent after its own; none where this Python does not tell.

    Python 3.13 made public what its versions before have in the object below.
    """
    below: Any = secure if hasattr(secure, "get_unverified_chain") else getattr(secure, "_sslobj")  # noqa: B009
    sent = below.get_unverified_chain() or ()
    found = (each if isinstance(each, bytes) else each.public_bytes(_DER) for each in sent[1 : 1 + CHAIN_LIMIT])
    return tuple(x509.load_der_x509_certificate(each) for each in found)
