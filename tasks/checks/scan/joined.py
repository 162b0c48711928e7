"""Puts together again what source code and mails write in pieces: literals side by side, and soft line breaks."""

from __future__ import annotations

import quopri
import re

_PIECE = rb"(?:\"[^\"\\\r\n]{1,512}\"|'[^'\\\r\n]{1,512}'|`[^`\\\r\n$]{1,512}`)"
_SIGN = (
    rb"(?:[ \t]{0,16}(?:[+.&]|\\)?[ \t]{0,16}\r?\n[ \t]{0,64}|[ \t]{0,16}[+.&][ \t]{0,16}|[ \t]{1,16})"
    rb"(?:[+.&][ \t]{0,16})?"
)
_RUN = re.compile(_PIECE + rb"(?:" + _SIGN + _PIECE + rb"){1,200}")
_EACH = re.compile(_PIECE)
_SIDE_BY_SIDE = re.compile(
    rb"[\"'`][ \t]{0,16}(?:[+.&\\]|\r?\n[ \t]{0,64}|[ \t])[ \t\r\n]{0,64}(?:[+.&][ \t]{0,16})?[\"'`]"
)
_ENCODED = re.compile(rb"quoted-printable", re.IGNORECASE)
_LEAST = 16


def joined_literals(text: bytes) -> bytes:
    """Return the literals of `text` that stand side by side, each run as one word on its own line; b"" without any.

    All else is left out, but the line breaks, so that lines have the numbers that they have in `text`.
    """
    if not _SIDE_BY_SIDE.search(text):
        return b""
    made, position, found = [], 0, False
    for match in _RUN.finditer(text):
        word = b"".join(each[1:-1] for each in _EACH.findall(match.group()))
        if len(word) < _LEAST or b" " in word:
            continue
        found = True
        made += [b"\n" * text.count(b"\n", position, match.start()), b' "', word, b'" ']
        position = match.start()
    return b"".join(made) if found else b""


def from_quoted_printable(text: bytes) -> tuple[int, bytes]:
    """Decode the part of a mail that follows the word quoted-printable; its position, and b"" where there is none."""
    match = _ENCODED.search(text)
    if match is None or b"=" not in text[match.end() :]:
        return 0, b""
    decoded = quopri.decodestring(text[match.end() :])
    return match.end(), decoded if decoded != text[match.end() :] else b""
