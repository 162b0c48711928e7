"""Finds what the running program shows to anybody: credentials, its own files, listings, pages for its developers.

Rules: `leak`, `exposed`, `listing`, by URL path; `unanswered` where the program was not asked to the end.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Iterator

import httpx

from ashat.raos_toml.schema import RaosToml
from tasks.checks.kit.base import CheckContext, Finding
from tasks.checks.kit.http import Answer, NoAnswerError, Web
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
}
_LISTED = ("/", "/Modules/", "/static/", "/uploads/")
_LISTING = re.compile(r"<title>\s*(index of|directory listing for) /", re.IGNORECASE)


class _Program:
    """The program, asked once a path, and no further when it has kept us waiting in vain for long enough."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._answers: dict[str, Answer | None] = {}
        self._waited = 0.0
        self.silent: list[str] = []
        self.not_asked: list[str] = []

    def ask(self, path: str) -> Answer | None:
        """Request `path` once; None where no answer comes within the limits, which is for other checks to judge."""
        if path not in self._answers and self._waited >= PATIENCE_SECONDS:
            self.not_asked.append(path)
            return None
        if path not in self._answers:
            began = time.monotonic()
            try:
                self._answers[path] = self._web.ask(path, seconds=ANSWER_SECONDS, limit=ANSWER_BYTES)
            except NoAnswerError:
                self._answers[path] = None
                self._waited += time.monotonic() - began
                self.silent.append(path)
        return self._answers[path]


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
        yield from _exposed(program)
        if program.not_asked:
            silent, rest = ", ".join(program.silent), len(program.not_asked)
            text = f"the program left {silent} unanswered, so it was not asked for {rest} other things"
            yield Finding("medium", text, "unanswered", program.silent[0])


def _pages(program: _Program, raos: RaosToml) -> dict[str, Answer]:
    declared = [each.path for each in raos.endpoints if each.method == "GET" and each.body is None]
    asked = list(dict.fromkeys([raos.health.path, raos.modules.report, *declared]))[:PAGES_LIMIT]
    return {path: answer for path in asked if (answer := program.ask(path))}


def _leaks(answers: dict[str, Answer]) -> Iterator[Finding]:
    for path, answer in answers.items():
        for secret in find_secrets(_text(answer)):
            if secret.sure:
                yield Finding("high", f"{path} shows a credential: {secret.kind}", "leak", path)


def _exposed(program: _Program) -> Iterator[Finding]:
    absent = program.ask(ABSENT)
    everywhere = _text(absent) if absent and absent.status == httpx.codes.OK else ""
    for path, pattern in _EXPOSED.items():
        found = program.ask(path)
        if found and found.status == httpx.codes.OK and pattern.search(_text(found)) and not pattern.search(everywhere):
            text = f"anyone can read {path} from the running program: do not serve it"
            yield Finding("high", text, "exposed", path)
    for path in _LISTED:
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
