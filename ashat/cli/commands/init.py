"""Implement `deploy init`: a first raos.toml for a tree, and what one leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.terminal import output
from ashat.common.text import printable
from ashat.errors import BundleError, UsageError

if TYPE_CHECKING:
    from ashat.raos_toml.look import SourceTree


def init(
    source: Annotated[Path, typer.Option(help="The directory to look at.", show_default="here")] = Path(),
    check: Annotated[bool, typer.Option("--check", help="Say what the raos.toml that is there leaves out.")] = False,
) -> None:
    """Look at a source tree and write a raos.toml, with the reason for each line."""
    from ashat.raos_toml.look import SourceTree

    tree = SourceTree(source)
    if check:
        raise typer.Exit(_check(source, tree))
    _write(source, tree)


def _write(source: Path, tree: SourceTree) -> None:
    from ashat.common.files import create_file
    from ashat.raos_toml.draft import draft
    from ashat.raos_toml.load import NAME, load_raos_toml
    from ashat.raos_toml.recognise import recognise

    if (source / NAME).exists():
        raise UsageError(f"{source / NAME} is there already: deploy init --check says what it leaves out.")
    found = recognise(tree)
    if found is None:
        raise UsageError(
            f"{source} holds nothing that is known here (Django, FastAPI, Flask, Node with a start script, a jar with "
            "a main class, ASP.NET, static files): write raos.toml with [raos] name and version."
        )
    text = draft(tree, found)
    load_raos_toml(text.encode())
    create_file(source / NAME, text.encode(), mode=0o644)
    output.say(
        f"✅ {source / NAME} is written, for {found.kind} ({printable(found.why)}). Read it before the first push."
    )
    if found.others:
        output.say(f"   The source also looks like {', '.join(found.others)}.")
    words = ", ".join(f'"{printable(word)}"' for word in found.command)
    output.say(f"   node.toml of each server runs it, such as by: [app] command = [{words}]")


def _check(source: Path, tree: SourceTree) -> int:
    from ashat.common.files import read_bounded
    from ashat.raos_toml.draft import gaps
    from ashat.raos_toml.load import NAME, SIZE_LIMIT, load_raos_toml
    from ashat.raos_toml.recognise import recognise

    try:
        raw = read_bounded(source / NAME, SIZE_LIMIT)
    except FileNotFoundError:
        raise BundleError(f"{source} has no {NAME}: deploy init writes one.") from None
    found = recognise(tree)
    left_out = gaps(load_raos_toml(raw, str(source / NAME)), found)
    for line in left_out:
        output.say(f"⚠️ {printable(line)}")
    kind = found.kind if found else "a program that deploy does not know"
    if not left_out:
        output.say(f"✅ {source / NAME} leaves nothing out that deploy looks for in {kind}.")
    return 1 if left_out else 0
