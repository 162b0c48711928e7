"""Runs the tests that failed in the last run once more, one after the other, and says which then passed.

    python scripts/retest.py

A test that passes only when nothing runs beside it has a fault of its own, which is to be mended; it is named, so that
nobody takes its pass for more than it is. A test that fails again fails the run, and so do more failures than a busy
machine explains, and a run with more wrong than failed tests: one that was broken off before all had run, or that left
a process behind. Which failed is read from pytest's own cache, where tests/conftest.py also keeps how the run ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
CACHE = ".pytest_cache/v"
LAST_FAILED = "cache/lastfailed"
END = "ashat/end"
AT_MOST = 6


def keep_end(config: pytest.Config, status: int, left_behind: int) -> None:
    """Keep how a run ended, where it has a cache: pytest's exit status, and how many processes it left behind."""
    if hasattr(config, "cache"):
        config.cache.set(END, {"status": status, "left_behind": left_behind})


def more_than_failed_tests(root: Path) -> str:
    """Say what was wrong with the last run below `root` beside tests that failed, or ""."""
    end = _kept(root, END)
    if end.get("status") != pytest.ExitCode.TESTS_FAILED:
        return "The run did not end by failed tests alone, so not all of them may have run."
    if end.get("left_behind") != 0:
        return "The run left a process behind."
    return ""


def failed_tests(root: Path) -> list[str]:
    """Read which tests failed last below `root`, by the ids that pytest takes.

    xdist adds a test's group to its id, behind an '@'.
    """
    return sorted({_without_group(test) for test in _kept(root, LAST_FAILED)})


def _kept(root: Path, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((root / CACHE / name).read_text())
    except FileNotFoundError:
        return {}
    return found


def _without_group(test: str) -> str:
    """Cut the group from a test's id; an '@' of a parameter stays."""
    return test if test.endswith("]") else test.rsplit("@", 1)[0]


def main() -> int:
    """Run them, and say how it went."""
    failed = failed_tests(ROOT)
    why = more_than_failed_tests(ROOT)
    if not failed:
        why = why or "No test failed, so there is none to run again."
    elif len(failed) > AT_MOST:
        why = why or f"{len(failed)} tests failed: too many to be a busy machine's doing."
    if why:
        print(why, file=sys.stderr)
        return 1
    code = subprocess.run([sys.executable, "-m", "pytest", "-q", *failed], cwd=ROOT, check=False).returncode
    if code == 0:
        print("These passed only when nothing ran beside them, and are to be mended:")
        for test in failed:
            print(f"  {test}")
    return code


if __name__ == "__main__":
    sys.exit(main())
