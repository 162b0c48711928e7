"""Asking the program over HTTP: with a hard limit on the time and on the size of what it answers."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from ashat.client.bounded import Answer, TooLargeError, exchange
from ashat.client.http import trust_of
from ashat.client.no_answer import Asked, why_no_tls
from ashat.common.canonical_json import is_digest
from ashat.common.documents import load_json
from ashat.common.shortage import shortage
from ashat.errors import AshatError, DocumentError, UsageError
from ashat.node.app_process.process import Program
from ashat.node.core.config import AppConfig
from ashat.protocol.probes import HealthProbe

log = logging.getLogger("ashat.node")

HEALTH_BYTES = 64 * 1024


class ProgramSilentError(AshatError):
    """The program did not answer, or not within the limits."""


def ask(url: str, *, timeout: float, limit: int, ca: Path | None = None) -> Answer:
    """GET `url`; the whole exchange may take `timeout` seconds, the body `limit` bytes. Not for the event loop.

    `ca` is the authority that signed the program's certificate, None for the usual ones.

    Raises:
        ProgramSilentError: no connection, no end in time, more bytes than that, or an authority that cannot be used.
    """
    try:
        trust = trust_of(ca) if url.startswith("https:") else False
    except UsageError as error:
        raise ProgramSilentError(str(error)) from None
    asked = Asked(url, "ca_file under [app]", own_authority=ca is not None, direct=True, answered=True)
    return asyncio.run(_ask(asked, timeout, limit, trust))


async def _ask(asked: Asked, timeout: float, limit: int, trust: ssl.SSLContext | bool) -> Answer:
    try:
        async with httpx.AsyncClient(trust_env=False, verify=trust) as client:
            return await exchange(client, "GET", asked.url, seconds=timeout, limit=limit)
    except TooLargeError as error:
        raise ProgramSilentError(str(error)) from None
    except (TimeoutError, httpx.TimeoutException):
        raise ProgramSilentError(f"no complete answer within {timeout:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = why_no_tls(error, asked) or f"{error or type(error).__name__}"
        raise ProgramSilentError(f"no answer: {why}") from None


def check_health(url: str, config: AppConfig, *, bundle: str | None = None, restarts: int = 0) -> HealthProbe:
    """Ask whether the program at `url` is well: 2xx at the health path, and not as another bundle than `bundle`.

    A JSON body may name its `version` and its `bundle`.
    """
    began = time.monotonic()
    try:
        answer = ask(
            url.rstrip("/") + config.health_path,
            timeout=config.health_timeout,
            limit=HEALTH_BYTES,
            ca=config.ca_file,
        )
    except ProgramSilentError as error:
        ms = round((time.monotonic() - began) * 1000)
        return HealthProbe(healthy=False, status=None, ms=ms, restarts=restarts, detail=f"{error}")
    body = _object(answer.body)
    version, named = body.get("version"), body.get("bundle")
    runs = named if isinstance(named, str) and is_digest(named) else None
    detail = "" if 200 <= answer.status < 300 else f"answers {answer.status} at {config.health_path}"
    if not detail and bundle and runs and runs != bundle:
        detail = f"another release answers there: {runs[:12]}, not {bundle[:12]}"
    return HealthProbe(
        healthy=not detail,
        status=answer.status,
        ms=round(answer.us / 1000),
        restarts=restarts,
        version=version if isinstance(version, str) else None,
        bundle=runs,
        detail=detail,
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = load_json(body, limit=HEALTH_BYTES)
    except DocumentError:
        return {}
    return content if isinstance(content, dict) else {}


class Health:
    """What was last seen of the health of `program`, which is told when it was well."""

    def __init__(self, config: AppConfig, program: Program) -> None:
        self._config = config
        self._program = program
        self.latest: HealthProbe | None = None

    def look(self, url: str | None, *, bundle: str | None) -> HealthProbe:
        """Look now, and keep it as the latest; where there is no `url`, nothing is well."""
        self.latest = self.ask(url, bundle=bundle)
        return self.latest

    def ask(self, url: str | None, *, bundle: str | None) -> HealthProbe:
        """Look now."""
        app = self._program.state()
        if url is None:
            return HealthProbe(healthy=False, status=None, ms=0, restarts=app.restarts, detail="no program runs")
        seen = check_health(url, self._config, bundle=bundle, restarts=app.restarts)
        if seen.healthy:
            self._program.note_healthy(app.started_at)
        return seen


class Repeated:
    """Calls something every `interval` seconds, in the background, until it is stopped."""

    def __init__(self, work: Callable[[], object], interval: float, name: str, *, at_once: bool = False) -> None:
        self._work = work
        self._interval = interval
        self._pause = 0.0 if at_once else interval
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin, with the first call after one interval, or at once."""
        self.thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        self.thread.join(timeout=10)

    def _run(self) -> None:
        while not self._stopped.wait(self._pause):
            self._pause = self._interval
            try:
                self._work()
            except Exception as error:
                lack = shortage(error)
                log.warning(
                    "%s failed; it is tried again in %g s: %s",
                    self.thread.name,
                    self._interval,
                    lack.words if lack else "unexpectedly",
                    exc_info=lack is None,
                )
