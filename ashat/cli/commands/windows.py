"""Implement `deploy window` and `deploy freeze`: when a release may go to a server, or to Mainframes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from ashat.cli.control_plane.omega import Omega, open_omega
from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.dry_run import DryRun, would
from ashat.cli.terminal.output import Json
from ashat.common.calendar import Calendar, Entry, Kind
from ashat.errors import NodeError, NotConfiguredError, UsageError

if TYPE_CHECKING:
    from ashat.client.node import NodeClient
    from ashat.protocol.fleet import Freeze
    from blocks.server import RaosServer

    Scope = Literal["fleet", "label", "mainframe"]

window_app = typer.Typer(no_args_is_help=True, help="Say when a release may go to a server.")
freeze_app = typer.Typer(no_args_is_help=True, help="Say when no release may go to a server, whatever window is open.")

On = Annotated[str, typer.Option("--on", metavar="BLOCK", help="The server: public, omega, or another block.")]
Fleet = Annotated[bool, typer.Option("--fleet", help="For every Mainframe of the OMEGA, not for a server.")]
Label = Annotated[str, typer.Option(metavar="KEY=VALUE", help="For the Mainframes with this label.")]
ForMainframe = Annotated[
    str, typer.Option("--mainframe", metavar="NAME", help="For this Mainframe, by its name or id.")
]
Identity = Annotated[str, typer.Argument(metavar="ENTRY", help="Which one, as the list names it.")]
_ID_LENGTH = 8
_NAMED = 5


@window_app.command("add", short_help="Add a window.")
def add_window(
    time: Annotated[
        str, typer.Argument(metavar="TIME", help="Such as 'FREQ=DAILY;BYHOUR=2 PT4H Europe/Berlin' (RFC 5545).")
    ],
    on: On = "omega",
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    fleet: Fleet = False,
    label: Label = "",
    mainframe: ForMainframe = "",
    omega: Omega = "",
    dry_run: DryRun = False,
) -> None:
    """Let releases go to a server in this time only; with several windows, in each. A release that is approved outside
    waits, and goes by itself once a window opens."""
    if fleet or label or mainframe:
        _add_to_fleet(Entry.noted("window", time, note), _scope(fleet, label, mainframe), omega, dry_run=dry_run)
        return
    _add("window", time, on, note, dry_run=dry_run)


@freeze_app.command("add", short_help="Add a freeze.")
def add_freeze(
    time: Annotated[
        str, typer.Argument(metavar="TIME", help="Such as '2026-12-20 P2W Europe/Berlin', or a time that recurs.")
    ],
    on: On = "omega",
    why: Annotated[str, typer.Option(help="Why; whoever waits is shown it.")] = "",
    fleet: Fleet = False,
    label: Label = "",
    mainframe: ForMainframe = "",
    omega: Omega = "",
    dry_run: DryRun = False,
) -> None:
    """Let no release go to a server, or to Mainframes, in this time, whatever window is open. A rollback always may."""
    if fleet or label or mainframe:
        _add_to_fleet(Entry.noted("freeze", time, why), _scope(fleet, label, mainframe), omega, dry_run=dry_run)
        return
    _add("freeze", time, on, why, dry_run=dry_run)


@window_app.command("list", short_help="Each window, and whether it is open.")
def list_windows(on: Annotated[str, typer.Argument(metavar="[BLOCK]")] = "", as_json: Json = False) -> None:
    """List the windows and freezes of each server, or of one, and when it is open."""
    _list(on, as_json=as_json)


@freeze_app.command("list", short_help="Each freeze, and whether it holds.")
def list_freezes(on: Annotated[str, typer.Argument(metavar="[BLOCK]")] = "", as_json: Json = False) -> None:
    """List the windows and freezes of each server, or of one, and when it is open."""
    _list(on, as_json=as_json)


@window_app.command("remove", short_help="Remove a window.")
def remove_window(identity: Identity, dry_run: DryRun = False) -> None:
    """Remove a window. What waits for it goes on within a minute where nothing else holds it."""
    _remove("window", identity, dry_run=dry_run)


@freeze_app.command("remove", short_help="Remove a freeze.")
def remove_freeze(identity: Identity, dry_run: DryRun = False) -> None:
    """Remove a freeze. What waits for its end goes on within a minute where nothing else holds it."""
    _remove("freeze", identity, dry_run=dry_run)


def _scope(fleet: bool, label: str, mainframe: str) -> tuple[Scope, str]:
    """Say for which Mainframes it is.

    Raises:
        UsageError: several are named.
    """
    from ashat.rollouts.labels import parse_label

    if sum(map(bool, (fleet, label, mainframe))) > 1:
        raise UsageError("Say for whom once: --fleet, --label KEY=VALUE or --mainframe NAME.")
    if label:
        return "label", "=".join(parse_label(label))
    return ("mainframe", mainframe) if mainframe else ("fleet", "")


def _add_to_fleet(entry: Entry, scope: tuple[Scope, str], omega: str, *, dry_run: bool) -> None:
    from ashat.cli.commands.fleet import find_mainframe
    from ashat.protocol.fleet import FreezeRequest

    with open_omega(omega, dry_run=dry_run) as node:
        for_whom, subject = scope
        if for_whom == "mainframe":
            subject = find_mainframe(node, subject).id
        if dry_run:
            would(f"give {node.name} the {entry.kind} for {_for_whom(for_whom, subject)}: {entry.text}")
            return
        wanted = FreezeRequest(kind=entry.kind, scope=for_whom, subject=subject, time=entry.text, by=_whoami())
        added = node.add_freeze(wanted)
        held = [one.name for one in node.mainframes() if one.held and one.status == "active"]
    output.say(
        f"✅ {node.name} has the {added.kind} {added.id} for {_for_whom(added.scope, added.subject)}: {added.time}"
    )
    output.say(f"  {len(held)} Mainframes are held now" + (f": {', '.join(sorted(held)[:_NAMED])}" if held else ""))


def _for_whom(scope: Scope, subject: str) -> str:
    if scope == "fleet":
        return "every Mainframe"
    return f"{'Mainframes with' if scope == 'label' else 'the Mainframe'} {subject}"


def _of_fleets(on: str) -> Iterator[tuple[str, NodeClient]]:
    """Open each configured OMEGA, or the one of that block."""
    from blocks.listing import configured_servers
    from blocks.server import load_server

    for server in configured_servers():
        if server.role == "omega" and on in ("", server.block):
            with load_server(server.block).client() as node:
                yield server.block, node


def _fleet_freezes(node: NodeClient) -> list[Freeze] | str:
    """List the windows and freezes of an OMEGA's fleet; in words why not, where it does not say."""
    try:
        return node.freezes()
    except NodeError as error:
        return str(error)


