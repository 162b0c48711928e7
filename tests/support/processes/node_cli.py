"""The `ashat-node` command within the test's own process."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

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
