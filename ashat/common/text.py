"""Texts that people read: printable, and without the secrets that somebody put where none belongs."""

from __future__ import annotations

import re

_SECRETS = re.compile(r"ashat_[A-Za-z0-9_-]{20,}|RACORE(-[0-9A-Fa-f]{8}){3}")


def printable(text: str) -> str:
    """Replace what a terminal would obey, such as control characters, by spaces."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def without_secrets(text: str) -> str:
    """Write a dash into `text` for each token and each licence key that somebody put where none belongs."""
    return _SECRETS.sub("-", text) if "ashat_" in text or "RACORE" in text else text
