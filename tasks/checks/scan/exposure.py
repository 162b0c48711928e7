"""Finds what the running program shows to anybody: credentials, its own files, listings, pages for its developers.

Rules: `leak`, `exposed`, `listing`, by URL path; `unanswered` where the program was not asked to the end.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from ashat.raos_toml.schema import RaosToml
from tasks.checks.kit.base import CheckContext, Finding
from tasks.checks.kit.http import Answer, NoAnswerError, Web
from tasks.checks.scan.behaviour import shown_by_behaviour
from tasks.checks.scan.credentials import find_secrets
from tasks.checks.scan.headers import missing_headers, weak_cookies, weak_headers

ANSWER_SECONDS = 5.0
ANSWER_BYTES = 256 * 1024
PAGES_LIMIT = 20
PATIENCE_SECONDS = 15.0
# Nothing has this page: what is answered here is answered everywhere, so it shows no file.
ABSENT = "/ashat-deploy/no-such-page"

# Each with what its content always has, so that a program that answers every path with one page shows none of them.
_EXPOSED = {
    "/.git/config": re.compile(r"^[ \t]*\[(core|remote |branch )", re.MULTILINE),
    "/.git/HEAD": re.compile(r"\A(ref: refs/|[0-9a-f]{40}\s*\Z)"),
    "/.env": re.compile(r"^[ \t]*(export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*=", re.MULTILINE),
    "/raos.toml": re.compile(r"^[ \t]*\[raos\]", re.MULTILINE),
    "/appsettings.json": re.compile(r'\A\s*\{[^<]*"(ConnectionStrings|Logging|AllowedHosts)"\s*:'),
    "/web.config": re.compile(r"<configuration[\s>]"),
    "/docker-compose.yml": re.compile(r"^services:[ \t\r]*$", re.MULTILINE),
    "/.htpasswd": re.compile(r"^[^:\s<>]+:(\$(apr1|2[aby]|5|6)\$|\{SHA\})", re.MULTILINE),
    "/.DS_Store": re.compile(r"\A\x00\x00\x00\x01Bud1"),
    "/server-status": re.compile(r"<title>Apache Status</title>", re.IGNORECASE),
    "/phpinfo.php": re.compile(r"<title>[^<]*phpinfo\(\)", re.IGNORECASE),
    "/actuator/env": re.compile(r'"propertySources"\s*:\s*\['),
    "/debug/pprof/": re.compile(r"<title>/debug/pprof/</title>", re.IGNORECASE),
    "/.npmrc": re.compile(r"_authToken\s*="),
    "/.aws/credentials": re.compile(r"^aws_secret_access_key\s*=", re.MULTILINE),
    "/id_rsa": re.compile(r"\A\s*-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "/backup.sql": re.compile(r"^-- (MySQL dump|MariaDB dump|PostgreSQL database dump)", re.MULTILINE),
    "/console": re.compile(r"<title>[^<]*Werkzeug|Werkzeug Debugger</title>"),
    "/_profiler/": re.compile(r"<title>[^<]*Symfony Profiler", re.IGNORECASE),
    "/telescope": re.compile(r"<title>[^<]*Telescope[^<]*</title>"),
    "/rails/info/properties": re.compile(r"Rails version"),
    "/h2-console/": re.compile(r"<title>H2 Console</title>"),
    "/adminer.php": re.compile(r"<title>[^<]*Adminer</title>"),
    "/phpmyadmin/": re.compile(r"<title>[^<]*phpMyAdmin", re.IGNORECASE),
    "/elmah.axd": re.compile(r"Error Log for ", re.IGNORECASE),
    "/trace.axd": re.compile(r"Application Trace", re.IGNORECASE),
    "/actuator": re.compile(r'"heapdump"\s*:\s*\{'),
}
_FILES = ("/.git/config", "/.git/HEAD", "/.env", "/appsettings.json", "/web.config", "/.htpasswd", "/.npmrc")
PREFIXES_LIMIT = 4
_LISTED = ("/", "/Modules/", "/static/", "/uploads/")
_LISTING = re.compile(r"<title>\s*(index of|directory listing for) /", re.IGNORECASE)


class _Program:
    """The program, asked the same once, and no further when it has kept us waiting in vain for long enough."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._answers: dict[tuple[object, ...], Answer | None] = {}
        self._waited = 0.0
        self.silent: list[str] = []
        self.not_asked: list[str] = []

    def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, content: bytes | None = None
    ) -> Answer | None:
        """Request `path`; None where no answer comes within the limits, which is for other checks to judge."""
        asked = (path, method, *sorted((headers or {}).items()), content)
        if asked not in self._answers and self._waited >= PATIENCE_SECONDS:
            self.not_asked.append(path)
            return None
        if asked not in self._answers:
            began = time.monotonic()
            limits: Any = {"seconds": ANSWER_SECONDS, "limit": ANSWER_BYTES}
            try:
                self._answers[asked] = self._web.ask(path, method=method, headers=headers, content=content, **limits)
            except NoAnswerError:
                self._answers[asked] = None
                self._waited += time.monotonic() - began
                self.silent.append(path)
        return self._answers[asked]


