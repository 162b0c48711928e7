"""Redacts what a database's driver says, so that nothing of the DSN goes with it.

Drivers put the host, the user and the database into their messages, so what goes wrong before a statement is run is
told in words of our own; what a statement is refused with is passed on without whatever the DSN holds. The driver's
own words, without the password, are in the node's log.
"""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus

import sqlalchemy as sa

from ashat.common.text import printable

WORDS = 200
_HIDDEN = "***"
_ACCOUNT = re.compile(r"(?:user )?'[^']*'@'[^']*'")  # MariaDB's 'user'@'host'
_SECRET_OPTION = re.compile(r"pass|pwd|secret|token", re.IGNORECASE)
_ADDRESS = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.])")

# Numbers are MariaDB's (mariadb.com/kb: error codes); the words are PostgreSQL's and the resolver's. First match wins.
_REASONS = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (
            r"\((1040|1203|1226),|too many (clients|connections)|remaining connection slots",
            "all connections that it allows are taken",
        ),
        (
            r"\((1045|1698|1862),|password authentication failed|no password supplied|authentication failed"
            r'|role ".*" (does not exist|is not permitted)',
            "it refuses the user or the password of the DSN",
        ),
        (r"\((1130|1129),|pg_hba\.conf", "it lets nobody in from this machine with that DSN"),
        (
            r'\((1049|1044),|database ".*" does not exist|permission denied for database',
            "it has no such database for us",
        ),
        (r"starting up|shutting down|recovery mode|not yet accepting", "it is starting or stopping"),
        (
            r"could not translate host name|failed to resolve|name or service not known|getaddrinfo|name resolution"
            r"|nodename nor servname|no address associated",
            "the host of the DSN is not known here",
        ),
        (r"connection refused", "nothing listens at the address of the DSN"),
        (r"no route to host|unreachable", "the address of the DSN cannot be reached from here"),
        (r"no such file or directory", "there is no socket at the path of the DSN"),
        (r"time(d)? ?out", "it does not answer"),
        (r"closed the connection|reset by peer|lost connection|broken pipe|\(2013,", "it ended the connection"),
        (r"\(2026,|ssl|tls|certificate", "no TLS connection can be agreed on with it"),
    )
)


def why_no_connection(error: BaseException) -> str:
    """Say why there is no connection, in our own words."""
    text = str(_original(error))
    for pattern, words in _REASONS:
        if pattern.search(text):
            return words
    return f"no connection came about ({type(_original(error)).__name__}; the node's log holds the driver's words)"


def why_refused(error: BaseException, url: sa.URL) -> str:
    """Return the first line of what a statement was refused with, without anything that the DSN holds."""
    hidden = without_password(error, url)
    secrets = {url.username, url.host, url.database, str(url.port) if url.port else None}
    for value in url.query.values():
        secrets.update([value] if isinstance(value, str) else value)
    for secret in sorted((str(secret) for secret in secrets if secret), key=len, reverse=True):
        hidden = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", _HIDDEN, hidden)
    hidden = _ADDRESS.sub(_HIDDEN, _ACCOUNT.sub("its user", hidden))
    return hidden[:WORDS]


def without_password(error: BaseException, url: sa.URL | None) -> str:
    """Return the first line of what the driver said, for the node's own log."""
    text = _text(error)
    for password in _passwords(url) if url is not None else ():
        for spelling in (password, quote(password, safe=""), quote_plus(password)):
            text = text.replace(spelling, _HIDDEN)
    return text


def _passwords(url: sa.URL) -> list[str]:
    options = [value for key, value in url.query.items() if _SECRET_OPTION.search(key)]
    given = [url.password, *(each for value in options for each in ([value] if isinstance(value, str) else value))]
    return [str(password) for password in given if password]


def _original(error: BaseException) -> BaseException:
    original = getattr(error, "orig", None)
    return original if isinstance(original, BaseException) else error


def _text(error: BaseException) -> str:
    original = _original(error)
    number, *words = original.args if len(original.args) == 2 else (None, str(original))  # MariaDB's drivers number
    lines = str(words[0] if isinstance(number, int) else original).strip().splitlines()
    first = printable(lines[0]) if lines else ""
    return first.strip() or type(original).__name__
