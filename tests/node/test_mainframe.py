"""Mainframes as processes: they take what OMEGA offers, say what came of it, and survive whatever happens to them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from ashat.common.identifiers import licence_id, new_key
from ashat.errors import NodeAuthError
from ashat.node.cli.forget import forget_change_log
from ashat.protocol.licences import LicenceRequest
from ashat.protocol.messages import Current, LeaseRequest, MainframeStatus, NodeState, OperationRequest, Role
from tests.support.processes.node import NodeProcess, tiny_app
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import eventually, licence, mainframe, revoke_licence, roll_back, ship, source

QUICK = {"poll_interval": 0.2}
# Starts no release that holds a file `not-here`: good for OMEGA, bad for this install.
_PICK = f"test ! -e not-here || {{ echo 'not here'; exit 1; }}; exec {sys.executable} -I -S app.py"
PICKY = {**tiny_app(), "command": ["/bin/sh", "-c", _PICK]}


class Install(NodeProcess):
    """A Mainframe of `omega` in `directory`, with a licence of its own unless a key is given; `plain`: without a
    program."""

    def __init__(
        self,
        directory: Path,
        omega: NodeProcess,
        *,
        key: str | None = None,
        picky: bool = False,
        plain: bool = False,
        root: str = "",
        **settings: object,
    ) -> None:
        with omega.client() as client:
            self.key = key if key is not None else licence(client, directory.name)
        self.licence = directory / "licence"
        super().__init__(
            directory,
            role=Role.MAINFRAME,
            app={} if plain else PICKY if picky else tiny_app(),
            settings={**QUICK, **settings, **({"trust_root": root} if root else {})},
            omega=omega.url,
            licence_key=self.key,
        )

    def state(self) -> NodeState:
        with self.client() as client:
            return client.state()

    def agent(self) -> MainframeStatus:
        found = self.state().agent
        assert found
        return found

    def wait_for(self, status: str, *words: str) -> MainframeStatus:
        """How the agent gets on once it says that."""

        def look() -> MainframeStatus | None:
            agent = self.agent()
            return agent if agent.status == status and all(word in agent.detail for word in words) else None

        return eventually(look, f"{status} {words}", self)

    def wait_until_runs(self, current: Current) -> NodeState:
        """The state once it runs what OMEGA runs, under the same number, and has said so there."""

        def look() -> NodeState | None:
            state = self.state()
            mine = state.current
            same = mine and (mine.bundle, mine.release_seq) == (current.bundle, current.release_seq)
            return state if same and state.agent and state.agent.status == "running" else None

        return eventually(look, f"running {current.bundle[:12]}", self)


def reported(client: NodeClient, install: Install, seq: int | None, result: str) -> str:
    """The reason with which the Mainframe reported that, once it has."""

    def look() -> list[str]:
        found = mainframe(client, install.key)
        return [found.reason] if (found.release_seq, found.result) == (seq, result) else []

    return eventually(look, f"a report of {seq} {result}", install)[0]


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("production"), role=Role.OMEGA, app=tiny_app()) as node:
        yield node


@pytest.fixture(scope="module")
def baker(omega: NodeProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Install]:
    with Install(tmp_path_factory.mktemp("baker"), omega) as node:
        yield node


@pytest.fixture(scope="module")
def miller(omega: NodeProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Install]:
    """A Mainframe on which a release with a file `not-here` does not start."""
    with Install(tmp_path_factory.mktemp("miller"), omega, picky=True) as node:
        yield node


@pytest.fixture
def client(omega: NodeProcess) -> Iterator[NodeClient]:
    with omega.client() as found:
        yield found


def test_a_release_and_its_rollback_reach_every_mainframe(
    omega: NodeProcess, client: NodeClient, baker: Install, miller: Install, tmp_path: Path
) -> None:
    baker.wait_for("waiting", "offers nothing")
    first = ship(client, source(tmp_path), "UPD-1")
    second = ship(client, source(tmp_path), "UPD-2")
    wanted = client.tree().files
    for install in (baker, miller):
        state = install.wait_until_runs(second)
        assert state.release_seq == second.release_seq
        assert reported(client, install, second.release_seq, "running") == ""
        assert state.agent
        assert state.agent.last_contact
        with install.client() as local:
            assert (local.tree().files, local.tree().extra) == (wanted, [])
            assert local.probe_health().bundle == second.bundle
    roll_back(client)
    back = client.state().current
    assert back
    assert (back.bundle, back.release_seq) == (first.bundle, (second.release_seq or 0) + 1)
    for install in (baker, miller):
        install.wait_until_runs(back)
        reported(client, install, back.release_seq, "running")


def test_one_on_which_it_fails_says_why_keeps_the_old_one_and_does_not_insist(
    client: NodeClient, baker: Install, miller: Install, tmp_path: Path
) -> None:
    good = ship(client, source(tmp_path), "UPD-1")
    before = miller.wait_until_runs(good)
    bad = ship(client, source(tmp_path, **{"not-here": ""}), "UPD-BAD")
    baker.wait_until_runs(bad)
    assert "exit code 1" in reported(client, miller, bad.release_seq, "failed")
    told = client.mainframe_reports(next(one.id for one in client.mainframes() if one.result == "failed"))[0]
    assert set(told.output) == {"not here"}, "the last lines of the program come with the report"
    after = miller.state()
    assert after.current == before.current
    assert after.operation
    assert after.operation.switched_back
    assert after.app.healthy

    eventually(lambda: miller.agent().detail.count("tried 3 times"), "giving up", miller)
    attempts = miller.log().count("Switching to UPD-BAD/1")
    pid = miller.state().app.pid
    roll_back(client)
    back = client.state().current
    assert back
    state = miller.wait_until_runs(back)
    assert state.app.pid == pid, "the program that runs the bundle already is left alone"
    assert miller.log().count("Switching to UPD-BAD/1") == attempts == 3
    reported(client, miller, back.release_seq, "running")


def test_a_kill_at_every_fault_point_on_the_way_of_one_release_loses_nothing(
    client: NodeClient, baker: Install, tmp_path: Path
) -> None:
    log = tmp_path / "visited"
    points = ["mainframe.pulled", "switch.linked", "mainframe.reported"]
    assert baker.stop() == 0
    release = ship(client, source(tmp_path), "UPD-9")
    for point in points:
        baker.start({"ASHAT_FAULT": point, "ASHAT_FAULT_LOG": str(log)}, wait=False)
        baker.wait_until_dead()
        assert log.read_text().split()[-1] == point
    baker.start({"ASHAT_FAULT": "mainframe.switched"})
    state = baker.wait_until_runs(release)
    reported(client, baker, release.release_seq, "running")
    assert state.operation
    assert (state.operation.id, state.operation.status) == (f"mainframe-{release.release_seq}-1", "succeeded")
    assert state.app.status == "running"
    with baker.client() as local:
        assert local.tree().files == client.tree().files

    after = ship(client, source(tmp_path), "UPD-10")
    baker.wait_until_dead()
    baker.start()
    baker.wait_until_runs(after)
    reported(client, baker, after.release_seq, "running")


def test_omega_may_be_away_and_a_late_mainframe_is_served(
    omega: NodeProcess, client: NodeClient, baker: Install, tmp_path: Path
) -> None:
    before = baker.wait_until_runs(ship(client, source(tmp_path)))
    omega.stop()
    agent = baker.wait_for("unreachable", "What runs here keeps running.")
    assert agent.last_contact
    assert baker.state().app.pid == before.app.pid
    omega.start()
    baker.wait_for("running")
    release = ship(client, source(tmp_path))
    baker.wait_until_runs(release)
    with Install(tmp_path / "late", omega) as late:
        late.wait_until_runs(release)
        reported(client, late, release.release_seq, "running")


def test_a_lease_on_the_install_holds_new_releases_off(client: NodeClient, baker: Install, tmp_path: Path) -> None:
    with baker.client() as local:
        wish = LeaseRequest(holder="maintenance", who="kim", why="disk", ttl=60)
        local.acquire_lease(wish)
        release = ship(client, source(tmp_path))
        baker.wait_for("waiting", "maintenance has this server")
        local.release_lease("maintenance")
    baker.wait_until_runs(release)


def test_a_licence_that_does_not_count_stops_nothing_but_new_releases(
    omega: NodeProcess, client: NodeClient, baker: Install, tmp_path: Path
) -> None:
    first = ship(client, source(tmp_path))
    before = baker.wait_until_runs(first)

    def refused(*words: str) -> None:
        agent = baker.wait_for("refused", *words, "What runs here keeps running.")
        assert "\n" not in agent.detail
        state = baker.state()
        assert (state.current, state.app.pid) == (before.current, before.app.pid)

    baker.licence.rename(baker.licence.with_suffix(".away"))
    refused("cannot be read")
    baker.licence.write_text("RACORE-1234")
    baker.licence.chmod(0o600)
    refused("the form RACORE-")
    baker.licence.chmod(0o644)
    refused("chmod 600")
    baker.licence.chmod(0o600)
    baker.licence.write_text(new_key())
    refused("does not know this licence")
    for name, words in (("expired", "expired at"), ("revoked", "was revoked")):
        key = licence(client, name)
        baker.licence.write_text(key)
        baker.wait_for("running")
        if name == "expired":
            client.put_licence(LicenceRequest(key=key, name=name, expires=first.since))
        else:
            revoke_licence(client, licence_id(key))
        refused(words)
    second = ship(client, source(tmp_path))
    assert baker.state().current == before.current
    baker.licence.write_text(baker.key)
    baker.wait_until_runs(second)
    assert baker.key not in baker.log()
    assert len([line for line in baker.log().splitlines() if "was revoked" in line]) == 1


def test_only_omega_is_asked_and_only_omega_decides(omega: NodeProcess, baker: Install, tmp_path: Path) -> None:
    with (
        NodeProcess(tmp_path / "public", app=tiny_app()) as public,
        NodeProcess(
            tmp_path / "lost",
            role=Role.MAINFRAME,
            settings=QUICK,
            omega=public.url,
            licence_key=new_key(),
        ) as lost,
        lost.client() as client,
    ):
        eventually(lambda: "role public, not omega" in str(client.state().agent), "a refusal", lost)
        assert "mainframe/release" not in public.log(), "the licence was not sent to it"
    request = OperationRequest(action="switch", bundle=None, expected_current=None, update_id="UPD-1", attempt=1)
    with baker.client() as client, pytest.raises(NodeAuthError, match="what OMEGA offers"):
        client.start_operation("local", request)


def test_an_omega_from_an_old_backup_takes_nothing_back(
    omega: NodeProcess, client: NodeClient, baker: Install, tmp_path: Path
) -> None:
    current = ship(client, source(tmp_path))
    before = baker.wait_until_runs(current)
    omega.stop()
    old = NodeProcess(tmp_path / "old", role=Role.OMEGA, app=tiny_app(), settings={"port": omega.port}, start=False)
    old.port, old.url = omega.port, omega.url
    try:
        with old:
            old.start()
            with old.client() as restored:
                restored.put_licence(LicenceRequest(key=baker.key, name="baker"))
                older = ship(restored, source(tmp_path))
                assert (older.release_seq or 0) < (current.release_seq or 0)
                baker.wait_for("failed", "an older release is refused")
                assert "an older release" in reported(restored, baker, older.release_seq, "failed")
                assert baker.state().current == before.current
    finally:
        omega.start()
    # It showed another journal, so nothing is taken from that OMEGA until somebody has looked.
    baker.wait_for("refused", "its journal of changes is not signed as before")
    forget_change_log(baker.data)
    baker.wait_for("running")


def test_what_its_store_lost_of_the_offer_is_pulled_again(
    omega: NodeProcess, client: NodeClient, baker: Install, tmp_path: Path
) -> None:
    current = ship(client, source(tmp_path), "UPD-LOST")
    baker.wait_until_runs(current)
    baker.stop()
    for name in ("store", "releases"):
        shutil.rmtree(baker.data / name)
    baker.start()
    kept = baker.data / "store" / "bundles" / current.bundle
    eventually(lambda: kept.exists() and baker.state().app.healthy, "the release again", baker)
    baker.wait_until_runs(current)


def test_one_without_a_root_says_so_at_its_start_and_status_says_why_it_refuses(
    omega: NodeProcess, client: NodeClient, tmp_path: Path
) -> None:
    root = tmp_path / "root.json"
    with Install(tmp_path / "carpenter", omega, root=str(root)) as install:
        ship(client, source(tmp_path), "UPD-1")
        install.wait_for("refused", f"trust_root {root} cannot be read", "put there the root.json")
        assert f"No release can be installed: trust_root {root} cannot be read" in install.log()
        says = "its agent, last: refused: UPD-1/1"  # written a moment after the agent reported it
        eventually(lambda: says in ashat_node("status", "--config", install.config).stdout, "what the agent said last")
        up = ashat_node("status", "--config", install.config)
        assert f"trust_root {root} cannot be read" in up.stdout
        install.stop()
        down = ashat_node("status", "--config", install.config)
        assert "when it last ran: refused: UPD-1/1" in down.stdout
        root.write_text("{}")
        install.start()
        install.wait_for("refused", "is no TUF metadata")
        assert f"{root} is no TUF metadata that this version can read" in install.log()


def test_a_mainframe_migrates_for_itself_and_says_why_it_does_not(tmp_path: Path) -> None:
    step = (
        '["sh", "-c", "if test -e $RAOS_DATA/refuse; then echo no such column; exit 7; fi; echo ok >> $RAOS_DATA/done"]'
    )
    text = f'[app]\ncommand = ["{sys.executable}", "app.py"]\n[migrate]\ncommand = {step}\n'
    with (
        NodeProcess(tmp_path / "production", role=Role.OMEGA, app=tiny_app()) as omega,
        Install(tmp_path / "baker", omega) as baker,
        omega.client() as client,
    ):
        refuse = baker.data / "app-data" / "refuse"
        refuse.touch()
        release = source(tmp_path)
        (release / "raos.toml").write_text(text)
        shipped = ship(client, release, "UPD-1")
        done = client.state().operation
        assert done is not None
        assert done.migration is not None
        assert done.migration.status == "done"

        reason = reported(client, baker, shipped.release_seq, "failed")
        assert "its migrate step failed: it ended by itself with exit code 7" in reason
        told = next(report for report in client.mainframe_reports(licence_id(baker.key)) if report.result == "failed")
        assert set(told.output) == {"no such column"}
        assert baker.state().current is None
        refuse.unlink()
        baker.wait_until_runs(shipped)
        assert (baker.data / "app-data" / "done").read_text() == "ok\n"

        with Install(tmp_path / "plain", omega, plain=True) as plain:
            told = plain.wait_for("refused", "does not allow: set app.release_command", "What runs here keeps running")
            assert "\n" not in told.detail
            reason = reported(client, plain, shipped.release_seq, "failed")
            assert f"names its own program, {sys.executable!r}" in reason
            assert plain.state().operation is None
