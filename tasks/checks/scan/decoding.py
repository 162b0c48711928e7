"""Reads content as text in the ways in which a credential may be written into it.

The same bytes are looked at as they are; as UTF-16 and UTF-32; with the escapes of JSON, source code, HTML and URLs
undone; and with runs of base64, hexadecimal digits and byte lists decoded, one within the other to `DEPTH`. Line
numbers are those of the outer content.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tasks.checks.scan.der_keys import PAIR_BYTES, is_key_pair
from tasks.checks.scan.joined import from_quoted_printable, joined_literals

DEPTH = 3
RUN_LIMIT = 4 * 1024 * 1024
DECODED_LIMIT = 32 * 1024 * 1024

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE_LE = re.compile(rb"(?:[\t\r\n -~]\0){12,}")
_WIDE_BE = re.compile(rb"(?:\0[\t\r\n -~]){12,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}(?:\r?\n[ \t]{0,16}[A-Za-z0-9+/_-]{4,}){0,2000}={0,2}")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){16,}")
_PARTED = re.compile(rb"(?:[0-9a-fA-F]{2}[:-]){15,}[0-9a-fA-F]{2}")
_BYTES = re.compile(rb"(?:0[xX][0-9a-fA-F]{1,2}[ \t\r\n]{0,16},[ \t\r\n]{0,16}){15,}0[xX][0-9a-fA-F]{1,2}")
_NUMBERS = re.compile(rb"(?:[0-9]{1,3}[ \t\r\n]{0,16},[ \t\r\n]{0,16}){15,}[0-9]{1,3}")
_BLANKS = bytes.maketrans(b"-_", b"+/")
_CODE_POINT = re.compile(rb"\\(?:u00|x)([0-9a-fA-F]{2})")
_SIMPLE = (
    (b"\\\\", b"\\"),
    (b"\\n", b"\r"),
    (b"\\r", b"\r"),
    (b"\\t", b"\t"),
    (b'\\"', b'"'),
    (b"\\'", b"'"),
    (b"\\/", b"/"),
)
_PERCENT = re.compile(rb"%(2[BbFf2]|3[DdAa]|40)")
_PERCENTS = re.compile(rb"(?:%[2-7][0-9A-Fa-f]){6,}")
_NUMBERED = re.compile(rb"&#(?:0{0,4}([3-9][0-9]|1[01][0-9]|12[0-6])|[xX]0{0,4}([2-7][0-9A-Fa-f]));")
_ENTITIES = ((b"&quot;", b'"'), (b"&#34;", b'"'), (b"&#39;", b"'"), (b"&apos;", b"'"), (b"&amp;", b"&"))
_MAGIC = (b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"(\xb5/\xfd", b"0\x82", b"\xfe\xed\xfe\xed",
          b"0\x81", b"0w\x02\x01\x01\x04", b"0.\x02\x01\x000")  # fmt: skip
_PRINTABLE = bytes(range(32, 127)) + b"\t\r\n"
_HEX_LETTERS = b"0123456789abcdefABCDEF"
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-"
_HEAD = 48


def _classes(*classes: bytes) -> bytes:
    """Make a table that gives each byte the number of its class, from 1 on, and 0 if it has none."""
    return bytes(next((number for number, each in enumerate(classes, 1) if byte in each), 0) for byte in range(256))


# Where a run may be is found by the class of each byte, many times faster than by a pattern, which is tried only there.
_WIDE = (
    (_classes(_PRINTABLE, b"\0"), b"\1\2" * 12, _WIDE_LE),
    (_classes(_PRINTABLE, b"\0"), b"\2\1" * 12, _WIDE_BE),
)


@dataclass(frozen=True)
class Reading:
    """One way to read content: its text, the line of the content where it begins, and how it was hidden.

    `whole` is True where line numbers of `text` are those of the content; else every find is on `line`. `again` is True
    where another reading of the same text follows, in which names and values are easier to see.
    """

    text: bytes
    line: int = 1
    how: str = ""
    whole: bool = True
    again: bool = False


def readings(content: bytes, budget: int = DECODED_LIMIT) -> Iterator[Reading]:
    """Read `content` in every way in which it makes text; decoded runs have `budget` bytes in all at most."""
    text = _narrowed(content)
    plain = unescaped(text)
    yield Reading(text, again=plain != text)
    if text is content and b"\0" in content:
        for table, least, pattern in _WIDE:
            for match in _matches(pattern, content, table, least):
                narrow = match.group().replace(b"\0", b"")
                yield Reading(narrow, _line(content, match.start()), "UTF-16", whole=False)
    if plain != text:
        yield Reading(plain)
    if joined := joined_literals(plain):
        yield Reading(joined, how="pieces of text that are joined", again=True)
    position, mail = from_quoted_printable(text)
    if mail:
        yield Reading(mail, _line(text, position), "quoted-printable", whole=False)
    yield from _decoded(plain, budget)


def _narrowed(content: bytes) -> bytes:
    """Return UTF-16 or UTF-32 text with a byte order mark as UTF-8, anything else as it is."""
    for mark, name in _BOMS:
        if content.startswith(mark):
            return content[len(mark) :].decode(name, "replace").encode("utf-8", "replace")
    return content


def unescaped(text: bytes) -> bytes:
    """Undo the escapes of JSON, source code, HTML and URLs; a written line break becomes a carriage return."""
    if b"\\" in text:
        for written, meant in _SIMPLE:
            text = text.replace(written, meant)
        if b"\\u00" in text or b"\\x" in text:
            text = _CODE_POINT.sub(lambda match: bytes.fromhex(match[1].decode()), text)
    if b"%" in text:
        text = _PERCENTS.sub(lambda match: bytes.fromhex(match.group().replace(b"%", b"").decode()), text)
        text = _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), text)
    if b"&" in text:
        for written, meant in _ENTITIES:
            text = text.replace(written, meant)
        if b"&#" in text:
            text = _NUMBERED.sub(lambda match: bytes([int(match[1]) if match[1] else int(match[2], 16)]), text)
    return text


def _decoded(text: bytes, budget: int) -> Iterator[Reading]:
    """Decode the runs in `text`, and those within them, that make text or a file that can be opened."""
    left = [(text, 0, 1, "")]
    while left:
        outer, depth, line, how = left.pop()
        for start, name, inner in _runs(outer):
            budget -= len(inner)
            if budget < 0:
                return
            place = line if depth else _line(outer, start)
            named = f"{how} in {name}" if how else name
            yield Reading(inner, place, named, whole=False)
            if depth + 1 < DEPTH:
                left.append((unescaped(inner), depth + 1, place, named))


def _runs(text: bytes) -> Iterator[tuple[int, str, bytes]]:
    for pattern, table, least, name, decode in _RUNS:
        for match in _matches(pattern, text, table, least):
            if (inner := decode(match.group()[:RUN_LIMIT])) and tells(inner):
                yield match.start(), name, inner


def _matches(pattern: re.Pattern[bytes], text: bytes, table: bytes, least: bytes) -> Iterator[re.Match[bytes]]:
    """Find `pattern` in `text`, but look for it only where the classes of its bytes are as in `least`."""
    classes = text.translate(table)
    position = classes.find(least)
    while position >= 0:
        end = _end(classes, position, least)
        match = pattern.search(text, position, end) if least[0] == least[-1] else pattern.match(text, position)
        if match:
            yield match
        position = classes.find(least, max(end, match.end() if match else 0))


def _end(classes: bytes, position: int, least: bytes) -> int:
    """Find where the run of the classes of `least` that begins at `position` ends."""
    if least[0] == least[-1]:
        end = classes.find(b"\0", position)
        return end if end >= 0 else len(classes)
    return position + len(least)


def _from_hex(run: bytes) -> bytes:
    return bytes.fromhex(run[: len(run) // 2 * 2].decode())


def _from_parted(run: bytes) -> bytes:
    return bytes.fromhex(run.translate(None, b":-").decode())


def _from_numbers(run: bytes, base: int) -> bytes:
    numbers = [int(each, base) for each in run.split(b",") if each.strip()]
    return bytes(numbers) if max(numbers) < 256 else b""


def _from_base64(run: bytes) -> bytes:
    """Decode a run of base64, or return nothing where its beginning is neither text nor a file that can be opened."""
    head = run[: _HEAD // 3 * 4].translate(_BLANKS)
    if b"\n" not in head and not tells(_lenient(head)[:_HEAD]):
        return b""
    return _lenient(run.translate(_BLANKS, b"\r\n \t="))


def _lenient(run: bytes) -> bytes:
    run = run[: len(run) - 1] if len(run) % 4 == 1 else run
    try:
        return base64.b64decode(run + b"=" * (-len(run) % 4))
    except binascii.Error:
        return b""


def tells(content: bytes) -> bool:
    """Tell whether decoded bytes are text, in one of its encodings, or begin as a file that can be opened."""
    if len(content) < 8:
        return False
    if content.startswith(_MAGIC) or (len(content) == PAIR_BYTES and is_key_pair(content)):
        return True
    head = content[:4096]
    narrow = head.replace(b"\0", b"") if head.count(0) * 3 > len(head) else head
    return len(narrow) >= 8 and not narrow.translate(None, _PRINTABLE)


_LISTED = _classes(_HEX_LETTERS + b"xX, \t\r\n")
_RUNS: tuple[tuple[re.Pattern[bytes], bytes, bytes, str, Callable[[bytes], bytes]], ...] = (
    (_HEX, _classes(_HEX_LETTERS), b"\1" * 32, "hexadecimal", _from_hex),
    (_BASE64, _classes(_ALPHABET), b"\1" * 24, "base64", _from_base64),
    (_PARTED, _classes(_HEX_LETTERS + b":-"), b"\1" * 47, "hexadecimal", _from_parted),
    (_BYTES, _LISTED, b"\1" * 46, "a list of bytes", lambda run: _from_numbers(run, 16)),
    (_NUMBERS, _LISTED, b"\1" * 46, "a list of bytes", lambda run: _from_numbers(run, 10)),
)


def _line(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1
