"""Finds what the program gives away when it is asked for what it does not have, wrongly, or from elsewhere.

Rules: `error-page` (a traceback, a debugger or a credential in an answer to what is wrong), `origin` (pages of others
may read what a user sees), `host` (the Host header comes back in links), `redirect` (to a host that nobody named),
`method` (HEAD or OPTIONS breaks it). Each with the URL path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import urlsplit

from ashat.raos_toml.schema import RaosToml
from tasks.checks.kit.base import Finding, one_line
from tasks.checks.kit.http import Answer

STRANGER = "stranger.example"
PATHS_LIMIT = 8
OPEN_PATHS = 3
_FORWARDS = "&".join(f"{name}=https%3A%2F%2F{STRANGER}%2F" for name in ("next", "url", "redirect", "return_to"))
_CREDENTIALS = "access-control-allow-credentials"
_FOR_DEVELOPERS = (
    (
        "Django's page for developers",
        re.compile(r"You.re seeing this error because you have <code>DEBUG = True</code>"),
    ),
    ("Werkzeug's debugger", re.compile(r"Werkzeug Debugger|__debugger__=yes")),
    (
        "Laravel's page for developers",
        re.compile(r"<title>[^<]*(?:Whoops|Ignition)|class=\"Whoops|\bfacade/ignition\b"),
    ),
    ("Rails' page for developers", re.compile(r"<title>Action Controller: Exception caught</title>|Rails\.root: ")),
    ("ASP.NET's page for developers", re.compile(r"An unhandled exception occurred while processing the request\.")),
    ("Starlette's page for developers", re.compile(r"class=['\"]traceback-(?:container|title)['\"]")),
    ("Phoenix' page for developers", re.compile(r"/\* Plug\.Debugger \*/|Plug\.Debugger")),
    ("Better Errors", re.compile(r"__better_errors")),
    ("Next.js' page for developers", re.compile(r"<nextjs-portal")),
    ("Symfony's page for developers", re.compile(r"<!-- Symfony Exception|Symfony\\Component\\\w+\\Exception")),
)
_TRACEBACKS = (
    ("Python", re.compile(r"Traceback \(most recent call last\)|\bFile (?:\"|&quot;)[^\n\"]{1,300}, line \d+, in ")),
    ("Java", re.compile(r"\bat [\w$.]+\([\w$]+\.(?:java|kt|scala):\d+\)")),
    (".NET", re.compile(r"\bat [\w.<>`]+\([^)\n]*\) in [^\n]+:line \d+")),
    (
        "JavaScript",
        re.compile(r"\bat (?:[\w.<> ]{1,200} \()?(?:node:[\w/]+|(?:file://)?[^\s():]{1,300}\.[cm]?[jt]sx?):\d+:\d+"),
    ),
    ("PHP", re.compile(r"Stack trace:\s*(?:<br ?/?>)?\s*#0 ")),
    ("Ruby", re.compile(r"^[^\s:]+\.rb:\d+:in [`']", re.MULTILINE)),
    ("Rust", re.compile(r"^thread '[^'\n]{1,100}' (?:\([0-9]+\) )?panicked at ", re.MULTILINE)),
    ("PHP", re.compile(r"<b>(?:Warning|Notice|Deprecated|(?:Fatal|Parse) error)</b>: [^\n]{1,400} on line <b>\d+</b>")),
    ("Go", re.compile(r"^goroutine \d+ \[", re.MULTILINE)),
)

_INNARDS = (
    (
        "an error of its database",
        re.compile(
            r"You have an error in your SQL syntax|\bpsycopg2?\.errors\.\w+|\bsqlite3\.\w+Error\b|\bSQLSTATE\["
            r"|\bORA-\d{5}:|\bPG::\w+|Unclosed quotation mark after|\bMongoServerError\b|\bpymysql\.err\."
            r"|\brelation \"[^\"\n]{1,100}\" does not exist"
        ),
    ),
    ("a path of the server", re.compile(r"\b(?:ENOENT|EACCES|EISDIR)\b[^\n]{0,80}'/[^'\n]{1,400}'")),
)

# Asks for a path with a method, headers and content; None where no answer came.
Ask = Callable[[str, str, Mapping[str, str], bytes | None], Answer | None]


def shown_by_behaviour(
    ask: Ask, raos: RaosToml, paths: list[str], absent: str, host: str, leaks: Callable[[bytes], list[str]]
) -> Iterator[Finding]:
    """Ask what an attacker asks first; `paths` are declared and answered, `absent` is one that there is not.

    `leaks` names the credentials in a body.
    """
    asked = paths[:PATHS_LIMIT]
    wrong = {place: answer for place, answer in _wrongly(ask, raos, asked, absent) if answer}
    for place, answer in wrong.items():
        page = max((path for path in asked if place.split()[1].startswith(path)), key=len, default="")
        usual = ask(page, "GET", {}, None) if page else None
        yield from _of_error_page(place, answer, leaks, usual)
    for path in asked[:OPEN_PATHS]:
        yield from _of_open_redirect(path, ask)
    yield from _of_trace(asked[0] if asked else absent, ask)
    for path in asked:
        yield from _of_origins(path, ask, host)
        yield from _of_host(path, ask(path, "GET", {"Host": STRANGER}, None))
        yield from _of_host(path, ask(path, "GET", {"X-Forwarded-Host": STRANGER}, None), "X-Forwarded-Host")
        yield from _of_redirect(path, ask(path, "GET", {}, None), host)
        for method in ("HEAD", "OPTIONS"):
            yield from _of_method(path, method, ask(path, method, {}, None))


def _wrongly(ask: Ask, raos: RaosToml, paths: list[str], absent: str) -> Iterator[tuple[str, Answer | None]]:
    """Ask for what is not there, by a method that nobody has, and with a body that is no JSON."""
    yield f"GET {absent}", ask(absent, "GET", {}, None)
    for path in paths[:2]:
        yield f"ASHAT {path}", ask(path, "ASHAT", {}, None)
        yield f"GET {path}?%ff[]=%00", ask(f"{path}{'&' if '?' in path else '?'}%ff[]=%00", "GET", {}, None)
    with_body = [each for each in raos.endpoints if each.body is not None and each.method in ("POST", "PUT", "PATCH")]
    for endpoint in with_body[:3]:
        broken = ask(endpoint.path, endpoint.method, {"Content-Type": "application/json"}, b'{"a": ')
        yield f"{endpoint.method} {endpoint.path} with half of a JSON", broken
        other = ask(endpoint.path, endpoint.method, {"Content-Type": "text/plain"}, b"a")
        yield f"{endpoint.method} {endpoint.path} with a text", other


def _of_error_page(
    place: str, answer: Answer, leaks: Callable[[bytes], list[str]], usual: Answer | None
) -> Iterator[Finding]:
    """Find what an error page gives away; what the `usual` page has, too, such as a manual of errors, is its text."""
    text = answer.body.decode("utf-8", "replace").replace("\\n", "\n").replace("\\t", "\t")
    if usual is not None and usual.body == answer.body:
        return
    path = place.split()[1]
    developers = next((name for name, pattern in _FOR_DEVELOPERS if pattern.search(text)), "")
    language = next((name for name, pattern in _TRACEBACKS if pattern.search(text)), "")
    if developers:
        yield Finding("high", f"{place} answers {developers}: turn debugging off", "error-page", path)
    elif language:
        told = f"{place} answers with a traceback ({language}): log it, and answer without"
        yield Finding("medium", told, "error-page", path)
    elif innards := next((name for name, pattern in _INNARDS if pattern.search(text)), ""):
        yield Finding("medium", f"{place} answers with {innards}: log it, and answer without", "error-page", path)
    for kind in leaks(answer.body):
        yield Finding("high", f"{place} shows a credential: {kind}", "error-page", path)


def _of_origins(path: str, ask: Ask, host: str) -> Iterator[Finding]:
    """Ask as pages of others do: from another site, none, and one whose name has this host's, and before a PUT."""
    for origin in (f"https://{STRANGER}", "null", f"https://{host}.{STRANGER}"):
        if found := list(_of_origin(path, origin, ask(path, "GET", {"Origin": origin}, None))):
            yield from found
            return
    before = {"Origin": f"https://{STRANGER}", "Access-Control-Request-Method": "PUT"}
    yield from _of_origin(path, before["Origin"], ask(path, "OPTIONS", before, None))


