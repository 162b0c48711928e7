"""A Mainframe whose program goes wrong after its switch held: reported as it is, and taken back while that is due."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from ashat.node.core.db import Database
from ashat.node.logs.change_log_audit import audit
from ashat.protocol.messages import Role
from tests.node.test_mainframe import Install, reported
from tests.support.processes.node import NodeProcess, free_port, tiny_app
from tests.support.processes.omega import eventually, mainframe, ship, source


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("omega"), role=Role.OMEGA, app=tiny_app()) as node:
        yield node


@pytest.fixture(scope="module")
def client(omega: NodeProcess) -> Iterator[NodeClient]:
    with omega.client() as found:
        yield found


def kill_program(node: Install, before: int | None = None) -> int:
    """Kill the program that runs, once it is another than `before`; its pid."""

    def look() -> int | None:
        app = node.state().app
        return app.pid if app.pid and app.pid != before and app.status == "running" else None

    pid = eventually(look, "a program that runs", node)
    os.kill(pid, signal.SIGKILL)
    return pid


def make_sick(node: Install) -> None:
    (node.data / "app-data" / "behaviour").write_text("sick")


def test_a_release_that_goes_wrong_soon_is_taken_back_and_said(
    omega: NodeProcess, client: NodeClient, tmp_path: Path
) -> None:
    with Install(tmp_path / "baker", omega) as baker:
        old = ship(client, source(tmp_path), "UPD-OLD")
        baker.wait_until_runs(old)
        new = ship(client, source(tmp_path), "UPD-NEW")
        baker.wait_until_runs(new)
        kill_program(baker, kill_program(baker))
        reason = reported(client, baker, new.release_seq, "failed")
        baker.wait_for("failed", "does not run here: it held at first, but the program ended by itself")
        assert "ended by itself" in reason
        state = baker.state()
        assert state.current
        assert (state.current.bundle, state.release_seq) == (old.bundle, new.release_seq)
        assert eventually(lambda: baker.state().app.healthy, "the release before, healthy", baker)
        with closing(Database(baker.data / "node.db")) as database:
            assert audit(database).size > 1


def test_with_two_slots_it_is_taken_back_without_a_start(
    omega: NodeProcess, client: NodeClient, tmp_path: Path
) -> None:
    ports, snippet = [free_port(), free_port()], tmp_path / "raos.conf"
    slots = {"ports": ports, "snippet": str(snippet), "reload": ["true"], "drain": 0.5}
    with Install(tmp_path / "cooper", omega, slots=slots) as cooper:
        old = ship(client, source(tmp_path), "UPD-OLD")
        cooper.wait_until_runs(old)
        before, traffic = cooper.state().app.pid, snippet.read_text()
        new = ship(client, source(tmp_path), "UPD-NEW")
        cooper.wait_until_runs(new)
        assert cooper.state().app.pid != before
        assert snippet.read_text() != traffic
        kill_program(cooper, kill_program(cooper))
        reported(client, cooper, new.release_seq, "failed")
        state = cooper.state()
        assert state.current
        assert (state.current.bundle, state.app.pid) == (old.bundle, before)
        assert snippet.read_text() == traffic


def test_one_that_falls_ill_later_runs_on_and_is_reported_until_it_is_well(
    omega: NodeProcess, client: NodeClient, tmp_path: Path
) -> None:
    with Install(tmp_path / "smith", omega, watch_seconds=0) as smith:
        current = ship(client, source(tmp_path), "UPD-LATER")
        smith.wait_until_runs(current)
        make_sick(smith)
        reason = reported(client, smith, current.release_seq, "failed")
        assert reason == "it runs here, and the program is not healthy any more: answers 500 at /health"
        smith.wait_for("failed", "runs here, and the program is not healthy any more")
        (smith.data / "app-data" / "behaviour").unlink()
        smith.wait_for("running", "runs here.")
        assert mainframe(client, smith.key).result == "running"
        assert smith.state().current == smith.wait_until_runs(current).current


def test_a_node_that_dies_while_it_takes_back_goes_on_with_it(
    omega: NodeProcess, client: NodeClient, tmp_path: Path
) -> None:
    with Install(tmp_path / "miller", omega) as miller:
        old = ship(client, source(tmp_path), "UPD-OLD")
        miller.wait_until_runs(old)
        miller.restart({"ASHAT_FAULT": "switch.taken-back"})
        new = ship(client, source(tmp_path), "UPD-NEW")
        miller.wait_until_runs(new)
        kill_program(miller, kill_program(miller))
        assert miller.wait_until_dead() == -9
        miller.start()
        with miller.client() as own:
            taken_back = own.wait_operation(f"mainframe-{new.release_seq}-1", timeout=90)
        assert (taken_back.status, taken_back.switched_back) == ("failed", True)
        assert "it held at first" in taken_back.reason
        # A node that has just started tries what failed once more, at once.
        miller.wait_until_runs(new)
        with closing(Database(miller.data / "node.db")) as database:
            assert audit(database).size > 1
