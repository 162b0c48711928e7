"""deploy/systemd holds units that systemd takes, and what they start does what they say."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.dependencies import ROOT
from tests.support.builders.deployments import open_ledger
from tests.support.builders.ledgers import begin
from tests.support.needs import requires_systemd
from tests.support.processes.deploy_cli import environment

UNITS = sorted((ROOT / "deploy/systemd").iterdir())
DEPLOY = "/home/kim/ashat-deploy/.venv/bin/deploy"
SHARED = "/opt/ashat/bin/deploy"


def read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(path.read_text("utf-8"))
    return parser


@requires_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_nothing_wrong_with_it(unit: Path, tmp_path: Path) -> None:
    for each in UNITS:
        # What is not installed here is not what is looked at.
        text = each.read_text("utf-8").replace(f"ExecStart={DEPLOY}", f"ExecStart={sys.executable}")
        text = text.replace(f"ExecStart={SHARED}", f"ExecStart={sys.executable}")
        (tmp_path / each.name).write_text(text)

    def complaints() -> list[str]:
        words = ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        return [line for line in done.stderr.splitlines() if unit.name in line]

    assert complaints() == []
    with (tmp_path / unit.name).open("a") as file:
        file.write("\n[Unit]\nAfterwards=x\n")
    assert complaints() != [], "a mistake would have been found"


def test_each_says_where_it_belongs() -> None:
    assert [unit.name for unit in UNITS] == [
        *("ashat-backup.service", "ashat-backup.timer", "ashat-metrics.service", "ashat-server@.service"),
        *("ashat-services.service", "ashat-team.target", "ashat-worker@.service"),
    ]
    for unit in UNITS:
        assert unit.read_text("utf-8").startswith(f"# /etc/systemd/system/{unit.name}: ")


def test_the_backup_that_the_timer_starts_is_one(tmp_path: Path) -> None:
    home, kept = tmp_path / "home", tmp_path / "kept"
    kept.mkdir(mode=0o700)
    with open_ledger(home) as ledger:
        begin(ledger, "UPD-1", [])
    service = read(ROOT / "deploy/systemd/ashat-backup.service")["Service"]
    program = f"{sys.executable} -m ashat.cli"
    for key in ("ExecStart", "ExecStartPost"):
        line = service[key].replace("%%", "%").replace(DEPLOY, program).replace("/var/backups/ashat", str(kept))
        done = subprocess.run(shlex.split(line), env=environment(home), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    (made,) = kept.iterdir()
    assert re.fullmatch(r"home-\d{4}-\d\d-\d\dT\d{6}Z\.backup", made.name)
    assert made.stat().st_mode & 0o777 == 0o600


def test_the_metrics_listen_where_prometheus_looks() -> None:
    words = shlex.split(read(ROOT / "deploy/systemd/ashat-metrics.service")["Service"]["ExecStart"])
    assert words[:3] == [DEPLOY, "metrics", "--listen"]
    assert words[3] in (ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8")
