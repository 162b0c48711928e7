"""`ashat-node journal`: what was asked of a node, and what was done to it, read on its own machine."""

from __future__ import annotations

from typing import Annotated

import typer

from ashat.node.journal import DIRECTORY, read_journal
from ashat.node.token_cli import Config, Data, data_of
from ashat.wire import Asker, JournalLine

journal_app = typer.Typer(no_args_is_help=True, help="What was asked of this node, and what was done to it.")


@journal_app.command()
def requests(
    by: Annotated[Asker, typer.Option("--by", help="Whose requests.")] = Asker.TOKENS,
    of: Annotated[str, typer.Option("--of", help="Only those of the token or licence with this id.")] = "",
    limit: Annotated[int, typer.Option(help="How many, the newest.", min=1)] = 50,
    config: Config = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what was asked, oldest first: when, who, from where, what, and what came of it. Never a token or a key."""
    for line in reversed(read_journal(data_of(config, data) / DIRECTORY, by, limit=limit, of=of)):
        typer.echo(line.model_dump_json(exclude_defaults=True) if as_json else _in_a_line(line))


def _in_a_line(line: JournalLine) -> str:
    who = line.token or line.licence or "-"
    words = (f"{line.at:%Y-%m-%d %H:%M:%S}Z", f"{who:<12}", f"{line.client:<15}", f"{line.method:<6}", line.path)
    return "  ".join((*words, f"{line.status}", line.detail)).rstrip()