def _whoami() -> str:
    from tasks.runtime.run import whoami

    return whoami()


def identity_of(kind: Kind, text: str) -> str:
    """Name a window or a freeze of a server, by what it says."""
    return sha256(f"{kind} {text}".encode()).hexdigest()[:_ID_LENGTH]


def _add(kind: Kind, time: str, on: str, note: str, *, dry_run: bool) -> None:
    entry = Entry.noted(kind, time, note)
    ready(dry_run=dry_run)

    from blocks.server import load_server

    server = load_server(on)
    known = server.windows if kind == "window" else server.freezes
    if entry.text not in known:
        known.append(entry.text)
        Calendar.of(server.windows, server.freezes)
        if dry_run:
            would(f"give {server.title} the {kind}: {entry.text}", f"{server.title} would be {_standing(server)}")
            return
        server.save(on, overwrite=True)
    output.say(f"✅ {server.title} has the {kind} {identity_of(kind, entry.text)}: {entry.text}")
    output.say(f"  {_standing(server)}")


def _remove(kind: Kind, identity: str, *, dry_run: bool) -> None:
    for name, server in _servers("", dry_run=dry_run):
        known = server.windows if kind == "window" else server.freezes
        found = [text for text in known if identity_of(kind, text) == identity]
        if found:
            known.remove(found[0])
            if dry_run:
                would(
                    f"take the {kind} from {server.title}: {found[0]}", f"{server.title} would be {_standing(server)}"
                )
                return
            server.save(name, overwrite=True)
            output.say(f"✅ {server.title} has the {kind} no more: {found[0]}")
            output.say(f"  {_standing(server)}")
            return
    for _, node in _of_fleets(""):
        kept = _fleet_freezes(node)
        if not isinstance(kept, str) and any((one.kind, one.id) == (kind, identity) for one in kept):
            if dry_run:
                would(f"take the {kind} {identity} from the fleet of {node.name}")
                return
            node.remove_freeze(identity)
            output.say(f"✅ The fleet of {node.name} has the {kind} {identity} no more.")
            return
    raise UsageError(f"Nothing has a {kind} {identity[:40]!r}: deploy {kind} list shows those that there are.")


