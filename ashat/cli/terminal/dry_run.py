"""`--dry-run`: a command that changes something says what it would do, and changes nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from ashat.cli.terminal import output

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]


def would(what: str, *steps: str) -> None:
    """Say what the command would do, with its `steps` and what a person should know below it; and that nothing was
    changed. Empty steps are left out."""
    output.say(f"📋 Would {what}")
    for step in filter(None, steps):
        output.say(f"  {step}")
    output.say("Dry run: nothing was changed.")
