"""Real processes: started with a log, found by a variable, ended with what they started, told from their successors."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ashat.common.clocks import boot_id
from ashat.common.processes import (
    ProcessRef,
    end,
    free_port,
    last_words,
    start,
    wait_ended,
    with_variable,
)

# Deaf to SIGTERM, as is the child, whose pid it writes.
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""
# Its child is a zombie as long as it lives.
CARELESS = """
import os, time
child = os.fork()
if not child:
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


def python(script: str, log: Path, **variables: str) -> tuple[psutil.Process, psutil.Process]:
    """The process that runs `script`, and its child."""
    began = log.stat().st_size if log.exists() else 0
    process = start([sys.executable, "-I", "-S", "-c", script], log, env={**os.environ, **variables})
    deadline = time.monotonic() + 60
    while not (words := last_words(log, began)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return psutil.Process(process.pid), psutil.Process(int(words))


def test_what_a_process_started_ends_with_it_and_nothing_else_does(tmp_path: Path) -> None:
    log = tmp_path / "log"
    wanted, child = python(DEAF, log, PROCESS_TEST=str(tmp_path))
    other, others_child = python(DEAF, log, PROCESS_TEST="another")
    try:
        found = with_variable("PROCESS_TEST", str(tmp_path))
        assert set(found) == {wanted, child}
        end(found[:1], seconds=0.1)
        assert wait_ended(wanted, 0)
        assert wait_ended(child, 0)
        assert not wait_ended(other, 0)
    finally:
        end([other], seconds=0)
    assert wait_ended(others_child, 0)
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_zombie_that_nobody_buries_has_ended(tmp_path: Path) -> None:
    parent, child = python(CARELESS, tmp_path / "log")
    try:
        assert wait_ended(child, 30)
        assert ProcessRef.of(child.pid) is None
    finally:
        end([parent], seconds=0)


def test_a_pid_that_was_given_to_somebody_else_is_not_meant() -> None:
    this = ProcessRef.of(os.getpid())
    assert this is not None
    assert this.process() is not None
    assert ProcessRef(this.pid, this.created - 3600).process() is None
    gone = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    gone.wait()
    assert ProcessRef.of(gone.pid) is None


def test_a_process_is_known_again_after_somebody_set_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    this = ProcessRef.of(os.getpid())
    assert this is not None
    created = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + 2 * 365 * 86_400)
    assert this.process() is not None


def test_a_process_of_another_start_of_the_machine_is_not_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    this = ProcessRef.of(os.getpid())
    assert this is not None
    monkeypatch.setattr("ashat.common.processes.boot_id", lambda: "ffff" if boot_id()[:4] != "ffff" else "0000")
    assert this.process() is None


def test_the_last_words_are_those_since_a_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    assert last_words(log) == "before"
    assert last_words(log, log.stat().st_size) == ""
    with log.open("a") as file:
        file.write("one\n  two  \n\n")
    assert last_words(log, 7) == "two"


def test_a_port_that_is_taken_is_not_given() -> None:
    port = free_port()
    assert free_port(port) == port
    with socket.create_server(("127.0.0.1", port)):
        assert free_port(port) != port
