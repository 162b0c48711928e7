"""Open the OMEGA that a command is about: the one that is named, else the only one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.control_plane.ready import ready
from ashat.cli.terminal.progress import waiting_for
from ashat.errors import NotConfiguredError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.client.node import NodeClient

Omega = Annotated[
    str,
    typer.Option(
        "--omega", metavar="SERVER", help="The OMEGA that offers it.", show_default="the update's, or the only one"
    ),
]


@contextmanager
def open_omega(name: str, update_id: str = "", *, tells: bool = False, dry_run: bool = False) -> Iterator[NodeClient]:
    """Open the OMEGA that is configured as `name`, else the one that the update goes to by the record, else the only
    one, with its token. Where what is asked takes long, that is said, unless whoever asks `tells` how it gets on.

    Raises:
        NotConfiguredError: there is none of that name, none at all, or several and none is named.
    """
    ready(dry_run=dry_run)

    from blocks.listing import configured_servers
    from blocks.server import load_server

    name = name or _target_of(update_id)
    known = [found.block for found in configured_servers() if found.role == "omega"]
    if name and name not in known:
        raise NotConfiguredError(f"No OMEGA {name!r} is configured: deploy servers lists them.")
    if not name and len(known) != 1:
        which = f"Several are configured: {', '.join(known)}. Say which: --omega" if known else "No OMEGA is configured"
        raise NotConfiguredError(f"{which}.")
    server = load_server(name or known[0])
    told = nullcontext() if tells else waiting_for(f"asking {server.title}")
    with told, server.client() as node:
        yield node


def _target_of(update_id: str) -> str:
    """Read which OMEGA an update goes to; "" where the record knows no such update."""
    if not update_id:
        return ""
    with open_ledger() as ledger:
        state = ledger.find(update_id)
    return state.target if state is not None else ""
