"""Implement `deploy public restore`: bring the Public Server back to a release that was approved."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.interrupts import StoppedError
from ashat.common.identifiers import name_of_release

public_app = typer.Typer(help="Put the Public Server right.", no_args_is_help=True)


@public_app.command("restore", short_help="Let Public run again what was approved last.")
def restore(
    update_id: Annotated[
        str, typer.Argument(metavar="[ID]", help="The approved update to go back to.", show_default="the last one")
    ] = "",
    public: Annotated[str, typer.Option(help="The Public Server, by the name of its block.")] = "public",
    reason: Annotated[str, typer.Option(help="Why; the server's change log keeps it.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Let the Public Server run again the release that was approved last, or the one named, where what runs there came
    to nothing and could not be put back."""
    from ashat.common.identifiers import check_server_name, check_update_id

    check_server_name(public)
    if update_id:
        check_update_id(update_id)
    ready(dry_run=dry_run)

    from ashat.cli.terminal.progress import TerminalReporter
    from tasks.runtime.connections import connections
    from tasks.runtime.reporting import use_reporter
    from tasks.servers.restore import plan_restore, restore_public

    if dry_run:
        with connections():
            plan = plan_restore(public, update_id)
        named = name_of_release(plan.runs.bundle, plan.runs.update_id)
        would(f"let {public} run {named}" if plan.changed else "change nothing", f"It runs {plan.before} now")
        return

    try:
        with closing(TerminalReporter()) as reporter, use_reporter(reporter), connections():
            done = restore_public(public, update_id, reason)
    except KeyboardInterrupt:
        raise StoppedError(
            "Interrupted. Public does what it was last asked to; deploy servers shows what it runs."
        ) from None
    runs = name_of_release(done.runs.bundle, done.runs.update_id)
    if done.changed:
        output.say(f"✅ {public} runs {runs} again; before, {done.before}.")
    else:
        output.say(f"✅ {public} runs {runs}, and is healthy: nothing was changed.")
