"""Finding the processes that a test run started and did not end.

The run's id is in the environment of everything it starts (`ASHAT_TEST_RUN`). A program that was given an
environment of its own is still recognised by a working directory or an argument below the run's temporary directory.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

VARIABLE = "ASHAT_TEST_RUN"


def wait_for_leftovers(run: str, below: list[Path], seconds: float = 5) -> list[psutil.Process]:
    """The processes of `run` that are still there after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while (found := leftovers(run, below)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def leftovers(run: str, below: list[Path]) -> list[psutil.Process]:
    """The processes that belong to `run` now, this one and its parents apart."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in ours and _belongs(process, run, below)]


def describe(process: psutil.Process) -> str:
    """A line that lets a person recognise the process."""
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return str(process.pid)


def _belongs(process: psutil.Process, run: str, below: list[Path]) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if process.environ().get(VARIABLE) == run:
            return True
        places = [process.cwd(), *process.cmdline()]
    except (psutil.Error, OSError):
        return False
    return any(place == str(path) or f"{path}{os.sep}" in place for place in places for path in below)
