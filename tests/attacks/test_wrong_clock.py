"""A Mainframe whose clock is years behind would take what has ended: it sees that, says it, and takes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Timestamp

from ashat.client.carry import export, find_mainframe
from ashat.errors import ClockError, MalformedMetadataError
from ashat.node.omega.trust import OmegaTrust
from ashat.protocol.messages import Role
from ashat.trust.tuf.metadata import SIGNED_FIELD, require_clock
from ashat.trust.update_client.client import ReleaseClient
from tests.support.builders.signers import Customer, People, demanding_omega, install_root
from tests.support.builders.trust_world import World, document
from tests.support.needs import requires_faketime
from tests.support.processes.node import ROOT, push
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import eventually, offer, perform, source


class WrongClock(Customer):
    """A Mainframe of which only the clock that people set is wrong, by `off` as faketime(1) writes it."""

    off = "-2y"

    def start(self, env: Mapping[str, str] | None = None, *, wait: bool = True) -> None:
        """Start it."""
        if not self.off:
            super().start(env, wait=wait)
            return
        # The program faketime would stand between the node and its signals; what it preloads is the clock.
        preload = subprocess.check_output(["faketime", "-f", self.off, "printenv", "LD_PRELOAD"], text=True).strip()
        faked = {"LD_PRELOAD": preload, "FAKETIME": self.off, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        command = [sys.executable, "-m", "ashat.node", "serve", "--config", str(self.config)]
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(  # type: ignore[assignment]
                command, cwd=ROOT, env={**os.environ, **faked}, stdout=log, stderr=log
            )
        eventually(lambda: '"pid"' in self._address(), "its address", self)

    def _address(self) -> str:
        path = self.data / "node.json"
        return path.read_text() if path.exists() else ""


class DaysLater(WrongClock):
    off = "+3d"


@requires_faketime
def test_a_file_that_was_on_its_way_for_days_is_refused(tmp_path: Path) -> None:
    """OMEGA says for a day that something is the newest: else an old file would do for as long as its approval."""
    people = People()
    with demanding_omega(tmp_path / "production") as omega, omega.client() as client:
        root = install_root(omega, people, tmp_path / "root.json")
        wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-1")
        assert perform(client, wanted).status == "succeeded"
        offer(client)
        with DaysLater(tmp_path / "baker", omega, trust_root=str(root)) as baker:
            export(client, "UPD-1", None, find_mainframe(client, "baker"), tmp_path / "file")
            told = ashat_node("import", tmp_path / "file", "--config", baker.config)
            assert (told.returncode, told.stderr.count("\n")) == (1, 1)
            assert "OMEGA serves what has ended" in told.stderr
            assert "have it exported anew" in told.stderr
            assert baker.runs is None
            assert baker.stop() == 0
            baker.config.write_text(f"import_days = 2.5\n{baker.config.read_text()}")
            baker.start()
            ashat_node("status", "--wait", "60", "--config", baker.config)
            told = ashat_node("import", tmp_path / "file", "--config", baker.config)
            assert (told.returncode, baker.runs) == (0, wanted.bundle), "its owner lets it be that long on its way"


@requires_faketime
def test_a_mainframe_two_years_behind_says_so_everywhere_and_takes_nothing(tmp_path: Path) -> None:
    people = People()
    with demanding_omega(tmp_path / "production") as omega, omega.client() as client:
        root = install_root(omega, people, tmp_path / "root.json")
        wanted, _ = people.promotion(client, push(client, source(tmp_path)), "UPD-1")
        assert perform(client, wanted).status == "succeeded"
        offer(client)
        with WrongClock(tmp_path / "baker", omega, trust_root=str(root)) as baker:
            baker.wait_for("refused", "The clock here is 7", "days behind the time at which timestamp version")
            assert baker.runs is None
            with baker.client(expect_role=Role.MAINFRAME) as its:
                agent = its.state().agent
            assert agent is not None
            assert agent.clock.endswith("days behind OMEGA's")
            assert f"{agent.clock}; one of the two is wrong" in baker.log()
            assert f"{agent.clock}; one of the two is wrong\n" in ashat_node("status", "--data", baker.data).stdout
            told = eventually(lambda: client.mainframes()[0].journal, "its report", baker)
            assert told.endswith("days behind OMEGA's.")
            assert baker.stop() == 0
            baker.off = ""
            baker.start()
            baker.wait_for("running")
            assert "one of the two is wrong" not in ashat_node("status", "--data", baker.data).stdout
            assert baker.runs == wanted.bundle
            eventually(lambda: client.mainframes()[0].journal == "", "its report that all is well", baker)


@pytest.mark.parametrize("behind", [timedelta(days=730), timedelta(minutes=6)])
def test_a_clock_that_is_behind_what_was_signed_takes_nothing(
    world: World, client: ReleaseClient, behind: timedelta
) -> None:
    made = document(1)
    world.publish(made)
    with pytest.raises(ClockError, match="behind the time at which timestamp version 2 was signed, so it cannot tell"):
        client.latest_release("stable", now=datetime.now(UTC) - behind)
    assert client.latest_release("stable", now=datetime.now(UTC) - timedelta(minutes=4)) == made
    with pytest.raises(ClockError):
        client.latest_release("stable", now=datetime.now(UTC) - behind)


def test_an_omega_whose_clock_was_ahead_signs_anew_once_it_is_right(tmp_path: Path) -> None:
    """Else no Mainframe would take anything until that time has come."""
    with demanding_omega(tmp_path / "production") as omega:
        install_root(omega, People(), tmp_path / "root.json")
        assert omega.stop() == 0
        trust, now = OmegaTrust(omega.data / "trust"), datetime.now(UTC)
        trust.renew(now=now + timedelta(days=730))
        ahead = trust.repository.read().timestamp
        assert ahead is not None
        with pytest.raises(ClockError):
            require_clock(now, ahead.signed)
        trust.renew()
        right = trust.repository.read().timestamp
        assert right is not None
        require_clock(now, right.signed)
        assert right.signed.version == ahead.signed.version + 1
        trust.renew()
        assert trust.repository.read().timestamp == right


def test_an_approval_of_a_time_to_come_is_not_published(world: World) -> None:
    """Else every Mainframe would find its own clock wrong."""
    made = document(1)
    approved = world.approve(made, now=datetime.now(UTC) + timedelta(days=1))
    with pytest.raises(ClockError, match="The clock here is 24 hours behind the time at which targets version 1"):
        world.repository.publish(approved.to_bytes(), made.to_bytes(), world.online)


@pytest.mark.parametrize("text", ["", "soon", 7, ["2026"], "2026-01-01T00:00:00+00:00"])
def test_what_is_no_time_is_refused_and_what_has_none_is_of_an_earlier_version(text: object) -> None:
    now = datetime.now(UTC)
    require_clock(now, Timestamp())
    with pytest.raises(MalformedMetadataError, match="no time in"):
        require_clock(now, Timestamp(unrecognized_fields={SIGNED_FIELD: text}))
