"""Ctrl-C while a command still imports what it is made of is one line, as at any other moment."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PRESSED = """
import sys
class Pressed:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Pressed())
import ashat.common.entry
getattr(ashat.common.entry, sys.argv[1])()
"""


@pytest.mark.parametrize("command", ["deploy", "ashat_node"])
def test_ctrl_c_while_it_starts_is_a_line(command: str) -> None:
    done = subprocess.run([sys.executable, "-c", _PRESSED, command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "❌ Interrupted.\n")
