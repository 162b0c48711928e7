"""JSON and TOML of strangers, read within bounds: of bytes, of depth, of numbers, and so of memory and time.

What Python's parsers take is more than anybody means: `NaN`, halves of characters, numbers that no other program
holds, a nesting on which the next function fails. `tomllib` keeps each beginning of a dotted key, so that 20 KB of
dots take half a gigabyte; the text is looked through for that before it is parsed.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from ashat.common.files import read_bounded
from ashat.common.text import cut
from ashat.errors import DocumentError

# Of the small files in which a program remembers what it did.
STATE_LIMIT = 64 * 1024
DEPTH = 100
DIGITS = 300
KEY_PARTS = 32
# Of a TOML text: its tables, lists and dots of keys together. Each may take a kilobyte.
TOML_PARTS = 100_000
# Of its lines and values together; a million takes some seconds.
TOML_VALUES = 500_000

_INTEGERS = range(-(1 << 63), 1 << 63)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_TOML = re.compile(
    r"""
    \#[^\n]*+
    | ""\"(?:[^"\\]++|\\.|"{1,2}+(?!"))*+(?:"{3,5}+)?
    | '''(?:[^']++|'{1,2}+(?!'))*+(?:'{3,5}+)?
    | "(?:[^"\\\n]++|\\.)*+"?
    | '[^'\n]*+'?
    | (?P<number> [+-]?+ (?=\d) \w{300}\w++ )
    | [\w-]++
    | (?P<table> [\[{] )
    | (?P<dot> \. )
    | (?P<end> [\]},=\n] )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)


def load_json(raw: bytes | str, *, limit: int, unique_keys: bool = False) -> Any:
    """Parse JSON of at most `limit` bytes: UTF-8, at most 100 levels deep, no number of more than 300 digits.

    With `unique_keys` no object may have a key twice, of which parsers keep one or the other (RFC 8259, section 4).

    Raises:
        DocumentError: it is none, or exceeds a bound; the message says which, and begins in lower case.
    """
    try:
        text = _text(raw, limit)
        pairs = _each_once if unique_keys else None
        value = json.loads(
            text, parse_int=_integer, parse_float=_real, parse_constant=_no_number, object_pairs_hook=pairs
        )
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except json.JSONDecodeError as error:
        raise DocumentError(str(error)) from None
    _walk(value, _require_whole_characters if _SURROGATE.search(text) else None)
    return value


def read_json(path: Path, *, limit: int) -> Any:
    """Read the JSON in the file `path`, as `load_json` does.

    Raises:
        OSError: the file cannot be read, or has more than `limit` bytes.
        DocumentError: see `load_json`.
    """
    return load_json(read_bounded(path, limit), limit=limit)


def load_toml(raw: bytes | str, *, limit: int) -> dict[str, Any]:
    """Parse TOML of at most `limit` bytes: at most 100 levels deep, 32 parts a key, integers of 64 bits.

    Raises:
        DocumentError: it is none, or exceeds a bound; where its place is known, the message ends as those of `tomllib`
            do, in `(at line 3, column 5)`.
    """
    text = _text(raw, limit)
    _measure(text)
    try:
        value = tomllib.loads(text)
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except ValueError as error:
        raise DocumentError(str(error)) from None
    _walk(value, _require_64_bits)
    return value


_HALF = "a text holds half a character (an unpaired surrogate)"
_TOO_DEEP = f"it is nested too deeply; at most {DEPTH} levels are read"


def _text(raw: bytes | str, limit: int) -> str:
    if len(raw) > limit:
        raise DocumentError(f"it has more than {limit} bytes")
    try:
        return raw.decode("utf-8-sig") if isinstance(raw, bytes) else raw.encode().decode()
    except UnicodeEncodeError:
        raise DocumentError(_HALF) from None
    except UnicodeDecodeError as error:
        raise DocumentError(f"it is not UTF-8 at byte {error.start}") from None


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise DocumentError(f"a number has {len(text)} digits; at most {DIGITS} are read")
    return int(text)


def _real(text: str) -> float:
    if len(text) > DIGITS:
        raise DocumentError(f"a number has {len(text)} digits; at most {DIGITS} are read")
    if math.isinf(number := float(text)):
        raise DocumentError(f"the number {text[:40]} is larger than any that can be read")
    return number


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise DocumentError(f"an object has the key {cut(twice, 60)!r} twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise DocumentError(f"{text} is no JSON")


def _walk(value: Any, check: Callable[[Any], None] | None) -> None:
    """Look at every value and key, level by level, without recursion."""
    level = [value]
    for _ in range(DEPTH + 1):
        if check:
            for each in level:
                check(each)
        inner = [each for each in level if isinstance(each, (dict, list))]
        if not inner:
            return
        items = (item for each in inner for item in (chain(each, each.values()) if isinstance(each, dict) else each))
        level = [item for item in items if check or isinstance(item, (dict, list))]
    raise DocumentError(_TOO_DEEP)


def _require_whole_characters(value: Any) -> None:
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DocumentError(_HALF) from None


def _require_64_bits(value: Any) -> None:
    if isinstance(value, int) and value not in _INTEGERS:
        raise DocumentError("an integer has more than 64 bits; write it as a text")


def _measure(text: str) -> None:
    """Count what `tomllib` keeps of a text, in one pass over its strings, comments and marks."""
    parts = dots = values = 0
    for found in _TOML.finditer(text):
        match found.lastgroup:
            case "dot":
                dots += 1
                parts += 1
            case "table":
                dots = 0
                parts += 1
            case "end":
                dots = 0
                values += 1
            case "number":
                raise DocumentError(f"a number has more than {DIGITS} digits{_place(text, found.start())}")
        if dots >= KEY_PARTS:
            raise DocumentError(f"a key has more than {KEY_PARTS} parts{_place(text, found.start())}")
        if values > TOML_VALUES:
            raise DocumentError(f"more than {TOML_VALUES} lines and values{_place(text, found.start())}")
        if parts > TOML_PARTS:
            raise DocumentError(f"more than {TOML_PARTS} tables, lists and parts of keys{_place(text, found.start())}")


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    return f" (at line {line}, column {position - text.rfind(chr(10), 0, position)})"