def _of_origin(path: str, origin: str, answer: Answer | None) -> Iterator[Finding]:
    if answer is None or answer.headers.get(_CREDENTIALS, "").strip().lower() != "true":
        return
    if answer.headers.get("access-control-allow-origin", "").strip() in (origin, "null"):
        told = f"{path} lets the pages of any other site read what its users see (Access-Control-Allow-Credentials)"
        yield Finding("high", f"{told}: name the origins that may", "origin", path)


def _of_host(path: str, answer: Answer | None, header: str = "Host") -> Iterator[Finding]:
    if answer is None:
        return
    link = f"//{STRANGER}".encode()
    if STRANGER in answer.headers.get("location", "") or (link in answer.body and answer.status < 400):
        told = f"{path} makes links to whatever the {header} header says, such as in mails"
        yield Finding("medium", f"{told}: name the hosts that are served", "host", path)


def _of_redirect(path: str, answer: Answer | None, host: str) -> Iterator[Finding]:
    if answer is None or not 300 <= answer.status < 400:
        return
    try:
        parts = urlsplit(answer.headers.get("location", ""))
        to, user = parts.hostname, parts.username or parts.password
    except ValueError:
        to, user = "an address that cannot be read", None
    if to and user:
        yield Finding("high", f"{path} sends whoever asks to an address with a name and password", "redirect", path)
    if to and to != host:
        yield Finding("medium", f"{path} sends whoever asks to {one_line(to, 80)}", "redirect", path)


def _of_open_redirect(path: str, ask: Ask) -> Iterator[Finding]:
    answer = ask(f"{path}{'&' if '?' in path else '?'}{_FORWARDS}", "GET", {}, None)
    to = answer.headers.get("location", "") if answer and 300 <= answer.status < 400 else ""
    if re.match(rf"(https?:)?//{STRANGER}", to):
        told = f"{path} sends whoever asks to wherever its parameters say (next, url, redirect, return_to)"
        yield Finding("medium", f"{told}: take paths of its own only", "redirect", path)


def _of_trace(path: str, ask: Ask) -> Iterator[Finding]:
    answer = ask(path, "TRACE", {"X-Ashat-Trace": STRANGER}, None)
    if answer and answer.status < 300 and STRANGER.encode() in answer.body:
        yield Finding("medium", f"TRACE {path} answers with what it was sent, cookies too: refuse it", "method", path)


def _of_method(path: str, method: str, answer: Answer | None) -> Iterator[Finding]:
    if answer is not None and answer.status >= 500 and answer.status != 501:
        yield Finding("medium", f"{method} {path} breaks it: status {answer.status}", "method", path)
