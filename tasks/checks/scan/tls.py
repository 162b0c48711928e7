"""Inspects the TLS of a server: who vouches for its certificate, for how long, and which protocols it takes.

Rules: `certificate` (not trusted, for another name, expired), `certificate-expiry` (soon), `tls-protocol`,
`plain-http`; their path is HOST:PORT. RFC 8996 forbids TLS 1.0 and 1.1.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
from cryptography import x509

from ashat.client.environment import is_loopback
from tasks.checks.kit.base import Finding, one_line

SECONDS = 5.0
_OLD = {ssl.TLSVersion.TLSv1: "TLS 1.0", ssl.TLSVersion.TLSv1_1: "TLS 1.1"}
_GOOD = ("TLSv1.2", "TLSv1.3")
# X509_V_ERR_* of OpenSSL's <openssl/x509_vfy.h>.
_NOT_YET_VALID, _EXPIRED, _OTHER_HOST, _OTHER_ADDRESS = 9, 10, 62, 64
_NAMES_SHOWN = 3


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
    """One handshake: the protocol agreed on, and the server's certificate."""

    protocol: str
    certificate: x509.Certificate


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
        seen, trouble = _connected(server)
    except ssl.SSLError as error:
        yield _no_protocol(server, error)
        return
    except OSError as error:
        text = f"{server.place} makes no TLS connection: {one_line(error.strerror or error, 80)}"
        yield Finding("high", text, "tls-protocol", server.place)
        return
    except ValueError as error:
        text = f"the certificate of {server.place} cannot be read: {one_line(error, 80)}"
        yield Finding("high", text, "certificate", server.place)
        return
    if trouble:
        yield trouble
    yield from _expiry(server, seen.certificate, now, soon)
    yield from _protocols(server, seen.protocol)


def _connected(server: Server) -> tuple[_Seen, Finding | None]:
    """Connect and check the certificate; where that fails, connect without, and return the finding too."""
    try:
        return _handshake(server, server.trust or httpx.create_ssl_context()), None
    except ssl.SSLCertVerificationError as error:
        seen = _handshake(server, unverified())
        return seen, _untrusted(server, seen.certificate, error)


def _untrusted(server: Server, certificate: x509.Certificate, error: ssl.SSLCertVerificationError) -> Finding:
    if error.verify_code in (_OTHER_HOST, _OTHER_ADDRESS):
        names = _names(certificate)
        shown = ", ".join(names[:_NAMES_SHOWN]) or "nobody"
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        why = f"is for {shown}{more}, not for {server.host}"
    elif error.verify_code == _EXPIRED:
        end = certificate.not_valid_after_utc
        over = end <= datetime.now(UTC)
        why = f"expired on {end:%Y-%m-%d}: renew it" if over else "was signed with one that has expired: renew that"
    elif error.verify_code == _NOT_YET_VALID:
        why = f"is valid only from {certificate.not_valid_before_utc:%Y-%m-%d} on"
    else:
        why = f"is not trusted ({one_line(error.verify_message, 80)}): configure its authority as the server's CA"
    return Finding("high", f"the certificate of {server.place} {why}", "certificate", server.place)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        listed = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    names = [str(item.value) for item in listed if isinstance(item, x509.DNSName | x509.IPAddress)]
    return [one_line(name, 60) for name in names]


def _expiry(server: Server, certificate: x509.Certificate, now: datetime, soon: timedelta) -> Iterator[Finding]:
    end = certificate.not_valid_after_utc
    if now < end <= now + soon:
        text = f"the certificate of {server.place} expires on {end:%Y-%m-%d}, in {(end - now).days} days: renew it"
        yield Finding("medium", text, "certificate-expiry", server.place)


def _protocols(server: Server, negotiated: str) -> Iterator[Finding]:
    if negotiated not in _GOOD:
        text = f"{server.place} agreed on {negotiated}, which is forbidden (RFC 8996): have it speak TLS 1.2 or 1.3"
        yield Finding("high", text, "tls-protocol", server.place)
    taken: list[str] = []
    refused: list[str] = []
    untried: list[str] = []
    for version, name in _OLD.items():
        context = _only(version)
        if context is None:
            untried.append(name)
        else:
            (taken if _accepts(server, context) else refused).append(name)
    if taken:
        text = f"{server.place} still takes {' and '.join(taken)}, which are forbidden (RFC 8996): turn them off"
        yield Finding("medium", text, "tls-protocol", server.place)
    text = f"{server.place} speaks {negotiated}"
    text += f"; it refuses {' and '.join(refused)}" if refused else ""
    text += f"; {' and '.join(untried)} cannot be offered by this machine's OpenSSL, so not tried" if untried else ""
    yield Finding("low", text)


def _no_protocol(server: Server, error: ssl.SSLError) -> Finding:
    """Find why there was no handshake at all: old protocols only, or something that is no TLS."""
    for version, name in reversed(_OLD.items()):
        context = _only(version)
        if context is not None and _accepts(server, context):
            text = f"{server.place} speaks nothing newer than {name}, which is forbidden (RFC 8996): turn TLS 1.3 on"
            return Finding("high", text, "tls-protocol", server.place)
    why = one_line(error.reason or error, 80)
    return Finding("high", f"{server.place} makes no TLS connection: {why}", "tls-protocol", server.place)


def _handshake(server: Server, context: ssl.SSLContext) -> _Seen:
    with (
        socket.create_connection((server.host, server.port), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=server.host) as secure,
    ):
        certificate = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
        return _Seen(secure.version() or "no TLS", certificate)


def _accepts(server: Server, context: ssl.SSLContext) -> bool:
    try:
        _handshake(server, context)
    except OSError:
        return False
    return True


def _only(version: ssl.TLSVersion) -> ssl.SSLContext | None:
    """Make a context that offers that old version alone; None where this machine's OpenSSL cannot offer it."""
    context = unverified()
    try:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        return context
    except (ssl.SSLError, ValueError):
        return None
    return None
