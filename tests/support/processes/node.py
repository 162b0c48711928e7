"""Real nodes for tests: `ashat-node serve` as a process, on a free port, with a token for each scope."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psutil

from ashat.bundle.pack import pack_directory
from ashat.client.node import NodeClient
from ashat.node.access.tokens import TokenFile
from ashat.protocol.messages import Operation, OperationRequest, Role, Scope
from tests.support.processes.fork_server import Fork
from tests.support.processes.forks import FORKS

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "raos"
TINY = Path(__file__).with_name("tiny_app.py")
START_SECONDS = 90.0

# What `descriptors` limits is the node's own process: others may have as many as before.
_LIMITED = """
import resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0}))
runpy.run_module("ashat.node", run_name="__main__", alter_sys=True)
"""

QUICK: dict[str, Any] = {
    "settle": 0.2,
    "start_timeout": 6,
    "health_timeout": 2,
    "health_interval": 0.5,
    "stop_timeout": 2,
    "restart_delay": 0.1,
    "restart_delay_limit": 0.5,
}


def example_app() -> dict[str, Any]:
    """The `[app]` table for `examples/raos`."""
    return {**QUICK, "command": [sys.executable, "raos.py"]}


def example_database() -> dict[str, Any]:
    """The `[database]` table for `examples/raos`."""
    return {"dsn": "sqlite:///{data}/raos.db"}


def tiny_app() -> dict[str, Any]:
    """The `[app]` table for a bundle made by `tiny_bundle`."""
    return {**QUICK, "command": [sys.executable, "-I", "-S", "app.py"]}


def tiny_bundle(directory: Path, behaviour: str = "", **files: str) -> Path:
    """Make `directory` a source that behaves as said (see `tiny_app.py`), with more `files`; return it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "app.py").write_bytes(TINY.read_bytes())
    (directory / "behaviour").write_text(behaviour)
    for name, content in files.items():
        (directory / name).write_text(content)
    return directory


_GIVEN_OUT: set[int] = set()


