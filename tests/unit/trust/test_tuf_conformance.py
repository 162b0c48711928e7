"""The command protocol of tuf-conformance, spoken by a Mainframe's own update client."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ashat.trust.tuf.metadata import build_timestamp
from tests.support.builders.trust_world import Server, World, document
from tests.support.processes.forks import FORKS
from tests.support.processes.node import ROOT

SUITE = os.environ.get("ASHAT_TEST_TUF_CONFORMANCE", "")
SHIM = "tests.support.tuf_conformance"


class Shim:
    """The client under test, with directories of its own."""

    def __init__(self, home: Path, server: Server) -> None:
        self.metadata, self.targets, self._url = home / "metadata", home / "targets", server.url
        self.metadata.mkdir(parents=True)
        self.targets.mkdir()

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return FORKS.run([SHIM, "--metadata-dir", str(self.metadata), *map(str, words)], timeout=100)

    def init(self, root: Path) -> subprocess.CompletedProcess[str]:
        return self.run("init", root)

    def refresh(self) -> subprocess.CompletedProcess[str]:
        return self.run("--metadata-url", self._url, "refresh")

    def download(self, *names: str) -> subprocess.CompletedProcess[str]:
        named = [word for name in names for word in ("--target-name", name)]
        places = ("--target-base-url", f"{self._url}/targets", "--target-dir", self.targets)
        return self.run("--metadata-url", self._url, *named, *places, "download")

    def trusted(self) -> list[str]:
        return sorted(path.name for path in self.metadata.glob("*.json"))

    def downloaded(self) -> list[bytes]:
        return [path.read_bytes() for path in self.targets.iterdir()]


@pytest.fixture
def shim(world: World, server: Server, tmp_path: Path) -> Shim:
    shim = Shim(tmp_path / "shim", server)
    (tmp_path / "root").write_bytes(world.root)
    done = shim.init(tmp_path / "root")
    assert (done.returncode, done.stderr) == (0, "")
    assert shim.trusted() == ["root.json"]
    assert server.asked == []
    return shim


def test_the_protocol_is_spoken_from_the_first_root_to_a_download(world: World, server: Server, shim: Shim) -> None:
    made = document(1)
    world.publish(made)
    assert shim.refresh().returncode == 0
    assert shim.trusted() == ["root.json", "snapshot.json", "targets.json", "timestamp.json"]
    assert shim.download(made.path).returncode == 0
    assert shim.downloaded() == [made.to_bytes()]
    server.asked.clear()
    assert shim.download(made.path).returncode == 0
    assert server.asked == ["/2.root.json", "/timestamp.json"]
    later = document(2)
    world.publish(later)
    assert shim.download(made.path).returncode == 0
    assert shim.downloaded() == [later.to_bytes()]


def test_what_fails_ends_with_1_and_a_line(world: World, server: Server, shim: Shim, tmp_path: Path) -> None:
    made = document(1)
    world.publish(made)
    unknown = shim.download(made.path, "production/none/release.json")
    assert unknown.returncode == 1
    assert "has no target production/none/release.json" in unknown.stderr
    assert shim.downloaded() == [made.to_bytes()]
    state = world.repository.read()
    assert state.snapshot
    past = datetime.now(UTC) - timedelta(days=3)
    timestamp = build_timestamp(
        state.timestamp, (state.snapshot.signed.version, state.raw["snapshot"]), lifetime=60, now=past
    )
    timestamp.sign(world.online.timestamp)
    world.force("timestamp.json", timestamp.to_bytes())
    frozen = shim.refresh()
    assert frozen.returncode == 1
    assert frozen.stderr.startswith("ashat-node: OMEGA serves what has ended (timestamp.json is expired)")
    assert len(frozen.stderr.splitlines()) == 1
    assert shim.init(tmp_path / "none").returncode == 1
    fresh = Shim(tmp_path / "fresh", server)
    assert fresh.refresh().returncode == 1
    assert fresh.trusted() == []


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not SUITE, reason="ASHAT_TEST_TUF_CONFORMANCE names no checkout of tuf-conformance")
def test_the_conformance_suite_passes() -> None:
    assert shutil.which("faketime"), "the suite needs the program faketime"
    entrypoint = f"{sys.executable} -m {SHIM}"
    words = ["-m", "pytest", "tuf_conformance", "-q", "-p", "no:cacheprovider", "--entrypoint", entrypoint]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=SUITE, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    last = done.stdout.strip().splitlines()[-1]
    assert "passed" in last
    assert "skipped" not in last
    assert "xfailed" not in last
