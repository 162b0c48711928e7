"""Finds passwords and other secrets that are recognised by the name they are given to, not by their own form.

A value counts if it could be one: no placeholder, reference, path, expression, or word for a person to read. Where the
name says no more than "key" or "token", it must look random too. Whoever finds one has to look: none is sure.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterator
from math import log2
from typing import NamedTuple

USUAL_LETTERS, LIST_COMMAS = 24, 3
_USUAL = re.compile(r"[A-Za-z]+(?:[-_.!@#$ ][A-Za-z]*)*[0-9]{0,4}[!@#$.]?|(?:[A-Za-z]{1,12}[0-9]{1,4}[-_.!@#]?){1,3}")
_HINTS = (b"pass", b"pwd", b"secret", b"token", b"credent", b"key", b"identified by")
_KEYS = re.compile(
    rb"(?:api|access|private|auth|cryption|signing|master|account|shared|app|jwt|hmac|webhook|cookie|deploy)[_.-]?$"
)
_BEFORE = re.compile(rb"[\w.-]*\Z")
_AFTER = re.compile(rb"[\w.-]{0,40}")
_OPEN = rb"[bfruBFRU]{0,2}(?P<quote>\\?[\"'`])(?P<value>[^\"'`\r\n]{4,512})(?P=quote)"
_QUOTED = re.compile(
    rb"[\"'`\]]{0,2}(?:[ \t]{0,4}:[ \t]{0,4}[A-Za-z][\w\[\]|. ]{0,40}(?==))?[ \t]{0,40}"
    rb"(?P<sign>:=|===?|!==?|=>|=|:|,|\([ \t]{0,4}|BY|by|(?<= )(?=')|[ \t]value[ \t]{0,4}=|content=)[ \t]{0,40}" + _OPEN
)
_TAG = re.compile(rb"[ \t]{0,4}>(?P<value>[^<>\s]{6,256})</")
_BARE = re.compile(
    rb"(?P<gap>[ \t]{0,40}(?P<sign>[=:])[ \t]{0,40})(?P<value>[^\s\0\"'`,;(){}\[\]<>|]{6,256})(?=[\s\0;,\"'&]|$)"
)
_OPTION = re.compile(rb"[ =]{1,2}[\"']?(?P<value>[^\s\"'`,;(){}\[\]<>|-][^\s\"'`;(){}\[\]<>|]{7,255})")
# The name in one field, and its value in the next.
_NAME = re.compile(rb"(?:name|key|id|field|param)[\"']?[ \t]{0,4}[:=]>?[ \t]{0,4}[\"']?\Z", re.IGNORECASE)
_PAIRED = re.compile(
    rb"[\"']?[ \t]{0,4},?\s{0,60}[\"']?(?:value|val|default)[\"']?[ \t]{0,4}[:=]>?[ \t]{0,4}"
    rb"[\"']?(?P<value>[^\"'\s,}<>]{6,256})",
    re.IGNORECASE,
)
_START = re.compile(
    rb"[ \t]*(?:-[ \t]+|export[ \t]+|set[ \t]+|ENV[ \t]+|ARG[ \t]+|[;?&][ \t]{0,4})?$|.*[;?&][ \t]{0,4}[\w ]{0,30}$"
)

_NAMED = re.compile(
    r"pass(?:word|wd|phrase|code)?$|pwd$|pass[_.-]?word|passphrase|(?:^|[_.-])pass(?:$|[_.-])|identified", re.IGNORECASE
)
_HARMLESS = re.compile(
    r"(?:[_.-]?(?:ids?|types?|names?|ur[il]s?|endpoints?|paths?|files?|fields?|labels?|length|min|max|expir\w*|ttl|headers?|hint|help"
    r"|placeholder|strength|reset|regex|pattern|errors?|messages?|msg|count|size|algorithms?|class|prefix|suffix|policy|confirm\w*"
    r"|validators?|hashers?|title|text|description|input|form|view|template|param|attr\w*|provider|manager|service|format|required"
    r"|scope|kind|mode|method|encoding|version|status|icon|button|link|page|store|backend|ref|arn|mount|env|var|secretname|salt|args?))$"
    r"|^(?:public|csrf|xsrf|next|page|site|sort|primary|foreign)|csrf|publi[ck]|tokeni[sz]|pass(?:ed|es|ing|ive|port|enger|age|through)"
    r"|compass|bypass|encompass|secretary|passlib",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"example|sample|placehold|change.{0,2}me|changeit|replace|your|dummy|fake|mock|insert|redact|todo|fixme|\bhere\b|goes"
    r"|<|\$[{(\w]|\{\{|\}|%\(|%[sd]|\*{3}|x{4,}|\.{3}|\u2026|^(?:none|null|undefined|true|false|default|disabled|enabled)$"
    r"|^(?:test|demo|temp)?[-_]?(?:user)?(?:pass|passwd|password|secret|token|key|pwd)s?[-_]?\d{0,3}$|^(.)\1+$|foobar|lorem",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(
    r"[A-Za-z_$][A-Za-z_$]*(?:(?:\.|::|->)[A-Za-z_$][\w$]*)+|[A-Z][a-z]+|[A-Z]?[a-z]+(?:[A-Z][a-z]+)+|[a-zA-Z]+(?:_[a-zA-Z]+)+|[A-Z_]+"
)
_QUOTES = (b'"', b"'", b"`")
_WORDLIKE = re.compile(r"[A-Za-z]+(?:[-_.:/ ][A-Za-z]+)*[-_]?[0-9]{0,4}[A-Za-z]{0,10}|[0-9]{4}_\w+")
_WORDS = frozenset(
    [
        "current-password",
        "new-password",
        "password",
        "string",
        "boolean",
        "integer",
        "required",
        "optional",
        "hidden",
        "disabled",
        "invalid",
        "missing",
        "forgotten",
        "expired",
        "request",
        "response",
        "default",
        "object",
        "function",
        "unknown",
        "private",
        "secret",
        "bearer",
        "token",
        "basic",
        "digest",
        "plain",
        "plaintext",
        "external",
        "internal",
        "cookie",
        "session",
        "header",
        "username",
        "changed",
        "generate",
        "generated",
        "random",
        "encrypted",
        "hashed",
        "unauthorized",
        "forbidden",
    ]
)
_HASHES = (b"$2", b"$argon2", b"$5$", b"$6$", b"$apr1$", b"pbkdf2_", b"{SSHA")
_HASH = re.compile(
    rb"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}|\$argon2i?d?\$v=[0-9]{2}\$m=[0-9]{1,8},t=[0-9]{1,4},p=[0-9]{1,3}\$[A-Za-z0-9+/]{8,64}\$[A-Za-z0-9+/]{16,128}"
    rb"|\$[56]\$(?:rounds=[0-9]{1,9}\$)?[./A-Za-z0-9]{4,16}\$[./A-Za-z0-9]{43,86}|\$apr1\$[./A-Za-z0-9]{4,8}\$[./A-Za-z0-9]{22}"
    rb"|pbkdf2_sha(?:256|1)\$[0-9]{4,8}\$[A-Za-z0-9./+=]{6,64}\$[A-Za-z0-9+/]{27,64}=|\{SSHA(?:256|512)?\}[A-Za-z0-9+/]{28,120}"
)
_BASIC = re.compile(rb"[bB]asic[ \t]{1,4}([A-Za-z0-9+/]{8,200}={0,2})")


class Place(NamedTuple):
    """Where a value stands; `usual` is one such as tests have."""

    position: int
    usual: bool = False


def assigned_secrets(text: bytes) -> Iterator[Place]:
    """Find where in `text` a value is given to a name such as `password`, in order."""
    position = 0
    for hint, length in _hints(text.lower()):
        if hint < position:
            continue
        begin = max(0, hint - 60)
        before = _BEFORE.search(text, begin, hint)
        start = before.start() if before else hint
        after = _AFTER.match(text, hint + length)
        position = after.end() if after else hint + length
        name = text[start:position].decode("utf-8", "replace")
        if harmless(name) or _for_browsers(text, start):
            continue
        if value := _given(text, name, start, position):
            yield Place(start, usual=usual_in_tests(value))


def harmless(name: str) -> bool:
    """Tell whether a name that has the word password or the like is of something else, such as of a field's length."""
    return bool(_HARMLESS.search(name))


