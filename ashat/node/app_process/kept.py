"""The running program as the node sees it: a keeper (`keeper.py`), which holds together all that came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import psutil

from ashat.common.processes import kill_group, start, wait_ended
from ashat.node.app_process.process import ProgramError
from ashat.node.app_process.user import ProgramUser

_KEEPER = Path(__file__).with_name("keeper.py")
_START_SECONDS = 60.0
# What the keeper takes after the stop timeout: five seconds of SIGKILL, and its own end on a loaded machine.
_END_SECONDS = 15.0


@dataclass(frozen=True)
class Start:
    """What to run, and as whom: `user` None is the node's own. `group` is the control group for it, if there is one;
    `seconds` how long it may take, None: without end."""

    command: Sequence[str]
    environment: Mapping[str, str]
    cwd: Path
    user: ProgramUser | None
    group: Path | None
    stop_timeout: float
    seconds: float | None = None

    def line(self) -> bytes:
        """Write it as the keeper reads it."""
        spec: dict[str, Any] = {
            "command": list(self.command),
            "env": dict(self.environment),
            "cwd": str(self.cwd),
            "umask": self.user.umask if self.user else -1,
            "user": self.user.uid if self.user else None,
            "group": self.user.gid if self.user else None,
            "groups": list(self.user.groups) if self.user else None,
            "cgroup": str(self.group or ""),
            "stop_timeout": self.stop_timeout,
            "seconds": self.seconds,
        }
        return json.dumps(spec).encode() + b"\n"


class KeptProgram:
    """One start of the program; `pid` is the program's own. Once it was waited for, `code` is how it ended, if that is
    known, and `late` that it took too long."""

    def __init__(self, keeper: psutil.Process, pid: int, process: subprocess.Popen[bytes] | None = None) -> None:
        self.pid = pid
        self.code: int | None = None
        self.late = False
        self._keeper = keeper
        self._process = process

    @classmethod
    def start(cls, what: Start, log: Path, mark: Path) -> Self:
        """Run it, its output appended to `log`; `mark` is how `find` knows it: the node's data directory, or for what
        is not its program another path there.

        Raises:
            OSError: it cannot be run.
        """
        command = [sys.executable, "-I", "-S", str(_KEEPER), str(mark)]
        process = start(command, log, env={}, cwd=log.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            keeper = psutil.Process(process.pid)
            process.stdin.write(what.line())
            process.stdin.close()
        except BaseException:
            process.kill()
            process.wait()
            raise
        answer = _answer(process.stdout, process)
        if "pid" not in answer:
            process.wait()
            raise OSError(answer.get("errno", 0), answer.get("error", "its keeper ended"))
        return cls(keeper, answer["pid"], process)

    @classmethod
    def find(cls, mark: Path, pid: int = 0) -> list[Self]:
        """Find what earlier processes of the node started with that `mark`; with `pid` only what has that process."""
        found = [process for process in psutil.process_iter(["cmdline", "uids"]) if _is_keeper(process, mark)]
        return [cls(process, pid) for process in found if not pid or pid in _children(process)]

    def wait(self) -> str:
        """Wait until it has ended, with all that came of it; say how, where that is known."""
        if self._process is None:
            wait_ended(self._keeper)
            return "ended by itself"
        assert self._process.stdout is not None
        said = _read(self._process.stdout)
        self._process.wait()
        code = self.code = said.get("code")
        self.late = bool(said.get("late"))
        if code is None:  # somebody killed the keeper: what it kept has no parent to end it
            kill_group(self.pid)
            return "was ended, because somebody had killed the process that keeps it,"
        return f"ended by itself {f'on signal {-code}' if code < 0 else f'with exit code {code}'}"

    def processes(self) -> list[psutil.Process]:
        """List the processes that came of its start."""
        try:
            return self._keeper.children(recursive=True)
        except psutil.Error:
            return []

    def ended(self, seconds: float = 0) -> bool:
        """Wait `seconds` at most, and tell whether the program and all that came of it have ended."""
        return wait_ended(self._keeper, seconds)

    def end(self, stop_timeout: float) -> None:
        """End the program and all that came of it: SIGTERM, and SIGKILL after `stop_timeout` seconds.

        Raises:
            ProgramError: some of it still runs; the message says what, and whose it is.
        """
        try:
            came_of_it = self._keeper.children(recursive=True)
            in_vain = bool(came_of_it) and all(_is_anothers(process.pid) for process in came_of_it)
            if not in_vain:
                self._keeper.terminate()
        except psutil.NoSuchProcess:
            return
        if in_vain or not wait_ended(self._keeper, stop_timeout + _END_SECONDS):
            raise ProgramError(
                f"the program that ran still runs, because this node cannot end {self._left() or f'pid {self.pid}'}"
            )

    def _left(self) -> str:
        try:
            left = self._keeper.children(recursive=True)
            return ", ".join(f"pid {process.pid} of the user {process.username()}" for process in left)
        except psutil.Error:
            return ""


def _is_keeper(process: psutil.Process, mark: Path) -> bool:
    """Tell whether it is a keeper of that node and mark: this user's, since anybody may give such arguments."""
    words, uids = process.info["cmdline"] or [], process.info["uids"]
    named = words[-1:] == [str(mark)] and Path(words[-2]).name == _KEEPER.name if len(words) > 1 else False
    return named and uids is not None and bool(uids.effective == os.geteuid())


def _children(process: psutil.Process) -> list[int]:
    try:
        return [child.pid for child in process.children()]
    except psutil.Error:
        return []


def _is_anothers(pid: int) -> bool:
    """Tell whether this user may send it no signal."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False


def _answer(stream: IO[bytes], process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Read the keeper's first line; a keeper that writes none in time is killed, which ends the line."""
    timer = threading.Timer(_START_SECONDS, process.kill)
    timer.start()
    try:
        return _read(stream)
    finally:
        timer.cancel()


def _read(stream: IO[bytes]) -> dict[str, Any]:
    line = stream.readline()
    content: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
    return content
