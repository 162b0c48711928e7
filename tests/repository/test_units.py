"""The systemd units of the documents are units, and do what the documents say."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ashat.node.core.config import AppConfig
from ashat.node.operations.operations import STOP_TIMEOUT
from tests.support.needs import requires_systemd

DOCS = Path(__file__).parents[2] / "docs"
UNITS = {
    name: text
    for document in DOCS.glob("*.md")
    for name, text in re.findall(
        r"```ini\n# /etc/systemd/system/(\S+\.service)\n(.*?)```", document.read_text("utf-8"), re.DOTALL
    )
}
NAMES = ["ashat-node.service", "raos.service", "ashat-control.service"]


def read(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNITS[name])
    return parser


def test_there_are_those_units() -> None:
    assert sorted(UNITS) == sorted(NAMES)


@requires_systemd
@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_nothing_wrong_with_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    # What is not installed here is not what is looked at.
    path.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNITS[name]))
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in found.stderr.splitlines() if name in line]
    assert complaints == []
    broken = path.with_name(f"broken-{name}")
    broken.write_text(path.read_text().replace("RestartSec=", "RestartSec=soon"))
    found = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(broken)], capture_output=True, text=True, timeout=60, check=False
    )
    assert f"{broken.name}:" in found.stderr, "a mistake would have been found"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_started_again_without_a_limit_after_a_pause_and_its_stop_has_an_end(name: str) -> None:
    unit = read(name)
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["ExecStart"].startswith("/")
    assert unit["Service"]["Restart"] in ("always", "on-failure")
    assert float(unit["Service"]["RestartSec"]) > 0
    assert float(unit["Service"]["TimeoutStopSec"]) > 0


def test_a_restart_of_the_node_leaves_the_program_and_a_stop_has_time_for_it() -> None:
    service, app = read("ashat-node.service")["Service"], AppConfig()
    assert (service["KillMode"], service["RestartKillSignal"], service["Delegate"]) == ("process", "SIGHUP", "yes")
    assert float(service["TimeoutStopSec"]) > STOP_TIMEOUT + app.stop_timeout + 15
    assert float(read("raos.service")["Service"]["TimeoutStopSec"]) < app.hook_timeout
