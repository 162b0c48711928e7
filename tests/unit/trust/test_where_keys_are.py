"""Keys are where the documents say: their commands name the file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ashat.cli.main import run
from tests.support.processes.node import ROOT

OPERATORS = ("docs/guide.md", "docs/trust.md", "docs/ceremonies.md")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ASHAT_HOME", raising=False)
    monkeypatch.delenv("ASHAT_LEDGER_URL", raising=False)
    monkeypatch.setenv("ASHAT_KEY_PASSPHRASE", "five words of a passphrase")
    return tmp_path / ".ashat"


def named(pattern: str) -> set[str]:
    """What the documents say of places below `~/.ashat`, by a pattern."""
    text = "".join((ROOT / document).read_text("utf-8") for document in OPERATORS)
    return set(re.findall(rf"~/\.ashat/({pattern})", text))


def test_an_approvers_key_is_where_the_documents_sign_with_it(home: Path) -> None:
    shown = named(r"trust/keys/\w+\.pem")
    assert "trust/keys/kim.pem" in shown
    for place in shown:
        assert run(["trust", "keygen", Path(place).stem]) == 0
    assert {str(path.relative_to(home)) for path in home.rglob("*.pem")} == shown


def test_the_audits_key_is_where_the_guide_says(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = named(r"audit/ledger-…/[\w.]+")
    assert run(["audit", "checkpoint"]) == 0
    origin = capsys.readouterr().out.splitlines()[0].removeprefix("ashat-deploy/")
    place = home / shown.replace("ledger-…", origin)
    assert place.is_file()
    assert place.with_name("key.vkey").is_file()
