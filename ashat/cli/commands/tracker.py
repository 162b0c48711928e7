"""Implement `deploy tracker`: which trackers hear of the releases that bring their tasks, and whether they do."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from ashat.cli.control_plane.api import kept_variable
from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.output import Json
from ashat.cli.terminal.secret_input import given_secrets
from ashat.common.identifiers import check_server_name
from ashat.common.trackers import VARIABLE, Tracker, trackers_of
from ashat.errors import NotConfiguredError, TrackerError

tracker_app = typer.Typer(no_args_is_help=True, help="Say which trackers hear of the releases that bring their tasks.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tracker's name.")]


@tracker_app.command("add", short_help="Add a tracker, or change it.")
def add(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="github, gitlab, jira or webhook.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of your own, such as issues.")],
    project: Annotated[str, typer.Option(help="github: OWNER/NAME. gitlab: GROUP/NAME, or its number.")] = "",
    url: Annotated[str, typer.Option(help="jira: its address. github, gitlab: of one of your own.")] = "",
    key_prefix: Annotated[
        list[str] | None, typer.Option("--key-prefix", help="What its keys begin with, such as PROJ-; repeat it.")
    ] = None,
    done: Annotated[
        str, typer.Option(metavar="STATE", help="A task's state once its release is completed; none: it stays.")
    ] = "",
    secrets: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A file with the secrets, one a line; - is standard input.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Add a tracker whose tasks hear of the releases that bring them, from now on. Its token is asked for, or read from
    a file; never give it as a word of the command."""
    check_server_name(name)
    ready(dry_run=dry_run)

    from blocks.tracker_kinds import Given, make_tracker, save_tracker, secrets_of
    from tasks.reconcile.trackers import tell_from_now_on
    from tasks.runtime.connections import connections

    given = given_secrets(secrets, secrets_of(kind))
    made = Given(project, url, tuple(dict.fromkeys(key_prefix or ())), done.strip(), given)
    block, prefixes = make_tracker(kind, made)
    if dry_run:
        would(f"let {name} ({kind}) hear of tasks such as {prefixes[0]}12", "Whether it answers was not looked at.")
        return
    tracker = save_tracker(block, kind, name, prefixes)
    with connections():
        tell_from_now_on(tracker)
    output.say(f"✅ {tracker.block} hears of tasks such as {tracker.prefixes[0]}12 from now on.")
    output.say(f"Whether it answers: deploy tracker test {name}")


@tracker_app.command("list", short_help="Each tracker, and whether it took what it was told last.")
def list_trackers(as_json: Json = False) -> None:
    """List each tracker, what its keys begin with, and whether it took what it was told last."""
    from ashat.ledger.summaries import last_messages

    trackers, last = _known(), last_messages()
    if as_json:
        shown = [
            {
                "tracker": tracker.block,
                "kind": tracker.kind,
                "key_prefixes": list(tracker.prefixes),
                "last_at": last.get(tracker.block, {}).get("at"),
                "last_got_through": not last[tracker.block]["why"] if tracker.block in last else None,
                "why": last.get(tracker.block, {}).get("why") or None,
            }
            for tracker in trackers
        ]
        output.show_json({"trackers": shown})
        return
    output.say("🗂️ Trackers")
    if not trackers:
        output.say("  No tracker hears of tasks. Add one: deploy tracker add github issues --project OWNER/NAME")
    for line in output.columns(_row(tracker, last.get(tracker.block)) for tracker in trackers):
        output.say(line)


@tracker_app.command("test", short_help="Ask a tracker whether it knows us.")
def test(name: Name) -> None:
    """Ask a tracker from this machine whether it knows us, and say what it answered; a webhook gets an event of its
    own."""
    tracker = _find(name)
    ready()

    from tasks.reconcile.trackers import COMMENT_SECONDS, TRACKER, load_tracker
    from tasks.runtime.in_time import in_time

    try:
        said = in_time(COMMENT_SECONDS, lambda: load_tracker(tracker.block).look(), TRACKER)
    except TimeoutError:
        raise TrackerError(f"{tracker.block}: it did not answer within {COMMENT_SECONDS:g} s.") from None
    except TrackerError as error:
        raise TrackerError(f"{tracker.block}: {error}.") from None
    output.say(f"✅ {tracker.block}: {said}")


@tracker_app.command("remove", short_help="Remove a tracker, with its secrets.")
def remove(name: Name, dry_run: DryRun = False) -> None:
    """Remove a tracker: it hears of nothing any more, and its block, which holds its secrets, is deleted."""
    tracker = _find(name)
    if dry_run:
        would(f"remove {tracker.block} with its secrets; it hears of tasks such as {tracker.prefixes[0]}12 now")
        return
    ready()

    from blocks.tracker_kinds import remove_tracker
    from tasks.reconcile.trackers import forget_place
    from tasks.runtime.connections import connections
    from tasks.runtime.notify import forget

    remove_tracker(tracker)
    forget_place(tracker.block)
    with connections():
        forget(tracker.block)
    output.say(f"✅ {tracker.block} is removed.")


def _known() -> list[Tracker]:
    return trackers_of(kept_variable(VARIABLE, "trackers"))


def _find(name: str) -> Tracker:
    """Find a tracker by its name, or by its type and name.

    Raises:
        NotConfiguredError: there is none, or more than one.
    """
    found = [tracker for tracker in _known() if name in (tracker.block, tracker.block.partition("/")[2])]
    if not found:
        raise NotConfiguredError(f"There is no tracker {name!r}: deploy tracker list shows those that there are.")
    if len(found) > 1:
        raise NotConfiguredError(f"Which one? {' or '.join(tracker.block for tracker in found)}")
    return found[0]


def _row(tracker: Tracker, last: dict[str, str] | None) -> tuple[str, ...]:
    mark, what = "❔", "it was told nothing yet"
    if last is not None:
        ago = output.span(output.now() - datetime.fromisoformat(last["at"]))
        mark = "❌" if last["why"] else "✅"
        what = f"{ago} ago: {last['why']}" if last["why"] else f"it took what it was told last, {ago} ago"
    return mark, tracker.block, " ".join(tracker.prefixes), what
