"""Runs one program as the parent of all that comes of it, so that nothing of it stays when it ends.

It is a script of its own, started with `-I -S` by `ashat.node.app_process.kept`: it imports the standard library alone,
and nothing from where it stands. The first line of its standard input says what to run (`{"command", "env", "cwd",
"user", "group", "groups", "umask", "cgroup", "stop_timeout", "seconds"}`); without one it ends. It answers with lines
of JSON: `{"pid"}` or `{"error", "errno"}`, and at the end `{"code"}`, as `subprocess` counts. SIGTERM has it
end the program, and so has the end of `seconds`, where there is one (`late` says so). Its argument, the node's data
directory or another path of the node's, is how the node's next process finds it.

On Linux, a process whose parent ended becomes the child of the nearest ancestor that asked for that. So whatever the
program started is below this process, in whatever session and with whatever environment. It outlives the node.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_KILL_SECONDS = 5.0
_LOOK_EVERY = 0.05


class Keeper:
    """One program, from its start to the end of the last process that came of it; `code` is how it ended."""

    def __init__(self, spec: dict[str, Any], wake: int) -> None:
        self._wake = wake
        self._childless = False
        self._stop_timeout = spec["stop_timeout"]
        self._seconds = spec.get("seconds")
        self.code: int | None = None
        self.late = False
        self.stop = False
        if spec["cgroup"]:
            _join(spec["cgroup"])
        # It is kept, and never asked: it would bury the process itself, and with it how that ended.
        self._program = subprocess.Popen(
            spec["command"],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            stderr=sys.stderr.fileno(),
            env=spec["env"],
            cwd=spec["cwd"],
            user=spec["user"],
            group=spec["group"],
            extra_groups=spec["groups"],
            umask=spec["umask"],
            start_new_session=True,
        )
        self.pid = self._program.pid

    def run(self) -> None:
        """Wait until the program ends by itself or is to end, and end what is left; unless it cannot be ended."""
        deadline = None if self._seconds is None else time.monotonic() + self._seconds
        while self.code is None:
            self._wait(None if deadline is None else max(deadline - time.monotonic(), 0))
            self.late = self.late or (deadline is not None and self.code is None and time.monotonic() >= deadline)
            if self.stop or self.late or self.code is not None:
                self.stop, deadline = False, None
                self._end(self._stop_timeout if self.code is None else 0)

    def _end(self, seconds: float) -> None:
        if seconds:
            self._send(signal.SIGTERM, self._descendants())
            self._until_childless(seconds, lambda: None)
        self._until_childless(_KILL_SECONDS, self._kill)
        if self.code is not None and not self._childless:
            left = ", ".join(map(str, self._descendants()))
            os.write(2, f"still running, and this user may not end it: pid {left}\n".encode())

    def _until_childless(self, seconds: float, act: Callable[[], None]) -> None:
        """Do so again and again. Whatever came of the program is below a child of this process, as long as there is
        any: to have none is to be done."""
        deadline = time.monotonic() + seconds
        self._wait(0)
        while not self._childless and time.monotonic() < deadline:
            act()
            self._wait(_LOOK_EVERY)

    def _kill(self) -> None:
        """Kill all, then those that lost their parent as fast as they come: one that starts another and ends is gone
        before a look at all processes is over."""
        self._send(signal.SIGKILL, self._descendants())
        until = time.monotonic() + _LOOK_EVERY
        while time.monotonic() < until and self._send(signal.SIGKILL, self._children()):
            self._wait(0)

    def _send(self, number: int, pids: list[int]) -> bool:
        """Send it to each; whether any took it."""
        taken = False
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
                taken = True
        return taken

    def _wait(self, seconds: float | None) -> None:
        """Wait for a signal, and bury those that have ended."""
        select.select([self._wake], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.pid:
                    self.code = os.waitstatus_to_exitcode(ended[1])
        except ChildProcessError:
            self._childless = True

    def _children(self) -> list[int]:
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
                return [int(word) for word in file.read().split()]
        except OSError:  # not every kernel has it
            return []

    def _descendants(self) -> list[int]:
        """List the processes below this one that have not ended; where there is no /proc, the program alone."""
        if not sys.platform.startswith("linux"):
            return [self.pid] if self.code is None else []
        children: dict[int, list[int]] = {}
        ended = set()
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state, parent = file.read().rpartition(b") ")[2].split()[:2]  # its name may hold anything
            except (OSError, ValueError):
                continue
            children.setdefault(int(parent), []).append(int(name))
            if state in (b"Z", b"X"):
                ended.add(int(name))
        found = list(children.get(os.getpid(), []))
        for pid in found:
            found += children.get(pid, [])
        return [pid for pid in found if pid not in ended]


def _join(group: str) -> None:
    try:
        with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
    except OSError as error:
        os.write(2, f"the program runs without a control group of its own: {error.strerror}\n".encode())


def main() -> None:
    """Do what the first line of standard input says."""
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake, writing = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    stopping: list[bool] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(True))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        keeper = Keeper(json.loads(line), wake)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        _say(error=getattr(error, "strerror", None) or str(error), errno=getattr(error, "errno", None) or 0)
        return
    signal.signal(signal.SIGTERM, lambda *_: setattr(keeper, "stop", True))
    keeper.stop = bool(stopping)
    _say(pid=keeper.pid)
    keeper.run()
    _say(code=keeper.code, **({"late": True} if keeper.late else {}))


def _say(**words: object) -> None:
    try:
        os.write(1, json.dumps(words).encode() + b"\n")
    except OSError:  # the node has ended; the next one finds this process by its pid
        return


if __name__ == "__main__":
    main()
