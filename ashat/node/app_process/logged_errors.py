"""Find in a program's log the errors and tracebacks that it wrote, by kind and bounded, whatever language it is in.

An error is a line of level error or worse, as Python, Java, Node.js, Go, nginx, syslog and JSON logs spell it; a
traceback is known by its frames, and named by the line that says what was raised. Two errors are of one kind where
their lines differ in digits, hexadecimal digits and quoted words only.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ashat.protocol.probes import LoggedError, LoggedErrors

READ_BYTES = 32 * 1024 * 1024
SECONDS = 10.0
LINE_BYTES = 16 * 1024
KINDS = 100
SHOWN = 300
_LOOKED_AT = 1000
_Kind = Literal["traceback", "error"]

_PYTHON = re.compile(r"(?:^|[\s|+])(?:Exception Group )?Traceback \(most recent call last\):")
_RAISED = re.compile(r"[A-Za-z_][\w.]{0,200}(?:$|:)")
_FRAME = re.compile(r"\s+at \S")
_THROWN = re.compile(r"(?:Error|Exception|Throwable|Rejection)\b")
_CRASHES = re.compile(
    r"^panic: |http: panic serving|^thread '[^']{0,100}' (?:\(\d+\) )?panicked at|^fatal error: |Segmentation fault"
    r"|core dumped|PHP (?:Fatal|Parse) error:|^\S{1,300}:\d+:in .{1,300}\(\w*(?:Error|Exception)\)"
)
_LEVELS = re.compile(
    r"(?<![\w./=-])(?:ERROR|CRITICAL|FATAL|SEVERE|EMERG|ALERT|PANIC)(?![\w./=-])"
    r"|(?i:\[(?:error|crit|alert|emerg|fatal)\]"
    r"|\b(?:level|lvl|severity)=\"?(?:error|eror|crit|critical|fatal|panic|alert|emerg)\b"
    r"|\"(?:level|levelname|severity|log\.level|lvl)\"\s?:\s?(?:\"(?:error|critical|fatal|alert|emergency)\"|[56]0\b))"
    r"|^<[0-3]>"
)
_VARYING = re.compile(r"'[^']{0,200}'|\"[^\"]{0,200}\"|0x[0-9a-fA-F]+|[0-9a-fA-F]*\d[0-9a-fA-F-]*")


@dataclass
class _Kinds:
    """The kinds of errors that were found, in the order in which they first came."""

    shown: Callable[[str], str]
    texts: dict[tuple[_Kind, str], str] = field(default_factory=dict)
    counts: Counter[tuple[_Kind, str]] = field(default_factory=Counter)
    left_out: int = 0

    @property
    def count(self) -> int:
        """How many errors there were, of any kind."""
        return self.counts.total() + self.left_out

    def note(self, kind: _Kind, line: str) -> None:
        """Count an error under its kind; of those of more than `KINDS`, only how many there are."""
        text = self.shown(line.strip())[:SHOWN]
        key = kind, _VARYING.sub("#", text)
        if key not in self.texts and len(self.texts) >= KINDS:
            self.left_out += 1
            return
        self.texts.setdefault(key, text)
        self.counts[key] += 1

    def as_messages(self) -> list[LoggedError]:
        """Write down each kind with the first text of it."""
        return [
            LoggedError(kind=kind, signature=signature, text=text, count=self.counts[kind, signature])
            for (kind, signature), text in self.texts.items()
        ]


def find_errors(path: Path, since: int, shown: Callable[[str], str]) -> LoggedErrors:
    """Read what was written after the first `since` bytes of the log, `READ_BYTES` and `SECONDS` of it at most.

    What follows is counted as unread. `shown` hides the secrets of a line, which errors are named by.
    """
    ends = time.monotonic() + SECONDS
    kinds = _Kinds(shown)
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = since if since <= size else 0
            file.seek(begin)
            lines = _Lines(kinds)
            last = min(begin + READ_BYTES, size)
            while (position := file.tell()) < last and time.monotonic() < ends:
                lines.read(file.readline(LINE_BYTES).decode("utf-8", "replace").rstrip())
    except OSError:
        return LoggedErrors(log=path.name)
    return LoggedErrors(
        log=path.name,
        position=max(size, position),
        lines=lines.count,
        unread=max(size - position, 0),
        count=kinds.count,
        left_out=kinds.left_out,
        errors=kinds.as_messages(),
    )


class _Lines:
    """Reads a log line by line, and knows which lines belong to one traceback."""

    def __init__(self, kinds: _Kinds) -> None:
        self._kinds = kinds
        self._before = ""
        self._in_python = self._in_frames = False
        self.count = 0

    def read(self, line: str) -> None:
        """Look at the next line; the empty one ends a traceback that is cut off."""
        self.count += 1
        indented = line[:1].isspace() or line[:1] in ("|", "+")
        if _PYTHON.search(line):
            self._in_python, self._in_frames = True, False
        elif self._in_python and (indented or not line):
            pass
        elif self._in_python:
            self._in_python = False
            self._kinds.note("traceback", line if _RAISED.match(line) else f"Traceback: {line}")
        elif _FRAME.match(line):
            if not self._in_frames and _THROWN.search(self._before) and not self._before.startswith("Caused by"):
                self._kinds.note("traceback", self._before)
            self._in_frames = True
        elif _CRASHES.search(line[:_LOOKED_AT]):
            self._kinds.note("traceback", line)
        elif _LEVELS.search(line[:_LOOKED_AT]):
            self._kinds.note("error", line)
        self._in_frames = self._in_frames and bool(_FRAME.match(line))
        if not self._in_frames:
            self._before = line
