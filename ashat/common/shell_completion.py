"""What makes a shell complete the words of one of our programs. The scripts and their protocol are Typer's."""

from __future__ import annotations

import os

from typer.completion import completion_init, get_completion_script  # type: ignore[attr-defined]

from ashat.errors import UsageError

SHELLS = ("bash", "zsh", "fish")


def script(program: str, shell: str) -> str:
    """Write the script of a program for that shell.

    Raises:
        UsageError: it is not one of `SHELLS`.
    """
    if shell not in SHELLS:
        raise UsageError(f"There is no completion for {shell!r}: use {', '.join(SHELLS)}.")
    return get_completion_script(prog_name=program, complete_var=_variable(program), shell=shell)


def is_asked(program: str) -> bool:
    """Tell whether a shell asks a program for completions; the answer is in the shell's own form then."""
    if _variable(program) not in os.environ:
        return False
    completion_init()
    return True


def _variable(program: str) -> str:
    return f"_{program.upper().replace('-', '_')}_COMPLETE"
