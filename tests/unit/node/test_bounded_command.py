"""A command of the operator's that takes too long: it is killed with all of its session, and what is said is so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ashat.common.processes import ProcessRef
from ashat.node.app_process.bounded_command import BoundedCommand, CommandError

# Leaves a child in its session, in a process group of the child's own where "apart" is asked for; then hangs.
HANGS = """
import os, sys, time
child = os.fork()
if child == 0:
    if "apart" in sys.argv:
        os.setpgid(0, 0)
    time.sleep(600)
open(sys.argv[1], "w").write(str(child))
time.sleep(600)
"""


@pytest.mark.parametrize("words", [(), ("apart",)], ids=["in-its-group", "in-a-group-of-its-own"])
def test_what_a_late_command_left_in_its_session_is_killed(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = tmp_path / "child"
    command = BoundedCommand("the hook", [sys.executable, "-c", HANGS, str(said), *words], tmp_path / "log", "app.t")
    with pytest.raises(CommandError, match=r"^the hook took longer than 3 s and was killed; app\.t gives it more"):
        command.run({}, 3)
    assert ProcessRef.of(int(said.read_text())) is None
