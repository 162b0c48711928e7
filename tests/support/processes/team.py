"""A team's control plane: the units of deploy/systemd and the nginx of deploy/nginx, run as they are shown."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil

from ashat.common.processes import free_port
from tests.support.builders.databases import new_postgresql_database
from tests.support.drivers.doc_console import blocks
from tests.support.fakes.bad_network import CuttingProxy
from tests.support.fakes.certificates import make_certificate
from tests.support.processes.deploy_forks import DeployForks
from tests.support.processes.fragile_stack import FragileStack
from tests.support.processes.nginx import listens, write_nginx
from tests.support.processes.node import ROOT
from tests.support.processes.stack import eventually

DEPLOY = f"{sys.executable} -m ashat.cli"
UNITS = ROOT / "deploy/systemd"
NGINX = ROOT / "deploy/nginx/ashat-team.conf"
_RESTART_SECONDS = 2.0
SECTION = "From nothing to the first release"


def shown_commands() -> list[str]:
    """The commands of docs/team.md that lead to the first release."""
    (found,) = (
        block
        for block in blocks((ROOT / "docs/team.md").read_text("utf-8"))
        if block.section == SECTION and block.language == "sh"
    )
    return list(found.lines)


def read_env(path: Path) -> dict[str, str]:
    """The variables of a settings file, as systemd reads them."""
    lines = (line.partition("=") for line in path.read_text("utf-8").splitlines() if line)
    return {name: shlex.split(value)[0] for name, _, value in lines}


def unit_command(unit: str) -> tuple[list[str], str]:
    """The command that a unit starts, and the name of the settings file that it reads; `unit` is `name@instance`."""
    name, _, instance = unit.partition("@")
    path = UNITS / (f"{name}@.service" if instance else f"{name}.service")
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text("utf-8"))
    line = parser["Service"]["ExecStart"].replace("%i", instance).replace("/opt/ashat/bin/deploy", DEPLOY)
    return shlex.split(line), Path(parser["Service"]["EnvironmentFile"]).name


def target_units() -> list[str]:
    """The units that ashat-team.target wants, without `.service`."""
    text = (UNITS / "ashat-team.target").read_text("utf-8")
    words = " ".join(re.findall(r"(?m)^Wants=(.*)$", text)).split()
    return [word.removesuffix(".service") for word in words]


class Team(FragileStack):
    """Servers, and a control plane of two API servers, services and workers, on PostgreSQL and a Redis of its own.

    What `deploy` is run with reads `client.env`. `kill` ends a process of the team with all below it.
    """

    def __init__(self, directory: Path, *, mainframes: int = 1, api_servers: int = 2) -> None:
        super().__init__(directory, mainframes=mainframes)
        self._settings = directory / "etc"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._again: dict[str, Callable[[], subprocess.Popen[bytes]]] = {}
        self._changing = threading.RLock()
        self._ended = threading.Event()
        self._ports = [free_port() for _ in range(api_servers)]
        self._front = free_port()
        self._redis_port = free_port()
        self._logs = directory / "team-logs"
        self.client: dict[str, str] = {}
        self.authority: Path
        self.postgresql: CuttingProxy
        self.prefect_url = self.ledger_address = ""
        self._stand_ins: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where nginx answers."""
        return f"https://127.0.0.1:{self._front}"

    @property
    def ledger_url(self) -> str:
        """Where the ledger is, past the proxy that can cut."""
        return self.ledger_address

    @property
    def environment(self) -> dict[str, str]:
        """As any stack's, with what client.env says; flow runs are processes of the worker's own."""
        own = dict(super().environment)
        own.pop("ASHAT_FLOW_COMMAND", None)
        own.pop("ASHAT_RECONCILE_SECONDS", None)
        trusted = {"PREFECT_API_SSL_CERT_FILE": str(self.authority), "SSL_CERT_FILE": str(self.authority)}
        return {**own, **self.client, **trusted}

    # Processes

    def start(self, unit: str, *more: str, name: str = "", env: Mapping[str, str] | None = None) -> None:
        """Start what a unit of deploy/systemd starts, under the name `name`, else the unit's; it is started again when
        it ends, as by systemd, until it is killed or stopped here."""
        command, file = unit_command(unit)
        inherited = {k: v for k, v in self.environment.items() if k not in self.client}
        environment = {**inherited, **read_env(self._settings / file), "PYTHONPATH": str(ROOT), **(env or {})}

        def begin() -> subprocess.Popen[bytes]:
            with (self._logs / f"{name or unit}.log").open("ab") as log:
                return subprocess.Popen(
                    [*command, *more], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )

        with self._changing:
            self._again[name or unit] = begin
            self._running[name or unit] = begin()

    def _restart_the_dead(self) -> None:
        while not self._ended.wait(_RESTART_SECONDS):
            with self._changing:
                for name, begin in self._again.items():
                    if self._running[name].poll() is not None:
                        self._running[name] = begin()

    def _take(self, name: str) -> subprocess.Popen[bytes]:
        """Take a process out of those that are started again."""
        with self._changing:
            self._again.pop(name, None)
            return self._running.pop(name)

    def kill(self, name: str) -> None:
        """SIGKILL for a process of the team and all below it."""
        root = self._take(name)
        below = psutil.Process(root.pid).children(recursive=True)
        root.kill()
        for process in below:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        root.wait(30)
        psutil.wait_procs(below, timeout=30)

    def pid(self, name: str) -> int:
        """The process of that name."""
        return self._running[name].pid

    def worker_of(self, run: str) -> str:
        """The worker below which a flow run lives now."""
        _, _, pid = str(self.run(run)["infrastructure_pid"]).rpartition(":")
        above = {process.pid for process in psutil.Process(int(pid)).parents()}
        return next(name for name, process in self._running.items() if process.pid in above)

    def api_servers(self) -> list[str]:
        """The API servers that were started and not ended."""
        return [name for name in self._running if name.startswith("ashat-server")]

    def suspended(self) -> list[dict[str, Any]]:
        """Every flow run that waits for an answer."""
        wanted = {"flow_runs": {"state": {"name": {"any_": ["Suspended"]}}}, "limit": 200}
        found: list[dict[str, Any]] = self.api("POST", "/flow_runs/filter", wanted)
        return found

    def reconcile(self) -> bool:
        """Let `reconcile` look once, now; whether it could."""
        return bool(self.wait_ended(self.start_run("reconcile/reconcile"))["state_type"] == "COMPLETED")

    def log(self, name: str) -> str:
        """What a process of the team wrote."""
        return (self._logs / f"{name}.log").read_text("utf-8", "replace")

    def start_redis(self) -> None:
        """Start the team's Redis, with what it had."""
        data = self._directory / "redis"
        data.mkdir(exist_ok=True)
        words = ["--port", str(self._redis_port), "--bind", "127.0.0.1", "--dir", str(data), "--appendonly", "yes"]
        with (self._logs / "redis.log").open("ab") as log:
            self._running["redis"] = subprocess.Popen(
                [str(shutil.which("redis-server")), *words, "--save", ""], stdout=log, stderr=log
            )
        eventually(lambda: listens(self._redis_port), "Redis to listen", 60)

    # The team

    def _start_control_plane(self, closing: ExitStack) -> None:
        self._logs.mkdir()
        closing.callback(self._end)
        watching = threading.Thread(target=self._restart_the_dead)
        watching.start()
        closing.callback(watching.join)
        closing.callback(self._ended.set)
        certificate, key, self.authority = make_certificate(self._directory / "front")
        prefect, ledger = (closing.enter_context(new_postgresql_database()) for _ in range(2))
        self.ledger_address = ledger.render_as_string(hide_password=False)
        self.prefect_url = prefect.render_as_string(hide_password=False)
        self.postgresql = closing.enter_context(CuttingProxy(ledger.port or 5432))
        self.start_redis()
        self._start_nginx(certificate, key)
        self._stand_ins = {
            "deploy ": f"{DEPLOY} ",
            "postgresql://ashat@db.example.com/prefect": self._through_proxy(self.prefect_url),
            "postgresql://ashat@db.example.com/ashat": self._through_proxy(self.ledger_address),
            "redis://redis.example.com:6379/0": f"redis://127.0.0.1:{self._redis_port}/0",
            "https://prefect.example.com": self.url,
            "/etc/ashat": str(self._settings),
        }
        # The first makes the databases, which are there.
        for line in shown_commands()[1:5]:
            self.run_shown(line)

    def run_shown(self, line: str) -> str:
        """Run a command of the document as it is shown, but for addresses and systemd; what it printed."""
        if "systemctl" in line:
            for unit in target_units():
                for old, port in zip(("4200", "4201"), self._ports, strict=False):
                    unit = unit.replace(old, str(port))
                self.start(unit)
            for port in self._ports[2:]:
                self.start(f"ashat-server@{port}")
            eventually(self.answers, "the API servers to answer", 400)
            return ""
        for old, new in self._stand_ins.items():
            line = line.replace(old, new)
        if " team init" in line:
            line += f" --to {self._settings}"
        done = subprocess.run(
            ["sh", "-c", line],
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            cwd=self.source,
            capture_output=True,
            text=True,
            timeout=480,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if (self._settings / "client.env").exists() and not self.client:
            self.client = read_env(self._settings / "client.env")
        return done.stdout

    def _through_proxy(self, url: str) -> str:
        found = re.fullmatch(r"postgresql\+psycopg://(\w+)@([\w.]+)(?::\d+)?/(\w+)", url)
        assert found, url
        return f"postgresql://{found[1]}@127.0.0.1:{self.postgresql.port}/{found[3]}"

    def _start_nginx(self, certificate: Path, key: Path) -> None:
        directory = self._directory / "nginx"
        directory.mkdir()
        changes = {
            "127.0.0.1:4200": f"127.0.0.1:{self._ports[0]}",
            "127.0.0.1:4201": "; server ".join(f"127.0.0.1:{port}" for port in self._ports[1:]),
            "listen 443 ssl": f"listen 127.0.0.1:{self._front} ssl",
            "    listen [::]:443 ssl;\n": "",
            "/etc/ssl/ashat/prefect.pem": str(certificate),
            "/etc/ssl/private/ashat/prefect.key": str(key),
        }
        path = write_nginx(directory, NGINX.read_text("utf-8"), changes)
        with (self._logs / "nginx.log").open("ab") as log:
            self._running["nginx"] = subprocess.Popen([str(shutil.which("nginx")), "-c", str(path)], stderr=log)

    def answers(self) -> bool:
        """Whether every API server that was started listens."""
        return all(listens(int(name.partition("@")[2])) for name in self.api_servers())

    def _warmed(self) -> DeployForks:
        env = {**self.environment, "PREFECT_HOME": str(self.home.resolve() / "prefect")}
        return DeployForks(self.source, env, self._directory / "outputs")

    def _end(self) -> None:
        names = sorted(self._running, key=lambda name: (name in ("redis", "nginx"), "server" in name))
        for name in names:
            if self._running[name].poll() is None:
                self._running[name].send_signal(signal.SIGTERM)
                try:
                    self._running[name].wait(30)
                except subprocess.TimeoutExpired:
                    self.kill(name)

    def api(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """What Prefect's API answers, through nginx."""
        user, _, password = self.client["PREFECT_API_AUTH_STRING"].partition(":")
        response = httpx.request(
            method,
            f"{self.url}/api{path}",
            json=body,
            auth=(user, password),
            verify=_trusting(self.authority),
            trust_env=False,
            timeout=90,
            **options,
        )
        response.raise_for_status()
        return response.json() if response.content else None


def _trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))
