"""Processes that start at once: each is forked from one that has imported what it runs.

A fork is what `python -m MODULE ARGUMENTS` (or `python -c PROGRAM ARGUMENTS`) is: a process of its own, with its own
environment, directory and streams, that may be killed; only the seconds which the imports take are shared.

`ForkServer` starts the process that forks, and asks it. `command` is a program that asks, for whoever can only start
programs. Either sends the command, as JSON, and three streams through a socket; it reads the fork's process id, and at
its end the exit code. A fork is killed once whoever asked for it closes the socket, or has gone.

What `command` asks is started by the first that asks: in its environment is the mark of the control plane that told it
to, with which it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any, NoReturn, Self

_ROOT = Path(__file__).resolve().parents[3]
_MODULE = "tests.support.processes.fork_server"
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)
# Where a process reads, writes and complains.
Streams = tuple[IO[bytes], IO[bytes], IO[bytes]]


class Fork:
    """A forked process; what `subprocess.Popen` says of one, this says too."""

    def __init__(self, asking: socket.socket, args: Sequence[str]) -> None:
        self.args = list(args)
        self.returncode: int | None = None
        self._asking = asking
        self._unread = b""
        line = self._line(60)
        assert line, f"the process that forks ended before {shlex.join(self.args)} began"
        self.pid = int(line)

    def poll(self) -> int | None:
        """Its exit code, -9 where it was killed; None while it runs."""
        if self.returncode is None:
            line = self._line(0)
            self.returncode = None if line is None else int(line or -signal.SIGKILL)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        if self.returncode is None:
            line = self._line(timeout)
            if line is None:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(line or -signal.SIGKILL)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _line(self, seconds: float | None) -> bytes | None:
        """The next line that is sent: b"" if none will come, None if none came in time."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            if not select.select([self._asking], [], [], left)[0]:
                return None
            data = self._asking.recv(64)
            if not data:
                self._asking.close()
                return b""
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line


