"""The processes of the control plane: the command line and the environment of each are made here and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

from ashat.cli.control_plane.state import MARKER, SERVER_MARKER, ControlState, marker, read_password
from ashat.common.inherited import inherited
from ashat.common.processes import python_module
from ashat.settings import Settings

# Each pool, and how often its worker asks for work: a person waits for what the control pool does.
POOLS = {"alpha": "2", "control": "1"}
CONSOLE_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}
# Settings of Prefect's command or of another server.
_UNWANTED = {
    *("PREFECT_PROFILE", CONSOLE_LEVEL, "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"),
}
_SERVED = ("PREFECT_SERVER_API_", "PREFECT_SERVER_UI_", *(f"PREFECT_UI_{name}" for name in ("API", "SERVE", "STATIC")))
_DEBUGGING = {"ASHAT_DEBUG", "ASHAT_FLOW_COMMAND", "ASHAT_FAULT", "ASHAT_FAULT_DIR", "ASHAT_FAULT_LOG"}
# What the operator's own environment may overrule.
_OVERRULED = {
    # The ledger is the record. Prefect's history is kept for a month.
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "2592000",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # Both are served; the address of a run opens the first, whose Resume is a button, and so does the bare address.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
}


def supervisor_command(prefect_file: Path | None) -> list[str]:
    """Return the command line of `deploy up`, which stays."""
    return python_module("ashat.cli", "up", *_option(prefect_file))


def children(
    settings: Settings, state: ControlState, prefect_file: Path | None = None
) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return the command line and the environment of each process that is kept running, by its name."""
    environment = child_environment(settings, state)
    server = python_module("ashat.cli.control_plane.server", str(state.port))
    found = {"server": (server, _server_environment(environment, state))}
    for pool, seconds in POOLS.items():
        command = worker_command(pool, prefect_file, "--wait")
        found[f"worker-{pool}"] = (command, environment | {"PREFECT_WORKER_QUERY_SECONDS": seconds})
    if settings.reconcile_seconds:
        found["reconcile"] = (python_module("ashat.cli.control_plane.reconciler"), environment)
    return found


def provision_command(prefect_file: Path | None, *options: str) -> list[str]:
    """Return the command line of what prepares a Prefect server."""
    return python_module("ashat.cli.control_plane.provision", *options, *_option(prefect_file))


def worker_command(pool: str, prefect_file: Path | None, *options: str) -> list[str]:
    """Return the command line of a worker for `pool`."""
    return python_module("ashat.cli.control_plane.worker", pool, *options, *_option(prefect_file))


def supervisor_environment(settings: Settings) -> dict[str, str]:
    """Return the environment of `deploy up` and of workers: what is on the list, Prefect's settings and our own.

    Raises:
        UsageError: `ASHAT_PASS_ENVIRONMENT` names a secret, or a variable no proxy or no certificates.
    """
    own = {f"ASHAT_{name.upper()}" for name in Settings.model_fields} | _DEBUGGING
    prefect = {name for name in os.environ if name.startswith("PREFECT_") and not _of_another_server(name)}
    kept = inherited(own | prefect | settings.passed_variables())
    home = settings.ensure_home().resolve()
    # Prefect's runner makes a directory of a fixed name for temporary files: no other user may share where.
    temporary = home / "tmp"
    temporary.mkdir(mode=0o700, exist_ok=True)
    ledger = {"ASHAT_LEDGER_URL": _absolute_ledger(settings.ledger_url)} if settings.ledger_url else {}
    # For the processes that Prefect starts: Python's -P, which keeps it from importing what lies where it stands.
    safe = {"PYTHONSAFEPATH": "1"}
    own_places = {"ASHAT_HOME": str(home), "TMPDIR": str(temporary)}
    return kept | ledger | own_places | proxy_settings(os.environ.get("PREFECT_API_URL", "")) | QUIET | safe


def _of_another_server(name: str) -> bool:
    """Tell whether a variable says where or how another server than ours is served, or is unwanted otherwise."""
    return name in _UNWANTED or (name.startswith(_SERVED) and name not in _OVERRULED)


def proxy_settings(api_url: str) -> dict[str, str]:
    """Return what Prefect's client is told of proxies: loopback, and `api_url` if it is excepted, needs none.

    Raises:
        UsageError: a variable names no proxy or no certificates.
    """
    from ashat.client.environment import for_others  # it takes httpx, which most commands do without

    return for_others(*filter(None, [api_url]))


def child_environment(settings: Settings, state: ControlState) -> dict[str, str]:
    """Return the environment of the server, the workers and, through them, of every flow run."""
    own = {MARKER: marker(settings.home)} | client_settings(settings, state)
    kept = {name: value for name, value in supervisor_environment(settings).items() if name != "PREFECT_API_KEY"}
    return _OVERRULED | kept | own


def client_settings(settings: Settings, state: ControlState) -> dict[str, str]:
    """Return what Prefect's client is told of our own server."""
    home = settings.home.resolve()
    return {
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": state.api_url,
        "PREFECT_UI_URL": state.ui_url,
        "PREFECT_API_AUTH_STRING": read_password(home),
    }


def _server_environment(environment: dict[str, str], state: ControlState) -> dict[str, str]:
    """Return the environment of Prefect's server, which asks for the password that clients show."""
    kept = {name: value for name, value in environment.items() if name != "PREFECT_API_AUTH_STRING"}
    return kept | {
        SERVER_MARKER: environment[MARKER],
        "PREFECT_SERVER_API_AUTH_STRING": environment["PREFECT_API_AUTH_STRING"],
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": state.ui_url,
    }


def _option(prefect_file: Path | None) -> list[str]:
    return ["--prefect-file", str(prefect_file.resolve())] if prefect_file else []


def _absolute_ledger(url: str) -> str:
    scheme, separator, path = url.partition(":///")
    if separator and scheme.startswith("sqlite") and path and not path.startswith(("/", ":")):
        return f"{scheme}:///{Path(path).resolve()}"
    return url
