"""Say in one line why a server gave no answer: nothing listens, no way there, or a TLS connection that fails."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

import httpcore
import httpx

from ashat.client import tls_causes
from ashat.errors import NodeError, NodeRefusedError, NodeUnreachableError, NodeUntrustedError

_PROBE_SECONDS = 3.0
# What OpenSSL calls the first bytes of a server that does not speak TLS.
_NO_TLS = ("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")


@dataclass(frozen=True)
class Asked:
    """Where was asked. `authority` is how the person names a private authority there, such as `--ca FILE`;
    `own_authority` says that one was named. `direct` is false behind a proxy; `answered` says that the server has
    answered before."""

    url: str
    authority: str
    own_authority: bool
    direct: bool
    answered: bool


def why_no_answer(error: httpx.HTTPError, asked: Asked) -> tuple[type[NodeError], str]:
    """Say whose fault it is that a request got no answer, as the class of the error to raise, and why."""
    cause = _root_cause(error)
    if isinstance(cause, ssl.SSLError):
        return NodeUntrustedError, why_no_tls(cause, asked)
    if isinstance(error, httpx.ConnectTimeout):
        return NodeUnreachableError, "no connection within the time allowed; is it up, and is the port open?"
    if isinstance(error, httpx.TimeoutException):
        return NodeUnreachableError, "it did not answer in time; try again"
    if isinstance(error, httpx.ConnectError):
        return NodeUnreachableError, f"{_strerror(cause)}; is the node running at {asked.url}?"
    if isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError)):
        if _is_tls_port(asked):
            return (
                NodeUntrustedError,
                f"it speaks https on that port, not http: its address is https{asked.url[4:]}",
            )
        return NodeUnreachableError, "the connection was cut; try again"
    return NodeRefusedError, f"the request could not be made ({error})"


def speaks_https(url: str) -> str:
    """Say that the server at `url`, which is plain http, speaks https there."""
    return f"it speaks https on that port, not http: its address is https{url[4:]}"


def why_no_tls(error: BaseException, asked: Asked) -> str:
    """Say why no TLS connection could be made; "" where that is not what went wrong."""
    cause = _root_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _untrusted(cause, asked)
    return _no_tls(cause, asked) if isinstance(cause, ssl.SSLError) else ""


def _untrusted(cause: ssl.SSLCertVerificationError, asked: Asked) -> str:
    code, host, at = cause.verify_code, httpx.URL(asked.url).host, f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    if code == tls_causes.EXPIRED:
        return (
            f"its TLS certificate has expired, by the clock here ({at}): have it renewed there. {asked.authority} "
            "does not help"
        )
    if code == tls_causes.NOT_YET_VALID:
        return f"its TLS certificate is not valid yet, by the clock here ({at}): see to the clocks here and there"
    if code in tls_causes.WRONG_NAME:
        return (
            f"its TLS certificate is not for the name {host}: use a name that it is for, or have one made for {host}. "
            f"{asked.authority} does not help"
        )
    if code == tls_causes.SELF_SIGNED:
        return (
            f"its TLS certificate is not trusted (it signed itself): give that certificate with {asked.authority}, if "
            "you know it to be the server's, or have an authority sign one"
        )
    if other := tls_causes.distrust(cause):
        return f"its TLS certificate {other}. {asked.authority} does not help"
    if code in tls_causes.UNKNOWN_AUTHORITY and asked.own_authority:
        return (
            f"its TLS certificate is not trusted (another authority than that of {asked.authority} signed it, or a "
            f"certificate between them is missing): give its authority with {asked.authority}"
        )
    if code in tls_causes.UNKNOWN_AUTHORITY:
        return f"its TLS certificate is not trusted ({cause.verify_message}); give its authority with {asked.authority}"
    return f"its TLS certificate is not trusted ({cause.verify_message}): have another one made for it"


def _no_tls(cause: ssl.SSLError, asked: Asked) -> str:
    if cause.reason in _NO_TLS:
        return f"it does not speak https on that port; is its address http{asked.url[5:]}?"
    if other := tls_causes.no_handshake(cause):
        return f"no TLS connection could be made: {other}"
    return f"no TLS connection could be made ({cause.reason or cause}); does it speak https on that port?"


def _is_tls_port(asked: Asked) -> bool:
    """See whether a server that cuts connections of plain http off speaks TLS there. Nothing but a hello is sent."""
    url = httpx.URL(asked.url)
    if url.scheme != "http" or asked.answered or not asked.direct:
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((url.host, url.port or 80), timeout=_PROBE_SECONDS) as connection:
            return _greets(context, connection, url.host)
    except OSError:
        return False


def _greets(context: ssl.SSLContext, connection: socket.socket, host: str) -> bool:
    try:
        with context.wrap_socket(connection, server_hostname=host):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # TLS is what an alert is said in


def _root_cause(error: BaseException) -> BaseException:
    """What the socket or the TLS library said; httpcore cuts the chain of causes, but leaves the context."""
    while cause := error.__cause__ or (error.__context__ if isinstance(error, httpcore.NetworkError) else None):
        error = cause
    return error


def _strerror(cause: BaseException) -> str:
    text = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return text or type(cause).__name__
