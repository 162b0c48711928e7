"""The control plane as a command sees it: find the one that runs, or start it, and point Prefect's client there.

Prefect reads its settings when it is imported, so `ensure_control_plane` comes before any `import prefect`.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from ashat import __version__
from ashat.cli.control_plane.children import (
    CONSOLE_LEVEL,
    QUIET,
    client_settings,
    proxy_settings,
    supervisor_command,
    supervisor_environment,
)
from ashat.cli.control_plane.state import (
    LOG_FILE,
    PASSWORD_FILE,
    ControlState,
    end_processes,
    read_password,
    read_state,
    write_state,
)
from ashat.cli.control_plane.versions import APPLIED, Versions, applied_version, installed_version, version_difference
from ashat.common.processes import end, last_words, start
from ashat.errors import ControlPlaneError
from ashat.settings import Settings

# Where our packages are, side by side.
_HERE = Path(__file__).resolve().parents[3]
READY_TIMEOUT = 300.0
STOP_TIMEOUT = 45.0
_POLL = 0.1
_GIVE_UP_SECONDS = 5.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class ControlPlane:
    """Where Prefect answers. `embedded` says that it is ours, not the one that `PREFECT_API_URL` names."""

    api_url: str
    ui_url: str
    embedded: bool

    def run_url(self, flow_run_id: str) -> str:
        """Return the address of a flow run's page in the UI."""
        return f"{self.ui_url}/runs/flow-run/{flow_run_id}"


def require_prefect() -> None:
    """Refuse to go on where only the base is installed, or where another's package stands before one of ours.

    Raises:
        ControlPlaneError: Prefect is not installed, or what would be imported as ours is not; the message says which.
    """
    if importlib.util.find_spec("prefect") is None:
        raise ControlPlaneError(
            "This command needs Prefect, which is not installed: pip install 'ashat-deploy[operator]'."
        )
    for name in ("blocks", "flows", "tasks"):
        ours, found = _HERE / name, importlib.util.find_spec(name)
        places = list(found.submodule_search_locations or [found.origin or ""]) if found else ["nothing"]
        if not any(Path(place).resolve() == ours for place in places):
            raise ControlPlaneError(
                f"{places[0]} stands before the package {name} of this program ({ours}): remove the distribution that "
                "it belongs to, or install ashat-deploy into an environment of its own."
            )


def ensure_control_plane(settings: Settings, say: Say = lambda line: None, *, may_start: bool = True) -> ControlPlane:
    """Find the control plane to use; where none runs, start it, detached, and `say` so in one line.

    Prefect's client in this process uses it from then on. With `PREFECT_API_URL` set, that server is used and nothing
    is started.

    Raises:
        ControlPlaneError: Prefect is not installed, the server does not answer, or ours does not start, or does not run
            and may not be started.
    """
    require_prefect()
    if not os.environ.get("ASHAT_DEBUG"):
        os.environ.setdefault(CONSOLE_LEVEL, "CRITICAL")
        logging.lastResort = logging.NullHandler()  # Prefect's workers log under names that nobody configured
    external = external_control_plane(settings.home)
    if external is not None:
        if difference := use_external(settings, external):
            say(difference)
        return external
    state = running_state(settings.home)
    if state is None and not may_start:
        raise ControlPlaneError("The control plane does not run, and a dry run starts none: deploy up.")
    if state is None:
        say("Starting the control plane (deploy down stops it) …")
        state = start_detached(settings)
    elif not wait_for(f"{state.api_url}/health", READY_TIMEOUT, lambda: running_state(settings.home) is not None):
        raise ControlPlaneError(f"The control plane runs but does not answer; see {settings.home / LOG_FILE}.")
    _use(settings, state)
    return ControlPlane(state.api_url, state.ui_url, embedded=True)


def running_state(home: Path) -> ControlState | None:
    """Read the state of the embedded control plane; None unless it is up and ready."""
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
    written = log.stat().st_size if log.exists() else 0
    child = start(supervisor_command(prefect_file), log, env=supervisor_environment(settings), cwd=home)
    began = seen = time.monotonic()
    while (now := time.monotonic()) < began + READY_TIMEOUT:
        state = read_state(home)
        if state is not None and state.supervisor is not None and state.supervisor.process():
            if state.ready:
                return state
            seen = now
        code = child.poll()
        if code:
            words = last_words(log, written) or "it wrote no reason."
            raise ControlPlaneError(f"The control plane did not start: {words} Its log is {log}.")
        if code is not None and now - seen > _GIVE_UP_SECONDS:
            raise ControlPlaneError(f"The control plane was stopped while it started; see {log}.")
        time.sleep(_POLL)
    raise ControlPlaneError(f"The control plane was not ready within {READY_TIMEOUT:.0f} s; see {log}.")


