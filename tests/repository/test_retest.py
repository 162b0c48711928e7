"""What failed is run once more by its own ids, and what fails again, or fails in numbers, fails the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import retest

TESTS = """
import os, pytest
pytestmark = pytest.mark.xdist_group("group")
@pytest.mark.parametrize("word", ["x", "y@z"])
def test_words(word):
    assert os.environ.get("MENDED") or word == "x"
def test_plain():
    assert os.environ.get("MENDED")
"""

CONFTEST = f"""
import sys
sys.path.insert(0, {str(retest.ROOT)!r})
from scripts import retest
def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        retest.keep_end(session.config, int(session.exitstatus), left_behind=0)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose tests have been run, two of which failed."""
    monkeypatch.setattr(retest, "ROOT", tmp_path)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    words = [sys.executable, "-m", "pytest", "-q", "-n", "1", "--dist", "loadgroup"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "2 failed, 1 passed" in done.stdout
    return tmp_path


def test_what_failed_is_run_again_and_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert retest.failed_tests(root) == ["test_it.py::test_plain", "test_it.py::test_words[y@z]"]
    assert retest.main() == 1
    monkeypatch.setenv("MENDED", "1")
    assert retest.main() == 0
    said = capsys.readouterr().out
    assert said.splitlines()[1:] == ["  test_it.py::test_plain", "  test_it.py::test_words[y@z]"]


def keep(root: Path, name: str, value: object) -> None:
    path = root / retest.CACHE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def test_none_and_too_many_are_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(retest, "ROOT", tmp_path)
    keep(tmp_path, retest.END, {"status": 1, "left_behind": 0})
    assert retest.main() == 1
    assert "No test failed" in capsys.readouterr().err
    keep(tmp_path, retest.LAST_FAILED, {f"test_it.py::test_{number}": True for number in range(retest.AT_MOST + 1)})
    assert retest.main() == 1
    assert "7 tests failed: too many" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (None, "did not end by failed tests alone"),
        ({"status": 2, "left_behind": 0}, "did not end by failed tests alone"),
        ({"status": 3, "left_behind": 0}, "did not end by failed tests alone"),
        ({"status": 1, "left_behind": 1}, "left a process behind"),
    ],
)
def test_a_run_with_more_wrong_than_failed_tests_is_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: object, why: str
) -> None:
    monkeypatch.setattr(retest, "ROOT", tmp_path)
    keep(tmp_path, retest.LAST_FAILED, {"test_it.py::test_plain": True})
    if end is not None:
        keep(tmp_path, retest.END, end)
    assert retest.main() == 1
    assert why in capsys.readouterr().err
