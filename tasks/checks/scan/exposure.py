"""Finds what the running program shows to anybody: credentials, its own files, listings, pages for its developers.

Rules: `leak`, `exposed`, `listing`, by URL path; `unanswered` where the program was not asked to the end.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from ashat.raos_toml.schema import RaosToml
from tasks.checks.kit.base import CheckContext, Finding
from tasks.checks.kit.http import Answer, NoAnswerError, Web
from tasks.checks.scan.behaviour import shown_by_behaviour
from tasks.checks.scan.credentials import find_secrets
from tasks.checks.scan.exposed_paths import EXPOSED, LISTED, LISTING, METRICS, TOOLBAR
from tasks.checks.scan.headers import missing_headers, weak_cookies, weak_headers

ANSWER_SECONDS = 5.0
ANSWER_BYTES = 256 * 1024
PAGES_LIMIT = 20
PATIENCE_SECONDS = 15.0
# Nothing has this page: what is answered here is answered everywhere, so it shows no file.
ABSENT = "/ashat-deploy/no-such-page"

_FILES = ("/.git/config", "/.git/HEAD", "/.env", "/.env.production", "/appsettings.json", "/web.config", "/.htpasswd",
    "/.npmrc", "/db.sqlite3")  # fmt: skip
PREFIXES_LIMIT, PARENTS_LIMIT = 4, 12


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

    def with_cookies(self) -> dict[str, Answer]:
        """Give the answers that set cookies, each with what was asked."""
        return {
            f"{asked[1]} {asked[0]}": answer
            for asked, answer in self._answers.items()
            if answer and "set-cookie" in answer.headers
        }


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
        yield from _for_developers(program, context.raos, answers)
        yield from shown_by_behaviour(program.ask, context.raos, list(answers), ABSENT, url.host, _sure)
        lines = [line for answer in answers.values() for line in answer.headers.get_list("set-cookie")]
        known = {line.partition("=")[0].strip() for line in lines}
        yield from (each for each in weak_cookies(program.with_cookies(), https=https) if each.path not in known)
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
        headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        for kind in _sure(answer.body + b"\n" + headers.encode()):
            yield Finding("high", f"{path} shows a credential: {kind}", "leak", path)


def _sure(body: bytes) -> list[str]:
    return [secret.shown for secret in find_secrets(body) if secret.sure]


def _parents(raos: RaosToml) -> list[str]:
    """The directories of the declared paths, as URLs have them."""
    names = [each.path.split("?")[0].split("/")[1:-1] for each in raos.endpoints]
    found = ["/" + "/".join(name[:depth]) + "/" for name in names for depth in range(1, len(name) + 1)]
    return list(dict.fromkeys(found))[:PARENTS_LIMIT]


def _for_developers(program: _Program, raos: RaosToml, answers: Mapping[str, Answer]) -> Iterator[Finding]:
    """Find what is for those who make or run the program: their toolbars in its pages, and its figures."""
    for path, answer in answers.items():
        if TOOLBAR.search(_text(answer)):
            yield Finding("high", f"{path} has a tool for developers in its page: turn debugging off", "exposed", path)
    declared = {each.path.split("?")[0] for each in raos.endpoints}
    for path, pattern in METRICS.items():
        found = program.ask(path) if path not in declared else None
        if found and found.status == httpx.codes.OK and pattern.search(_text(found)):
            text = f"anyone can read {path}, the program's own figures: serve it elsewhere, or declare it in raos.toml"
            yield Finding("medium", text, "exposed", path)


def _prefixes(raos: RaosToml) -> list[str]:
    """The directories, as URLs have them, below which the program is known to answer."""
    first = [path.split("?")[0].split("/")[1:] for path in (each.path for each in raos.endpoints)]
    return list(dict.fromkeys(f"/{names[0]}" for names in first if len(names) > 1))[:PREFIXES_LIMIT]


def _exposed(program: _Program, raos: RaosToml) -> Iterator[Finding]:
    absent = program.ask(ABSENT)
    everywhere = _text(absent) if absent and absent.status == httpx.codes.OK else ""
    prefixes = _prefixes(raos)
    below = {prefix + path: EXPOSED[path] for prefix in prefixes for path in _FILES}
    for path, pattern in {**EXPOSED, **below}.items():
        found = program.ask(path)
        if found and found.status == httpx.codes.OK and pattern.search(_text(found)) and not pattern.search(everywhere):
            text = f"anyone can read {path} from the running program: do not serve it"
            yield Finding("high", text, "exposed", path)
    for path in dict.fromkeys([*LISTED, *_parents(raos)]):
        found = program.ask(path)
        if found and found.status == httpx.codes.OK and LISTING.search(_text(found)):
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