def stop(settings: Settings) -> bool:
    """Stop the embedded control plane and all that it started; return whether there was anything to stop."""
    home = settings.home
    state = read_state(home)
    supervisor = state.supervisor.process() if state and state.supervisor else None
    if supervisor is not None:
        end([supervisor], STOP_TIMEOUT)
    ended = end_processes(home)
    if state is not None and (state.ready or state.supervisor):
        write_state(home, ControlState(port=state.port))
    return supervisor is not None or ended > 0


def wait_for(url: str, timeout: float, worth_waiting: Callable[[], bool] = lambda: True, *, password: str = "") -> bool:
    """Wait until our Prefect answers 200 at `url`; False after `timeout` seconds, or once it is not `worth_waiting`."""
    deadline = time.monotonic() + timeout
    while not _answers(url, password):
        if time.monotonic() > deadline or not worth_waiting():
            return False
        time.sleep(_POLL)
    return True


def external_control_plane(home: Path) -> ControlPlane | None:
    """Find the server that `PREFECT_API_URL` names; None where it names none, or the embedded one of `home`."""
    url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    state = read_state(home)
    if not url or (state is not None and url == state.api_url):
        return None
    ui = os.environ.get("PREFECT_UI_URL", "").rstrip("/") or url.removesuffix("/api")
    return ControlPlane(url, ui, embedded=False)


def use_external(settings: Settings, external: ControlPlane) -> str:
    """Point Prefect's client in this process to a server that is not ours, and ask it for a sign of life; say in a line
    how its versions differ from those of this install, "" where they do not.

    Raises:
        ControlPlaneError: it does not answer, or refuses the password.
    """
    os.environ.update(QUIET | proxy_settings(external.api_url))
    import_prefect(settings)
    return version_difference(Versions(__version__, installed_version()), check_external(external))


def import_prefect(settings: Settings) -> None:
    """Import Prefect from our home: it reads `.env`, `prefect.toml` and `pyproject.toml` of where it stands."""
    with contextlib.chdir(settings.ensure_home()):
        importlib.import_module("prefect.main")


def check_external(external: ControlPlane) -> Versions:
    """Ask the server that `PREFECT_API_URL` names for its version, which it tells only those whom it lets in, and for
    the version whose deployments were applied last.

    Raises:
        ControlPlaneError: it does not answer, or refuses the password.
    """
    import httpx
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            applied = client.read_variable_by_name(APPLIED)
            return Versions(applied_version(applied.value if applied else None), client.api_version())
    except httpx.HTTPStatusError as error:
        raise ControlPlaneError(_refused(external, error.response.status_code)) from None
    except (OSError, RuntimeError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
        raise ControlPlaneError(
            f"The Prefect server that PREFECT_API_URL names does not answer ({external.api_url}: "
            f"{type(error).__name__}). Start it, or unset PREFECT_API_URL to use the embedded one."
        ) from None


def _refused(external: ControlPlane, status: int) -> str:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        wrong = "is wrong" if os.environ.get("PREFECT_API_AUTH_STRING") else "is not set"
        return (
            f"The Prefect server at {external.api_url} asks for a password, and PREFECT_API_AUTH_STRING {wrong}: "
            "set it to user:password."
        )
    return f"The Prefect server at {external.api_url} answers {status} when asked for its version."


def _use(settings: Settings, state: ControlState) -> None:
    if "prefect" in sys.modules and os.environ.get("PREFECT_API_URL") != state.api_url:
        raise RuntimeError("prefect was imported before the control plane was known")
    if not read_password(settings.home):
        raise ControlPlaneError(
            f"{settings.home / PASSWORD_FILE} is missing: deploy down, then deploy up, make another."
        )
    os.environ.pop("PREFECT_PROFILE", None)
    os.environ.update(QUIET | proxy_settings(state.api_url) | client_settings(settings, state))
    import_prefect(settings)


def _answers(url: str, password: str) -> bool:
    parts = urlsplit(url)
    headers = {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"} if password else {}
    with (
        contextlib.suppress(OSError, http.client.HTTPException, ValueError),
        contextlib.closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)) as connection,
    ):
        connection.request("GET", parts.path, headers=headers)
        return connection.getresponse().status == HTTPStatus.OK
    return False
