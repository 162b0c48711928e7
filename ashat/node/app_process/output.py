"""Read what the program, or the hook, wrote: its end, bounded, in lines that hide nothing from the eye but secrets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from ashat.common.masking import NAMED, mask_secrets
from ashat.common.text import cut, printable
from ashat.errors import UsageError
from ashat.node.app_process.logged_errors import find_errors
from ashat.node.core.config import NodeConfig
from ashat.protocol.messages import OUTPUT_LINES, OUTPUT_WIDTH, ProgramLog
from ashat.protocol.probes import LoggedErrors

READ_BYTES = 256 * 1024
WIDTH = 1000


class _Read(NamedTuple):
    lines: list[str]
    end: int


class ProgramOutput:
    """The log of the program that this node runs, or of its hook, or another by its name."""

    def __init__(self, config: NodeConfig, name: str = "") -> None:
        self.path = config.data / (name or ("hook.log" if config.app.hook else "app.log"))
        self._config = config

    def size(self) -> int:
        """Count the bytes of the log."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    def last(self, since: int = 0) -> tuple[str, ...]:
        """Return the last lines that were written after the first `since` bytes, fit to go with a reason: at most
        `OUTPUT_LINES` of `OUTPUT_WIDTH` characters. Where the log was cut since, `since` is its beginning."""
        lines = self._shown(self._read(self.path, since).lines[-OUTPUT_LINES:], OUTPUT_WIDTH)
        return tuple(lines)

    def part(self, lines: int, after: int | None = None) -> ProgramLog:
        """Return the last `lines` lines, or those after the first `after` bytes; and where they end."""
        found = self._read(self.path, after or 0)
        wanted = found.lines
        if after is None and len(wanted) < lines:
            wanted = [*self._read(self.path.with_name(f"{self.path.name}.1"), 0).lines, *wanted]
        return ProgramLog(log=self.path.name, lines=self._shown(wanted[-lines:], WIDTH), position=found.end)

    def errors(self, since: int) -> LoggedErrors:
        """Find the errors and tracebacks that were written after the first `since` bytes."""
        known = self._secrets()
        return find_errors(self.path, since, lambda line: printable(mask_secrets(line, known)))

    def _shown(self, lines: list[str], width: int) -> list[str]:
        known = self._secrets()
        return [cut(printable(mask_secrets(line.rstrip(), known)), width) for line in lines]

    def _secrets(self) -> set[str]:
        """Collect the values in the settings that nobody is shown: the DSN, and variables with a telling name."""
        values = {value for name, value in self._config.app.env.items() if NAMED.search(name)}
        try:
            dsn = self._config.database.read_dsn()
        except UsageError:
            dsn = None
        if dsn is not None:
            text = dsn.get_secret_value()
            values |= {text, text.partition("://")[2].rpartition("@")[0].partition(":")[2]}
        return values

    @staticmethod
    def _read(path: Path, since: int) -> _Read:
        """Read the lines at the end of `path`, `READ_BYTES` of it at most. A line that begins before that is left out,
        since half a secret would not be known as one; of a line that is all there is, nothing is shown."""
        try:
            with open(path, "rb") as file:
                end = file.seek(0, os.SEEK_END)
                begin = max(since if since <= end else 0, end - READ_BYTES)
                file.seek(max(begin - 1, 0))
                content = file.read(end - max(begin - 1, 0))
        except OSError:
            return _Read([], 0)
        before, content = (b"\n", content) if begin == 0 else (content[:1], content[1:])
        if before != b"\n" and begin != since:
            content = content.partition(b"\n")[2]
        lines = content.decode("utf-8", "replace").split("\n")
        return _Read(lines[:-1] if not lines[-1] else lines, end)
