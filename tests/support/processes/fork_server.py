"""Processes that start at once: forked from one that has imported Prefect and the flows already.

Each command is a process of its own, with its own working directory, environment and output, and may be killed; only
the two seconds that the imports take are shared. Read as `python -m tests.support.warm`, this is the process that
forks: it reads a command a line (JSON), and writes a line for each process that began or ended.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

from tests.support.processes.node import ROOT

# From "prefect.flow_engine" on: what each process would import once it is used.
_IMPORTS = (
    "ashat.cli.control_plane.follow",
    *(f"flows.{name}" for name in ("push", "verify", "approve", "cancel", "release", "reconcile", "rollback")),
    "prefect.flow_engine",
    "prefect.task_engine",
    "prefect._internal.metrics",
    "prefect.utilities.visualization",
    "fastapi.encoders",
    "sqlalchemy.dialects.sqlite",
    "anyio._backends._asyncio",
)
ERRORS = ".errors"


class Job:
    """A process that was forked."""

    def __init__(self, warm: Warm, pid: int, output: Path, what: str) -> None:
        self.pid = pid
        self.what = what
        self._warm = warm
        self._output = output

    @property
    def told(self) -> str:
        """What it wrote so far, to stdout and then to stderr."""
        return self.stdout + self.stderr

    @property
    def stdout(self) -> str:
        """What it wrote so far to stdout."""
        return self._output.read_text("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """What it wrote so far to stderr."""
        return self._output.with_suffix(ERRORS).read_text("utf-8", "replace")

    def wait(self, seconds: float = 400) -> int:
        """Its exit code, -9 where it was killed."""
        return self._warm.wait(self, seconds)


class Warm:
    """Starts processes in `directory`, with `env` in their environment. Use it in a `with` block."""

    def __init__(self, directory: Path, env: Mapping[str, str], outputs: Path) -> None:
        outputs.mkdir()
        self._outputs = outputs
        self._count = 0
        self._pids: dict[int, int] = {}
        self._codes: dict[int, int] = {}
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.processes.fork_server"],
            cwd=directory,
            env={**env, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def deploy(self, *words: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Job:
        """Begin `deploy` with those words, given `stdin` to read."""
        return self._begin({"deploy": words, "stdin": stdin}, " ".join(words), env)

    def flow(self, name: str, env: Mapping[str, str] | None = None, **parameters: Any) -> Job:
        """Begin a run of the flow `module:function`; its exit code is 0 where it did what it is for."""
        return self._begin({"flow": name, "parameters": parameters}, name, env)

    def wait(self, job: Job, seconds: float) -> int:
        """The exit code of `job`.

        Raises:
            AssertionError: it did not end in time; the message holds what it wrote.
        """
        deadline = time.monotonic() + seconds
        while job.pid not in self._codes:
            self._hear(max(deadline - time.monotonic(), 0), job)
        return self._codes[job.pid]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)

    def _begin(self, command: dict[str, Any], what: str, env: Mapping[str, str] | None) -> Job:
        self._count += 1
        output = self._outputs / f"{self._count}.txt"
        assert self._process.stdin is not None
        line = json.dumps({**command, "output": str(output), "env": dict(env or {}), "count": self._count})
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()
        job = Job(self, 0, output, what)
        while self._count not in self._pids:
            self._hear(60, job)
        job.pid = self._pids[self._count]
        return job

    def _hear(self, seconds: float, job: Job) -> None:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        assert ready, f"{job.what} did not end in time:\n{job.told}"
        data = os.read(self._process.stdout.fileno(), 65536)
        assert data, "the process that starts the others ended"
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            word, number, value = line.split()
            if word == b"began":
                self._pids[int(number)] = int(value)
                self._codes.pop(int(value), None)  # of an earlier process: numbers come round again
            else:
                self._codes[int(number)] = int(value)


def import_all() -> None:
    """Import what a command or a flow run uses; what is forked from here shares its memory."""
    for name in _IMPORTS:
        importlib.import_module(name)
    importlib.import_module("tasks.checks").built_in_checks()
    importlib.import_module("ashat.cli.main").commands()
    gc.freeze()


def main() -> None:
    """Fork for each command read, until there are no more; then end what still runs."""
    import_all()
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    living: set[int] = set()
    unread = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            living -= _bury(living)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, unread = (unread + data).split(b"\n")
            for line in lines:
                living.add(_fork(json.loads(line)))
    for pid in living:
        os.kill(pid, signal.SIGKILL)


def _fork(command: dict[str, Any]) -> int:
    for file in (Path(command["output"]), Path(command["output"]).with_suffix(ERRORS)):
        file.touch()
    pid = os.fork()
    if pid == 0:
        _become(command)
    print("began", command["count"], pid, flush=True)
    return pid


def _bury(living: set[int]) -> set[int]:
    buried = set()
    for pid in living:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            buried.add(pid)
            print("ended", pid, os.waitstatus_to_exitcode(status), flush=True)
    return buried


def _become(command: dict[str, Any]) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        told = Path(command["output"])
        given = told.with_suffix(".given")
        given.write_text(command.get("stdin", ""))
        for file, mode, target in (
            (given, os.O_RDONLY, 0),
            (told, os.O_WRONLY | os.O_APPEND, 1),
            (told.with_suffix(ERRORS), os.O_WRONLY | os.O_APPEND, 2),
        ):
            os.dup2(os.open(file, mode), target)
        os.environ.update(command["env"])
        code = _run(command)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001  whatever it is, the test is shown it
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `os._exit`: what Prefect hooked to the end of a process (its logs, its threads) is part of the process.
    sys.exit(code)


def _run(command: dict[str, Any]) -> int:
    if "deploy" in command:
        from ashat.cli.main import run

        return run(list(command["deploy"]))
    module, _, name = command["flow"].partition(":")
    state = getattr(importlib.import_module(module), name)(**command["parameters"], return_state=True)
    print(state.name, state.message)
    return 0 if state.is_completed() or state.is_cancelled() else 1


if __name__ == "__main__":
    main()
