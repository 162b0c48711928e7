"""Texts that people read: printable, without secrets, and the line of a program that says why it failed."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_HIDDEN_KINDS = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Default_Ignorable_Code_Point of https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt beyond those
# kinds, and the blank of Braille.
_IGNORED = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
_SECRETS = re.compile(r"ashat_[A-Za-z0-9_-]{20,}|RACORE(-[0-9A-Fa-f]{8}){3}")


def printable(text: str) -> str:
    """Write `text` in one line in which everything is seen: spaces of all kinds and line ends as a space, and what
    nobody sees, or what a terminal obeys, escaped, such as `\\x1b` or `\\u202e`."""
    if text.isprintable() and (text.isascii() or not _IGNORED.search(text)):
        return text
    return "".join(map(_seen, text))


def printable_json(text: str) -> str:
    """Escape in a JSON text what nobody sees, or what a terminal obeys, as JSON does: it says the same."""
    return "".join(each if each == "\n" or _seen(each) == each else json.dumps(each)[1:-1] for each in text)


def require_visible(text: str) -> str:
    """Return `text` if it holds no hidden character.

    Raises:
        ValueError: it does; the message names the character.
    """
    if found := hidden_character(text):
        raise ValueError(f"holds {found}, which nobody sees or which turns what is read")
    return text


def hidden_character(text: str) -> str:
    """Name the first character of `text` that nobody sees, or that ends or turns the line; "" where it has none.

    These are control characters, whatever Unicode says is ignored where it is shown, and line and paragraph separators.
    """
    if text.isprintable() and not _IGNORED.search(text):
        return ""
    found = next((letter for letter in text if is_hidden(letter)), "")
    return f"U+{ord(found):04X} {unicodedata.name(found, 'control character')}" if found else ""


def is_hidden(letter: str) -> bool:
    """Tell whether nobody sees that character, or it ends or turns the line."""
    return unicodedata.category(letter) in _HIDDEN_KINDS or _IGNORED.fullmatch(letter) is not None


def _seen(letter: str) -> str:
    if letter in "\t\n\v\f\r" or unicodedata.category(letter) == "Zs":
        return " "
    # The selector that makes an emoji of the character before it is part of our own marks.
    if letter == "\ufe0f" or (letter.isprintable() and not _IGNORED.match(letter)):
        return letter
    return letter.encode("unicode_escape").decode()


def cut(text: str, length: int) -> str:
    """Shorten `text` to `length` characters; an ellipsis says that there was more."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def unescape_markdown(line: str) -> str:
    """Write as plain text a line of Markdown in which what others wrote was escaped."""
    return html.unescape(_ESCAPED.sub(r"\1", line))


def without_secrets(text: str) -> str:
    """Write a dash into `text` for each token and each licence key that somebody put where none belongs."""
    return _SECRETS.sub("-", text) if "ashat_" in text or "RACORE" in text else text


def last_line(text: str, otherwise: str = "") -> str:
    """Return the last line of `text` that is not blank, which is where a program says why it failed."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else otherwise


def first_misfit(error: ValidationError, whole: str = "it") -> str:
    """Say in a line where a value does not fit its model first, and why; `whole` is what the value itself is called."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or whole}: {first['msg']}"
