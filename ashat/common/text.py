"""Texts that people read: the line that tells, and no secret that somebody put where none belongs."""

from __future__ import annotations

import re

_SECRETS = re.compile(r"ashat_[A-Za-z0-9_-]{20,}|RACORE(-[0-9A-Fa-f]{8}){3}")


def without_secrets(text: str) -> str:
    """`text`, with a dash for each token and each licence key that somebody put where none belongs."""
    return _SECRETS.sub("-", text) if "ashat_" in text or "RACORE" in text else text


def last_line(text: str, otherwise: str = "") -> str:
    """Return the last line of `text` that is not blank, which is where a program says why it failed."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else otherwise
