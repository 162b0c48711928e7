"""`deploy demo` as a newcomer sees it: a terminal, a person who decides elsewhere, and Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from ashat.cli.control_plane.state import read_password
from ashat.cli.demo.demo import _Demo
from ashat.cli.demo.nodes import MARKER
from ashat.cli.main import run
from ashat.client.local_node import LocalNode
from ashat.deployment.state_machine import Stage, State
from ashat.ledger.ledger import Ledger
from ashat.protocol.messages import Role
from tests.support.processes.node import NodeProcess, push, switch, tiny_bundle

pytestmark = pytest.mark.timeout(1200)


class Demo:
    """`deploy demo` on a terminal of its own; its standard output is a pipe."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        ours, theirs = os.openpty()
        self._terminal = ours
        self._shown: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ashat.cli", "demo", "--home", str(home), *options],
            stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, text=True, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def shown(self) -> str:
        """What the terminal shows so far."""
        return "".join(self._shown)

    def wait_for(self, text: str, seconds: float = 600) -> None:
        """Wait until the terminal shows `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.shown:
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.shown}"
            assert time.monotonic() < deadline, f"no {text!r} in:\n{self.shown}"
            time.sleep(0.1)

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._terminal, f"{text}\n".encode())

    def end(self) -> str:
        """Wait for its end; its standard output."""
        assert self.process.stdout is not None
        output = self.process.stdout.read()
        self.process.wait(60)
        self._reader.join(60)
        return output

    def close(self) -> None:
        """End it as Ctrl-C would, if it goes on."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._reader.join(60)
        os.close(self._terminal)

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._terminal, 65536)
            except OSError:  # Linux says EIO once nobody has the other end open
                return
            self._shown.append(chunk.decode("utf-8", "replace").replace("\r\n", "\n"))


@contextmanager
def demo(home: Path, *options: str) -> Iterator[Demo]:
    running = Demo(home, *options)
    try:
        yield running
    finally:
        running.close()


def started_by(home: Path) -> list[psutil.Process]:
    """Every process whose environment, arguments or directory say that it belongs to the demonstration in `home`."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.environ().values(), *process.cmdline(), process.cwd()]
        except (psutil.Error, OSError):
            continue
        if any(str(home) in word for word in words) and MARKER in process.environ():
            found.append(process)
    return found


def test_a_person_decides_in_another_terminal_and_sees_the_way_back(tmp_path: Path) -> None:
    home = tmp_path / "a demo"
    with demo(home, "--json") as running:
        running.wait_for("DEMO-2 waits for you to decide")
        running.wait_for("Ctrl-C ends the demonstration.")
        shown = re.search(r"in another terminal +(.*)", running.shown)
        assert shown is not None
        with Ledger.open(f"sqlite:///{home / 'alpha' / 'ledger.db'}") as ledger:
            state = ledger.load("DEMO-2")
        assert state.evidence is not None
        assert state.gate is not None
        assert f"/runs/flow-run/{state.gate.run}" in running.shown
        assert f"password {read_password(home / 'alpha')} (or deploy ui" in running.shown
        environment = {name: value for name, value in os.environ.items() if name != "ASHAT_HOME"}
        command = f"env {shown[1]} --evidence {state.evidence[-8:]} --by kim --comment seen"
        approved = subprocess.run(
            shlex.split(command), env=environment, capture_output=True, text=True, timeout=360, check=False
        )
        assert approved.returncode == 0, approved.stdout + approved.stderr
        assert "✅ Deployment completed successfully!" in approved.stdout
        running.wait_for("Roll it back, to see the way back?")
        assert "the source, staging, production, mainframe-berlin, mainframe-osaka are equal" in running.shown
        shipped = re.findall(r"DEMO-2 \(bundle ([0-9a-f]{12})\)", running.shown.partition("Where every server")[2])
        assert shipped[:4] == [str(state.bundle)[:12]] * 4
        running.type("y")
        running.wait_for("Enter ends it")
        running.type("")
        result = json.loads(running.end())
        assert running.process.returncode == 0, running.shown
    assert {name: result[name] for name in ("update_id", "stage", "bundle", "evidence")} == {
        "update_id": "DEMO-2",
        "stage": "RolledBack",
        "bundle": state.bundle,
        "evidence": state.evidence,
    }
    assert {server["role"] for server in result["servers"].values()} == {"public", "omega", "mainframe"}
    back = {server["bundle"] for server in result["servers"].values()}
    assert len(back) == 1
    assert back != {state.bundle}
    assert result["seconds"] > 0
    assert not home.exists()
    assert started_by(home) == []


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [("$ deploy up --detach", signal.SIGINT, 130), ("Step 2/4", signal.SIGTERM, 143)],
)
def test_a_signal_ends_all_of_it(tmp_path: Path, moment: str, number: signal.Signals, code: int) -> None:
    home = tmp_path / "demo"
    with demo(home, "--json") as running:
        running.wait_for(moment)
        assert len(started_by(home)) > 1
        running.process.send_signal(number)
        assert running.end() == ""
        assert running.process.returncode == code, running.shown
    assert "everything it started has ended too" in running.shown
    assert not home.exists()
    assert started_by(home) == []


def test_it_ends_with_0_only_where_every_server_runs_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The end of the story, with a real node; what leads there is told by the tests above."""
    source = tiny_bundle(tmp_path / "source")
    stage = Stage.COMPLETED
    with NodeProcess(tmp_path / "staging", app={}) as node, node.client() as client:
        bundle = push(client, source)

        def the_end(self: _Demo) -> dict[str, Any]:
            shutil.copytree(source, self._source)
            self._nodes = [LocalNode("staging", Role.PUBLIC, node.directory, node.url, node.token())]
            return self._outcome(State("DEMO-2", 1, stage=stage, bundle=bundle, evidence="e" * 64))

        def demo_ends(code: int) -> tuple[str, str]:
            assert run(["demo", "--yes", "--json", "--home", tempfile.mkdtemp(dir=tmp_path)]) == code
            written = capsys.readouterr()
            return written.out, written.err

        monkeypatch.setattr(_Demo, "run", the_end)
        assert demo_ends(1) == ("", "❌ staging does not run DEMO-2: its files say why.\n")
        assert switch(client, bundle, expected=None).status == "succeeded"
        out, _ = demo_ends(0)
        result = json.loads(out)
        assert result.pop("seconds") >= 0
        server = {"role": "public", "url": node.url, "bundle": bundle}
        assert result == {
            "update_id": "DEMO-2",
            "stage": "Completed",
            "bundle": bundle,
            "servers": {"staging": server},
            "evidence": "e" * 64,
        }
        (source / "more").write_text("a file that no server has")
        assert "more" in demo_ends(1)[1]
        stage = Stage.FAILED
        out, err = demo_ends(1)
        assert json.loads(out)["stage"] == "Failed"
        assert "❌ DEMO-2 is Failed: it did not reach every server. deploy demo begins anew." in err


def test_a_directory_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = subprocess.run(
        [sys.executable, "-m", "ashat.cli", "demo", "--home", str(tmp_path)],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not empty" in done.stderr
    assert (tmp_path / "mine").read_text() == "precious"
