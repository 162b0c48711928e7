"""`ashat-node` says what it is, and what it does, and refuses what it does not know in a line."""

from __future__ import annotations

import sys

import pytest

from ashat import __version__
from ashat.node.cli.main import app, run


@pytest.mark.parametrize(
    ("words", "code", "says", "complains"),
    [
        (["--version"], 0, f"ashat-node {__version__}", ""),
        ([], 0, "serve", ""),
        (["--help"], 0, "serve", ""),
        (["serves"], 2, "", "ashat-node: No such command 'serves'."),
        (["--versions"], 2, "", "ashat-node: No such option: --versions"),
    ],
)
def test_it_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    says: str,
    complains: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["ashat-node", *words])
    assert run(app) == code
    told = capsys.readouterr()
    assert says in told.out
    assert told.err.startswith(complains)
    assert complains or told.err == ""
