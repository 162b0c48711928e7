"""How long a whole verification of the sample takes: rehearsal, checks and performance, and the opening of the gate.

    python bench/verification.py [--runs 3] [--vendored] [--files N] [--json]

A run is an unattended `deploy demo`, which ships a first release and then a changed one. What is timed is
`deploy verify` of the second, which has a release before it to rehearse the rollback to and to compare with.
`--vendored` also verifies a tree of 10,000 files, twice (`bench/vendored_tree.py`). `--files N` verifies one of N
files, and measures the security check in it, whose time is to follow what changed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import vendored_tree

LIMIT_SECONDS = 15.0
FIRST_SECONDS, SECOND_SECONDS = 60.0, 25.0  # of the tree with vendored packages
SECURITY_FIRST_SECONDS, SECURITY_NEXT_SECONDS = 60.0, 5.0  # of the security check, with 65,000 files
_UPDATE = "DEMO-2"
_BEGINS, _ENDS = f"$ deploy verify {_UPDATE}", f"Next: deploy approve {_UPDATE}"
_DEPLOY = [sys.executable, "-m", "ashat.cli"]


def main() -> int:
    """Print the figures, or one JSON object; 1 where one is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--vendored", action="store_true", help="measure the tree of 10,000 files, too")
    parser.add_argument("--files", type=int, default=0, help="measure the security check on a tree of so many files")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    runs = [measure() for _ in range(options.runs)]
    result: dict[str, Any] = {"runs": runs, "limit_seconds": LIMIT_SECONDS}
    rows: list[tuple[str, float, float]] = []
    if runs:
        whole = result["median_seconds"] = statistics.median(run["seconds"] for run in runs)
        rows.append(("a whole verification", whole, LIMIT_SECONDS))
    if options.vendored:
        tree = result["vendored"] = vendored_tree.measure()
        what = f"{tree['files']} files, {tree['mb']} MB"
        rows += [
            (f"{what}, the first time", tree["first_seconds"], FIRST_SECONDS),
            (f"{what}, one page changed", tree["second_seconds"], SECOND_SECONDS),
        ]
    if options.files:
        tree = result["many_files"] = vendored_tree.measure(options.files)
        what = f"the security check of {tree['files']} files, {tree['mb']} MB"
        rows += [
            (f"{what}, the first time", tree["first_checks"]["security"], SECURITY_FIRST_SECONDS),
            (f"{what}, one page changed", tree["second_checks"]["security"], SECURITY_NEXT_SECONDS),
        ]
    result["reached"] = all(seconds <= limit for _, seconds, limit in rows)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        for run in runs:
            checks = ", ".join(f"{name} {seconds:.1f}" for name, seconds in run["checks"].items())
            print(f"{run['seconds']:6.1f} s, of which the checks took {run['checks_seconds']:.1f} s: {checks}")
        for what, seconds, limit in rows:
            print(f"{what}: {seconds:.1f} s, at most {limit:.0f} s: {'reached' if seconds <= limit else 'MISSED'}")
    return 0 if result["reached"] else 1


def measure() -> dict[str, Any]:
    """Measure one verification in seconds: of the command, from the evidence's beginning to its end, and by check."""
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as name:
        directory = Path(name) / "demo"
        seconds = _timed([*_DEPLOY, "demo", "--yes", "--keep", "--home", str(directory)])
        alpha = {**os.environ, "ASHAT_HOME": str(directory / "alpha")}
        shown = subprocess.run([*_DEPLOY, "evidence", _UPDATE, "--json"], env=alpha, capture_output=True, check=True)
        evidence = json.loads(shown.stdout)
        began, ended = (datetime.fromisoformat(evidence[key]) for key in ("began", "ended"))
        return {
            "seconds": round(seconds, 1),
            "checks_seconds": round((ended - began).total_seconds(), 1),
            "checks": {check["name"]: round(check["milliseconds"] / 1000, 1) for check in evidence["checks"]},
            "outcome": evidence["outcome"],
        }


def _timed(demo: list[str]) -> float:
    began = ended = 0.0
    lines: list[str] = []
    with subprocess.Popen(demo, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if line.startswith(_BEGINS):
                began = time.monotonic()
            elif line.startswith(_ENDS):
                ended = time.monotonic()
    if process.returncode or not began < ended:
        raise SystemExit(f"The demonstration failed, so nothing was measured:\n{''.join(lines)}")
    return ended - began


if __name__ == "__main__":
    raise SystemExit(main())