def usual_in_tests(value: str) -> bool:
    """Tell whether `value` is words and a few digits, as the passwords of tests are."""
    return len(value) <= USUAL_LETTERS and bool(_USUAL.fullmatch(value))


def _for_browsers(text: bytes, start: int) -> bool:
    """Tell whether the names beside it are those of a key that pages carry: Algolia's for searches, Firebase's."""
    beside = text[max(0, start - 240) : start + 240]
    return (b"ndexName" in beside and b"ppId" in beside) or b"essagingSenderId" in beside or b"uthDomain" in beside


def _hints(lowered: bytes) -> list[tuple[int, int]]:
    """Find where a word stands that names of secrets have, in order, with its length."""
    found = []
    for hint in _HINTS:
        position = lowered.find(hint)
        while position >= 0:
            if hint != b"key" or _KEYS.search(lowered, max(0, position - 10), position):
                found.append((position, len(hint)))
            position = lowered.find(hint, position + len(hint))
    return sorted(found)


def _given(text: bytes, name: str, start: int, end: int) -> str:
    """Find the value that is given to `name`, "" where there is none or it can be no secret."""
    if quoted := _QUOTED.match(text, end):
        value = _str(quoted["value"])
        listed, called = quoted["sign"] == b",", quoted["sign"].startswith(b"(")
        if called and not _hints(name.rpartition(".")[2].lower().encode()):
            return ""
        named = listed and (text[start - 1 : start] not in _QUOTES or _WORDLIKE.fullmatch(value))
        return value if could_be(name, value) and not named else ""
    if tagged := _TAG.match(text, end):
        return _if_secret(name, tagged)
    if text[max(0, start - 2) : start + 2].find(b"--") >= 0 and (option := _OPTION.match(text, end)):
        return _if_secret(name, option)
    if bare := _BARE.match(text, end):
        first = text.rfind(b"\n", max(0, start - 200), start) + 1 or max(0, start - 200)
        settled = bool(_START.match(text[first:start])) and (bare["sign"] == b":" or b" " not in bare["gap"])
        return _if_secret(name, bare, bare=not settled)
    if _NAME.search(text, max(0, start - 40), start) and (paired := _PAIRED.match(text, end)):
        return _if_secret(name, paired)
    return ""


