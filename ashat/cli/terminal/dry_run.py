"""`--dry-run`: a command that changes something says what it would do, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from ashat.cli.terminal import output

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]


def would(what: str, *steps: str, then: Iterable[str] = ()) -> None:
    """Say what the command would do, with its `steps` below it, `then` what a person should know; and that nothing was
    changed."""
    output.say(f"📋 Would {what}")
    for step in (*steps, *then):
        output.say(f"  {step}")
    output.say("Dry run: nothing was changed.")
