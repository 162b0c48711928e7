"""Implement `deploy export` and `deploy import-report`: a release that is carried to a Mainframe by hand, and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.control_plane.omega import Omega, open_omega
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.output import Json
from ashat.common.canonical_json import is_digest
from ashat.common.documents import load_json
from ashat.common.files import read_bounded
from ashat.errors import DocumentError, UsageError

if TYPE_CHECKING:
    from ashat.client.carry import Exported
    from ashat.protocol.carried import CarriedReport


def export(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update that OMEGA offers.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    mainframe: Annotated[
        str, typer.Option("--for", metavar="M", help="The Mainframe that it is carried to, by its name or id.")
    ],
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt.", show_default="the offered")] = None,
    left_out: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="BUNDLE",
            help="Leave out what the bundle of this digest has; 'reported': what the Mainframe reported to run.",
        ),
    ] = "",
    omega: Omega = "",
    as_json: Json = False,
) -> None:
    """Write a release into one file for a Mainframe that has no network: its bytes, who signed it, and every proof.

    There, ashat-node import FILE makes every check of the wire. It says until when the file can be imported.
    """
    from ashat.client import carry

    if left_out not in ("", carry.REPORTED) and not is_digest(left_out):
        raise UsageError("--from takes a bundle's digest, 64 lower-case hex digits, or the word 'reported'.")

    with open_omega(omega, update_id, tells=True) as node, _doing(f"Writing {file}", silent=as_json):
        found = carry.find_mainframe(node, mainframe)
        written = carry.export(node, update_id, attempt, found, file, left_out=left_out or None)
    if as_json:
        output.show_json(_as_json(written, file))
        return
    word = written.word
    output.say(
        f"📦 {file}: {word.offer.update_id}/{word.offer.attempt} for {word.name} ({word.mainframe}), "
        f"{written.file_bytes / 1e6:.1f} MB"
    )
    if written.left_out:
        output.say(f"  It holds {written.objects} objects, without those that {written.left_out[:12]} has.")
    if word.expires:
        output.say(f"  It can be imported until {word.expires:%Y-%m-%d %H:%M} UTC; after that, export it again.")
    output.say(f"  There: ashat-node import {file.name} --report report.json; and back here: deploy import-report")


def import_report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What ashat-node import wrote as its report.")],
    omega: Omega = "",
    dry_run: DryRun = False,
) -> None:
    """Give OMEGA what a Mainframe without a network reported of a release that was carried to it."""
    given = _read_report(file)
    told = given.report
    with open_omega(omega, dry_run=dry_run) as node:
        if dry_run:
            would(f"give {node.name} the report of {given.mainframe}: release_seq {told.release_seq}, {told.result}")
            return
        seen = node.put_carried_report(given)
    reason = seen.waits if told.result == "waiting" else seen.reason
    output.say(f"{seen.name} reported release_seq {told.release_seq} as {told.result}: {reason}")


def _read_report(file: Path) -> CarriedReport:
    from pydantic import ValidationError

    from ashat.protocol.carried import REPORT_LIMIT, CarriedReport

    try:
        return CarriedReport.model_validate(load_json(read_bounded(file, REPORT_LIMIT), limit=REPORT_LIMIT))
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None
    except (DocumentError, ValidationError):
        raise UsageError(f"{file} is no report that ashat-node import wrote, or was altered.") from None


@contextmanager
def _doing(what: str, *, silent: bool) -> Iterator[None]:
    """Say now and then what is being done, unless only JSON is to be printed."""
    if silent:
        yield
        return
    from ashat.cli.terminal.progress import TerminalReporter

    with closing(TerminalReporter()) as reporter, reporter.doing(what):
        yield


def _as_json(written: Exported, file: Path) -> dict[str, object]:
    word = written.word
    return {
        "file": str(file),
        "file_bytes": written.file_bytes,
        "offer": word.offer.model_dump(),
        "mainframe": {"id": word.mainframe, "name": word.name},
        "left_out": written.left_out,
        "objects": written.objects,
        "bytes": written.bytes,
        "expires": word.expires,
    }