def _if_secret(name: str, match: re.Match[bytes], *, bare: bool = False) -> str:
    value = _str(match["value"])
    return value if could_be(name, value, bare=bare) else ""


def _str(value: bytes) -> str:
    return value.decode("utf-8", "replace").rstrip("\\")


def could_be(name: str, value: str, *, bare: bool = False) -> bool:
    """Tell whether `value`, given to `name`, may be a secret. `bare` is one without quotes in the middle of code."""
    if len(value) < 6 or _PLACEHOLDER.search(value) or any(each.isspace() for each in value):
        return False
    if "://" in value or value.startswith(("/", "./", "../", "~/", "@", "#", "--", "sha256-", "sha384-", "sha512-")):
        return False
    mixed = any(each.isdigit() for each in value) and any(each.isalpha() for each in value)
    if bare and not (mixed and entropy(value) >= 3.0 and len(value) >= 10 and not _WORDLIKE.fullmatch(value)):
        return False
    if value.count(",") >= LIST_COMMAS or (value.rstrip("?!.:*").isalpha() and value[-1] in "?!.:*"):
        return False
    if value.casefold() in _WORDS or value.casefold() == name.casefold() or not value.isascii():
        return False
    if _NAMED.search(name):
        spoken = _IDENTIFIER.fullmatch(value) or _is_phrase(value) or "/" in value or "pass" in value
        return mixed or (len(value) >= 8 and not spoken and not (value.isalpha() and value != value.lower()))
    spoken = _IDENTIFIER.fullmatch(value) or _is_phrase(value)
    return mixed and len(value) >= 12 and entropy(value) >= 3.0 and not spoken


def _is_phrase(value: str) -> bool:
    """Tell whether `value` is words and small numbers joined by signs, as names of fields, classes and routes are."""
    parts = re.split(r"[-_.:/]", value)
    return 1 < len(parts) < 8 and all(
        part.isalpha() or (len(part) < 4 and part.isalnum()) or not part for part in parts
    )


def entropy(value: str) -> float:
    """Compute the entropy of `value`, in bits a character."""
    counts = Counter(value)
    return -sum(count / len(value) * log2(count / len(value)) for count in counts.values()) if value else 0.0


def hashed_passwords(text: bytes) -> Iterator[Place]:
    """Find where `text` has the hash of a password, which can be tried at leisure."""
    if not any(mark in text for mark in _HASHES):
        return
    for match in _HASH.finditer(text):
        if entropy(_str(match.group())) >= 4.0:
            yield Place(match.start(), usual=True)


def basic_credentials(text: bytes) -> Iterator[Place]:
    """Find where `text` has a user's name and password as HTTP's Basic authentication sends them."""
    for match in _BASIC.finditer(text) if b"asic " in text else ():
        try:
            user, colon, password = (
                base64.b64decode(match[1] + b"=" * (-len(match[1]) % 4)).decode("ascii").partition(":")
            )
        except (binascii.Error, UnicodeDecodeError):
            continue
        if colon and user.isprintable() and len(password) >= 6 and not _PLACEHOLDER.search(password):
            yield Place(match.start(), usual=usual_in_tests(password))
