"""`control.json`: which processes are the control plane of this home, and where it answers.

A process is named by its pid and the time it was created, so that a pid which the system gave to somebody else since
is never taken for one of ours.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

STATE_FILE = "control.json"
LOCK_FILE = "control.lock"
LOG_FILE = "control.log"
MARKER = "ASHAT_CONTROL_PLANE"
# The kernel's record of when it booted can move a little with the clock, and creation times with it.
_CREATION_TOLERANCE = 2.0


@dataclass(frozen=True)
class ProcessRef:
    """A process, and since when it exists (seconds since the epoch)."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> ProcessRef | None:
        """The process that has this pid now; None where it has gone."""
        import psutil

        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    def process(self) -> psutil.Process | None:
        """The very process that was meant, if it is alive."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) > _CREATION_TOLERANCE:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True)
class ControlState:
    """What is known of the control plane. `port` is kept while nothing runs, so that its address stays the same."""

    port: int
    ready: bool = False
    supervisor: ProcessRef | None = None
    processes: dict[str, ProcessRef] = field(default_factory=dict)

    @property
    def ui_url(self) -> str:
        """Where a browser finds it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        """What `PREFECT_API_URL` has to be."""
        return f"{self.ui_url}/api"


def read_state(home: Path) -> ControlState | None:
    """The state under `home`; None where there is none, or none that can be read."""
    try:
        raw = json.loads((home / STATE_FILE).read_text(encoding="utf-8"))
        supervisor = raw["supervisor"]
        return ControlState(
            port=int(raw["port"]),
            ready=bool(raw["ready"]),
            supervisor=ProcessRef(**supervisor) if supervisor else None,
            processes={name: ProcessRef(**ref) for name, ref in raw["processes"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_state(home: Path, state: ControlState) -> None:
    """Replace the state under `home`, mode 0600, at once or not at all."""
    descriptor, name = tempfile.mkstemp(dir=home, prefix=f".{STATE_FILE}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(state), file)
        os.replace(name, home / STATE_FILE)
    except BaseException:
        os.unlink(name)
        raise


def is_up(state: ControlState) -> bool:
    """Whether the control plane is ready, as far as can be told without looking closely at its processes."""
    if not state.ready or state.supervisor is None:
        return False
    try:
        os.kill(state.supervisor.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def marker(home: Path) -> str:
    """What the environment of every process of this home's control plane holds under `MARKER`."""
    return str(home.resolve())


def end_processes(home: Path, state: ControlState | None, *, grace: float = 10.0) -> int:
    """End every process of the control plane but the supervisor, and whatever they started; how many there were.

    They get SIGTERM and `grace` seconds (workers first, then the server, whom they report to), then SIGKILL.
    """
    import psutil

    refs = state.processes if state else {}
    servers = [process for name, ref in refs.items() if name == "server" and (process := ref.process())]
    others = [process for process in _marked(home) if process not in servers]
    for group in (others, servers):
        _signal(group, "terminate")
        _, alive = psutil.wait_procs(group, timeout=grace)
        _signal(alive, "kill")
        psutil.wait_procs(alive, timeout=5)
    return len(others) + len(servers)


def _marked(home: Path) -> list[psutil.Process]:
    import psutil

    wanted = marker(home)
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARKER) == wanted:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # somebody else's, or gone
    return found


def _signal(processes: list[psutil.Process], how: str) -> None:
    import psutil

    for process in processes:
        try:
            getattr(process, how)()
        except psutil.NoSuchProcess:
            continue
