"""Texts that people read: printable, without secrets, and the line of a program that says why it failed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_SECRETS = re.compile(r"ashat_[A-Za-z0-9_-]{20,}|RACORE(-[0-9A-Fa-f]{8}){3}")


def printable(text: str) -> str:
    """Replace what a terminal would obey, such as control characters, by spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def cut(text: str, length: int) -> str:
    """Shorten `text` to `length` characters; an ellipsis says that there was more."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


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
