"""Implement `deploy logs`: what the program of a server wrote last."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal import output
from ashat.cli.terminal.interrupts import when_interrupted
from ashat.cli.terminal.output import Json
from ashat.errors import NodeError, NotConfiguredError, UsageError

if TYPE_CHECKING:
    from ashat.client.node import NodeClient
    from ashat.protocol.fleet import Mainframe

_MOST = 1000
_LOOK_EVERY = 1.0


def logs(
    server: Annotated[
        str, typer.Argument(metavar="SERVER", help="The configured server, or a Mainframe as OMEGA knows it.")
    ] = "public",
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=_MOST, help="At most so many, the newest.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    migrate: Annotated[bool, typer.Option("--migrate", help="What the releases' migrate steps wrote instead.")] = False,
    as_json: Json = False,
) -> None:
    """Show the last lines that the program of a server, or its hook, wrote, without the secrets that the node knows."""
    if follow and as_json:
        raise UsageError("--follow shows lines as they come, and --json one document: give one of them.")
    ready()

    from blocks.listing import configured_servers
    from blocks.server import load_server

    known = configured_servers()
    block = next((one.block for one in known if server in (one.block, one.title)), None)
    if block is None:
        _of_mainframe(server, [one.block for one in known if one.role == "omega"], as_json=as_json)
        return
    with load_server(block).client() as node:
        found = node.program_log(lines, migrate=migrate)
        if as_json:
            output.show_json({"server": block, **found.model_dump(mode="json")})
            return
        for line in found.lines:
            output.say(line)
        if not found.lines:
            output.note(f"{node.name} has nothing in {found.log}.")
        if follow:
            _follow(node, found.position, migrate=migrate)


def _follow(node: NodeClient, position: int, *, migrate: bool) -> None:
    with when_interrupted(f"{node.name} goes on without you."):
        while True:
            time.sleep(_LOOK_EVERY)
            found = node.program_log(_MOST, position, migrate=migrate)
            position = found.position
            for line in found.lines:
                output.say(line)


def _of_mainframe(name: str, omegas: list[str], *, as_json: bool) -> None:
    """Show what came with the last report of the Mainframe of that name or id: nobody can ask it for more."""
    from blocks.server import load_server

    silent: list[str] = []
    for block in omegas:
        with load_server(block).client() as node:
            try:
                one = next((one for one in node.mainframes() if name in (one.name, one.id)), None)
            except NodeError as error:
                silent.append(str(error).rstrip("."))
                continue
            if one is not None:
                _reported(node, block, one, as_json=as_json)
                return
    _unknown(name, silent)


def _reported(node: NodeClient, block: str, one: Mainframe, *, as_json: bool) -> None:
    lines = next((list(report.output) for report in node.mainframe_reports(one.id)), [])
    if as_json:
        output.show_json({"server": one.name, "omega": block, "log": "last report", "lines": lines})
        return
    for line in lines:
        output.say(line)
    told = "That is what its last report brought" if lines else "Its last report brought no lines"
    output.note(
        f"{told}: {one.result}{f', {one.reason}' if one.reason else ''}. Its whole log is app.log on its machine."
    )


def _unknown(name: str, silent: list[str]) -> NoReturn:
    unasked = f" Not asked: {'; '.join(silent)}." if silent else ""
    raise NotConfiguredError(f"No server and no Mainframe {name!r} is known: deploy servers lists them.{unasked}")
