"""`ashat-node journal`: what was asked of a node, and what was done to it, read on its own machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ashat.common.files import read_bounded
from ashat.common.text import printable, printable_json
from ashat.errors import UsageError
from ashat.node.cli.record import Config, Data, data_of, open_record
from ashat.node.core.db import Database
from ashat.node.logs import change_log
from ashat.node.logs.access_log import DIRECTORY, read_access_log
from ashat.node.logs.change_log_audit import Audited, Change, audit, read_changes
from ashat.protocol.messages import AccessLogLine, Caller, Role
from ashat.transparency.checkpoint import LONGEST_NOTE, Checkpoint, Verifier, open_checkpoint
from ashat.transparency.log_signer import LogSigner

journal_app = typer.Typer(no_args_is_help=True, help="What was asked of this node, and what was done to it.")


@journal_app.command()
def requests(
    by: Annotated[Caller, typer.Option("--by", help="Whose requests.")] = Caller.TOKENS,
    of: Annotated[str, typer.Option("--of", help="Only those of the token or licence with this id.")] = "",
    limit: Annotated[int, typer.Option(help="How many, the newest.", min=1)] = 50,
    config: Config = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what was asked, oldest first: when, who, from where, what, and what came of it. Never a token or a key."""
    for line in reversed(read_access_log(data_of(config, data) / DIRECTORY, by, limit=limit, of=of)):
        typer.echo(
            printable_json(line.model_dump_json(exclude_defaults=True)) if as_json else printable(_in_a_line(line))
        )


@journal_app.command("changes")
def show_changes(
    limit: Annotated[int, typer.Option(help="How many, the newest.", min=1)] = 50,
    config: Config = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show what was done to this node, oldest first: when, who asked, and what."""
    with open_record(data_of(config, data)) as database:
        size = change_log.head(database).size
        found = read_changes(database, after=max(size - limit, 0))
    for change in found:
        typer.echo(
            json.dumps({"number": change.number, **change.facts}) if as_json else printable(_change_in_a_line(change))
        )


@journal_app.command()
def checkpoint(config: Config = None, data: Data = None) -> None:
    """Sign and print a checkpoint of the changes, to be kept on another machine; --since of verify takes it."""
    directory = data_of(config, data)
    with open_record(directory) as database:
        note, key = change_log.sign_checkpoint(database, directory)
    typer.echo(note, nl=False)
    typer.echo(f"The key that checks it: {key}", err=True)


@journal_app.command()
def verify(
    since: Annotated[
        list[Path] | None, typer.Option("--since", help="A checkpoint that was kept elsewhere; several times.")
    ] = None,
    key: Annotated[
        str, typer.Option(help="The key that signed it, as checkpoint printed it; by default the one in the data.")
    ] = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """Check the changes, the checkpoints of them, and the record against them; name the first entry that is wrong."""
    notes = [_text(path) for path in since or ()]
    directory = data_of(config, data)
    with open_record(directory) as database:
        signer = LogSigner(directory, change_log.head(database).origin)
        verifier = Verifier.parse(key) if key else signer.verifier()
        known = [open_checkpoint(note, [verifier] if verifier else []) for note in notes]
        last = signer.last()
        found = _audit(database, directory, config, [*known, *([last] if last else [])])
    held = f", as {found.checkpoints} checkpoint{'s' * (found.checkpoints != 1)} signed before" * bool(
        found.checkpoints
    )
    typer.echo(f"{found.size} entries of {found.origin} are in order, root {found.root.hex()[:12]}{held}.")


def _audit(database: Database, directory: Path, config: Path | None, checkpoints: list[Checkpoint]) -> Audited:
    if database.get_meta("role") != Role.OMEGA:
        return audit(database, checkpoints)
    from ashat.node.omega.fleet.fleet import open_fleet  # here, so that other nodes load no SQLAlchemy

    with open_fleet(database, directory, config) as fleet:
        return fleet.audit(checkpoints)


def _text(path: Path) -> str:
    try:
        return read_bounded(path, LONGEST_NOTE).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"The checkpoint {path} cannot be read: {reason}.") from None


def _change_in_a_line(change: Change) -> str:
    facts = dict(change.facts)
    words = (str(change.number), f"{str(facts.pop('at'))[:19]}Z", str(facts.pop("kind")), f"by {facts.pop('by')}:")
    rest = (f"{name} {json.dumps(value)}" for name, value in facts.items() if value not in (None, "", []))
    return "  ".join((*words, ", ".join(rest)))


def _in_a_line(line: AccessLogLine) -> str:
    who = line.token or line.licence or "-"
    words = (f"{line.at:%Y-%m-%d %H:%M:%S}Z", f"{who:<12}", f"{line.client:<15}", f"{line.method:<6}", line.path)
    return "  ".join((*words, f"{line.status}", line.detail)).rstrip()
