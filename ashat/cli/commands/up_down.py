"""`deploy up`, `deploy down`, `deploy worker`: the control plane of this machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from ashat.cli.terminal import output
from ashat.common.text import last_line
from ashat.errors import ControlPlaneError


def up(
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background; return when it is ready.")
    ] = False,
    prefect_file: Annotated[
        Path | None,
        typer.Option(help="Apply the deployments of another prefect.yaml.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Run the control plane: Prefect's server, the pools alpha and control with a worker each, the deployments.

    With PREFECT_API_URL set, that server is prepared instead (pools, blocks, deployments), and nothing is started.
    """
    from ashat.cli.control_plane import connect
    from ashat.cli.control_plane.supervisor import AlreadyRunningError, Supervisor
    from ashat.settings import Settings

    connect.require_prefect()
    settings = Settings()
    external = connect.external_control_plane(settings.home)
    if external is not None:
        connect.use_external(settings, external)
        _prepare(prefect_file)
        output.say(f"✅ {external.api_url} is prepared. Run its workers: deploy worker --pool control (and alpha).")
        return
    state = connect.running_state(settings.home)
    if state is not None:
        output.say(f"The control plane runs already: {state.ui_url}")
        return
    if detach:
        state = connect.start_detached(settings, prefect_file)
        output.say(f"✅ Control plane ready: {state.ui_url}")
        return
    try:
        Supervisor(settings, output.say, prefect_file).run()
        output.say("🛑 The control plane is stopped.")
    except AlreadyRunningError as error:
        output.say(str(error))


def down() -> None:
    """Stop the control plane and everything it started. Gates keep waiting; nothing that is recorded is lost."""
    from ashat.cli.control_plane import connect
    from ashat.settings import Settings

    stopped = connect.stop(Settings())
    output.say("🛑 The control plane is stopped." if stopped else "The control plane is not running.")


def ui(
    password: Annotated[
        bool, typer.Option("--password", help="Print the address, and the password to paste there once.")
    ] = False,
) -> None:
    """Open Prefect's UI in the browser, signed in; without a browser, print its address and the password."""
    from ashat.cli.control_plane import connect, sign_in
    from ashat.cli.control_plane.state import read_password, read_state
    from ashat.settings import Settings

    settings = Settings()
    plane = connect.ensure_control_plane(settings, output.note)
    state = read_state(settings.home)
    if not plane.embedded or state is None:
        output.say(f"{plane.ui_url} (it may ask for what PREFECT_API_AUTH_STRING holds)")
    elif not password and sign_in.open_browser(sign_in.write_sign_in(settings.home, state)):
        output.say(f"{state.ui_url} opens in the browser. If it asks for a password: deploy ui --password")
    else:
        output.say(f"Prefect's UI  {state.ui_url}")
        output.say(f"Password      {read_password(settings.home)}")


def worker(
    pool: Annotated[str, typer.Option(help="The pool to work for: alpha (push, release) or control (the rest).")],
    name: Annotated[str, typer.Option(help="What Prefect calls this worker.")] = "",
    prefect_file: Annotated[
        Path | None,
        typer.Option(help="Run the flows of another prefect.yaml.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Run a worker for one pool, here, until it is stopped."""
    from ashat.cli.control_plane import connect
    from ashat.cli.control_plane.children import POOLS, supervisor_environment, worker_command
    from ashat.cli.control_plane.team import without_servers_own
    from ashat.errors import UsageError
    from ashat.settings import Settings

    if pool not in POOLS:
        raise UsageError(f"There is no pool {pool!r}: use {' or '.join(POOLS)}.")
    settings = Settings()
    differences: list[str] = []
    connect.ensure_control_plane(
        settings, differences.append if connect.external_control_plane(settings.home) else output.note
    )
    if differences:
        raise ControlPlaneError(f"{differences[0]} This worker did not start.")
    seconds = {"PREFECT_WORKER_QUERY_SECONDS": POOLS[pool]}
    environment = without_servers_own(supervisor_environment(settings)) | seconds
    command = worker_command(pool, prefect_file, *(["--name", name] if name else []))
    output.flush()
    os.chdir(settings.home)
    os.execve(command[0], command, environment)  # noqa: S606  no shell is wanted


def _prepare(prefect_file: Path | None) -> None:
    from ashat.cli.control_plane.children import provision_command

    done = subprocess.run(provision_command(prefect_file, "--external"), capture_output=True, text=True, check=False)
    if done.returncode:
        reason = last_line(done.stderr, "no reason was given.")
        raise ControlPlaneError(f"The Prefect server was not prepared: {reason}")
