"""Read the secrets that a command needs: from a file, from standard input, or from who is asked."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from ashat.cli.terminal import output
from ashat.common.files import read_bounded
from ashat.errors import UsageError

_LIMIT = 16 * 1024


def given_secrets(file: Path | None, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Read the secrets that are `wanted`, one a line.

    Raises:
        UsageError: one is missing, or nobody is there to be asked.
        KeyFileError: others may read the file, or nobody can.
    """
    if not wanted:
        return ()
    if file is None:
        if not output.interactive():
            raise UsageError(f"Give the {' and the '.join(wanted)} by --secrets FILE, one a line; - is standard input.")
        return tuple(str(typer.prompt(f"The {what}", hide_input=True)).strip() for what in wanted)
    lines = [line.strip() for line in _text(file).splitlines() if line.strip()]
    if len(lines) != len(wanted):
        where = "standard input" if str(file) == "-" else str(file)
        raise UsageError(f"{where} must have {len(wanted)} lines: the {', the '.join(wanted)}; it has {len(lines)}.")
    return tuple(lines)


def _text(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.read(_LIMIT)
    from ashat.trust.keys.files import refuse_open

    refuse_open(file)
    try:
        return read_bounded(file, _LIMIT).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"{file} cannot be read: {reason}.") from None
