"""The whole stack for tests: a control plane, Public, OMEGA and Mainframes, as real processes in one directory."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from ashat.cli.control_plane.state import read_state
from ashat.deployment.state_machine import State
from ashat.ledger.ledger import Ledger
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import Role, Scope
from ashat.trust.authority.authority import Authority
from tests.support.fakes.certificates import make_certificate
from tests.support.processes.deploy_forks import DeployForks, fork_flow_runs, prefect_environment
from tests.support.processes.node import EXAMPLE, ROOT, NodeProcess, example_app, example_database, to_toml
from tests.support.processes.prefect_api import ask_prefect
from tests.support.processes.prefect_database import begin_with_empty_database

QUICK_SETTINGS = {
    "ASHAT_RETRY_DELAY": "0.2",
    "ASHAT_MAINFRAME_TIMEOUT": "30",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "NO_COLOR": "1",
}


_ACTIVE = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")


def eventually(look: Callable[[], Any], what: str, seconds: float = 240) -> Any:
    """What `look` answers once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
    return found


NO_PROXIES_SERVED = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "NO_PROXY": "fd00::/8,[::1],10.0.0.0/8",
}


class Stack:
    """Servers and a control plane below `directory`. Use it in a `with` block, which ends all that it started.

    `mainframes` says how many there are; `omega` whether OMEGA is configured for `deploy`. Only where it `rehearses`
    is the way back rehearsed, and performance compared with the release before: on a busy machine, a comparison is
    rightly inconclusive now and then. Only where it `reconciles` does `reconcile` run every minute; elsewhere it runs
    when told to, so that nothing is mended unseen.
    """

    def __init__(
        self,
        directory: Path,
        *,
        mainframes: int = 2,
        omega: bool = True,
        rehearses: bool = False,
        reconciles: bool = False,
    ) -> None:
        self.home = directory / "home"
        self.source = directory / "source"
        self.opened = directory / "opened"
        self._directory = directory
        self._authority = make_certificate(directory / "authority")[2]
        self._how_many = mainframes
        self._omega = omega
        self._rehearses = rehearses
        self._reconciles = reconciles
        self._closing = ExitStack()
        self._warm: DeployForks | None = None
        self.public: NodeProcess
        self.omega: NodeProcess
        self.mainframes: list[NodeProcess] = []

    def __enter__(self) -> Self:
        with ExitStack() as closing:
            self._closing = closing
            copy_sample(self.source)
            self.public = closing.enter_context(self._node("staging", Role.PUBLIC))
            signed = {"unsigned_releases": False}
            self.omega = closing.enter_context(self._node("production", Role.OMEGA, settings=signed))
            for number in range(1, self._how_many + 1):
                self.mainframes.append(closing.enter_context(self._mainframe(f"mainframe-{number}")))
            self._start_control_plane(closing)
            self._warm = closing.enter_context(self._warmed())
            self.configure("public", self.public, Scope.PUSH)
            if self._omega:
                self.configure("omega", self.omega, Scope.ADMIN)
            self.configure_policy(rehearses=self._rehearses)
            self._closing = closing.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._warm = None
        self._closing.close()

    def _start_control_plane(self, closing: ExitStack) -> None:
        begin_with_empty_database(self.home)
        closing.callback(self.deploy, "down", check=False)
        self.deploy("up", "--detach")

    @property
    def ledger_url(self) -> str:
        """Where the ledger is."""
        return f"sqlite:///{self.home / 'ledger.db'}"

    @property
    def warm(self) -> DeployForks:
        """What starts processes that have Prefect imported already."""
        assert self._warm is not None
        return self._warm

    @property
    def environment(self) -> dict[str, str]:
        """What `deploy` is run with: nothing of the caller's Prefect or ASHAT settings.

        Each of Prefect's clients reads the authorities that it trusts, also where it speaks plain HTTP as here: one is
        read in no time, the 140 that are usual in 20 ms. There are proxies, which nobody serves: all here is loopback.
        """
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "ASHAT_HOME", "ASHAT_LEDGER"))}
        own = {"ASHAT_HOME": str(self.home), "PREFECT_API_SSL_CERT_FILE": str(self._authority.resolve())}
        if not self._reconciles:
            own["ASHAT_RECONCILE_SECONDS"] = "0"
        return {**kept, **QUICK_SETTINGS, **NO_PROXIES_SERVED, **own, **fork_flow_runs(self._directory / "runs")}

    def deploy(
        self,
        *words: str,
        stdin: str = "",
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout: float = 480,
    ) -> subprocess.CompletedProcess[str]:
        """Run `deploy` with those words in the source's directory; with `check` it must end with 0.

        It is forked from a process that has imported what it needs, once the control plane is up.
        """
        if self._warm is None or words[:1] in (("up",), ("down",)):
            done = self._deploy_anew(words, stdin, env, timeout)
        else:
            job = self._warm.deploy(*words, env=env, stdin=stdin)
            code = job.wait(timeout)
            done = subprocess.CompletedProcess(words, code, job.stdout, job.stderr)
        if check:
            assert done.returncode == 0, f"deploy {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def interrupted(self, until: str, *words: str) -> str:
        """What a `deploy` command says that gets a Ctrl-C once it has printed `until`: it ends with 130, and without
        a traceback."""
        with subprocess.Popen(
            [sys.executable, "-m", "ashat.cli", *words],
            cwd=self.source,
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as command:
            assert command.stdout is not None
            assert command.stderr is not None
            seen = ""
            while until not in seen:
                line = command.stdout.readline()
                assert line, seen + command.stderr.read()
                seen += line
            os.kill(command.pid, signal.SIGINT)
            code, told = command.wait(240), command.stderr.read()
        assert code == 130, told
        assert "Traceback" not in told
        return told

    def _deploy_anew(
        self, words: tuple[str, ...], stdin: str, env: Mapping[str, str] | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ashat.cli", *words],
            cwd=self.source,
            env={**self.environment, "PYTHONPATH": str(ROOT), **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def _warmed(self) -> DeployForks:
        env = {**self.environment, **prefect_environment(self.home)}
        return DeployForks(self.source, env, self._directory / "outputs")

    def configure(self, kind: str, node: NodeProcess, scope: Scope) -> None:
        """Tell `deploy` of a server."""
        name = node.directory.name
        self.deploy("configure", kind, node.url, name, "--token-stdin", stdin=node.token(scope))

    def configure_policy(self, name: str = "default", **keys: Any) -> None:
        """Have verifications ask what `keys` say, without a soak unless they say so."""
        file = self._directory / "policy.toml"
        file.write_text(to_toml({"soak_seconds": 0, **keys}))
        self.deploy("configure", "policy", name, str(file))

    def make_key(self, name: str, home: Path, opened: Mapping[str, str]) -> Path:
        """The private key of somebody whose own machine has `home` as ASHAT_HOME; `opened` says its passphrase."""
        self.deploy("trust", "keygen", name, env={**opened, "ASHAT_HOME": str(home)})
        return home / "trust" / "keys" / f"{name}.pem"

    def change(self, text: str) -> None:
        """Change a module of the source, so that it makes another bundle."""
        module = self.source / "Modules" / "Chat" / "__init__.py"
        kept = re.sub(r"\n# changed: .*", "", module.read_text())
        module.write_text(f"{kept.rstrip()}\n# changed: {text}\n")

    def state(self, update_id: str) -> State:
        """What the ledger says of an update."""
        with Ledger.open(self.ledger_url) as ledger:
            return ledger.load(update_id)

    def ran(self, update_id: str) -> bool:
        """Whether the ledger knows of an update."""
        with Ledger.open(self.ledger_url) as ledger:
            return ledger.find(update_id) is not None

    def wait(self, update_id: str, holds: Callable[[State], Any], seconds: float = 300) -> State:
        """The update's state once `holds` is true of it."""
        deadline = time.monotonic() + seconds
        while not holds(state := self.state(update_id)):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {state}"
            time.sleep(0.1)
        return state

    def wait_asked(self, update_id: str, ordinal: int = 1) -> State:
        """The update's state once the question was put for the `ordinal`-th time and its run is suspended."""
        state = self.wait(update_id, lambda s: s.gate is not None and s.gate.ordinal >= ordinal and not s.gate.answered)
        assert state.gate is not None
        suspended = self.wait_run(state.gate.run, "Suspended")
        form = suspended["state"]["state_details"]["run_input_keyset"]["schema"]
        keys = {"prefix": form, "limit": 1}
        # Prefect saves the form just after the state: an answer in between is refused.
        eventually(lambda: self.api("POST", f"/flow_runs/{state.gate.run}/input/filter", keys), "the gate's form")
        return state

    def wait_run(self, run: str, name: str, seconds: float = 300) -> dict[str, Any]:
        """The Prefect flow run once its state has that name."""
        deadline = time.monotonic() + seconds
        while (found := self.run(run))["state_name"] != name:
            assert time.monotonic() < deadline, f"run {run} is {found['state_name']}, not {name}"
            time.sleep(0.25)
        return found

    def run(self, run: str) -> dict[str, Any]:
        """A Prefect flow run."""
        found: dict[str, Any] = self.api("GET", f"/flow_runs/{run}")
        return found

    def reconcile(self) -> None:
        """Let `reconcile` look once, now, in a worker."""
        run = self.api("POST", f"/deployments/{self.deployment('reconcile/reconcile')}/create_flow_run", {})["id"]
        ended = ("COMPLETED", "FAILED", "CRASHED")
        eventually(lambda: self.run(run)["state_type"] in ended, "reconcile to have looked")

    def deployment(self, name: str) -> str:
        """The id of a deployment."""
        return str(self.api("GET", f"/deployments/name/{name}")["id"])

    def settle(self, deployment: str) -> dict[str, Any]:
        """The newest run of `deployment` once none of its runs is under way or about to be."""

        def look() -> list[Any] | None:
            runs = self._runs(deployment)
            return [runs] if not [run for run in runs if run["state_type"] in _ACTIVE] else None

        (runs,) = eventually(look, f"every run of {deployment} to end or wait")
        return dict(runs[0]) if runs else {}

    def _runs(self, deployment: str) -> list[dict[str, Any]]:
        wanted = {"deployments": {"id": {"any_": [self.deployment(deployment)]}}, "sort": "EXPECTED_START_TIME_DESC"}
        found: list[dict[str, Any]] = self.api("POST", "/flow_runs/filter", wanted)
        return found

    def api(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """What Prefect's API answers."""
        return ask_prefect(self.home, method, path, body, **options)

    @property
    def api_url(self) -> str:
        """Prefect's API."""
        state = read_state(self.home)
        assert state is not None
        return state.api_url

    @property
    def ui_url(self) -> str:
        """Prefect's UI."""
        state = read_state(self.home)
        assert state is not None
        return state.ui_url

    def ship(self, update_id: str, description: str = "A release") -> State:
        """Push, verify and approve, through the command."""
        self.deploy("push", update_id, description, "--allow-dirty")
        self.deploy("verify", update_id)
        state = self.wait_asked(update_id)
        assert state.evidence is not None
        self.deploy("approve", update_id, "--evidence", state.evidence[-8:], "--comment", "however noisy it was")
        return self.state(update_id)

    @property
    def servers(self) -> list[NodeProcess]:
        """Every node."""
        return [self.public, self.omega, *self.mainframes]

    def bundles(self) -> dict[str, str | None]:
        """What each node runs, by its name."""
        found = {}
        for node in self.servers:
            with node.client(Scope.READ) as client:
                current = client.identity().current
            found[node.directory.name] = current.bundle if current else None
        return found

    def _node(self, name: str, role: Role, **options: Any) -> NodeProcess:
        return NodeProcess(self._directory / name, role=role, app=example_app(), database=example_database(), **options)

    def _mainframe(self, name: str) -> NodeProcess:
        key = f"RACORE-{os.urandom(4).hex().upper()}-{os.urandom(4).hex().upper()}-{os.urandom(4).hex().upper()}"
        with self.omega.client() as client:
            client.put_licence(LicenceRequest(key=key, name=name))
        settings = {"poll_interval": 1, "trust_root": str(Authority(self.home).directory / "root.json")}
        return self._node(name, Role.MAINFRAME, omega=self.omega.url, licence_key=key, settings=settings)


def copy_sample(to: Path) -> None:
    """The sample program at `to`, as a git repository with one commit; its checks look shorter than usual."""
    shutil.copytree(EXAMPLE, to, ignore=shutil.ignore_patterns("__pycache__"))
    promises = to / "raos.toml"
    text = re.sub(r"(?m)^settle_seconds = .*$", "settle_seconds = 0.3", promises.read_text())
    promises.write_text(re.sub(r"(?m)^requests = .*$", "requests = 40", text))
    for words in (
        ("init", "--quiet", "--initial-branch=main"),
        ("add", "."),
        ("-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "The sample"),
    ):
        subprocess.run(["git", *words], cwd=to, check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})
