"""Runs the tests that failed in the last run once more, one after the other, and says which then passed.

    python scripts/retest.py

A test that passes only when nothing runs beside it has a fault of its own, which is to be mended; it is named, so that
nobody takes its pass for more than it is. A test that fails again fails the run, and so do more failures than a busy
machine explains, and a run that failed without a failed test. Which failed is read from pytest's own cache.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAST_FAILED = ".pytest_cache/v/cache/lastfailed"
AT_MOST = 6


def failed_tests(root: Path) -> list[str]:
    """Read which tests failed last below `root`, by the ids that pytest takes.

    xdist adds a test's group to its id, behind an '@'.
    """
    try:
        kept = json.loads((root / LAST_FAILED).read_text())
    except FileNotFoundError:
        return []
    return sorted({_without_group(test) for test in kept})


def _without_group(test: str) -> str:
    """Cut the group from a test's id; an '@' of a parameter stays."""
    return test if test.endswith("]") else test.rsplit("@", 1)[0]


def main() -> int:
    """Run them, and say how it went."""
    failed = failed_tests(ROOT)
    if not failed:
        print("No test failed, so there is none to run again.", file=sys.stderr)
        return 1
    if len(failed) > AT_MOST:
        print(f"{len(failed)} tests failed: too many to be a busy machine's doing.", file=sys.stderr)
        return 1
    code = subprocess.run([sys.executable, "-m", "pytest", "-q", *failed], cwd=ROOT, check=False).returncode
    if code == 0:
        print("These passed only when nothing ran beside them, and are to be mended:")
        for test in failed:
            print(f"  {test}")
    return code


if __name__ == "__main__":
    sys.exit(main())
