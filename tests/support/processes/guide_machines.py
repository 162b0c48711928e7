"""The machines of the guide's first set-up, for a test that walks through it: directories here, each with a home.

What is typed there is the guide's own text. `sudo` runs the rest as whoever types, `ssh` in another machine's
directory, and `systemctl enable --now` starts what the guide's unit does. Names and ports become free ones here.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import psutil

from tests.support.drivers.doc_console import Block, Command, Console
from tests.support.processes import docs_stack
from tests.support.processes.node import free_port
from tests.support.processes.prefect_database import begin_with_empty_database

SERVERS = ("public", "omega", "mainframe")
_HOSTS = {"staging.example.com": "public", "omega.example.com": "omega", "customer-1.example.com": "mainframe"}
# What the tests' own environment has: the program is installed, and nobody makes users of this machine.
_DONE = ("useradd", "-m venv", "pip install")
_NODE = "/var/lib/ashat/node"
_SUDO = '[ "$1" = -u ] && shift 2\nexec "$@"'
_SSH = """\
case $1 in {hosts} *) echo "no host $1" >&2; exit 255;; esac
shift
export HOME=$home PATH="{programs}:$PATH"
cd "$home" && exec sh -c "$(printf %s "$*" | sed "s|/var/lib/ashat|$home/var/lib/ashat|g; s|-o ashat ||g")"
"""
_SYSTEMCTL = """\
case "$*" in
"enable --now ashat-node" | "start ashat-node")
    setsid {serve} >> "$HOME/node.log" 2>&1 < /dev/null &
    echo $! > "$HOME/node.pid";;
"stop ashat-node")
    pid=$(cat "$HOME/node.pid")
    kill "$pid" 2> /dev/null || exit 0
    while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done;;
*) exit 1;;
esac
"""


def _commands(text: str) -> Iterator[str]:
    """Split what is typed into commands: a line with those that continue it, or a loop with all that is in it."""
    command = ""
    for line in text.splitlines():
        command += f"{line}\n"
        in_loop = command.startswith("for ") and line != "done"
        if not (in_loop or line.endswith(("\\", "|"))):
            yield command
            command = ""
    assert not command, f"this does not end: {command}"


class Machines:
    """ALPHA and three servers, each in a directory of `root`; `serve` is the command line of the guide's unit."""

    def __init__(self, root: Path, serve: str) -> None:
        self.homes = {name: root / name for name in ("alpha", *SERVERS)}
        self._ports = {name: free_port() for name in SERVERS}
        self._programs = {name: free_port() for name in SERVERS}
        tails = {"5f0e9c1b": ("RAOS-1", 1), "31c7b2d9": ("RAOS-2", 1)}
        self._tails: dict[str, Callable[[], str | None]] = {
            shown: partial(docs_stack.tail_of, self.homes["alpha"], *whose) for shown, whose in tails.items()
        }
        for home in self.homes.values():
            docs_stack.programs(home).mkdir(parents=True)
            (home / "var/lib").mkdir(parents=True)
        docs_stack.make_source(self.homes["alpha"])
        begin_with_empty_database(self.homes["alpha"] / ".ashat")
        self._write_programs(serve)
        self._consoles = {name: Console(home, self._environment(name), {}) for name, home in self.homes.items()}

    def type(self, block: Block, machine: str, directory: str = ".") -> str:
        """Type a block at a machine, a command after the other, in a directory of its home; what was printed.

        Raises:
            AssertionError: a command failed; the message has what it printed.
        """
        printed = ""
        for line in _commands("\n".join(line for line in block.lines[1:] if not any(done in line for done in _DONE))):
            text = f"(set -e -o pipefail; cd {directory}; {self.here(line, machine)}\n)"
            printed += self._consoles[machine].run(Command(text, ("…",), block.line))
        return printed

    def put(self, block: Block, machine: str, without: Sequence[str] = ()) -> None:
        """Put a block of settings into the machine's `node.toml`, in place of the empty table that is there."""
        file = Path(self.here(f"{_NODE}/node.toml", machine))
        lines = [line for line in block.lines if not line.startswith(tuple(without) or "\0")]
        settings = file.read_text("utf-8")
        assert f"\n{block.lines[0]}\n" in settings
        file.write_text(settings.replace(f"\n{block.lines[0]}\n", self.here("\n".join(["", *lines, ""]), machine)))

    def here(self, text: str, machine: str) -> str:
        """What the guide shows, as it is on this machine of ours."""
        for shown, found in self._stand_ins(machine).items():
            text = text.replace(shown, found)
        for shown, tail in self._tails.items():
            if shown in text:
                text = text.replace(shown, tail() or shown)
        # A busy machine may leave a check inconclusive, and then an approval needs a comment.
        text = re.sub(r"^(deploy approve [^#]*?)(?= +#|$)", r"\1 --comment 'seen'", text, flags=re.MULTILINE)
        return re.sub(r"-o ashat ", "", text) if machine != "alpha" else text

    def log(self, machine: str) -> str:
        """What its node wrote."""
        return (self.homes[machine] / "node.log").read_text("utf-8", "replace")

    def close(self) -> None:
        """End the nodes and what they started."""
        for name in SERVERS:
            file = self.homes[name] / "node.pid"
            if file.exists() and psutil.pid_exists(pid := int(file.read_text())):
                os.kill(pid, signal.SIGTERM)
                psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stand_ins(self, machine: str) -> Mapping[str, str]:
        own = {"0.0.0.0": "127.0.0.1", "/opt/ashat/bin": str(Path(sys.executable).parent)}
        if machine != "alpha":
            own |= {
                "/var/lib/ashat": str(self.homes[machine] / "var/lib/ashat"),
                "/var/backups": str(self.homes[machine] / "var/backups"),
                "--port 8470": f"--port {self._ports[machine]}",
                "port = 8080": f"port = {self._programs[machine]}",
                "http://staging.example.com:8080": f"http://127.0.0.1:{self._programs['public']}",
            }
        return {
            "https://staging.example.com:8470": f"https://localhost:{self._ports['public']}",
            "https://omega.example.com:8470": f"https://localhost:{self._ports['omega']}",
            "CN=$server.example.com": "CN=localhost",
            "DNS:$server.example.com": "DNS:localhost",
            "postgresql+psycopg://raos:PASSWORD@db.example.com/raos": "sqlite:///{data}/raos.db",
            **own,
        }

    def _environment(self, machine: str) -> dict[str, str]:
        return docs_stack.environment(self.homes[machine])

    def _write_programs(self, serve: str) -> None:
        for name, home in self.homes.items():
            hosts = " ".join(f"{host}) home={shlex.quote(str(self.homes[to]))};;" for host, to in _HOSTS.items())
            programs = {
                "sudo": _SUDO,
                "ssh": _SSH.format(hosts=hosts, programs=docs_stack.programs(home)),
                "systemctl": _SYSTEMCTL.format(serve=self.here(serve, name)),
            }
            for program, text in programs.items():
                path = docs_stack.programs(home) / program
                path.write_text(f"#!/bin/sh\n{text}\n")
                path.chmod(0o755)
