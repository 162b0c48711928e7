"""Canonical JSON, and the digest of it.

UTF-8, sorted keys, no spaces; objects, lists, strings, integers, booleans and null only. A float has more
than one spelling, so it is refused: figures that are measured travel as integers in a named unit.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

DIGEST = re.compile(r"[0-9a-f]{64}")


def canonical_json(value: Any) -> bytes:
    """Spell `value` in the one way that there is.

    Raises:
        ValueError: it holds a float, a key that is no string, or a type JSON does not have.
    """
    _refuse_inexact(value, "$")
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("utf-8")


def digest_of(value: Any) -> str:
    """Hash `value`'s canonical JSON: its sha256 as 64 lower-case hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def is_digest(text: object) -> bool:
    """Tell whether `text` is a sha256 as this project writes it."""
    return isinstance(text, str) and DIGEST.fullmatch(text) is not None


def _refuse_inexact(value: Any, where: str) -> None:
    if value is None or isinstance(value, (str, bool, int)):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where}: the key {key!r} is not a string")
            _refuse_inexact(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_inexact(item, f"{where}[{index}]")
    else:
        raise ValueError(f"{where}: {type(value).__name__} has no canonical JSON form")
