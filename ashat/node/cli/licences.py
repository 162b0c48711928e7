"""`ashat-node licence`: OMEGA's licences, kept from its own machine, whether or not the node runs.

A key is shown once, when it is made: only its hash is kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.common.identifiers import new_key
from ashat.common.text import printable
from ashat.errors import UsageError
from ashat.node.cli.record import Config, Data, data_of, open_record
from ashat.node.cli.secret_output import Out, secret_output
from ashat.protocol.licences import check_licence_name, parse_expiry, parse_licences
from ashat.protocol.messages import Role

if TYPE_CHECKING:
    from ashat.node.omega.fleet.fleet import Fleet
    from ashat.node.omega.fleet.licences import Licence

licence_app = typer.Typer(no_args_is_help=True, help="The licences of Mainframes, on OMEGA.")

Name = Annotated[str, typer.Option(help="Whose install it is, such as a customer.")]
LicenceId = Annotated[str, typer.Argument(metavar="ID", help="As `licence list` shows it.")]
Expires = Annotated[
    str, typer.Option(help="The last day on which it counts (2027-12-31, in UTC), or a time; by default none.")
]


@licence_app.command()
def add(
    name: Name,
    expires: Expires = "",
    config: Config = None,
    data: Data = None,
    out: Out = None,
    old_protocol: Annotated[
        bool, typer.Option("--old-protocol", help="For an install that checks no signature (see docs/node.md).")
    ] = False,
) -> None:
    """Make a licence and print its key, which is shown only now."""
    until = parse_expiry(expires) if expires else None
    with secret_output(out) as write:
        with _open_fleet(config, data) as fleet:
            key = new_key()
            licence, _ = fleet.licences.upsert(key, check_licence_name(name), until)
            if old_protocol:
                fleet.licences.let_speak_old(licence.id, old=True)
        write(key)
    typer.echo(
        f"Licence {licence.id} for {licence.name}, {_until(licence)}. Keep the key: it is not shown again.", err=True
    )


@licence_app.command("import")
def import_(config: Config = None, data: Data = None) -> None:
    """Keep licences that exist: lines of KEY,NAME[,EXPIRES] from standard input, all of them or none."""
    wanted = parse_licences(sys.stdin)
    with _open_fleet(config, data) as fleet:
        for licence, new in fleet.licences.keep_all(wanted):
            typer.echo(f"{licence.id}  {printable(licence.name)}  {_until(licence)}  {'new' if new else 'renewed'}")


@licence_app.command()
def revoke(licence_id: LicenceId, config: Config = None, data: Data = None) -> None:
    """Honour a licence no more, for good. What runs there keeps running; it gets no more releases."""
    with _open_fleet(config, data) as fleet:
        licence = fleet.licences.revoke(licence_id)
    if licence is None:
        raise UsageError(f"There is no licence {licence_id[:40]!r}; see: ashat-node licence list")
    typer.echo(f"Licence {licence.id} for {printable(licence.name)} is revoked.")


@licence_app.command()
def renew(
    licence_id: LicenceId,
    expires: Expires = "",
    config: Config = None,
    data: Data = None,
) -> None:
    """Have a licence end at another time; without --expires it has no end."""
    until = parse_expiry(expires) if expires else None
    with _open_fleet(config, data) as fleet:
        licence = fleet.licences.renew(licence_id, until)
    if licence is None:
        raise UsageError(f"There is no licence {licence_id[:40]!r}; see: ashat-node licence list")
    if licence.status == "revoked":
        raise UsageError(f"The licence {licence.id} for {printable(licence.name)} was revoked for good. Make another.")
    typer.echo(f"Licence {licence.id} for {printable(licence.name)} counts {_until(licence)}.")


@licence_app.command("old-protocol")
def old_protocol(
    licence_id: LicenceId,
    allowed: Annotated[
        bool, typer.Option("--allow/--refuse", help="Whether its install may ask so; it checks no signature.")
    ],
    config: Config = None,
    data: Data = None,
) -> None:
    """Let the install of a licence ask for updates by the old protocol, or no more."""
    with _open_fleet(config, data) as fleet:
        licence = fleet.licences.named(licence_id)
        if licence is None:
            raise UsageError(f"There is no licence {licence_id[:40]!r}; see: ashat-node licence list")
        fleet.licences.let_speak_old(licence.id, old=allowed)
    may = "may ask by the old protocol, UNVERIFIED" if allowed else "may not ask by the old protocol"
    typer.echo(f"Licence {licence.id} for {printable(licence.name)} {may}.")


@licence_app.command("list")
def list_(
    config: Config = None,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON array.")] = False,
) -> None:
    """Show every licence and what its Mainframe last reported; never a key."""
    with _open_fleet(config, data) as fleet:
        expiry = {licence.id: licence.expires for licence in fleet.licences.all()}
        mainframes = fleet.mainframes.all()
    if as_json:
        listed = [
            {**found.model_dump(mode="json"), "expires": at.isoformat() if (at := expiry[found.id]) else None}
            for found in mainframes
        ]
        typer.echo(json.dumps(listed))
        return
    if not mainframes:
        typer.echo("There is no licence yet; make one with: ashat-node licence add --name NAME")
    for found in mainframes:
        words = (
            found.id,
            f"{found.status:<8}",
            f"expires {_minute(expiry[found.id]):<20}",
            f"seen {_minute(found.last_seen):<20}",
            f"{found.result:<7}",
            f"{(found.bundle or '-')[:12]:<12}",
            found.name,
        )
        typer.echo(printable("  ".join(words)))
        if found.old_protocol:
            typer.echo(f"{'':12}  UNVERIFIED: it asks by the old protocol, and checks no signature")
        if found.journal:
            typer.echo(f"{'':12}  it reports: {printable(found.journal)}")


def trust_keys(
    config: Config = None,
    data: Data = None,
    new: Annotated[bool, typer.Option("--new", help="Make new ones first, for deploy trust rotate --online.")] = False,
) -> None:
    """Print the public halves of OMEGA's newest keys, for deploy trust init --omega-keys; made if there are none."""
    from ashat.node.omega.trust import OmegaTrust

    typer.echo(json.dumps(OmegaTrust(_directory(config, data) / "trust").public_keys(new=new)))


def _directory(config: Path | None, data: Path | None) -> Path:
    data = data_of(config, data)
    if not data.is_dir():
        raise UsageError(f"There is no directory {data}; give OMEGA's --data.")
    return data


@contextmanager
def _open_fleet(config: Path | None, data: Path | None) -> Iterator[Fleet]:
    from ashat.node.omega.fleet.fleet import open_fleet  # here, since SQLAlchemy takes a while to load

    data = _directory(config, data)
    with open_record(data, make=True) as database:
        role = database.get_meta("role")
        if role not in (None, Role.OMEGA):
            raise UsageError(f"{data} holds the data of a node of the role {role}; OMEGA keeps the licences.")
        with open_fleet(database, data, config) as fleet:
            yield fleet


def _minute(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC" if at else "never"


def _until(licence: Licence) -> str:
    return f"until {licence.expires:%Y-%m-%d %H:%M} UTC" if licence.expires else "without an end"
