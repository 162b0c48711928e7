"""What a person reads: lines on stdout, notes and errors on stderr, JSON on demand.

Nothing here wraps, colours or moves the cursor, so that what a person sees is what a script greps. Whatever came from
a release or a server is cleaned of characters that could steer a terminal.
"""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TextIO

import typer

from ashat.common.text import printable, printable_json
from ashat.deployment.stages import Stage

MARKS = {
    Stage.COMPLETED: "✅",
    Stage.FAILED: "❌",
    Stage.REJECTED: "🛑",
    Stage.EXPIRED: "⌛",
    Stage.CANCELLED: "🚫",
    Stage.ROLLED_BACK: "⏪",
    Stage.AWAITING_APPROVAL: "⏳",
}
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CHECK_MARKS = {"pass": "✅", "fail": "❌", "warn": "⚠️", "inconclusive": "⚠️"}
MAINFRAME_MARKS = {"running": "✅", "failed": "❌", "missing": "⏳"}


def prepare_streams() -> None:
    """Let every character be printed, whatever the locale: as UTF-8, or as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


class PipeClosedError(Exception):
    """Whoever read our output has gone: nobody is left to tell."""


def say(line: str = "") -> None:
    """A line on stdout, at once."""
    write(clean(line))


def sentence(clause: str) -> str:
    """Make a sentence of a clause."""
    return f"{clause[:1].upper()}{clause[1:]}."


def write(text: str) -> None:
    """Lines of our own on stdout, as they are."""
    _put(sys.stdout, text.rstrip("\n") + "\n")


def write_exactly(text: str) -> None:
    """Text on stdout, byte for byte; only a terminal gets a line end after it."""
    _put(sys.stdout, text + ("\n" if sys.stdout.isatty() else ""))


def note(line: str) -> None:
    """A line beside the point (what is being started, what to expect), on stderr."""
    _put(sys.stderr, clean(line) + "\n")


def warn(line: str) -> None:
    """A warning, on stderr."""
    note(f"⚠️ {line}")


def show_json(value: Any) -> None:
    """`value` as JSON on stdout; times as RFC 3339."""
    write(printable_json(json.dumps(value, ensure_ascii=False, indent=2, default=_plain)))


def flush() -> None:
    """Let everything be written before this process ends or becomes another."""
    _put(sys.stdout, "")
    _put(sys.stderr, "")


def interactive() -> bool:
    """Whether a person can be asked: both ends are terminals."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def clean(text: object) -> str:
    """`text` in one line in which everything is seen: control characters and overrides are escaped."""
    return printable(str(text))


def columns(rows: Iterable[Sequence[str]], *, indent: str = "  ") -> list[str]:
    """Rows as lines with aligned columns; the last column is as wide as it wants."""
    table = [[clean(cell) for cell in row] for row in rows]
    if not table:
        return []
    widths = [max(width_of(row[index]) for row in table) for index in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True)]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines


def width_of(text: str) -> int:
    """How many cells of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(_width_of(char) for char in text)


def span(duration: timedelta) -> str:
    """A duration in the two largest units that matter: `3 d 4 h`, `12 min`, `8 s`."""
    seconds = max(0, int(duration.total_seconds()))
    days, seconds = divmod(seconds, 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


def size(number: int) -> str:
    """A number of bytes for people: decimal units, as networks and disks are sold."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


def _put(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise PipeClosedError from None


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _width_of(char: str) -> int:
    if unicodedata.combining(char) or char == "\ufe0f":
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
