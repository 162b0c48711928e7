"""From a dead disk to the next approved release: the control plane's machine and OMEGA's are lost and come back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from ashat.deployment.state_machine import Stage
from tests.support.processes.node_cli import ashat_node
from tests.support.processes.stack import Stack

pytestmark = [pytest.mark.xdist_group("backup"), pytest.mark.timeout(1200)]


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose disks die."""
    with Stack(tmp_path_factory.mktemp("backup"), mainframes=1) as stack:
        yield stack


def test_two_dead_disks_and_the_gate_that_was_open_is_approved(own: Stack) -> None:
    own.ship("BACK-1")
    own.change("for the gate")
    own.deploy("push", "BACK-2", "Waits while the disks die", "--allow-dirty")
    own.deploy("verify", "BACK-2")
    waits = own.wait_asked("BACK-2")
    safe = own.home.parent / "safe"
    safe.mkdir()
    home, omega = safe / "home.backup", safe / "omega.backup"
    made = own.deploy("backup", str(home))
    assert "Secrets are in it" in made.stderr
    assert "Not in it" not in made.stdout
    assert ashat_node("backup", str(omega), "--data", str(own.omega.data)).returncode == 0

    own.deploy("down")
    own.omega.stop()
    shutil.rmtree(own.home)
    shutil.rmtree(own.omega.data)
    refused = own.deploy("restore", str(omega), check=False)
    assert "is the backup of a node: ashat-node restore puts it back" in refused.stderr
    assert ashat_node("restore", str(omega), "--data", str(own.omega.data)).returncode == 0
    own.omega.start()
    told = json.loads(own.deploy("restore", str(home), "--json").stdout)
    assert told["secrets"]
    assert told["events"] > 20
    assert "❌" not in own.deploy("audit", "verify").stdout
    own.deploy("up", "--detach")
    assert own.state("BACK-2") == waits

    own.deploy("heal", "omega")
    assert waits.evidence is not None
    own.deploy("approve", "BACK-2", "--evidence", waits.evidence[-8:], "--comment", "after the disks died")
    assert own.state("BACK-2").stage is Stage.COMPLETED
    own.change("the next one")
    shipped = own.ship("BACK-3")
    assert shipped.stage is Stage.COMPLETED
    assert own.bundles()["production"] == shipped.bundle
    assert "❌" not in own.deploy("audit", "verify").stdout
