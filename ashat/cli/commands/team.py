"""Implement `deploy team`: the processes of a control plane that several machines share."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ashat.cli.terminal import output
from ashat.errors import ControlPlaneError

if TYPE_CHECKING:
    from ashat.settings import Settings

team_app = typer.Typer(no_args_is_help=True, help="Run the control plane for a team: PostgreSQL, Redis, many servers.")

_UPGRADE = "deploy team upgrade, on one machine, makes it so"


@team_app.command("init", short_help="Write the two settings files of a team.")
def init(
    database: Annotated[str, typer.Option(help="Prefect's database: postgresql://user@host/name.")],
    ledger: Annotated[str, typer.Option(help="The ledger's database, another one: postgresql://user@host/name.")],
    redis: Annotated[str, typer.Option(help="The Redis of all servers: redis://host:6379/0.")],
    url: Annotated[str, typer.Option(help="Where the proxy in front answers machines: https://prefect.example.com.")],
    people_url: Annotated[
        str, typer.Option(help="Where a proxy answers that knows people, if there is one.", show_default="--url")
    ] = "",
    directory: Annotated[Path, typer.Option("--to", metavar="DIRECTORY", help="Where to write them.")] = Path(
        "/etc/ashat"
    ),
) -> None:
    """Write server.env, for the machines that run servers and services, and client.env, for those that run workers
    and for people, with a new password, mode 0600. Both overwrite nothing."""
    from ashat.cli.control_plane import team

    given = team.check_addresses(team.TeamAddresses(database, ledger, redis, url, people_url))
    try:
        team.write_files(directory, team.files_for(given))
    except OSError as error:
        raise ControlPlaneError(f"{directory} cannot be written: {error.strerror}.") from None
    output.say(f"✅ {directory / team.SERVER_FILE} (servers and services), {directory / team.CLIENT_FILE} (all others)")
    output.say(f"Next: set -a; . {directory / team.SERVER_FILE}; set +a; deploy team upgrade")


@team_app.command("upgrade", short_help="Bring both databases to this version.")
def upgrade() -> None:
    """Make the tables of Prefect's database and of the ledger, or bring them to this version's schema. Of several that
    do so at once one works and the others wait. It changes nothing where all is as it should be."""
    from ashat.cli.control_plane import team, team_upgrade

    settings, environment = _prepared()
    team.require_redis(os.environ[team.REDIS])
    for line in team_upgrade.upgrade_databases(settings, environment):
        output.say(line)


@team_app.command("server", short_help="Run one of the team's API servers.")
def server(
    port: Annotated[int, typer.Option(help="The port to listen at.", min=1, max=65535)] = 4200,
    host: Annotated[str, typer.Option(help="The address to listen at; the proxy reaches it.")] = "127.0.0.1",
) -> None:
    """Run one of the team's API servers, without services, until it is stopped. It answers by the names of
    PREFECT_API_URL and PREFECT_UI_URL, which the proxies in front of it serve."""
    settings, environment = _prepared()
    _require_databases(environment)
    from ashat.cli.control_plane.team import SECRET, public_addresses
    from ashat.common.processes import python_module

    public = [word for address in public_addresses() for word in ("--public", address)]
    vouching = {SECRET: os.environ[SECRET]} if os.environ.get(SECRET) else {}
    command = python_module("ashat.cli.control_plane.server", str(port), "--host", host, *public)
    _become(settings, command, environment | vouching)


@team_app.command("services", short_help="Run the team's one set of services.")
def services() -> None:
    """Run what plans scheduled runs, marks late ones and keeps events, until it is stopped: once for the whole team."""
    settings, environment = _prepared()
    _require_databases(environment)
    from ashat.common.processes import python_module

    _become(settings, python_module("prefect", "server", "services", "start"), environment)


def _prepared() -> tuple[Settings, dict[str, str]]:
    from ashat.cli.control_plane.connect import require_prefect
    from ashat.cli.control_plane.team import server_environment
    from ashat.settings import Settings

    require_prefect()
    settings = Settings()
    return settings, server_environment(settings)


def _require_databases(environment: Mapping[str, str]) -> None:
    """Check that both databases and Redis are what this version can use; nothing is changed.

    Raises:
        AshatError: one does not answer, or has another schema.
    """
    from ashat.cli.control_plane import team, team_upgrade

    team.require_redis(os.environ[team.REDIS])
    team_upgrade.require_schemas(environment, _UPGRADE)


def _become(settings: Settings, command: Sequence[str], environment: Mapping[str, str]) -> None:
    output.flush()
    os.chdir(settings.home)
    os.execve(command[0], list(command), dict(environment))  # noqa: S606  no shell is wanted
