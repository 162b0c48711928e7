"""Finds security headers that are missing or have no effect, and cookies without protection.

Rules: `header` (path: its name) and `cookie` (path: the cookie's name). Asked for is what OWASP's cheat sheets on HTTP
headers and session management ask of any answer; raos.toml may ask for more headers, and then means it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from tasks.checks.kit.base import Finding, Severity, one_line
from tasks.checks.kit.http import Answer

USUAL_HEADERS = ("X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy")
HSTS = "Strict-Transport-Security"
HSTS_SECONDS = 180 * 86400
CSP = "Content-Security-Policy"
_ANY_SOURCE = {"*", "http:", "https:", "data:"}
_GUARDED = re.compile(r"'(nonce-|sha(256|384|512)-|strict-dynamic')")
# Names of cookies that carry a session. Those against forged requests are there to be read by scripts.
_SESSION = re.compile(r"sess|sid$|^sid|auth|token|jwt|login|remember", re.IGNORECASE)
# A choice of the user's, such as `dark` or `en-GB`, which scripts may read.
_SETTING = re.compile(r"[a-z]{1,12}([-_][A-Za-z]{2,8})?|[0-9]{1,3}")
_FORGERY = re.compile(r"csrf|xsrf", re.IGNORECASE)

Answers = Mapping[str, Answer]


def missing_headers(answers: Answers, declared: Sequence[str], *, hsts: bool) -> Iterator[Finding]:
    """Find the headers that an answer lacks; `hsts` says whether Strict-Transport-Security is among the usual ones."""
    usual = (*USUAL_HEADERS, HSTS) if hsts else USUAL_HEADERS
    names = {name.lower(): name for name in (*declared, *usual)}
    required = {name.lower() for name in declared}
    for key, name in names.items():
        without = [path for path, answer in answers.items() if not answer.headers.get(key, "").strip()]
        if without:
            places = f"{without[0]}" + (f" and {len(without) - 1} more" if len(without) > 1 else "")
            severity: Severity = "high" if key in required else "medium"
            why = "raos.toml asks for it" if key in required else "browsers rely on it"
            yield Finding(severity, f"the header {name} is missing at {places}: {why}", "header", name)


def weak_headers(answers: Answers, *, hsts: bool) -> Iterator[Finding]:
    """Find the headers that are there and have no effect, each at the first path where that is so."""
    checks = [
        ("X-Content-Type-Options", "high", _weak_nosniff),
        (CSP, "medium", _weak_csp),
        *([(HSTS, "medium", _weak_hsts)] if hsts else []),
    ]
    for name, severity, why in checks:
        for path, answer in answers.items():
            value = answer.headers.get(name, "").strip()
            if value and (problem := why(value)):
                severe: Severity = "high" if severity == "high" else "medium"
                yield Finding(severe, f"{name} at {path} {problem}", "header", name)
                break


def _weak_nosniff(value: str) -> str:
    return "" if value.lower() == "nosniff" else f"is {one_line(value, 40)!r}; only 'nosniff' has an effect"


def _weak_csp(value: str) -> str:
    """Find what is weak in a list of policies: each applies, so one that restricts scripts is enough (CSP 3, 8.1)."""
    problems = [_weak_policy(policy) for policy in value.split(",") if policy.strip()]
    return "" if any(not problem for problem in problems) else problems[0] if problems else ""


def _weak_policy(policy: str) -> str:
    directives: dict[str, list[str]] = {}
    for directive in policy.split(";"):
        words = directive.lower().split()
        if words:
            directives.setdefault(words[0], words[1:])
    if "sandbox" in directives and "allow-scripts" not in directives["sandbox"]:
        return ""
    sources = directives.get("script-src", directives.get("default-src"))
    if sources is None:
        return "restricts no scripts: it has neither default-src nor script-src"
    guarded = any(_GUARDED.match(source) for source in sources)
    if "'unsafe-inline'" in sources and not guarded:
        return "lets any script run that is written into a page ('unsafe-inline'): use nonces or hashes"
    everywhere = sorted(_ANY_SOURCE & set(sources))
    if everywhere and "'strict-dynamic'" not in sources:
        return f"lets scripts come from anywhere ({' '.join(everywhere)}): name the sources"
    return ""


def _weak_hsts(value: str) -> str:
    age = re.search(r"(?i)(^|;)\s*max-age\s*=\s*\"?(\d{1,12})", value)
    if age is None:
        return "names no max-age, so it has no effect"
    return "" if int(age[2]) >= HSTS_SECONDS else f"lasts {int(age[2])} s; give it {HSTS_SECONDS} or more"


def weak_cookies(answers: Answers, *, https: bool) -> Iterator[Finding]:
    """Find the cookies that lack a protection, each once: Secure (over https), HttpOnly, SameSite.

    Without the first two, one that by its name carries a session is given away: that is high, others are medium.
    """
    named: set[str] = set()
    for path, answer in answers.items():
        for line in answer.headers.get_list("set-cookie"):
            first, *rest = (part.strip() for part in line.split(";"))
            name = one_line(first.partition("=")[0].strip(), 60)
            words = [part.partition("=") for part in rest]
            attributes = {key.strip().lower(): value.strip().lower() for key, _, value in words}
            setting = _SETTING.fullmatch(first.partition("=")[2]) and not _SESSION.search(name)
            if name in named or attributes.get("max-age") == "0" or setting:
                continue
            for finding in _cookie(name, path, attributes, https):
                named.add(name)
                yield finding


def _cookie(name: str, path: str, attributes: Mapping[str, str], https: bool) -> Iterator[Finding]:
    session = bool(_SESSION.search(name)) and not _FORGERY.search(name)
    grave: Severity = "high" if session else "medium"
    lacking = []
    if https and "secure" not in attributes:
        lacking.append("Secure (it also goes over plain http)")
    if "httponly" not in attributes and not _FORGERY.search(name):
        lacking.append("HttpOnly (scripts can read it)")
    if lacking:
        yield Finding(grave, f"the cookie {name} at {path} lacks {' and '.join(lacking)}", "cookie", name)
    same_site = attributes.get("samesite", "")
    if same_site not in ("lax", "strict", "none"):
        yield Finding("medium", f"the cookie {name} at {path} lacks SameSite=Lax or Strict", "cookie", name)
    elif same_site == "none" and "secure" not in attributes:
        yield Finding("medium", f"the cookie {name} at {path} is SameSite=None without Secure", "cookie", name)
