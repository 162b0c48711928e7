"""Runs a server that speaks TLS for another, so that checks meet a bad certificate or protocol for real."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from anyio.from_thread import start_blocking_portal

from tasks.selftest.faults.certificates import Identity

_CHUNK = 64 * 1024


@contextmanager
def tls_in_front_of(
    url: str,
    identity: Identity,
    *,
    host: str = "127.0.0.1",
    oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ciphers: str = "",
) -> Iterator[str]:
    """Serve what the plain `url` serves over TLS on a free port of this machine; gives its https address with `host`.

    Versions below TLS 1.2 are served with whatever ciphers they need, unless `ciphers` says in OpenSSL's words which.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if ciphers or oldest < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers(ciphers or "ALL:!aNULL:@SECLEVEL=0")
    context.load_cert_chain(identity.certificate, identity.key)
    context.minimum_version, context.maximum_version = oldest, newest
    upstream = httpx.URL(url)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(upstream.host, upstream.port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

    async def begin() -> asyncio.Server:
        return await asyncio.start_server(relay, "127.0.0.1", 0, ssl=context)

    async def end(server: asyncio.Server) -> None:
        server.close()

    with start_blocking_portal() as portal:
        server = portal.call(begin)
        try:
            yield f"https://{host}:{server.sockets[0].getsockname()[1]}"
        finally:
            portal.call(end, server)


def trusting(authority: Path) -> ssl.SSLContext:
    """Make a client's context that trusts that authority alone."""
    return ssl.create_default_context(cafile=authority)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except (OSError, ssl.SSLError):
        return
    finally:
        writer.close()
