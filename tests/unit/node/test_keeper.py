"""The keeper of a program, by itself: what it is told, what it says, and that nothing is left when it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ashat.node.app_process import keeper

# Leaves a process in a session of its own, deaf to SIGTERM, and says which; then does what its argument says.
LEAVES = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.wait()
while not os.path.exists(sys.argv[1]) or not open(sys.argv[1]).read():
    time.sleep(0.01)
exec(sys.argv[2])
"""


@contextmanager
def kept(directory: Path, *command: str, **spec: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A keeper that was told to run `command`."""
    told = {
        "command": command,
        "env": {},
        "cwd": str(directory),
        "user": None,
        "group": None,
        "groups": None,
        "umask": -1,
        "cgroup": "",
        "stop_timeout": 0.3,
        **spec,
    }
    words = [sys.executable, "-I", "-S", keeper.__file__, str(directory)]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
    assert process.stdin is not None
    process.stdin.write(json.dumps(told).encode() + b"\n")
    process.stdin.close()
    with process:
        yield process
        process.wait(60)


def said(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    content: dict[str, Any] = json.loads(process.stdout.readline())
    return content


def left(directory: Path) -> bool:
    """Whether what the program left still runs."""
    pid = int((directory / "left").read_text())
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def leaves(directory: Path, then: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", LEAVES, str(directory / "left"), then)


@pytest.mark.parametrize(
    ("then", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", -9), ("os.kill(os.getpid(), 11)", -11)]
)
def test_how_a_program_ended_is_said_once_nothing_of_it_is_left(tmp_path: Path, then: str, code: int) -> None:
    with kept(tmp_path, *leaves(tmp_path, then)) as process:
        assert said(process)["pid"] > 0
        assert said(process) == {"code": code}
        assert not left(tmp_path)


def test_on_sigterm_all_of_it_ends(tmp_path: Path) -> None:
    with kept(tmp_path, *leaves(tmp_path, "print('up', flush=True); time.sleep(600)")) as process:
        pid = said(process)["pid"]
        while (tmp_path / "log").read_text() != "up\n":
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert said(process) == {"code": -signal.SIGTERM}
        assert not left(tmp_path)
        assert not psutil.pid_exists(pid)


def test_what_cannot_be_run_is_an_error_with_its_number(tmp_path: Path) -> None:
    with kept(tmp_path, str(tmp_path / "not-here")) as process:
        assert said(process) == {"error": "No such file or directory", "errno": 2}


def test_a_control_group_that_cannot_be_joined_stops_no_program(tmp_path: Path) -> None:
    with kept(tmp_path, "/bin/sh", "-c", "exit 7", cgroup=str(tmp_path / "not-here")) as process:
        assert said(process)["pid"] > 0
        assert said(process) == {"code": 7}
    assert "without a control group" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("line", [b"", b'{"command": ["/bin/sh"', b"no json\n"])
def test_what_it_was_not_told_to_its_end_it_does_not_do(line: bytes) -> None:
    words = [sys.executable, "-I", "-S", keeper.__file__, "/nowhere"]
    ended = subprocess.run(words, input=line, capture_output=True, timeout=60, check=False)
    assert b"pid" not in ended.stdout
    assert b"Traceback" not in ended.stderr


def test_what_may_take_so_many_seconds_only_is_ended_then_with_all_of_it(tmp_path: Path) -> None:
    with kept(tmp_path, *leaves(tmp_path, "time.sleep(600)"), seconds=1) as process:
        assert set(said(process)) == {"pid"}
        assert said(process) == {"code": -signal.SIGTERM, "late": True}
        assert not left(tmp_path)
