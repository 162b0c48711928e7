"""Finds passwords that are known by their place: on command lines, in columns of SQL, in connection files.

What `assignments` says of values holds here, too: a placeholder is none, and whoever finds one has to look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tasks.checks.scan.assignments import Place, could_be, entropy, usual_in_tests

ROWS_LIMIT = 1_000
ROWS_BYTES = 64 * 1024
SMALL_BYTES = 64 * 1024
_REACH = 1_600

_ARGUMENT = rb"['\"]?(?P<value>[^\s'\"]{6,128})"
# By the word, in small letters, at which each begins, and one that follows.
# `True` where a sentence may say it, so that words are left out.
_PLACES: tuple[tuple[tuple[bytes, bytes], re.Pattern[bytes], bool], ...] = (
    ((b"sshpass", b"-p"), re.compile(rb"sshpass[ \t]{1,8}-p[ \t]{0,8}" + _ARGUMENT), False),
    *(
        ((word, b"-p"), re.compile(word + rb"(?:-?\w{1,8})?[ \t][^\n|;&]{0,200}?(?<=[ \t])-p" + _ARGUMENT), False)
        for word in (b"mysql", b"mariadb")
    ),
    ((b"redis-cli", b"-a"), re.compile(rb"redis-cli[ \t][^\n|;&]{0,100}?(?<=[ \t])-a[ \t]{1,4}" + _ARGUMENT), False),
    ((b" -pass", b"pass:"), re.compile(rb" -pass(?:in|out)?[ \t]{1,4}['\"]?pass:" + _ARGUMENT), False),
    (
        (b"htpasswd", b"-"),
        re.compile(rb"htpasswd[ \t]{1,4}-\w{0,4}b\w{0,4}[ \t]+[^\s]{1,200}[ \t]+[^\s]{1,64}[ \t]+" + _ARGUMENT),
        False,
    ),
    (
        (b"machine", b"password"),
        re.compile(rb"machine\s{1,8}\S{1,200}\s{1,8}login\s{1,8}\S{1,200}\s{1,8}password\s{1,8}(?P<value>\S{6,256})"),
        False,
    ),
    *(
        (
            (word, b" "),
            re.compile(word + rb" (?:is|was)[: ]{1,3}[\"'`]?(?P<value>[^\s\"'`,;<>]{8,128})", re.IGNORECASE),
            True,
        )
        for word in (b"password", b"passphrase")
    ),
    (
        (b"authorization", b" "),
        re.compile(
            rb"authorization[\"']?[ \t]{0,4}[:,=]\s{0,40}(?:[\"']?value[\"']?[ \t]{0,4}[:=][ \t]{0,4})?"
            rb"[\"'`]?(?:bearer|token)[ \t]{1,4}(?P<value>[\w.~+/=-]{20,1024})",
            re.IGNORECASE,
        ),
        True,
    ),
)
_PGPASS = re.compile(
    rb"^[\w.*-]{1,200}:(?:[0-9]{2,5}|\*):[\w.*-]{1,64}:[\w.*-]{1,64}:(?P<value>[^\s:]{8,128})\r?$", re.MULTILINE
)
_INSERT = re.compile(
    rb"insert\s{1,4}(?:ignore\s{1,4})?into\s{1,4}[\w\"`\[\].]{1,128}\s{0,4}\((?P<columns>[^()]{1,1000})\)\s{0,4}values\s{0,4}",
    re.IGNORECASE,
)
_COPY = re.compile(rb"copy [\w\".]{1,128} \((?P<columns>[^()]{1,1000})\) from stdin;\r?\n", re.IGNORECASE)
_COLUMN = re.compile(
    r"pass(?:word|wd|phrase)?$|pwd$|secret$|(?:api|access|auth|private)_?(?:key|token)$|_token$", re.IGNORECASE
)
_VALUE = re.compile(rb"'((?:[^'\\]|''|\\.)*)'|([^',()]+)|(\()|(\))", re.DOTALL)


def placed_passwords(text: bytes) -> Iterator[Place]:
    """Find where `text` has a password in a place that passwords have."""
    lowered = text.lower()
    for words, pattern, spoken in _PLACES:
        for match in _matches(pattern, text, lowered, words):
            if place := _judged(match, spoken=spoken):
                yield place
    for match in _PGPASS.finditer(text) if len(text) <= SMALL_BYTES else ():
        if place := _judged(match, spoken=True):
            yield place
    for words, pattern, rows in (((b"insert", b"("), _INSERT, _inserted), ((b"copy ", b"("), _COPY, _copied)):
        for match in _matches(pattern, text, lowered, words):
            yield from _in_columns(text, match, rows)


def _matches(
    pattern: re.Pattern[bytes], text: bytes, lowered: bytes, words: tuple[bytes, bytes]
) -> Iterator[re.Match[bytes]]:
    """Find `pattern` where the first of `words` stands and the second follows.

    That takes far less time than to look for it everywhere.
    """
    word, then = words
    position = lowered.find(word)
    while position >= 0:
        if text.find(then, position, position + _REACH) >= 0 and (
            match := pattern.match(text, position, position + _REACH)
        ):
            yield match
        position = lowered.find(word, position + len(word))


def _str(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _judged(match: re.Match[bytes], *, spoken: bool) -> Place | None:
    """Judge the value of `match`. A JSON Web Token says itself what it is, and is judged by that."""
    value = _str(match["value"])
    if not could_be("password", value) or value.startswith("eyJ") or (spoken and not _random(value)):
        return None
    return Place(match.start(), usual_in_tests(value))


def _random(value: str) -> bool:
    """Tell whether `value` mixes letters and digits as no word of a sentence does."""
    mixed = any(each.isdigit() for each in value) and any(each.isalpha() for each in value)
    return mixed and entropy(value) >= 3.0


_Rows = Callable[[bytes, int], Iterator[tuple[int, int, str]]]


def _in_columns(text: bytes, match: re.Match[bytes], rows: _Rows) -> Iterator[Place]:
    """Find the values of columns that are called as passwords are, in what a dump of a database inserts or copies."""
    columns = [_str(each).strip(' \t\r\n"`[]') for each in match["columns"].split(b",")]
    secret = {at: name for at, name in enumerate(columns) if _COLUMN.search(name)}
    for position, at, value in rows(text, match.end()) if secret else ():
        if at in secret and could_be(secret[at], value):
            yield Place(position, usual_in_tests(value))


def _inserted(text: bytes, start: int) -> Iterator[tuple[int, int, str]]:
    """Walk the rows of an INSERT: the position, number of the column and text of each value."""
    depth = column = 0
    for match in _VALUE.finditer(text, start, start + ROWS_BYTES):
        if match[3]:
            depth, column = depth + 1, column if depth else 0
        elif match[4]:
            depth -= 1
        elif match[1] is not None and depth == 1:
            yield match.start(), column, _str(match[1])
        if match[2] and depth == 0 and b";" in match[2]:
            return
        between = text[match.end() : match.end() + 1]
        column += between == b"," and depth == 1


def _copied(text: bytes, start: int) -> Iterator[tuple[int, int, str]]:
    """Walk the rows of a COPY of PostgreSQL's, to the line that ends it."""
    position = start
    for line in text[start : start + ROWS_BYTES].split(b"\n")[:ROWS_LIMIT]:
        if line.startswith(b"\\."):
            return
        for column, value in enumerate(line.rstrip(b"\r").split(b"\t")):
            yield position, column, _str(value)
        position += len(line) + 1
