"""A look at a server from where one stands: the way to it, its certificate, who it is, its clock, its version."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import httpx

from ashat import __version__
from ashat.client.environment import is_loopback
from ashat.client.http import Timeouts, Transport
from ashat.client.node import NodeClient
from ashat.common.clocks import skew
from ashat.common.findings import Finding
from ashat.common.numbers import read_date
from ashat.errors import NodeError, UsageError, WrongRoleError
from ashat.protocol.messages import Identity, Role

SOON: Final = timedelta(days=30)
QUICK: Final = Timeouts(5.0, 10.0)
_IDENTITY = "/v1/identity"


def look_at_server(
    what: str, url: str, role: Role, *, ca: str | Path | None = None, insecure_http: bool = False
) -> Iterator[Finding]:
    """Look at the server at `url`, without a token: whatever it shows a stranger."""
    try:
        client = NodeClient(url, ca=ca, name=what, expect_role=role, timeouts=QUICK)
    except UsageError as error:
        yield Finding(f"{what}, address", "wrong", str(error))
        yield _unseen(what)
        return
    with client:
        try:
            with client.transport.answer("GET", _IDENTITY) as response:
                seen = _way(what, client.transport, response, insecure_http)
                date = read_date(response.headers.get("Date", ""))
            identity = client.check_role()
        except WrongRoleError as error:
            yield Finding(f"{what}, role", "wrong", str(error))
            return
        except NodeError as error:
            yield Finding(f"{what}, reachable", "wrong", f"{str(error).removeprefix(f'{what}: ')} (asked at {url})")
            yield _unseen(what)
            return
    yield from seen
    yield from _look_at_identity(what, identity)
    yield _clock(what, date or identity.time)


def certificate_finding(what: str, ends: datetime, issued_by: str = "") -> Finding:
    """Judge when a certificate ends."""
    now = datetime.now(UTC)
    day = f"{ends:%Y-%m-%d %H:%M} UTC"
    if ends <= now:
        return Finding(what, "wrong", f"the certificate ended on {day}", "renew it, and restart the node")
    if ends - now <= SOON:
        return Finding(what, "warning", f"the certificate ends on {day}", "renew it before, and restart the node")
    return Finding(what, "ok", f"the certificate holds until {day}{issued_by}")


def certificate_end(response: httpx.Response) -> datetime | None:
    """Read from an answer that is still open when the server's certificate ends; None where it came over plain http."""
    tls = response.extensions["network_stream"].get_extra_info("ssl_object")
    if tls is None:
        return None
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str((tls.getpeercert() or {})["notAfter"])), UTC)


def _way(what: str, transport: Transport, response: httpx.Response, insecure_http: bool) -> list[Finding]:
    url = httpx.URL(transport.url)
    found = [Finding(f"{what}, reachable", "ok", f"it answers at {transport.url}")]
    tls = response.extensions["network_stream"].get_extra_info("ssl_object")
    ends = certificate_end(response)
    if ends is not None:
        found.append(certificate_finding(f"{what}, TLS", ends, f", {tls.version()}"))
    elif is_loopback(url.host):
        found.append(Finding(f"{what}, TLS", "ok", "plain http, to this machine itself"))
    elif insecure_http:
        todo = "give it a certificate, and configure https"
        found.append(Finding(f"{what}, TLS", "warning", "plain http, which is allowed: secrets cross readable", todo))
    else:
        todo = "give it a certificate, and configure https (or allow it with --insecure-http, insecure_http)"
        found.append(Finding(f"{what}, TLS", "wrong", "plain http to another machine: no secret is sent there", todo))
    return found


def _look_at_identity(what: str, identity: Identity) -> Iterator[Finding]:
    runs = f"runs {identity.current.update_id}" if identity.current else "runs nothing yet"
    yield Finding(f"{what}, role", "ok", f"{identity.role} '{identity.name}', {runs}")
    if identity.lost:
        seen = f"its store lost {identity.lost} of the releases that it needs"
        yield Finding(f"{what}, store", "wrong", seen, "deploy heal brings them back")
    if identity.node_version == __version__:
        yield Finding(f"{what}, version", "ok", f"{identity.node_version}, as here")
    else:
        seen = f"{identity.node_version} there, {__version__} here"
        yield Finding(f"{what}, version", "warning", seen, "install the same version on both")


def _clock(what: str, theirs: datetime | None) -> Finding:
    if theirs is None:
        return Finding(f"{what}, clock", "not looked at", "it does not say what time it is")
    if words := skew(theirs, f"that of {what}"):
        return Finding(f"{what}, clock", "wrong", words, "set the one that is wrong (NTP)")
    return Finding(f"{what}, clock", "ok", "within 5 minutes of the clock here")


def _unseen(what: str) -> Finding:
    return Finding(f"{what}, TLS, role, version, clock", "not looked at", "it could not be asked")
