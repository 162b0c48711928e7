"""Where the documents' commands are run: a home of its own, the sample as a git repository in it, free ports."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Self

from ashat.cli.control_plane.state import read_state
from tests.support.drivers.doc_console import Console
from tests.support.processes.deploy_forks import IMPORTS, fork_flow_runs, prefect_environment
from tests.support.processes.fork_server import ForkServer, command
from tests.support.processes.node import EXAMPLE, free_port
from tests.support.processes.prefect_database import begin_with_empty_database

PORTS = ("8470", "8471", "8472")
# The ends of evidence that the documents show, and the update and attempt whose evidence each is.
TAILS = {
    "5f0e9c1b": ("UPD-1", 1),
    "31c7b2d9": ("UPD-2", 1),
    "a86d40e7": ("UPD-3", 1),
    "c20d7f64": ("UPD-2", 2),
    "0d15ea5e": ("UPD-5", 1),
}
# Checks and switches that wait for less time than a real server should.
_QUICK = {"settle_seconds = 2": "settle_seconds = 1", "requests = 300": "requests = 100"}
_NODE = {"ASHAT_NODE_APP__SETTLE": "0.2", "ASHAT_NODE_APP__STOP_TIMEOUT": "3"}


def console(home: Path) -> Console:
    """A session in the empty directory `home`, where `raos/` is a git repository with the sample."""
    make_source(home)
    programs(home).mkdir()
    begin_with_empty_database(home / ".ashat")
    stand_ins: dict[str, str | Callable[[], str | None]] = {port: str(free_port()) for port in PORTS}
    stand_ins |= {tail: partial(tail_of, home, *whose) for tail, whose in TAILS.items()}
    stand_ins["127.0.0.1:4200"] = partial(_control_plane, home)
    stand_ins["@alpha"] = f"@{socket.gethostname()}"
    stand_ins["/home/kim"] = str(home)
    return Console(home, environment(home), stand_ins)


class Forks:
    """Has `deploy` and flow runs forked, once there is a control plane: nearly two seconds less for each."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._server: ForkServer | None = None

    def prepare(self) -> None:
        """Put a `deploy` that is forked before the installed one, if it is time and not yet done."""
        state = read_state(self._home / ".ashat")
        if self._server is not None or state is None or not state.ready:
            return
        prefect = prefect_environment(self._home / ".ashat")
        self._server = ForkServer(IMPORTS, env={**environment(self._home), **prefect})
        program = programs(self._home) / "deploy"
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in prefect.items())
        asking = command(self._server.address, "ashat.cli", IMPORTS)
        program.write_text(f'#!/bin/sh\n{exports}exec {asking} "$@"\n')
        program.chmod(0o755)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        (programs(self._home) / "deploy").unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()


def soak_no_longer(home: Path) -> None:
    """From now on no release is soaked in light load for a minute."""
    _configure_policy(home, "soak_seconds = 0\n")


def compare_no_more(home: Path) -> None:
    """From now on no release is compared with the one before: on a busy machine that is inconclusive now and then."""
    _configure_policy(home, "rehearses = false\nsoak_seconds = 0\n")


def _configure_policy(home: Path, keys: str) -> None:
    policy = home / ".policy.toml"
    policy.write_text(keys)
    words = ["deploy", "configure", "policy", "default", str(policy)]
    subprocess.run(words, env=environment(home), cwd=home, check=True, capture_output=True)


def end(home: Path) -> None:
    """Stop the control plane that a command started."""
    subprocess.run(["deploy", "down"], env=environment(home), cwd=home, check=True, capture_output=True)


def _control_plane(home: Path) -> str | None:
    state = read_state(home / ".ashat")
    return f"127.0.0.1:{state.port}" if state else None


def tail_of(home: Path, update_id: str, attempt: int) -> str | None:
    """The last 8 characters of the evidence of an update; None where it has none yet."""
    ledger = home / ".ashat" / "ledger.db"
    if not ledger.exists():
        return None
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        row = connection.execute(
            "SELECT summary FROM sessions WHERE update_id = ? AND attempt = ?", (update_id, attempt)
        ).fetchone()
    finally:
        connection.close()
    evidence = json.loads(row[0])["evidence"] if row else None
    return evidence[-8:] if evidence else None


def environment(home: Path) -> dict[str, str]:
    """What a command of a session in `home` is run with."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ASHAT_", "PREFECT_", "GIT_", "RAOS_")) or name.startswith("ASHAT_TEST_")
    }
    path = os.pathsep.join((str(programs(home)), str(Path(sys.executable).parent), os.environ["PATH"]))
    inherited |= fork_flow_runs(home / ".runs")
    return {**inherited, **_NODE, "HOME": str(home), "PATH": path, "LOGNAME": "kim", "COLUMNS": "2000", "TERM": "dumb"}


def programs(home: Path) -> Path:
    """Where programs lie that stand before the installed ones."""
    return home / ".bin"


def make_source(home: Path) -> None:
    """Make `raos/` in `home`: the sample, quicker, as a git repository."""
    source = home / "raos"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    promises = source / "raos.toml"
    text = promises.read_text("utf-8")
    for slow, quick in _QUICK.items():
        text = text.replace(slow, quick)
    promises.write_text(text, "utf-8")
    (home / ".gitconfig").write_text("[user]\nname = Kim\nemail = kim@example.com\n")
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "RaOS 9.4.1"]):
        subprocess.run(["git", "-C", str(source), *words], env=environment(home), check=True)
