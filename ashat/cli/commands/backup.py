"""`deploy backup` and `deploy restore`: this home and its ledger in one file, while everything runs, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.output import Json

if TYPE_CHECKING:
    from ashat.cli.control_plane.home_backup import HomeBackup


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new file, on another disk than the home.")],
    without_secrets: Annotated[
        bool, typer.Option("--without-secrets", help="Leave out keys, passwords and the servers' tokens.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Write the ledger, keys, remembered checkpoints and Prefect's database of this home into one file, mode 0600."""
    from ashat.cli.control_plane.home_backup import back_up_home
    from ashat.settings import Settings

    made = back_up_home(Settings(), file, with_secrets=not without_secrets)
    if as_json:
        output.show_json(_facts(file, made))
        return
    files = len(made.header.files)
    output.say(f"✅ {file}: {made.events} events, {files} files, {output.size(file.stat().st_size)}")
    for words in made.left_out:
        output.say(f"Not in it: {words}.")
    if made.header.secrets:
        output.warn("Secrets are in it, unencrypted: keys that sign, and the servers' tokens. Keep it like a key.")
    output.say("Each server's own record is backed up there: ashat-node backup FILE --data DIR")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What deploy backup wrote.")],
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Put a backup into an empty ASHAT_HOME, and its ledger into an empty database. Nothing is overwritten."""
    from ashat.cli.control_plane.home_backup import check_backup, restore_home
    from ashat.settings import Settings

    if dry_run:
        header = check_backup(Settings(), file)
        would(
            f"put {len(header.files)} files into {Settings().home}, as of {header.made_at:%Y-%m-%d %H:%M:%S} UTC",
            f"Written by version {header.version}, {'with' if header.secrets else 'without'} secrets",
            "Whether the ledger's place is free was not looked at." if Settings().ledger_url else "With its ledger",
        )
        return
    found = restore_home(Settings(), file)
    if as_json:
        output.show_json(_facts(file, found))
        return
    output.say(
        f"✅ {Settings().home}: {found.events} events, as of {found.header.made_at:%Y-%m-%d %H:%M:%S} UTC, "
        f"by version {found.header.version}"
    )
    if found.kept:
        output.say("The ledger was there, with all that is in the backup; it was left as it is.")
    if not found.header.secrets:
        output.warn("No secrets were in it: keys are made anew or given again, and the servers are configured again.")
    output.say("Next: deploy audit verify, then deploy up")


def _facts(file: Path, found: HomeBackup) -> dict[str, Any]:
    return {
        "file": str(file),
        "made_at": found.header.made_at,
        "version": found.header.version,
        "events": found.events,
        "files": len(found.header.files),
        "size": found.header.size,
        "secrets": found.header.secrets,
        "left_out": list(found.left_out),
        "ledger_kept": found.kept,
    }