class ForkServer:
    """Forks processes from one that has imported `modules` (`package.*`: all below it), with `env` as they were.

    That one starts with the first fork. Use it in a `with` block, or close it: what it forked ends with it.
    """

    def __init__(self, *modules: str, env: Mapping[str, str] | None = None) -> None:
        self._modules = modules
        self._env = env
        self._closing = contextlib.ExitStack()
        self._address: Path | None = None

    def start(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        streams: Streams | None = None,
    ) -> Fork:
        """Begin `python -m WORDS`, or `python WORDS` where they begin with `-c`.

        `env` is its whole environment; without `streams` it is given /dev/null.
        """
        asking = socket.socket(socket.AF_UNIX)
        asking.connect(str(self.address))
        asked = {"words": list(words), "env": dict(os.environ if env is None else env), "cwd": str(cwd or Path.cwd())}
        with open(os.devnull, "r+b") as nothing:
            _send(asking, asked, [stream.fileno() for stream in streams or (nothing, nothing, nothing)])
        return Fork(asking, words)

    def run(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
        timeout: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m WORDS` to its end, given `stdin` to read; its output is read as UTF-8.

        Raises:
            subprocess.TimeoutExpired: it did not end in time; it was killed.
        """
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            fork = self.start(words, env=env, cwd=cwd, streams=(given, out, err))
            try:
                code = fork.wait(timeout)
            except subprocess.TimeoutExpired:
                fork.kill()
                raise
            written = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0) for file in (out, err)]
        return subprocess.CompletedProcess(list(words), code, *(text.decode("utf-8", "replace") for text in written))

    def close(self) -> None:
        """End the process that forks, and what it forked."""
        self._address = None
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> Path:
        """Where it listens; `command` may be given this."""
        if self._address is None:
            homes = os.environ.get("ASHAT_TEST_HOMES")  # a pytest directory's path may be too long for a socket
            address = Path(self._closing.enter_context(TemporaryDirectory(prefix="forks-", dir=homes))) / "socket"
            theirs, ours = os.pipe()
            process = _start(address, self._modules, env=self._env, lifeline=theirs)
            os.close(theirs)
            self._closing.callback(process.wait, 30)
            self._closing.callback(os.close, ours)
            self._address = address
        return self._address


def command(address: Path, module: str, *imports: str) -> str:
    """What to run to have `python -m MODULE` forked from one that has `imports`; the socket is made at `address`."""
    return shlex.join([sys.executable, "-I", "-S", __file__, str(address), ",".join(imports), module])


def _ask(address: str, imports: str, *words: str) -> NoReturn:
    """Have `words` forked, and end as that does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    asking = _connect(Path(address), imports.split(","))
    _send(asking, {"words": words, "env": dict(os.environ), "cwd": os.getcwd()}, [0, 1, 2])
    fork = Fork(asking, words)
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: os.kill(fork.pid, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    code = fork.wait()
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _connect(address: Path, imports: Sequence[str]) -> socket.socket:
    asking = socket.socket(socket.AF_UNIX)
    with open(f"{address}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            asking.connect(str(address))
        except (FileNotFoundError, ConnectionRefusedError):
            with open(f"{address}.log", "ab") as log:
                _start(address, imports, log=log)
            asking.connect(str(address))
    return asking


def _start(
    address: Path,
    imports: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    lifeline: int | None = None,
    log: IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start the process that forks; it ends when nobody holds the other end of the `lifeline` any more."""
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen(64)
        numbers = [listening.fileno(), *([] if lifeline is None else [lifeline])]
        return subprocess.Popen(
            [sys.executable, "-m", _MODULE, "--fork", ",".join(imports), *map(str, numbers)],
            cwd=_ROOT,
            env=None if env is None else {**env, "PYTHONPATH": str(_ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=numbers,
            start_new_session=True,
        )


def _send(asking: socket.socket, asked: Mapping[str, Any], streams: Sequence[int]) -> None:
    line = json.dumps(asked).encode()
    socket.send_fds(asking, [len(line).to_bytes(8, "big")], streams)
    asking.sendall(line)


class _Forks:
    """Forks for whoever asks at `listening`, until `lifeline` ends, if there is one."""

    def __init__(self, listening: socket.socket, lifeline: int | None) -> None:
        self._listening = listening
        self._lifeline = [] if lifeline is None else [lifeline]
        self._askers: dict[socket.socket, int] = {}
        self._woken, self._waker = os.pipe()

    def run(self) -> None:
        """Fork for each that asks; at the end, kill what still runs."""
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        ready: list[Any] = []
        while not set(self._lifeline) & set(ready):
            ready, _, _ = select.select([self._listening, self._woken, *self._lifeline, *self._askers], [], [])
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._bury()
            for asker in self._askers.keys() & set(ready):  # it says nothing more: it has gone
                _signal(self._forget(asker), signal.SIGKILL)
            if self._listening in ready:
                self._serve(self._listening.accept()[0])
        for pid in self._askers.values():
            _signal(pid, signal.SIGKILL)

    def _serve(self, asker: socket.socket) -> None:
        size, streams, _, _ = socket.recv_fds(asker, 8, 3)
        asked = json.loads(asker.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
        pid = os.fork()
        if pid == 0:
            for held in (self._listening, asker, *self._askers):
                held.close()
            for number in (self._woken, self._waker, *self._lifeline):
                os.close(number)
            _become(asked, streams)
        for stream in streams:
            os.close(stream)
        self._askers[asker] = pid
        _tell(asker, pid)

    def _bury(self) -> None:
        with contextlib.suppress(ChildProcessError):  # there are none any more
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                for asker in [asker for asker, pid in self._askers.items() if pid == ended[0]]:
                    _tell(asker, os.waitstatus_to_exitcode(ended[1]))
                    self._forget(asker)

    def _forget(self, asker: socket.socket) -> int:
        asker.close()
        return self._askers.pop(asker)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _tell(asker: socket.socket, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):
        asker.sendall(f"{number}\n".encode())


def _become(asked: Mapping[str, Any], streams: Sequence[int]) -> NoReturn:
    """Be what is asked for, as `python -m` would be, until the end of the process."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # whoever had this process started held signals back meanwhile
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    # What this process was started with may have been a file; what is asked for may have pipes.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    if sys.stdout.isatty():
        sys.stdout.reconfigure(line_buffering=True)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["cwd"])
    module, sys.argv = asked["words"][0], asked["words"]
    if module == "-c":
        exec(compile(sys.argv.pop(1), "<string>", "exec"), {"__name__": "__main__"})
        sys.exit()
    if not hasattr(sys.modules.get(module), "__path__"):
        sys.modules.pop(module, None)  # it is run as a script
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


def _import(name: str) -> None:
    """Import a module; with `.*` at its end, also all that is below it."""
    package = importlib.import_module(name.removesuffix(".*"))
    if name.endswith(".*"):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def _fork_for_all(imports: str, listening: str, lifeline: str | None = None) -> None:
    for name in imports.split(","):
        _import(name)
    gc.collect()
    gc.freeze()  # what is forked shares this memory
    _Forks(socket.socket(fileno=int(listening)), None if lifeline is None else int(lifeline)).run()


if __name__ == "__main__":
    if sys.argv[1] == "--fork":
        _fork_for_all(*sys.argv[2:])
    else:
        _ask(*sys.argv[1:])
