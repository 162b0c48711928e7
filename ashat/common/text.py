"""Texts that people read: without the secrets that somebody put where none belongs."""

from __future__ import annotations

import re

_SECRETS = re.compile(r"ashat_[A-Za-z0-9_-]{20,}|RACORE(-[0-9A-Fa-f]{8}){3}")


def without_secrets(text: str) -> str:
    """`text`, with a dash for each token and each licence key that somebody put where none belongs."""
    return _SECRETS.sub("-", text) if "ashat_" in text or "RACORE" in text else text
