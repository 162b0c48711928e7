"""`deploy configure rollout-policy --check`: what a file says and costs, without Prefect; what does not add up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ashat.cli.main import run

CAREFUL = """\
waves = ["internal: ring=internal", "canary: 5", "early: 10 %", "everyone: rest"]
on_failure = "roll-back-wave"
"""


@pytest.fixture
def careful(tmp_path: Path) -> Path:
    file = tmp_path / "careful.toml"
    file.write_text(CAREFUL, "utf-8")
    return file


def test_it_shows_the_waves_and_what_a_bad_release_breaks(careful: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["configure", "rollout-policy", "careful", str(careful), "--check", "--mainframes", "2000"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "✅ Rollout policy adds up" in shown
    assert "2 canary 5 Mainframes 5 3 early 10 % 200 4 everyone the rest by label" in shown
    assert "then that wave is rolled back." in shown
    assert "20 % " in shown
    assert "configured successfully" not in shown


def test_json_has_the_same(careful: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["configure", "rollout-policy", "careful", str(careful), "--check", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [wave["mainframes"] for wave in told["waves"]] == [None, 5, 100, None]
    assert [found["rate"] for found in told["forecast"]] == [1, 5, 20]
    assert told["policy"]["on_failure"] == "roll-back-wave"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("waves = []", "waves: there are no waves"),
        ('waves = ["a: 60 %", "b: 50 %", "c: rest"]', "waves: the waves add up to 110 %, which leaves nobody for 'c'."),
        ("failure_percent = 101", "failure_percent: Input should be less than or equal to 100."),
        ("waves", "is not TOML"),
        ("failure_precent = 1", "failure_precent: there is no such key. Known are"),
        ('waves = ["a: k=\\u0007", "c: rest"]', "waves.1.label: A label holds U+0007"),
    ],
)
def test_what_does_not_add_up_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    (tmp_path / "bad.toml").write_text(text, "utf-8")
    assert run(["configure", "rollout-policy", "bad", str(tmp_path / "bad.toml")]) == 2
    said = capsys.readouterr()
    assert why in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_check_imports_no_prefect(careful: Path) -> None:
    code = (
        "import sys\nfrom ashat.cli.main import run\n"
        f"assert run(['configure', 'rollout-policy', 'careful', {str(careful)!r}, '--check']) == 0\n"
        "sys.exit('prefect' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
