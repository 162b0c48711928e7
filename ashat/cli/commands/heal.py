"""Implement `deploy heal`: bring back what a server's store lost of what it runs."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.interrupts import StoppedError
from ashat.errors import AshatError, NotConfiguredError

_AGAIN = "nothing goes on by itself: deploy heal {} goes on with it."


def heal(
    server: Annotated[str, typer.Argument(metavar="SERVER", help="The configured server, such as omega.")],
    dry_run: DryRun = False,
) -> None:
    """Copy what a server's store lost of what it runs, by digest, from another configured server that holds it."""
    ready(dry_run=dry_run)

    from blocks.listing import configured_servers
    from blocks.server import load_server
    from tasks.servers.heal import find_lost
    from tasks.servers.heal import heal as heal_server

    names = [found.block for found in configured_servers()]
    if server not in names:
        raise NotConfiguredError(f"No server {server!r} is configured: deploy servers lists them.")
    with ExitStack() as opened:
        target = opened.enter_context(load_server(server).client())
        if dry_run:
            lost = [each.words for each in find_lost(target)]
            what = (
                f"copy back to {target.name} what its store lost"
                if lost
                else f"change nothing: {target.name} lost nothing"
            )
            would(what, *lost)
            return
        others = [opened.enter_context(load_server(name).client()) for name in names if name != server]
        try:
            count = heal_server(target, others, output.say)
        except KeyboardInterrupt:
            raise StoppedError(f"Interrupted. What was copied stays there; {_AGAIN.format(server)}") from None
        except AshatError as error:
            error.add_note(f"What was copied stays there; {_AGAIN.format(server)}")
            raise
    output.say(f"✅ {server} holds what it needs{' again' if count else ': nothing was lost'}.")
