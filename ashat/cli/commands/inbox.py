"""Implement `deploy inbox`: what waits for a person. Neither Prefect nor a server is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ashat.cli.commands.status_history import control_plane
from ashat.cli.terminal import output
from ashat.cli.terminal.output import Json
from ashat.common.home import home
from ashat.errors import UsageError
from ashat.inbox.gather import gather
from ashat.inbox.waiting import Inbox, Me, Waiting
from ashat.ledger.summaries import document, glance, with_requests

if TYPE_CHECKING:
    from datetime import datetime

_MARKS = {
    "release": "⏳",
    "rollback": "⏪",
    "rollout": "⏸️",
    "window": "🕑",
    "trust": "🔑",
    "server": "⚠️",
    "channel": "⚠️",
    "tracker": "⚠️",
}


def inbox(
    mine: Annotated[
        bool, typer.Option("--mine", help="Only what you can answer: with a key of yours, or as whoever operates this.")
    ] = False,
    key: Annotated[
        list[Path] | None,
        typer.Option("--key", metavar="FILE.pem", help="With --mine: a key of yours that lies elsewhere; repeat it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what waits for a person: since when, until when, who can answer it, and how. The record and the trust roots
    of this home are read; no server is asked."""
    if key and not mine:
        raise UsageError("--key says who you are: give it with --mine.")
    at, root, plane = output.now(), home(), control_plane()
    summaries, troubles = glance()
    found = gather(root, with_requests(summaries), troubles, document, at)
    me = _me(root, key or [], operates=plane is not None) if mine else None
    shown, unseen = (found.of(me) if me else found), [*found.not_looked_at, *_unlooked(plane)]
    if as_json:
        listed = [one.to_data(_link(one, plane)) for one in shown.waiting]
        output.show_json({"waiting": listed, "others": len(found.waiting) - len(listed), "not_looked_at": unseen})
        return
    _say(shown, found, plane, at, mine=mine)
    if unseen:
        output.say()
        output.say("Not looked at")
    for line in unseen:
        output.say(f"  {line}")


def _say(shown: Inbox, found: Inbox, plane: dict[str, str] | None, at: datetime, *, mine: bool) -> None:
    output.say("📥 What waits for you" if mine else "📥 What waits for a person")
    if not shown.waiting:
        output.say("  Nothing.")
    for one in shown.waiting:
        output.say()
        for line in output.columns([(_MARKS[one.kind], one.about, one.what)]):
            output.say(line)
        for line in output.columns(list(_facts(one, at)), indent="     "):
            output.say(line)
        if link := _link(one, plane):
            output.say(f"     form   {link}")  # in one line, so that a terminal makes a link of it
    others = len(found.waiting) - len(shown.waiting)
    if others:
        output.say()
        output.say(f"{others} more {'waits' if others == 1 else 'wait'} for others: deploy inbox")


def _facts(one: Waiting, at: datetime) -> list[tuple[str, str]]:
    since = f"{output.span(at - one.since)} ago, {one.since:%Y-%m-%d %H:%M} UTC" if one.since else "not recorded"
    until = "no end"
    if one.until:
        left = f"in {output.span(one.until - at)}" if one.until > at else f"{output.span(at - one.until)} ago"
        until = f"{left}, {one.until:%Y-%m-%d %H:%M} UTC"
    return [("since", since), ("until", until), ("who", one.who), ("how", one.how)]


def _link(one: Waiting, plane: dict[str, str] | None) -> str:
    return f"{plane['ui_url']}/runs/flow-run/{one.run}" if plane and one.run else ""


def _unlooked(plane: dict[str, Any] | None) -> list[str]:
    """Say what nobody looked at, and how old the look at the servers is."""
    if plane is None:
        return ["the servers, and the runs that ask: the control plane does not run (deploy up starts it)"]
    looked = plane.get("looked_at")
    when = f"after {looked}, when reconcile looked last" if looked else "by this home; reconcile does elsewhere"
    return [f"what servers run {when}: deploy servers asks them"]


def _me(root: Path, keys: list[Path], *, operates: bool) -> Me:
    """Find out who asks: by the keys in this home and those given, and by whether this home has a control plane."""
    if not keys and not any((root / "trust" / "keys").glob("*.pub")):
        return Me(operates=operates)
    from ashat.inbox.trust import key_ids

    return Me(key_ids(root, keys), operates=operates)
