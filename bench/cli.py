"""How long `deploy status` takes with a full ledger: whole processes, compiled bytecode, medians.

    python bench/cli.py [--releases 1000] [--runs 15] [--json]

The ledger is written through `ashat.ledger.ledger`, a release at a time, with the eleven events that a completed one
has. Each command is run once to warm the file cache and then `--runs` times, and its output is thrown away. The limit
is that of `deploy status`: a median of 0.4 s. The processor time beside it tells a slow command from a busy machine.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ashat.deployment.state_machine import Stage  # noqa: E402
from tests.support.builders.deployments import open_ledger, record  # noqa: E402

LIMIT_SECONDS = 0.4
COMMANDS = (("status",), ("status", "--json"), ("history",), ("history", "--limit", "20"), ("help",))
_WAITING, _UNDER_WAY = 3, 2


def main() -> int:
    """Print the table, or one JSON object; 1 where `deploy status` is over its limit or imports Prefect."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as directory:
        home = Path(directory) / "home"
        with tempfile.TemporaryDirectory(prefix="ashat-bench-", dir=_memory()) as quick:
            fill(Path(quick), options.releases)
            shutil.copytree(quick, home)
        compileall.compile_dir(ROOT / "ashat", quiet=1)
        environment = _environment(home)
        rows = {" ".join(words): _measure(words, environment, options.runs) for words in COMMANDS}
        prefect = _imports_prefect(environment)
    result = {
        "releases": options.releases,
        "runs": options.runs,
        "limit_seconds": LIMIT_SECONDS,
        "imports_prefect": prefect,
        "median_seconds": {name: _median(wall for wall, _ in times) for name, times in rows.items()},
        "median_cpu_seconds": {name: _median(cpu for _, cpu in times) for name, times in rows.items()},
    }
    reached = result["median_seconds"]["status"] <= LIMIT_SECONDS and not prefect
    print(json.dumps({**result, "reached": reached}, indent=2) if options.json else _table(result, reached=reached))
    return 0 if reached else 1


def fill(home: Path, releases: int) -> None:
    """Write a ledger in which most releases have completed, some wait and some are under way."""
    began = datetime.now(UTC) - timedelta(hours=releases)
    with open_ledger(home) as ledger:
        for number in range(releases):
            left = releases - number
            stage = Stage.COMPLETED
            if left <= _UNDER_WAY:
                stage = Stage.PUSHED
            elif left <= _UNDER_WAY + _WAITING:
                stage = Stage.AWAITING_APPROVAL
            record(
                ledger, f"UPD-{number:05}", stage, at=began + timedelta(hours=number), description=f"Release {number}"
            )


def _measure(words: tuple[str, ...], environment: dict[str, str], runs: int) -> list[tuple[float, float]]:
    """Measure the wall and processor seconds of each run."""
    command = [str(Path(sys.executable).with_name("deploy")), *words]
    times = []
    for _ in range(runs + 1):
        began, before = time.perf_counter(), _children_cpu()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        times.append((time.perf_counter() - began, _children_cpu() - before))
    return times[1:]


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


def _memory() -> str | None:
    """Find a directory in memory, if the machine has one, to fill a ledger without waiting for a disk."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _imports_prefect(environment: dict[str, str]) -> bool:
    script = "import sys; from ashat.cli.main import run; run(['status']); sys.exit('prefect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.DEVNULL, check=False)
    return done.returncode != 0


def _environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ASHAT_", "PREFECT_", "PYTHONDONTWRITE"))}
    return {**kept, "ASHAT_HOME": str(home), "PYTHONPATH": str(ROOT)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--releases", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _table(result: dict[str, Any], *, reached: bool) -> str:
    wall, cpu = result["median_seconds"], result["median_cpu_seconds"]
    lines = [f"{result['releases']} releases in the ledger, {result['runs']} runs each, whole processes, medians", ""]
    lines += [f"{'command':<28}{'seconds':>9}{'processor':>11}"]
    lines += [f"{'deploy ' + name:<28}{wall[name]:>9.3f}{cpu[name]:>11.3f}" for name in wall]
    verdict = "reached" if reached else "NOT reached"
    imports = "imports Prefect" if result["imports_prefect"] else "does not import Prefect"
    lines += ["", f"deploy status: limit {LIMIT_SECONDS} s {verdict}; it {imports}."]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
