"""`deploy` as a process of its own, with a home of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.processes.forks import FORKS
from tests.support.processes.node import ROOT


def environment(home: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a command is run with: nothing of the caller's Prefect or ASHAT settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "ASHAT_HOME", "ASHAT_LEDGER"))}
    return {**kept, "PYTHONPATH": str(ROOT), "ASHAT_HOME": str(home), **(env or {})}


def deploy(
    home: Path,
    *words: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
    timeout: float = 300,
    anew: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run `deploy` with those words to its end; its output is read as UTF-8 whatever the locale.

    Only `anew` is it an interpreter of its own, which reads the locale as it starts.
    """
    if not anew:
        words = ("ashat.cli", *words)
        return FORKS.run(words, env=environment(home, env), cwd=cwd or home.parent, stdin=stdin, timeout=timeout)
    return subprocess.run(
        [sys.executable, "-m", "ashat.cli", *words],
        env=environment(home, env),
        cwd=cwd or home.parent,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


def deploy_on_terminal(
    home: Path, *words: str, typed: Sequence[tuple[str, str]] = (), secret: bool = False, timeout: float = 300
) -> tuple[int, str]:
    """Run `deploy` with a terminal as its standard streams; its exit code and what was shown.

    `typed` are pairs: once the first is shown, the second is typed, with Enter; if `secret`, once the terminal has
    stopped to echo what is typed.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home.parent)
        os.execve(sys.executable, [sys.executable, "-m", "ashat.cli", *words], environment(home, {"TERM": "xterm"}))
    waiting, shown, seen = list(typed), "", 0
    deadline = time.monotonic() + timeout
    while chunk := _read(terminal, deadline):
        shown += chunk
        if waiting and waiting[0][0] in shown[seen:]:
            seen = len(shown)
            while secret and termios.tcgetattr(terminal)[3] & termios.ECHO and time.monotonic() < deadline:
                time.sleep(0.02)
            os.write(terminal, f"{waiting.pop(0)[1]}\n".encode())
    if time.monotonic() >= deadline:
        os.kill(pid, signal.SIGKILL)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def _read(terminal: int, deadline: float) -> str:
    """What the terminal shows next; "" at its end, or when the time is up."""
    if not select.select([terminal], [], [], max(deadline - time.monotonic(), 0))[0]:
        return ""
    try:
        return os.read(terminal, 65536).decode("utf-8", "replace")
    except OSError:
        return ""
