"""A Mainframe by its owner's rules: it asks before it installs, waits for a window, holds back; OMEGA sees why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from ashat.protocol.fleet import Mainframe
from ashat.protocol.messages import Role
from tests.node.test_mainframe import Install
from tests.support.processes.node import NodeProcess, tiny_app
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.omega import eventually, mainframe, roll_back, ship, source

NEVER_NOW = "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29 PT1M UTC"


@pytest.fixture(scope="module")
def omega(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("omega"), role=Role.OMEGA, app=tiny_app()) as node:
        yield node


@pytest.fixture(scope="module")
def client(omega: NodeProcess) -> Iterator[NodeClient]:
    with omega.client() as found:
        yield found


def waits(client: NodeClient, install: Install, *words: str) -> Mainframe:
    """What OMEGA knows of a Mainframe once it has said that it waits so."""

    def look() -> Mainframe | None:
        found = mainframe(client, install.key)
        return found if found.waits and all(word in found.waits for word in words) else None

    return eventually(look, f"waiting {words}", install)


def test_one_that_asks_installs_what_it_is_told_to_and_nothing_else(
    omega: NodeProcess, client: NodeClient, tmp_path: Path
) -> None:
    with Install(tmp_path / "baker", omega, install="ask") as baker:
        first = ship(client, source(tmp_path), "UPD-1")
        seen = waits(client, baker, "UPD-1", "ashat-node install UPD-1")
        assert (seen.result, baker.state().current) == ("none", None)
        assert baker.agent().status == "waiting"
        told = ashat_node("updates", "--config", baker.config).stdout
        assert ("UPD-1" in told, first.bundle[:12] in told, "it is allowed" in told) == (True, True, False)
        refused = ashat_node("install", "UPD-9", "--config", baker.config)
        assert refused.returncode != 0
        assert "UPD-1 waits here, not UPD-9: nothing was changed." in refused.stderr
        ashat_node("install", "UPD-1", "--config", baker.config)
        baker.wait_until_runs(first)
        assert mainframe(client, baker.key).waits == ""
        assert ashat_node("updates", "--config", baker.config).stdout == "Nothing waits here.\n"

        second = ship(client, source(tmp_path), "UPD-2")
        seen = waits(client, baker, "UPD-2")
        assert (seen.result, seen.bundle) == ("running", first.bundle)
        current = baker.state().current
        assert current
        assert current.bundle == first.bundle
        baker.restart()
        waits(client, baker, "UPD-2")
        ashat_node("install", "UPD-2", "--config", baker.config)
        baker.wait_until_runs(second)
        entries = ashat_node("journal", "changes", "--config", baker.config).stdout
        assert entries.count("install-allowed") == 2


def test_what_waits_gives_way_to_what_is_offered_next(omega: NodeProcess, client: NodeClient, tmp_path: Path) -> None:
    with Install(tmp_path / "smith", omega, install="ask") as smith:
        old = ship(client, source(tmp_path), "UPD-3")
        waits(client, smith, "UPD-3")
        ashat_node("install", "UPD-3", "--config", smith.config)
        smith.wait_until_runs(old)
        ship(client, source(tmp_path), "UPD-4")
        waits(client, smith, "UPD-4")
        roll_back(client)
        seen = waits(client, smith, "UPD-3")
        assert seen.bundle == old.bundle, "a rollback is a release as any other: the owner is asked"


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"windows": [NEVER_NOW]}, ("waits for a window, the next from 2028-02-29 00:00 UTC",)),
        ({"hold_days": 2}, ("waits until ", "since hold_days is 2")),
    ],
)
def test_windows_and_holding_back(
    omega: NodeProcess, client: NodeClient, tmp_path: Path, rules: dict[str, object], says: tuple[str, ...]
) -> None:
    with Install(tmp_path / "miller", omega, **rules) as miller:
        current = ship(client, source(tmp_path), "UPD-5")
        waits(client, miller, *says)
        assert miller.state().current is None
        text = miller.config.read_text()
        lines = [line for line in text.splitlines() if not line.startswith(("windows", "hold_days"))]
        miller.config.write_text("\n".join(['windows = ["FREQ=DAILY P1D UTC"]', *lines]))
        miller.restart()
        miller.wait_until_runs(current)


def marked(version: str, urgent: str) -> dict[str, str]:
    return {"raos.toml": f'[raos]\nname = "tiny"\nversion = "{version}"\nurgent = "{urgent}"\n'}


def test_what_is_urgent_waits_unless_the_owner_says_otherwise(
    omega: NodeProcess, client: NodeClient, tmp_path: Path
) -> None:
    rules = {"install": "ask", "windows": [NEVER_NOW], "hold_days": 2}
    with (
        Install(tmp_path / "weaver", omega, **rules) as weaver,
        Install(tmp_path / "cooper", omega, urgent="override", **rules) as cooper,
    ):
        ship(client, source(tmp_path, **marked("2.0.1", "2.0.0")), "UPD-6")
        for install in (weaver, cooper):
            waits(client, install, "UPD-6", "ashat-node install UPD-6")
        current = ship(client, source(tmp_path, **marked("2.0.2", "2.0.2")), "UPD-7")
        cooper.wait_until_runs(current)
        assert "UPD-7 is urgent, and urgent = override" in cooper.log()
        waits(client, weaver, "UPD-7", "ashat-node install UPD-7")
        assert weaver.state().current is None


def test_a_node_without_anything_waiting_says_so(omega: NodeProcess) -> None:
    told = ashat_node("install", "UPD-1", "--data", omega.data)
    assert told.returncode != 0
    assert "no Mainframe" in told.stderr
