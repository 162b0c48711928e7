"""Processes of this machine: start one whose output goes to a log, find those that are ours, and end them.

psutil is imported where it is needed: it takes 40 ms, and `deploy status` needs only to read a `ProcessRef`.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ashat.common.clocks import boot_id
from ashat.common.text import last_line

if TYPE_CHECKING:
    import psutil

# The kernel's record of when it booted can move a little with the clock, and creation times with it.
CLOCK_TOLERANCE = 2.0
_SAME = 0.005
_LONGEST_UPTIME = 1e8
_LAST_WORDS = 4096
_KILLED_SECONDS = 5.0


@dataclass(frozen=True)
class ProcessRef:
    """A process by its pid and by when it was created: pids are given out again.

    `created` is compared only: it counts from the start of the machine, so that it stays what it is when somebody sets
    the clock, and is another after the next start. Where the system does not say that, it is seconds since the epoch.
    """

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> ProcessRef | None:
        """Refer to the process that has this pid now; None where none has, or only a zombie."""
        process = _running(pid)
        return cls(pid, _created(process)) if process else None

    def process(self) -> psutil.Process | None:
        """Find the very process that was meant, if it is alive."""
        process = _running(self.pid)
        return process if process and abs(_created(process) - self.created) <= _tolerance() else None


def python_module(module: str, *words: str) -> list[str]:
    """Make the command line that runs `module` with this very Python, which imports nothing from where it stands."""
    return [sys.executable, "-P", "-m", module, *words]


def start(
    command: Sequence[str], log: Path, *, env: Mapping[str, str], cwd: Path | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, without input, its output appended to `log`, which only we may read.

    `options` are further ones of `subprocess.Popen`, which win. Where `log` cannot be made or opened, the output is
    lost: that is no reason not to run it.

    Raises:
        OSError: it cannot be run.
    """
    with open(_log_or_nothing(log), "ab") as output:
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
        return subprocess.Popen(command, env=env, cwd=cwd, start_new_session=True, **{**streams, **options})


def _log_or_nothing(log: Path) -> int:
    try:
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


def last_words(log: Path, start: int = 0) -> str:
    """Read the last line, blank ones apart, that `log` got after its first `start` bytes; "" where there is none."""
    if not log.exists():
        return ""
    with open(log, "rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - _LAST_WORDS))
        return last_line(file.read().decode("utf-8", "replace"))


def free_port(preferred: int = 0) -> int:
    """Find a free port of 127.0.0.1, `preferred` if that is one.

    Raises:
        OSError: there is none.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            if not preferred:
                raise
            return free_port()
        return int(probe.getsockname()[1])


def with_variable(name: str, value: str) -> list[psutil.Process]:
    """Find every other process that has the variable `name` with that `value` in its environment.

    Whatever a process starts inherits its variables: one that holds a random value marks all that came of a command.
    """
    import psutil

    own = os.getpid()
    return [other for other in psutil.process_iter() if other.pid != own and has_variable(other, name, value)]


def has_variable(process: psutil.Process, name: str, value: str) -> bool:
    """Tell whether a process was started with the variable `name` of that `value`; False where we may not know."""
    import psutil

    try:
        return process.environ().get(name) == value
    except (psutil.Error, OSError):  # somebody else's, or gone
        return False


def end(processes: Iterable[psutil.Process], seconds: float) -> None:
    """Send SIGTERM to each, and SIGKILL to whatever is left of them and of what they started after `seconds`."""
    import psutil

    family = list(processes)
    for process in list(family):
        with contextlib.suppress(psutil.Error):
            family += process.children(recursive=True)
            process.terminate()
    deadline = time.monotonic() + seconds
    for process in family:
        if not wait_ended(process, max(deadline - time.monotonic(), 0)):
            with contextlib.suppress(psutil.Error):
                process.kill()
            wait_ended(process, _KILLED_SECONDS)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def wait_ended(process: psutil.Process, seconds: float | None = None) -> bool:
    """Wait until a process has ended, child of ours or not; False if it has not after `seconds`.

    It has ended as a zombie, too, which its parent may leave unburied for ever; psutil's own `wait` goes on then.
    """
    if not hasattr(os, "pidfd_open"):
        import psutil

        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(seconds)
        return not process.is_running()
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(None if seconds is None else seconds * 1000))
    finally:
        os.close(descriptor)


def kill_group(pid: int) -> None:
    """Send SIGKILL to everything left in the process group that `pid` leads, as far as this user may."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, 9)


def _created(process: psutil.Process) -> float:
    try:
        ticks = int(Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b") ")[2].split()[19])
    except (OSError, IndexError):
        return process.create_time()
    return int(boot_id()[:4], 16) * _LONGEST_UPTIME + ticks / os.sysconf("SC_CLK_TCK")


def _tolerance() -> float:
    return _SAME if sys.platform.startswith("linux") else CLOCK_TOLERANCE


def _running(pid: int) -> psutil.Process | None:
    import psutil

    try:
        process = psutil.Process(pid)
        process.create_time()  # which it keeps
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None
