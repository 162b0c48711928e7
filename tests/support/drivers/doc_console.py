"""Runs the commands that a document shows, and compares what they print with what the document shows.

A ```console block is a shell session: a line `$ COMMAND` (going on with `> ` where it ends in a backslash) and, below
it, what it prints. `…` stands for any text within a line; a line that is only `…` for any number of lines. A command
whose output ends in a line with ❌ must fail, any other must succeed. One that ends in ` &` goes on in the background
until the session is closed; it must print what is shown within half a minute.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

COMMAND_SECONDS = 480.0
BACKGROUND_SECONDS = 180.0
END_SECONDS = 20.0
# A line that depends on who is faster, the flow that asks or the person who answers; no document shows it.
WAITS = "The gate is being opened …\n"
FAILED = "❌"
PATIENCE = ("Still waiting (", "  … ")
CHECK = re.compile("[✅❌⚠][^:]+: ")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document. `section` is the heading above it, `line` where it begins."""

    language: str
    section: str
    line: int
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A command as it is shown, and the lines that are shown below it."""

    text: str
    expected: tuple[str, ...]
    line: int


def blocks(document: str) -> Iterator[Block]:
    """Yield every fenced block, in order."""
    section, language, began = "", None, 0
    inside: list[str] = []
    for number, line in enumerate(document.splitlines(), 1):
        fence = re.fullmatch(r"\s*```(\S*).*", line)
        if fence and language is None:
            language, began, inside = fence[1], number, []
        elif fence:
            yield Block(language or "", section, began, tuple(inside))
            language = None
        elif language is not None:
            inside.append(line)
        elif line.startswith("#"):
            section = line.lstrip("#").strip()


def commands(block: Block) -> list[Command]:
    """The commands of a console block.

    Raises:
        ValueError: it begins with something else than a command.
    """
    found: list[tuple[str, list[str], int]] = []
    for number, line in enumerate(block.lines, block.line + 1):
        if line.startswith("$ "):
            found.append((line[2:], [], number))
        elif line.startswith("> ") and found and found[-1][0].endswith("\\"):
            text, expected, began = found[-1]
            found[-1] = (f"{text}\n{line[2:]}", expected, began)
        elif found:
            found[-1][1].append(line)
        else:
            raise ValueError(f"line {number} is printed by no command: {line!r}")
    return [Command(text, tuple(expected), number) for text, expected, number in found]


def matches(expected: tuple[str, ...], printed: str) -> bool:
    """Tell whether `printed` is what is `expected`, however long it took, and in whatever order the checks ended."""
    lines = _checks_sorted(line for line in printed.splitlines() if not line.startswith(PATIENCE))
    printed, expected = "".join(f"{line}\n" for line in lines), tuple(_checks_sorted(expected))
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else ".*".join(map(re.escape, line.rstrip().split("…"))) + r"[ \t]*\n"
        for line in expected
    )
    return re.fullmatch(pattern, printed.rstrip("\n") + "\n" if printed.strip() else "") is not None


def _checks_sorted(lines: Iterable[str]) -> Iterator[str]:
    """Order adjacent lines of checks by their titles, since checks end in any order; leave the other lines in place."""
    for is_check, some in itertools.groupby(lines, key=lambda line: CHECK.match(line) is not None):
        group = list(some)
        yield from sorted(group, key=lambda line: line.partition(": ")[0]) if is_check else group


class Console:
    """A shell session in `home`. `stand_ins` maps what the document shows to what holds here (a port, a name), or to
    a function that is called when it is needed, and may return None while nothing is known."""

    def __init__(
        self, home: Path, environment: Mapping[str, str], stand_ins: Mapping[str, str | Callable[[], str | None]]
    ) -> None:
        self.home = home
        self._stand_ins = stand_ins
        self._environment = dict(environment)
        self._state = home / ".session"
        self._background: list[subprocess.Popen[bytes]] = []

    def run(self, command: Command) -> str:
        """Run a command; what it printed, in the document's words.

        Raises:
            AssertionError: it printed something else than is shown, or ended otherwise; the message shows both.
        """
        began = time.monotonic()
        if command.text.endswith(" &"):
            printed = self._begin(command)
            code = 0
        else:
            code, printed = self._run(self._here(command.text))
            printed = self._shown(printed)
        fails = bool(command.expected) and FAILED in command.expected[-1]
        seconds = f"after {time.monotonic() - began:.1f} s, exit code {code}"
        context = f"line {command.line}: $ {command.text}\n({seconds})\n--- shown\n" + "\n".join(command.expected)
        assert matches(command.expected, printed), f"{context}\n--- printed\n{printed}"
        assert (code != 0) == fails, f"{context}\n--- printed\n{printed}"
        return printed

    def close(self) -> None:
        """End the commands that still run in the background."""
        for process in self._background:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._background:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, text: str) -> tuple[int, str]:
        state = shlex.quote(str(self._state))
        script = f"[ ! -f {state} ] || . {state}\n{text}\nended=$?\nexport -p > {state}\nexit $ended"
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=self.home,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            printed, _ = process.communicate(timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            printed, _ = process.communicate()
            raise AssertionError(f"$ {text}\ndid not end within {COMMAND_SECONDS:g} s\n{printed.decode()}") from None
        return process.returncode, printed.decode("utf-8")

    def _begin(self, command: Command) -> str:
        log = self.home / f".background-{len(self._background)}"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._here(command.text).removesuffix('&')}"],
                cwd=self.home,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._background.append(process)
        deadline = time.monotonic() + BACKGROUND_SECONDS
        while True:
            printed = self._shown(log.read_text("utf-8"))
            if matches((*command.expected, "…"), printed):
                return "\n".join(command.expected)
            if time.monotonic() > deadline or process.poll() is not None:
                return printed
            time.sleep(0.05)

    def _here(self, text: str) -> str:
        for shown, here in self._known():
            text = text.replace(shown, here)
        return text

    def _shown(self, printed: str) -> str:
        printed = printed.replace(WAITS, "")
        for shown, here in self._known():
            printed = printed.replace(here, shown)
        return printed

    def _known(self) -> Iterator[tuple[str, str]]:
        for shown, here in self._stand_ins.items():
            actual = here if isinstance(here, str) else here()
            if actual is not None:
                yield shown, actual
