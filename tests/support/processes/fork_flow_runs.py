"""Flow runs that start at once: what a worker starts for each is forked from a process that has Prefect imported.

`command` is what a worker is told to run in the place of `python -m prefect.engine`. It asks, through a socket, for a
fork with its own environment, directory and output, which becomes Prefect's engine; it passes signals on, and ends as
the fork did. A fork whose asker was killed is killed. The process that forks is started by the first that asks: in its
environment is the mark of the control plane, with which it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

_ROOT = Path(__file__).resolve().parents[3]
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)


def command(address: Path) -> str:
    """What a worker runs for a flow run; `address` is where the socket is made."""
    return shlex.join([sys.executable, "-I", "-S", __file__, str(address)])


def _ask(address: str) -> NoReturn:
    """Have a fork made, and end as it does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    with _connect(address) as connection:
        wanted = json.dumps({"env": dict(os.environ), "cwd": os.getcwd()}).encode()
        socket.send_fds(connection, [len(wanted).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(wanted)
        told = connection.makefile("r")
        pid = int(told.readline())
        for number in _PASSED_ON:
            signal.signal(number, lambda number, _: _signal(pid, number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        code = int(told.readline() or -signal.SIGKILL)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _connect(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    with open(f"{address}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            _start(address)
            connection.connect(address)
    return connection


def _start(address: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    with socket.socket(socket.AF_UNIX) as listening, open(f"{address}.log", "ab") as log:
        listening.bind(address)
        listening.listen(64)
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.processes.fork_flow_runs", "--fork", str(listening.fileno())],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listening.fileno()],
            start_new_session=True,
        )


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class _Forks:
    """Forks for whoever asks at `listening`, as long as this process lives."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._askers: dict[socket.socket, int] = {}
        self._woken, self._waker = os.pipe()

    def run(self) -> NoReturn:
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([self._listening, self._woken, *self._askers], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._bury()
            for asker in self._askers.keys() & set(ready):  # it says nothing more: it was killed
                _signal(self._forget(asker), signal.SIGKILL)
            if self._listening in ready:
                self._serve(self._listening.accept()[0])

    def _serve(self, asker: socket.socket) -> None:
        size, streams, _, _ = socket.recv_fds(asker, 8, 3)
        wanted = json.loads(asker.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        pid = os.fork()
        if pid == 0:
            for held in (self._listening, asker, *self._askers):
                held.close()
            self._become_the_engine(wanted["env"], wanted["cwd"], streams)
        for stream in streams:
            os.close(stream)
        self._askers[asker] = pid
        _tell(asker, pid)

    def _become_the_engine(self, env: dict[str, str], cwd: str, streams: list[int]) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for held in (self._woken, self._waker):
            os.close(held)
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        os.environ.clear()
        os.environ.update(env)
        os.chdir(cwd)
        _run_engine()
        sys.exit(0)

    def _bury(self) -> None:
        for asker, pid in list(self._askers.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                _tell(asker, os.waitstatus_to_exitcode(status))
                self._forget(asker)

    def _forget(self, asker: socket.socket) -> int:
        asker.close()
        return self._askers.pop(asker)


def _tell(asker: socket.socket, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        asker.sendall(f"{number}\n".encode())


def _run_engine() -> None:
    sys.modules.pop("prefect.engine", None)  # it is run as a script, as `python -m` would
    sys.argv = ["prefect.engine"]
    runpy.run_module("prefect.engine", run_name="__main__")


def _fork_for_all(descriptor: int) -> NoReturn:
    from tests.support.processes.fork_server import import_all

    import_all()
    _Forks(socket.socket(fileno=descriptor)).run()


if __name__ == "__main__":
    if sys.argv[1] == "--fork":
        _fork_for_all(int(sys.argv[2]))
    _ask(sys.argv[1])
