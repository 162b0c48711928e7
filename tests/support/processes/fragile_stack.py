"""A whole stack whose processes die at fault points, and what brings their work to its end afterwards."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from ashat.bundle.pack import pack_directory
from ashat.cli.control_plane.state import MARKER, marker, read_state
from ashat.client.node import NodeClient
from ashat.common.processes import with_variable
from ashat.deployment.events import AnyEvent
from ashat.deployment.state_machine import State
from ashat.ledger.ledger import Ledger
from ashat.node.logs.access_log import DIRECTORY, read_access_log
from ashat.protocol.messages import NodeState, Role, Scope
from tests.support.fakes.flaky_proxy import MoodyProxy
from tests.support.processes.deploy_forks import Job
from tests.support.processes.node import NodeProcess
from tests.support.processes.stack import Stack, eventually


class FragileStack(Stack):
    """A stack that can be told to die somewhere. `killed` are the points where it did."""

    def __init__(self, directory: Path, *, mainframes: int = 1) -> None:
        super().__init__(directory, mainframes=mainframes)
        self.faults = directory / "faults"
        self.faults.mkdir()
        self.killed: set[str] = set()

    @property
    def environment(self) -> dict[str, str]:
        """As any stack's; a server stays lent for a few seconds only to a process that was killed."""
        return {
            **super().environment,
            "ASHAT_FAULT_DIR": str(self.faults),
            "ASHAT_LEASE_SECONDS": "5",
            "ASHAT_RETRIES": "9",
            "ASHAT_RETRY_DELAY": "0.1",
            "ASHAT_MAINFRAME_TIMEOUT": "90",
        }

    # Dying

    def arm(self, *points: str) -> None:
        """Let the next process that gets to each of `points` die there."""
        for point in points:
            (self.faults / point).touch()

    def wait_killed(self, point: str) -> None:
        """Wait until a process died at `point`."""
        eventually(lambda: not (self.faults / point).exists(), f"dying at {point}")
        self.killed.add(point)

    def see_killed(self, point: str, job: Job) -> None:
        """See that the process `job` dies at `point`, which is armed."""
        code = job.wait()
        assert code == -signal.SIGKILL, f"{job.what} ended with {code}, not at {point}:\n{job.output}"
        self.wait_killed(point)

    def keep_up(self, node: NodeProcess, *points: str) -> None:
        """Start the node again each time it dies at one of `points`, which are armed; in this order it gets there."""
        for point in points:
            assert node.wait_until_dead(240) == -signal.SIGKILL
            self.wait_killed(point)
            node.start(wait=False)
        node.wait_until_up()

    def kill_control_plane(self) -> None:
        """SIGKILL for the supervisor, Prefect's server, the workers and every flow run of the control plane."""
        state = read_state(self.home)
        assert state is not None
        assert state.supervisor is not None
        supervisor = state.supervisor.process()
        assert supervisor is not None
        supervisor.kill()
        victims = [supervisor, *self._of_the_control_plane()]
        for process in victims:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(victims, timeout=30)
        assert self._of_the_control_plane() == []

    def _of_the_control_plane(self) -> list[psutil.Process]:
        return with_variable(MARKER, marker(self.home))

    # Going on

    def wait_crashed(self, deployment: str) -> None:
        """Wait until Prefect knows that the newest run of `deployment` died."""
        dead = self.settle(deployment)
        assert dead["state_type"] == "CRASHED", dead["state"]

    def crashes(self, deployment: str) -> int:
        """How many runs of `deployment` died, once none is under way."""
        self.settle(deployment)
        dead = {"type": {"any_": ["CRASHED"]}}
        wanted = {"deployments": {"id": {"any_": [self.deployment(deployment)]}}, "flow_runs": {"state": dead}}
        return len(self.api("POST", "/flow_runs/filter", wanted))

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """Start a run of `deployment` (`flow/name`); its id."""
        made = self.api(
            "POST", f"/deployments/{self.deployment(deployment)}/create_flow_run", {"parameters": parameters}
        )
        return str(made["id"])

    def wait_ended(self, run: str, seconds: float = 300) -> dict[str, Any]:
        """The flow run once it has ended, however."""

        def look() -> dict[str, Any] | None:
            found = self.run(run)
            return found if found["state_type"] in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED") else None

        ended: dict[str, Any] = eventually(look, f"the end of run {run}", seconds)
        return ended

    def flow(self, name: str, **parameters: Any) -> str:
        """Run the flow of that name in a process of its own, to its end; what it says."""
        job = self.begin_flow(name, **parameters)
        assert job.wait() == 0, job.output
        return job.output

    def begin_flow(self, name: str, **parameters: Any) -> Job:
        """Begin a run of the flow of that name in a process of its own."""
        return self.warm.flow(f"flows.{name}:{name}", **parameters)

    def answer(self, state: State, decision: str, comment: str = "") -> dict[str, Any]:
        """Answer the gate in Prefect, as its form does: what Prefect says of it."""
        assert state.gate is not None
        assert state.evidence is not None
        form = {"decision": decision, "evidence": state.evidence[-8:], "approver": "kim", "comment": comment}
        told: dict[str, Any] = self.api("POST", f"/flow_runs/{state.gate.run}/resume", {"run_input": form})
        return told

    @contextmanager
    def between(self, kind: str, node: NodeProcess, scope: Scope) -> Iterator[MoodyProxy]:
        """Let `deploy` reach the node through a proxy, as long as the block lasts."""
        token = {f"ASHAT_{kind.upper()}_TOKEN": node.token(scope)}

        def point_to(url: str) -> None:
            job = self.warm.deploy("configure", kind, url, node.directory.name, env=token)
            assert job.wait() == 0, job.output

        with MoodyProxy(node.port) as proxy:
            point_to(proxy.url)
            try:
                yield proxy
            finally:
                point_to(node.url)

    # How things stand

    def events(self, update_id: str, kind: str) -> list[AnyEvent]:
        """What the ledger holds of that kind about the newest attempt."""
        with Ledger.open(self.ledger_url) as ledger:
            state = ledger.load(update_id)
            return [event for event in ledger.events(update_id, state.attempt) if event.kind == kind]

    def standing(self, node: NodeProcess) -> NodeState:
        """The node's state."""
        with node.client(Scope.READ) as client:
            return client.state()

    def check_runs(self, update_id: str, *nodes: NodeProcess) -> None:
        """Each node runs this update, healthily, file by file as the record's bundle says; nothing is under way."""
        state = self.state(update_id)
        for node in nodes:
            with node.client() as client:
                _check_runs(client, state)

    def packed(self) -> str:
        """The digest of the bundle that the source makes now."""
        with pack_directory(self.source) as packed:
            return packed.manifest.digest

    def _node(self, name: str, role: Role, **options: Any) -> NodeProcess:
        return super()._node(name, role, env={"ASHAT_FAULT_DIR": str(self.faults)}, **options)


def _check_runs(client: NodeClient, state: State) -> None:
    eventually(lambda: client.state().lease is None, f"{client.name} to be lent to nobody")
    eventually(lambda: client.probe_health().healthy, f"{client.name} to be healthy")
    seen = client.state()
    assert seen.current is not None
    assert (seen.current.bundle, seen.current.update_id) == (state.bundle, state.update_id), client.name
    assert seen.operation is not None
    assert seen.operation.status == "succeeded"
    assert client.probe_health().bundle == state.bundle
    tree, manifest = client.tree(), client.manifest(state.bundle or "")
    assert tree.extra == []
    assert {path: (file.sha256, file.mode) for path, file in tree.files.items()} == {
        file.path: (file.sha256, file.mode) for file in manifest.files
    }


def journal(node: NodeProcess, method: str, path: str) -> list[tuple[str, int]]:
    """What was asked of the node so, by those with a token: path and status, in order."""
    lines = reversed(read_access_log(node.data / DIRECTORY, limit=1_000_000))
    return [(line.path, line.status) for line in lines if line.method == method and line.path.startswith(path)]
