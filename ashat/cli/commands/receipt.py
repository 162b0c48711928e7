"""`deploy receipt`: one file by which a customer sees for themselves what was approved, and by whom."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ashat.cli.terminal import output
from ashat.common.home import home
from ashat.errors import UsageError
from ashat.ledger.opening import open_ledger


def receipt(
    update_id: Annotated[str, typer.Argument(metavar="ID", help="The update that was approved.")],
    attempt: Annotated[int | None, typer.Option(min=1, help="Of this attempt.", show_default="the last")] = None,
    mainframe: Annotated[
        str, typer.Option(metavar="M", help="Also what became of it on that Mainframe, by its id or name.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The file to write.", show_default="in ASHAT_HOME/receipts"),
    ] = None,
) -> None:
    """Write what the approvers signed, the evidence, and its place in the record into one file.

    A customer holds it against the root.json that came with their installer: ashat-node verify-receipt FILE.
    """
    from ashat.common.files import replace_file
    from ashat.receipts.write import write_receipt

    with open_ledger() as ledger:
        written = write_receipt(ledger, home(), ledger.load(update_id, attempt), mainframe)
    path = out or home() / "receipts" / f"{update_id}.receipt.json"
    try:
        if out is None:
            path.parent.mkdir(mode=0o700, exist_ok=True)
        replace_file(path, written.receipt.to_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
    output.say(f"🧾 {path}: ashat-node verify-receipt {path} --root root.json")
    if written.log_key:
        output.say(
            f"  The approvers signed for no log yet; give --log-key, from you and not from the file: {written.log_key}"
        )
    if written.others:
        output.warn(f"It also names {', '.join(written.others)}: one event tells of every Mainframe that was served.")
