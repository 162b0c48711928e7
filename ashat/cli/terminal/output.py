"""What a person reads: lines on stdout, notes and errors on stderr, JSON on demand.

Nothing here wraps, colours or moves the cursor, so that what a person sees is what a script greps. Whatever came from
a release or a server is cleaned of characters that could steer a terminal.
"""

from __future__ import annotations

import io
import json
import shutil
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
    Stage.AWAITING_WINDOW: "🕑",
}
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_LEAST, _BELOW, _NARROWEST = 40, "    ", 60
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


def columns(rows: Iterable[Sequence[str]], *, indent: str = "  ", width: int | None = None) -> list[str]:
    """Lay rows out as lines with aligned columns, none wider than `width` cells (default: `terminal_width`).

    Nothing is cut. Where the rows are too wide, the last column is folded below itself, or, where hardly any room is
    left for it, below the others.
    """
    table = [[clean(cell) for cell in row] for row in rows]
    if not table:
        return []
    room = (terminal_width() if width is None else width) - len(indent)
    widths = [max(width_of(row[index]) for row in table) for index in range(len(table[0]))]
    return [(indent + line).rstrip() for row in table for line in _folded(row, widths, room)]


def _folded(row: Sequence[str], widths: Sequence[int], room: int) -> list[str]:
    """Lay one row out in lines of `room` cells."""
    first = sum(widths[:-1]) + 2 * (len(widths) - 1)
    left = "".join(cell + " " * (width - width_of(cell) + 2) for cell, width in zip(row[:-1], widths, strict=False))
    if width_of((left + row[-1]).rstrip()) <= room:
        return [left + row[-1]]
    if room - first >= _LEAST:
        start, *rest = wrap(row[-1], room - first)
        return [left + start, *(" " * first + line for line in rest)]
    below = [f"{_BELOW}{line}" for line in wrap(row[-1], room - len(_BELOW))] if row[-1] else []
    fits = width_of(left.rstrip()) <= room
    return [*([left] if fits else _packed([cell for cell in row[:-1] if cell], room)), *below]


def _packed(cells: Sequence[str], room: int) -> list[str]:
    """Put cells into lines of `room` cells, two spaces apart, as many as fit."""
    lines: list[str] = []
    for cell in cells:
        if lines and width_of(lines[-1]) + 2 + width_of(cell) <= room:
            lines[-1] += f"  {cell}"
        elif lines:
            lines += [f"{_BELOW}{line}" for line in wrap(cell, room - len(_BELOW))]
        else:
            lines += wrap(cell, room)
    return lines


def wrap(text: str, width: int) -> list[str]:
    """Fold `text` at its spaces into lines of at most `width` cells; a longer word is broken. One line at least."""
    lines, line = [], ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if width_of(joined) > width and line:
            lines.append(line)
            joined = word
        while width_of(joined) > width:
            end = _fitting(joined, width)
            lines.append(joined[:end])
            joined = joined[end:]
        line = joined
    return [*lines, line]


def _fitting(text: str, width: int) -> int:
    """Count the characters of `text` that fit into `width` cells; one at least."""
    taken = 0
    for count, char in enumerate(text):
        taken += _width_of(char)
        if taken > width:
            return max(count, 1)
    return len(text)


def terminal_width() -> int:
    """Count the cells of a line: what COLUMNS or the terminal says, 80 where nothing does; 60 at least."""
    return max(shutil.get_terminal_size((80, 24)).columns, _NARROWEST)


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
    if char == "\ufe0f":
        return 1  # it makes a picture of two cells of the character before it
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
