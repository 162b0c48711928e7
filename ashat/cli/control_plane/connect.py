"""The control plane as a command sees it: find the one that runs, or start it, and point Prefect's client there.

Prefect reads its settings when it is imported, so `ensure_control_plane` comes before any `import prefect`.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from ashat.cli.control_plane.state import (
    LOG_FILE,
    MARKER,
    ControlState,
    ProcessRef,
    end_processes,
    read_state,
    write_state,
)
from ashat.errors import ControlPlaneError
from ashat.settings import Settings

READY_TIMEOUT = 300.0
STOP_TIMEOUT = 45.0
_POLL = 0.1
_GIVE_UP_SECONDS = 5.0
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
}
# The ledger is the record; Prefect's own history, in which `reconcile` alone is 1440 runs a day, is kept for a month.
_HOUSEKEEPING = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "2592000",
}
_CONSOLE_LEVEL = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"

Say = Callable[[str], None]


@dataclass(frozen=True)
class ControlPlane:
    """Where Prefect answers. `embedded` says that it is ours, not the one that `PREFECT_API_URL` names."""

    api_url: str
    ui_url: str
    embedded: bool

    def run_url(self, flow_run_id: str) -> str:
        """The page of a flow run in the UI."""
        return f"{self.ui_url}/runs/flow-run/{flow_run_id}"


def require_prefect() -> None:
    """Refuse to go on where only the base is installed.

    Raises:
        ControlPlaneError: Prefect is not installed; the message says how to install it.
    """
    if importlib.util.find_spec("prefect") is None:
        raise ControlPlaneError(
            "This command needs Prefect, which is not installed: pip install 'ashat-deploy[operator]'."
        )


def ensure_control_plane(settings: Settings, say: Say = lambda line: None) -> ControlPlane:
    """The control plane to use, which is started, detached, where none runs; `say` is told in one line.

    Prefect's client in this process uses it from then on. With `PREFECT_API_URL` set, that server is used and nothing
    is started.

    Raises:
        ControlPlaneError: Prefect is not installed, the server does not answer, or ours does not start.
    """
    require_prefect()
    if not os.environ.get("ASHAT_DEBUG"):
        os.environ.setdefault(_CONSOLE_LEVEL, "CRITICAL")
        logging.lastResort = logging.NullHandler()  # Prefect's workers log under names that nobody configured
    external = external_control_plane(settings.home)
    if external is not None:
        os.environ.update(_QUIET)
        _check_external(external)
        return external
    state = running_state(settings.home)
    if state is None:
        say("Starting the control plane (deploy down stops it) …")
        state = start_detached(settings)
    elif not wait_for(f"{state.api_url}/health", READY_TIMEOUT, lambda: running_state(settings.home) is not None):
        raise ControlPlaneError(f"The control plane runs but does not answer; see {settings.home / LOG_FILE}.")
    _use(settings.home, state)
    return ControlPlane(state.api_url, state.ui_url, embedded=True)


def running_state(home: Path) -> ControlState | None:
    """The state of the embedded control plane if it is up and ready."""
    state = read_state(home)
    if state is None or not state.ready or state.supervisor is None:
        return None
    return state if state.supervisor.process() else None


def start_detached(settings: Settings, prefect_file: Path | None = None) -> ControlState:
    """Start `deploy up` in a session of its own, unless somebody else is starting it, and wait until it is ready.

    Raises:
        ControlPlaneError: it did not start; the message says why and where its log is.
    """
    home = settings.ensure_home()
    log = home / LOG_FILE
    command = [sys.executable, "-m", "ashat.cli", "up"]
    if prefect_file is not None:
        command += ["--prefect-file", str(prefect_file.resolve())]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=supervisor_environment(settings),
            start_new_session=True,
        )
    began = seen = time.monotonic()
    while (now := time.monotonic()) < began + READY_TIMEOUT:
        state = read_state(home)
        if state is not None and state.supervisor is not None and state.supervisor.process():
            if state.ready:
                return state
            seen = now
        code = child.poll()
        if code:
            raise ControlPlaneError(f"The control plane did not start: {_last_line(log)} Its log is {log}.")
        if code is not None and now - seen > _GIVE_UP_SECONDS:
            raise ControlPlaneError(f"The control plane was stopped while it started; see {log}.")
        time.sleep(_POLL)
    raise ControlPlaneError(f"The control plane was not ready within {READY_TIMEOUT:.0f} s; see {log}.")


def stop(settings: Settings) -> bool:
    """Stop the embedded control plane and all that it started; whether there was anything to stop.

    Raises:
        ControlPlaneError: its supervisor did not end.
    """
    home = settings.home
    state = read_state(home)
    supervisor = state.supervisor.process() if state and state.supervisor else None
    if supervisor is not None:
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.terminate()
            try:
                supervisor.wait(timeout=STOP_TIMEOUT)
            except psutil.TimeoutExpired:
                supervisor.kill()
    ended = end_processes(home, state)
    if state is not None and (state.ready or state.supervisor or state.processes):
        write_state(home, ControlState(port=state.port))
    return supervisor is not None or ended > 0


def supervisor_environment(settings: Settings) -> dict[str, str]:
    """This process's environment for `deploy up`: without tokens, which are read by `deploy configure` alone."""
    environment = {name: value for name, value in os.environ.items() if not _is_token(name)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment.pop("PREFECT_PROFILE", None)
    environment.pop(_CONSOLE_LEVEL, None)
    home = settings.ensure_home().resolve()
    environment["ASHAT_HOME"] = str(home)
    environment["TMPDIR"] = str(_own_temporary_directory(home))
    if settings.ledger_url:
        environment["ASHAT_LEDGER_URL"] = _absolute_ledger(settings.ledger_url)
    return environment | _QUIET


def child_environment(settings: Settings, state: ControlState) -> dict[str, str]:
    """The environment of the server, the workers and, through them, of every flow run."""
    home = settings.home.resolve()
    return (
        _HOUSEKEEPING
        | supervisor_environment(settings)
        | {
            MARKER: str(home),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": state.api_url,
            "PREFECT_UI_URL": state.ui_url,
        }
    )


def wait_for(url: str, timeout: float, worth_waiting: Callable[[], bool] = lambda: True) -> bool:
    """Whether our Prefect answers 200 at `url` within `timeout` seconds; given up when `worth_waiting` says no."""
    deadline = time.monotonic() + timeout
    while not _answers(url):
        if time.monotonic() > deadline or not worth_waiting():
            return False
        time.sleep(_POLL)
    return True


def this_process() -> ProcessRef:
    """The process that asks."""
    reference = ProcessRef.of(os.getpid())
    if reference is None:
        raise ControlPlaneError("This process is not listed by the system; is /proc mounted?")
    return reference


def external_control_plane(home: Path) -> ControlPlane | None:
    """The server that `PREFECT_API_URL` names, if it names one that is not the embedded one of `home`."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    state = read_state(home)
    if not url or (state is not None and url == state.api_url):
        return None
    ui = os.environ.get("PREFECT_UI_URL", "").rstrip("/") or url.removesuffix("/api")
    return ControlPlane(url, ui, embedded=False)


def _check_external(external: ControlPlane) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        trouble = client.api_healthcheck()
    if trouble is not None:
        raise ControlPlaneError(
            f"The Prefect server that PREFECT_API_URL names does not answer ({external.api_url}: "
            f"{type(trouble).__name__}). Start it, or unset PREFECT_API_URL to use the embedded one."
        )


def _use(home: Path, state: ControlState) -> None:
    if "prefect" in sys.modules and os.environ.get("PREFECT_API_URL") != state.api_url:
        raise RuntimeError("prefect was imported before the control plane was known")
    os.environ.pop("PREFECT_PROFILE", None)
    os.environ.update(
        _QUIET
        | {
            "PREFECT_HOME": str(home.resolve() / "prefect"),
            "PREFECT_API_URL": state.api_url,
            "PREFECT_UI_URL": state.ui_url,
        }
    )


def _answers(url: str) -> bool:
    parts = urlsplit(url)
    try:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        try:
            connection.request("GET", parts.path)
            return connection.getresponse().status == HTTPStatus.OK
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError):
        return False


def _own_temporary_directory(home: Path) -> Path:
    """A place for temporary files that no other user shares: Prefect's runner makes one of a fixed name there."""
    temporary = home / "tmp"
    temporary.mkdir(mode=0o700, exist_ok=True)
    return temporary


def _is_token(name: str) -> bool:
    return name.startswith("ASHAT_") and name.endswith("_TOKEN")


def _absolute_ledger(url: str) -> str:
    scheme, separator, path = url.partition(":///")
    if separator and scheme.startswith("sqlite") and path and not path.startswith(("/", ":")):
        return f"{scheme}:///{Path(path).resolve()}"
    return url


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing."
