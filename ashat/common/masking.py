"""Hide in a line of somebody's output what looks like a secret, and what is known to be one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ashat.common.text import without_secrets

LINE_BYTES = 16 * 1024
HIDDEN = "***"
SHORTEST = 6
_ADDRESS = re.compile(r"://[^/\s@]{1,500}@")
_BEARER = re.compile(r"\b(bearer|basic)(\s{1,3})[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)
NAMED = re.compile(
    r"pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key", re.IGNORECASE
)
_VALUE = re.compile(
    rf"""({NAMED.pattern})(["']?\s{{0,3}}[=:]\s{{0,3}})("[^"]{{0,500}}"|'[^']{{0,500}}'|[^\s"',;&]{{1,500}})""",
    re.IGNORECASE,
)


def mask_secrets(line: str, known: Iterable[str] = ()) -> str:
    """Hide what `line` has of the values in `known`, of tokens and licences, of user and password in an address, and
    what follows on a name such as `password=`. A line longer than `LINE_BYTES` is cut there first."""
    line = line[:LINE_BYTES]
    for value in sorted({value for value in known if len(value) >= SHORTEST}, key=len, reverse=True):
        line = line.replace(value, HIDDEN)
    line = _ADDRESS.sub(f"://{HIDDEN}@", without_secrets(line))
    return _VALUE.sub(rf"\1\2{HIDDEN}", _BEARER.sub(rf"\1\2{HIDDEN}", line))