def _list(on: str, *, as_json: bool) -> None:
    found = list(_servers(on))
    fleets = merge_fleets((name, node.name, _fleet_freezes(node)) for name, node in _of_fleets(on))
    if as_json:
        told = {"servers": [_data(*each) for each in found], "fleets": [_fleet_data(each) for each in fleets]}
        output.show_json(told)
        return
    output.say("🕑 Windows and freezes")
    for name, server in found:
        output.say()
        output.say(f"{server.title} ({name}): {_standing(server)}")
        rows = [(kind, identity_of(kind, text), text) for kind, texts in _kinds(server) for text in texts]
        for line in output.columns(rows):
            output.say(line)

    for fleet in fleets:
        known, title = fleet.known, " and ".join(fleet.names)
        if isinstance(known, str):
            output.say()
            output.say(f"Mainframes of {title}: not listed, {known}")
        elif known:
            output.say()
            output.say(f"Mainframes of {title}")
            for line in output.columns(
                (one.kind, one.id, _for_whom(one.scope, one.subject), one.time) for one in known
            ):
                output.say(line)


class FleetFreezes(NamedTuple):
    """The windows and freezes of a fleet, in words why they are not known; and the blocks of its OMEGA, each with the
    name that this has by it."""

    blocks: list[str]
    names: list[str]
    known: list[Freeze] | str


def merge_fleets(listed: Iterable[tuple[str, str, list[Freeze] | str]]) -> list[FleetFreezes]:
    """Put together what several blocks say of one fleet, such as those of an OMEGA that is configured twice: no two
    fleets have windows and freezes that were added in the same moment. Pure."""
    found: list[FleetFreezes] = []
    for block, name, known in listed:
        same = next((each for each in found if known and each.known == known and not isinstance(known, str)), None)
        if same is None:
            found.append(FleetFreezes([block], [name], known))
        else:
            same.blocks.append(block)
            same.names.extend({name} - set(same.names))
    return found


def _fleet_data(fleet: FleetFreezes) -> dict[str, Any]:
    failed = isinstance(fleet.known, str)
    listed = [] if isinstance(fleet.known, str) else [one.model_dump(mode="json") for one in fleet.known]
    named = {"block": fleet.blocks[0], "blocks": fleet.blocks, "name": fleet.names[0]}
    return {**named, "error": fleet.known if failed else "", "entries": listed}


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


def _servers(on: str, *, dry_run: bool = False) -> Iterator[tuple[str, RaosServer]]:
    """Load the configured servers, or the one of that block."""
    ready(dry_run=dry_run)

    from blocks.listing import configured_servers
    from blocks.server import load_server

    names = [on] if on else [server.block for server in configured_servers()]
    if not names:
        raise NotConfiguredError("No server is configured: deploy configure public <url> <name>.")
    for name in names:
        yield name, load_server(name)