def free_port() -> int:
    """A port that nothing listens on now, and that this process did not give out before."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _GIVEN_OUT:
            _GIVEN_OUT.add(port)
            return port


class NodeProcess:
    """A node in `directory`: `node.toml`, `data/`, `log`. Use it in a `with` block, which ends all that it started.

    `settings` are further top-level settings; without a `trust_root` among them, nobody has to sign. `tls` names a
    certificate, its key and the CA to trust, `descriptors` how many the node may have at most.
    """

    def __init__(
        self,
        directory: Path,
        *,
        role: Role = Role.PUBLIC,
        app: Mapping[str, Any] | None = None,
        database: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        omega: str = "",
        licence_key: str = "",
        env: Mapping[str, str] | None = None,
        tls: tuple[Path, Path, Path] | None = None,
        descriptors: int | None = None,
        start: bool = True,
    ) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.role = role
        self.port = free_port()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.ca = tls[2] if tls else None
        self._process: Fork | None = None
        self._env = dict(env or {})
        self._words = ["ashat.node"] if descriptors is None else ["-c", _LIMITED.format(descriptors)]
        self.data.mkdir(parents=True, mode=0o700, exist_ok=True)
        config: dict[str, Any] = {"role": str(role), "name": directory.name, "port": self.port, "data": "data"}
        if omega:
            config["omega"] = omega
            config["license_file"] = "licence"
            licence = directory / "licence"
            licence.write_text(licence_key)
            licence.chmod(0o600)
        if tls:
            config |= {"tls_cert": str(tls[0]), "tls_key": str(tls[1])}
        if role is not Role.PUBLIC and not {"trust_root", "unsigned_releases"} & (settings or {}).keys():
            config["unsigned_releases"] = True
        config |= {**(settings or {}), "app": dict(app or QUICK), "database": dict(database or {})}
        self.config = directory / "node.toml"
        self.config.write_text(to_toml(config))
        tokens = TokenFile(self.data / "tokens.json")
        self._tokens = {scope: tokens.add(str(scope), [scope])[1] for scope in Scope}
        if start:
            self.start()

    @property
    def pid(self) -> int:
        """The running node's process id."""
        assert self._process is not None
        return self._process.pid

    def token(self, scope: Scope = Scope.ADMIN) -> str:
        """A token of that scope."""
        return self._tokens[scope]

    def client(self, scope: Scope = Scope.ADMIN, **options: Any) -> NodeClient:
        """A client with that token. Close it."""
        return NodeClient(self.url, token=self.token(scope), name=self.directory.name, ca=self.ca, **options)

    def start(self, env: Mapping[str, str] | None = None, *, wait: bool = True) -> None:
        """Start the node's process, with `env` added for this time, and wait until it answers."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ASHAT_NODE_")}
        with open(os.devnull, "rb") as nothing, open(self.directory / "log", "ab") as log:
            self._process = FORKS.start(
                [*self._words, "serve", "--config", str(self.config)],
                cwd=ROOT,
                env={**environment, **self._env, **(env or {})},
                streams=(nothing, log, log),
            )
        if wait:
            self.wait_until_up()

    def wait_until_up(self) -> None:
        """Wait until the node answers; raises as `wait_for_address`."""
        self.wait_for_address()
        socket.create_connection(("127.0.0.1", self.port), timeout=5).close()

    def wait_for_address(self) -> dict[str, Any]:
        """What the node says in `node.json` once it listens.

        Raises:
            AssertionError: it ended, or did not get there in time; the message holds its log.
        """
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, f"the node ended:\n{self.log()}"
            try:
                address: dict[str, Any] = json.loads((self.data / "node.json").read_bytes())
            except FileNotFoundError:
                address = {}
            if address.get("pid") == self._process.pid:
                return address
            time.sleep(0.03)
        raise AssertionError(f"the node did not answer within {START_SECONDS:g} s:\n{self.log()}")

    def wait_until_dead(self, seconds: float = 90) -> int:
        """Wait until the node's process ended by itself; its exit code."""
        assert self._process is not None
        return self._process.wait(seconds)

    def kill9(self) -> None:
        """End the node's process at once, as a crash would. Its program goes on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """End the node as an operator would; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def restart(self, env: Mapping[str, str] | None = None) -> None:
        """Stop the node, if it runs, and start it again."""
        if self._process is not None:
            self.stop()
        self.start(env)

    def restart_leaving(self, env: Mapping[str, str] | None = None) -> None:
        """Restart the node as `systemctl restart` does with the unit of the guide: its program goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)
        self._process.wait(30)
        self.start(env)

    def log(self) -> str:
        """What the node wrote so far."""
        path = self.directory / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def close(self) -> None:
        """End the node, and whatever of its program a crash left."""
        if self._process is not None and self._process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill9()
        for process in below(self.directory):
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def below(directory: Path) -> list[psutil.Process]:
    """The processes that work in `directory`."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def push(client: NodeClient, source: Path) -> str:
    """Send the directory as a bundle; its digest."""
    with pack_directory(source) as packed:
        return client.push_bundle(packed).bundle


def switch(
    client: NodeClient,
    bundle: str | None,
    *,
    expected: str | None,
    operation_id: str = "",
    update_id: str = "UPD-1",
    holder: str | None = None,
) -> Operation:
    """Have a Public node switch, and wait for the end of it."""
    request = OperationRequest(
        action="switch", bundle=bundle, expected_current=expected, update_id=update_id, attempt=1, holder=holder
    )
    identity = operation_id or f"op-{time.monotonic_ns()}"
    client.start_operation(identity, request)
    return client.wait_operation(identity, timeout=180)


def to_toml(content: Mapping[str, Any]) -> str:
    """`content` as TOML: tables one level deep, of strings, numbers, booleans and lists of them."""
    plain = {key: value for key, value in content.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for name, table in content.items():
        if isinstance(table, Mapping):
            lines.append(f"[{name}]")
            for key, value in table.items():
                if isinstance(value, Mapping):
                    inner = ", ".join(f"{json.dumps(word)} = {json.dumps(text)}" for word, text in value.items())
                    lines.append(f"{key} = {{ {inner} }}")
                else:
                    lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


def demanding_region(directory: Path) -> NodeProcess:
    """An OMEGA that runs the sample program and takes nothing that nobody signed."""
    return NodeProcess(
        directory,
        role=Role.OMEGA,
        app=example_app(),
        database=example_database(),
        settings={"unsigned_releases": False},
    )
