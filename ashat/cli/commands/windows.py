"""Implement `deploy window` and `deploy freeze`: when a release may go to a server."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ashat.cli.terminal import output
from ashat.cli.terminal.output import Json
from ashat.common.calendar import Calendar, Entry, Kind
from ashat.errors import NotConfiguredError, UsageError

if TYPE_CHECKING:
    from blocks.server import RaosServer

window_app = typer.Typer(no_args_is_help=True, help="Say when a release may go to a server.")
freeze_app = typer.Typer(no_args_is_help=True, help="Say when no release may go to a server, whatever window is open.")

On = Annotated[str, typer.Option("--on", metavar="BLOCK", help="The server: public, omega, or another block.")]
Identity = Annotated[str, typer.Argument(metavar="ENTRY", help="Which one, as the list names it.")]
_ID_LENGTH = 8


@window_app.command("add", short_help="Add a window.")
def add_window(
    time: Annotated[
        str, typer.Argument(metavar="TIME", help="Such as 'FREQ=DAILY;BYHOUR=2 PT4H Europe/Berlin' (RFC 5545).")
    ],
    on: On = "omega",
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
) -> None:
    """Let releases go to a server in this time only; with several windows, in each. A release that is approved outside
    waits, and goes by itself once a window opens."""
    _add("window", time, on, note)


@freeze_app.command("add", short_help="Add a freeze.")
def add_freeze(
    time: Annotated[
        str, typer.Argument(metavar="TIME", help="Such as '2026-12-20 P2W Europe/Berlin', or a time that recurs.")
    ],
    on: On = "omega",
    why: Annotated[str, typer.Option(help="Why; whoever waits is shown it.")] = "",
) -> None:
    """Let no release go to a server in this time, whatever window is open. A rollback always may."""
    _add("freeze", time, on, why)


@window_app.command("list", short_help="Each window, and whether it is open.")
def list_windows(on: Annotated[str, typer.Argument(metavar="[BLOCK]")] = "", as_json: Json = False) -> None:
    """List the windows and freezes of each server, or of one, and when it is open."""
    _list(on, as_json=as_json)


@freeze_app.command("list", short_help="Each freeze, and whether it holds.")
def list_freezes(on: Annotated[str, typer.Argument(metavar="[BLOCK]")] = "", as_json: Json = False) -> None:
    """List the windows and freezes of each server, or of one, and when it is open."""
    _list(on, as_json=as_json)


@window_app.command("remove", short_help="Remove a window.")
def remove_window(identity: Identity) -> None:
    """Remove a window. What waits for it goes on within a minute where nothing else holds it."""
    _remove("window", identity)


@freeze_app.command("remove", short_help="Remove a freeze.")
def remove_freeze(identity: Identity) -> None:
    """Remove a freeze. What waits for its end goes on within a minute where nothing else holds it."""
    _remove("freeze", identity)


def identity_of(kind: Kind, text: str) -> str:
    """Name a window or a freeze of a server, by what it says."""
    return sha256(f"{kind} {text}".encode()).hexdigest()[:_ID_LENGTH]


def _add(kind: Kind, time: str, on: str, note: str) -> None:
    entry = Entry.parse(kind, f"{time} {note}")
    _ready()

    from blocks.server import load_server

    server = load_server(on)
    known = server.windows if kind == "window" else server.freezes
    if entry.text not in known:
        known.append(entry.text)
        Calendar.of(server.windows, server.freezes)
        server.save(on, overwrite=True)
    output.say(f"✅ {server.title} has the {kind} {identity_of(kind, entry.text)}: {entry.text}")
    output.say(f"  {_standing(server)}")


def _remove(kind: Kind, identity: str) -> None:
    for name, server in _servers(""):
        known = server.windows if kind == "window" else server.freezes
        found = [text for text in known if identity_of(kind, text) == identity]
        if found:
            known.remove(found[0])
            server.save(name, overwrite=True)
            output.say(f"✅ {server.title} has the {kind} no more: {found[0]}")
            output.say(f"  {_standing(server)}")
            return
    raise UsageError(f"No server has a {kind} {identity[:40]!r}: deploy {kind} list shows those that there are.")


def _list(on: str, *, as_json: bool) -> None:
    found = list(_servers(on))
    if as_json:
        output.show_json({"servers": [_data(name, server) for name, server in found]})
        return
    output.say("🕑 Windows and freezes")
    for name, server in found:
        output.say()
        output.say(f"{server.title} ({name}): {_standing(server)}")
        rows = [(kind, identity_of(kind, text), text) for kind, texts in _kinds(server) for text in texts]
        for line in output.columns(rows):
            output.say(line)


def _kinds(server: RaosServer) -> Iterator[tuple[Kind, list[str]]]:
    yield "window", server.windows
    yield "freeze", server.freezes


def _data(name: str, server: RaosServer) -> dict[str, Any]:
    try:
        closed = server.calendar().closed(output.now())
        standing = {"open": closed is None, "why": closed.why if closed else "", "error": ""}
        opens = closed.opens.isoformat() if closed and closed.opens else None
    except UsageError as error:
        standing, opens = {"open": False, "why": "", "error": str(error)}, None
    entries = [
        {"id": identity_of(kind, text), "kind": kind, "time": text} for kind, texts in _kinds(server) for text in texts
    ]
    return {"block": name, "name": server.title, **standing, "opens": opens, "entries": entries}


def _standing(server: RaosServer) -> str:
    """Say whether a release may go there now, and when next."""
    try:
        closed = server.calendar().closed(output.now())
    except UsageError as error:
        return f"⚠️ closed, since these cannot be read: {error}"
    return f"closed, {closed.words}" if closed else "open now"


def _servers(on: str) -> Iterator[tuple[str, RaosServer]]:
    """Load the configured servers, or the one of that block."""
    _ready()

    from blocks.listing import configured_servers
    from blocks.server import load_server

    names = [on] if on else [server.block for server in configured_servers()]
    if not names:
        raise NotConfiguredError("No server is configured: deploy configure public <url> <name>.")
    for name in names:
        yield name, load_server(name)


def _ready() -> None:
    from ashat.cli.control_plane.connect import ensure_control_plane
    from ashat.settings import Settings

    ensure_control_plane(Settings(), output.note)
