"""`control.json`: which process supervises the control plane of a home, and where the control plane answers.

`deploy status` reads it, so that nothing slow is imported until it is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from ashat.common.documents import STATE_LIMIT, read_json
from ashat.common.home import LOOKED_FILE
from ashat.common.processes import ProcessRef, end, with_variable

HOST = "127.0.0.1"
STATE_FILE = "control.json"
LOCK_FILE = "control.lock"
LOG_FILE = "control.log"
# What Prefect calls its auth string, `user:password`: what every client of the embedded server has to show.
PASSWORD_FILE = "control.password"  # noqa: S105  a name
# In the environment of every process that the supervisor started, directly or not: the home.
MARKER = "ASHAT_CONTROL_PLANE"
# In that of Prefect's server, besides.
SERVER_MARKER = "ASHAT_CONTROL_PLANE_SERVER"
_END_SECONDS = 10.0


@dataclass(frozen=True)
class ControlState:
    """The control plane of a home. `port` is kept while nothing runs, so that its address stays the same."""

    port: int
    ready: bool = False
    supervisor: ProcessRef | None = None

    @property
    def ui_url(self) -> str:
        """Return the address that a browser opens."""
        return f"http://{HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """Return what `PREFECT_API_URL` has to be."""
        return f"{self.ui_url}/api"


def read_state(home: Path) -> ControlState | None:
    """Read the state under `home`; None where there is none, or none that can be read."""
    try:
        raw = read_json(home / STATE_FILE, limit=STATE_LIMIT)
        supervisor = ProcessRef(**raw["supervisor"]) if raw["supervisor"] else None
        return ControlState(int(raw["port"]), bool(raw["ready"]), supervisor)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(home: Path, state: ControlState) -> None:
    """Replace the state under `home`, mode 0600, at once or not at all."""
    from ashat.common.files import replace_file

    replace_file(home / STATE_FILE, json.dumps(asdict(state)).encode(), mode=0o600)


def read_password(home: Path) -> str:
    """Read the password of the control plane of `home`; "" where there is none."""
    try:
        return (home / PASSWORD_FILE).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def ensure_password(home: Path) -> str:
    """Read the password of the control plane of `home`; make one, mode 0600, where none is or others may read it."""
    from ashat.common.files import create_file

    path = home / PASSWORD_FILE
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_mode & 0o077 or not read_password(home):
            path.unlink()
    with contextlib.suppress(FileExistsError):
        create_file(path, f"admin:{secrets.token_urlsafe(32)}\n".encode())
    return read_password(home)


def is_up(state: ControlState) -> bool:
    """Tell whether the control plane is ready, as far as its supervisor's bare pid shows: `deploy status` is quick."""
    if not state.ready or state.supervisor is None:
        return False
    try:
        os.kill(state.supervisor.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def last_look(home: Path) -> datetime | None:
    """Read when `reconcile` looked last at everything, as this home knows; None where it knows of no time."""
    try:
        at = datetime.fromisoformat(read_json(home / LOOKED_FILE, limit=STATE_LIMIT)["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return at if at.tzinfo else None


def marker(home: Path) -> str:
    """Name `home` as the variable `MARKER` does."""
    return str(home.resolve())


def end_processes(home: Path, *, grace: float = _END_SECONDS) -> int:
    """End every process of the control plane but the supervisor; return how many there were.

    Workers and flow runs end first, then the server, which they report to; both have `grace` seconds after SIGTERM.
    """
    servers = with_variable(SERVER_MARKER, marker(home))
    others = [process for process in with_variable(MARKER, marker(home)) if process not in servers]
    end(others, grace)
    end(servers, grace)
    return len(others) + len(servers)