def shown_by_the_program(context: CheckContext) -> Iterator[Finding]:
    """Find everything that the program at `context.app_url` should not show to a stranger."""
    url = httpx.URL(context.app_url)
    with Web(context) as web:
        program = _Program(web)
        answers = _pages(program, context.raos)
        if not answers:
            yield Finding("high", "the program answers nothing, so its headers and exposure cannot be looked at")
            return
        https = url.scheme == "https"
        hsts = https and not _is_address(url.host)
        yield from missing_headers(answers, context.raos.security.headers, hsts=hsts)
        yield from weak_headers(answers, hsts=hsts)
        yield from weak_cookies(answers, https=https)
        yield from _leaks(answers)
        yield from _exposed(program, context.raos)
        yield from shown_by_behaviour(program.ask, context.raos, list(answers), ABSENT, url.host, _sure)
        if program.not_asked:
            silent, rest = ", ".join(program.silent), len(program.not_asked)
            text = f"the program left {silent} unanswered, so it was not asked for {rest} other things"
            yield Finding("medium", text, "unanswered", program.silent[0])


def _pages(program: _Program, raos: RaosToml) -> dict[str, Answer]:
    declared = [each.path for each in raos.endpoints if each.method == "GET" and each.body is None]
    report = [raos.modules.report] if raos.modules.none is None else []
    asked = list(dict.fromkeys([raos.health.path, *report, *declared]))[:PAGES_LIMIT]
    return {path: answer for path in asked if (answer := program.ask(path))}


def _leaks(answers: dict[str, Answer]) -> Iterator[Finding]:
    for path, answer in answers.items():
        for kind in _sure(answer.body):
            yield Finding("high", f"{path} shows a credential: {kind}", "leak", path)


def _sure(body: bytes) -> list[str]:
    return [secret.shown for secret in find_secrets(body) if secret.sure]


def _prefixes(raos: RaosToml) -> list[str]:
    """The directories, as URLs have them, below which the program is known to answer."""
    first = [path.split("?")[0].split("/")[1:] for path in (each.path for each in raos.endpoints)]
    return list(dict.fromkeys(f"/{names[0]}" for names in first if len(names) > 1))[:PREFIXES_LIMIT]


def _exposed(program: _Program, raos: RaosToml) -> Iterator[Finding]:
    absent = program.ask(ABSENT)
    everywhere = _text(absent) if absent and absent.status == httpx.codes.OK else ""
    prefixes = _prefixes(raos)
    below = {prefix + path: _EXPOSED[path] for prefix in prefixes for path in _FILES}
    for path, pattern in {**_EXPOSED, **below}.items():
        found = program.ask(path)
        if found and found.status == httpx.codes.OK and pattern.search(_text(found)) and not pattern.search(everywhere):
            text = f"anyone can read {path} from the running program: do not serve it"
            yield Finding("high", text, "exposed", path)
    for path in dict.fromkeys([*_LISTED, *(f"{prefix}/" for prefix in prefixes)]):
        found = program.ask(path)
        if found and found.status == httpx.codes.OK and _LISTING.search(_text(found)):
            yield Finding("high", f"{path} lists a directory of the server: turn listings off", "listing", path)


def _text(answer: Answer) -> str:
    return answer.body.decode("utf-8", "replace")


def _is_address(host: str) -> bool:
    """Tell whether `host` is an address: browsers heed Strict-Transport-Security from names only (RFC 6797, 8.1.1)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
