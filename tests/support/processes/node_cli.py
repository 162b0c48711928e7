"""The `ashat-node` command, within the test's own process and as another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes.forks import FORKS

Run = Callable[..., tuple[int, str, str]]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`ashat-node` with those words: its exit code, and what it wrote."""
    from ashat.node.cli.main import main

    def ashat_node(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ashat-node", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return ashat_node


def ashat_node(*words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `ashat-node` with those words as a process of its own, to its end."""
    return FORKS.run(["ashat.node", *map(str, words)], stdin=stdin, timeout=120)
