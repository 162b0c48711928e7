"""Nodes that this machine starts for itself, as processes on free ports: for the demonstration and the self-test."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from ashat.client.node import NodeClient
from ashat.common.files import replace_file
from ashat.common.inherited import inherited
from ashat.common.processes import end, free_port, last_words, python_module, start
from ashat.common.text import last_line
from ashat.errors import AshatError, NodeError
from ashat.protocol.messages import Role

_HOST = "127.0.0.1"
_START_SECONDS = 60.0
_END_SECONDS = 20.0
_PACKAGE = Path(__file__).resolve().parents[1]
_SAMPLES = (_PACKAGE / "_examples" / "raos", _PACKAGE.parent / "examples" / "raos")


class LocalNodeError(AshatError):
    """A node of our own could not be made or started here."""


@dataclass
class LocalNode:
    """A node in `directory`, and the token that opens it. `settings` are `ASHAT_NODE_*` variables for its process."""

    name: str
    role: Role
    directory: Path
    url: str
    token: str
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def client(self) -> NodeClient:
        """Open a client with the node's token; close it."""
        return NodeClient(self.url, token=self.token, name=self.name, expect_role=self.role)

    def serve(self) -> None:
        """Start `ashat-node serve`, in a session of its own, so that Ctrl-C does not reach it before us."""
        command = python_module("ashat.node", "serve", "--config", str(self.directory / "node.toml"))
        self.process = start(command, self._log, env=inherited() | dict(self.settings))

    def wait_until_up(self) -> None:
        """Wait until the node answers.

        Raises:
            LocalNodeError: the node ended, or did not answer in time.
        """
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(NodeError), self.client() as client:
                client.check_role()
                return
            ended = self.process is None or self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                words = last_words(self._log) or "it wrote no reason."
                raise LocalNodeError(f"{self.name} did not start: {words}")
            time.sleep(0.1)

    @property
    def _log(self) -> Path:
        return self.directory / "log"


def make_node(directory: Path, role: Role, settings: Mapping[str, str], *, omega: LocalNode | None = None) -> LocalNode:
    """Initialise a node as its operator would; a Mainframe gets a licence of `omega`.

    Raises:
        LocalNodeError: `ashat-node` refused.
    """
    port = free_port()
    words = ["init", "--role", str(role), "--data", str(directory), "--name", directory.name, "--port", str(port)]
    if omega is not None:
        words += ["--omega", omega.url]
    token = _ashat_node(*words)
    if omega is not None:
        key = _ashat_node("licence", "add", "--name", directory.name, "--data", str(omega.directory))
        replace_file(directory / "licence", key.encode(), mode=0o600)
    return LocalNode(directory.name, role, directory, f"http://{_HOST}:{port}", token, settings)


def end_nodes(nodes: Iterable[LocalNode]) -> None:
    """End each node and the program that it runs."""
    started = [node.process for node in nodes if node.process]
    end([psutil.Process(process.pid) for process in started if process.poll() is None], _END_SECONDS)


def sample_directory() -> Path:
    """Find the sample program: in the checkout, or in the installed package.

    Raises:
        LocalNodeError: it is not there.
    """
    found = next((path for path in _SAMPLES if (path / "raos.toml").is_file()), None)
    if found is None:
        raise LocalNodeError("The sample program is not part of this install; install ashat-deploy again.")
    return found


def _ashat_node(*words: str) -> str:
    done = subprocess.run(
        python_module("ashat.node", *words), env=inherited(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = last_line(done.stderr, "it gave no reason.").removeprefix("ashat-node: ")
        raise LocalNodeError(f"ashat-node {words[0]} failed: {reason}")
    return done.stdout.strip()
