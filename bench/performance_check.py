"""How often the performance check is wrong: the real check, the real sample program, and a slowdown of known size.

    python bench/performance_check.py [--runs 100] [--slowdown 30] [--work PERCENT] [--json]    (make bench: 20 runs)
    python bench/performance_check.py [--runs 100] --fault stall=25@60      (4 % of the answers take 60 ms more)
    python bench/performance_check.py [--runs 100] --synthetic [--json]  (made-up times: bench/performance_synthetic.py)

A run does what the rehearsal does: it starts one release, puts a block of load on it, stops it, starts the other, and
so on (new, old, new, old, and as often again where those seem to differ), and gives the blocks to the check. In an A/A
run both are the sample as it is; in an A/B run the new one has the sample's fault `slower`, which costs processor time.
How much of it makes answers `--slowdown` percent slower is found out first, with both side by side. A/A and A/B runs
take turns.

Reached: 95 of 100 A/A runs do not fail, and 95 of 100 A/B runs do. The shift that was measured stands beside them: it
shows that the slowdown was what it was meant to be, and how quiet the machine was.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import performance_synthetic  # noqa: E402

from ashat.bundle.manifest import FileEntry, Manifest  # noqa: E402
from ashat.client.node import NodeClient  # noqa: E402
from ashat.raos_toml.load import load_raos_toml  # noqa: E402
from tasks.checks import CheckContext, CheckResult, run_check  # noqa: E402
from tasks.checks.kit.base import Outcome  # noqa: E402
from tasks.checks.kit.http import Web  # noqa: E402
from tasks.checks.kit.samples import Rehearsal, Which  # noqa: E402
from tasks.checks.kit.statistics import slowdown_ratio  # noqa: E402
from tasks.checks.performance import PerformanceCheck, blocks_needed, limits_of, measure_block  # noqa: E402

SAMPLE = ROOT / "examples" / "raos"
SHARE = 0.95
SETTLE_SECONDS = 0.05
TRIED_WORK = (15, 30)
ROUNDS = 6
OUTCOMES: tuple[Outcome, ...] = ("pass", "inconclusive", "fail")
_STARTED = re.compile(r"raos: \S+ on (http://127\.0\.0\.1:\d+), ")


def main() -> int:
    """Print the table, or one JSON object; 1 where a share is missed."""
    options = _options()
    began = time.monotonic()
    if options.synthetic:
        made_up = performance_synthetic.report(_context(), options.runs, options.scenario)
        made_up["seconds"] = round(time.monotonic() - began, 1)
        print(json.dumps(made_up, indent=2) if options.json else "\n".join(performance_synthetic.table(made_up)))
        return 0 if made_up["reached"] else 1
    results: dict[str, list[CheckResult]] = {"A/A": [], "A/B": []}
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as directory:
        work = 0 if options.fault else options.work or calibrate(Path(directory), options.slowdown)
        for number in range(options.runs):
            for kind, faults in (("A/A", ""), ("A/B", options.fault or f"slower={work}")):
                results[kind].append(run(Path(directory), faults))
                if not options.json:
                    _tell(number, kind, results[kind][-1])
    report = _report(results, options, work, round(time.monotonic() - began, 1))
    print(json.dumps(report, indent=2) if options.json else _table(report))
    return 0 if report["reached"] else 1


def run(directory: Path, faults: str) -> CheckResult:
    """Run the check on the sample with `faults`, where the sample without any ran before."""
    context = _context()
    budget = context.raos.performance
    assert budget is not None
    order: tuple[Which, ...] = ("new", "old")
    limits = limits_of(budget, context.policy)
    rehearsal = Rehearsal()
    while len(rehearsal.blocks) < len(order) * blocks_needed(rehearsal, budget, limits):
        for which in order:
            seeded = faults if which == "new" else ""
            with program(directory / "data", seeded) as url, Web(replace(context, app_url=url)) as web:
                rehearsal = Rehearsal((*rehearsal.blocks, measure_block(web, which, budget, context.policy)))
    return run_check(PerformanceCheck(), replace(context, rehearsal=rehearsal))


def calibrate(directory: Path, slowdown: int) -> int:
    """Find how many percent more processor time a request must cost for answers to take `slowdown` percent longer.

    Each amount is tried against the sample as it is, both running, in short blocks in turn; of the shifts per percent
    the median is taken.
    """
    context = _context()
    budget = context.raos.performance
    assert budget is not None
    gains = []
    for work in TRIED_WORK:
        with program(directory / "slow", f"slower={work}") as slow, program(directory / "plain", "") as plain:
            for _ in range(ROUNDS):
                times = []
                for url in (slow, plain):
                    with Web(replace(context, app_url=url)) as web:
                        block = measure_block(web, "new", budget, context.policy)
                        times.append([sample.us for sample in block.samples])
                gains.append((slowdown_ratio(*times) - 1) * 100 / work)
    return max(1, round(slowdown / statistics.median(gains)))


@contextmanager
def program(data: Path, faults: str) -> Iterator[str]:
    """Run the sample as a process of its own, which ends with the block; yield its address."""
    environment = {**os.environ, "RAOS_DATA": str(data), "RAOS_FAULT": faults}
    words = [sys.executable, str(SAMPLE / "raos.py"), "--port", "0"]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            found = _STARTED.match(process.stderr.readline())
            if found is None:
                raise SystemExit(f"The sample did not start: {process.stderr.read()}")
            time.sleep(SETTLE_SECONDS)
            yield found[1]
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def _context() -> CheckContext:
    content = (SAMPLE / "raos.toml").read_bytes()
    manifest = Manifest.from_files([FileEntry("raos.toml", len(content), 0o644, "ab" * 32)])
    return CheckContext(
        public=cast(NodeClient, None),
        app_url="",
        bundle=manifest.digest,
        manifest=manifest,
        raos=load_raos_toml(content),
        source={"raos.toml": content}.__getitem__,
        previous=manifest,
    )


def _report(
    results: dict[str, list[CheckResult]], options: argparse.Namespace, work: int, seconds: float
) -> dict[str, Any]:
    counts = {kind: Counter(result.outcome for result in some) for kind, some in results.items()}
    quiet = options.runs - counts["A/A"]["fail"]
    caught = counts["A/B"]["fail"]
    needed = SHARE * options.runs
    return {
        "runs": options.runs,
        "slowdown_percent": options.slowdown,
        "work_percent": work,
        "fault": options.fault,
        "counts": {kind: {outcome: count[outcome] for outcome in OUTCOMES} for kind, count in counts.items()},
        "not_failed_of_a_a": quiet,
        "caught_of_a_b": caught,
        "needed": needed,
        "shift_percent": {kind: _spread(_percents(some, "slower_per_mille")) for kind, some in results.items()},
        "standard_error_percent": {
            kind: _spread(_percents(some, "standard_error_per_mille")) for kind, some in results.items()
        },
        "load_average": round(os.getloadavg()[1], 2),
        "seconds": seconds,
        "reached": quiet >= needed and caught >= needed,
    }


def _percents(results: Sequence[CheckResult], figure: str) -> list[float]:
    return [result.figures[figure] / 10 for result in results if figure in result.figures]


def _spread(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {
        "lowest": round(min(values), 1),
        "median": round(statistics.median(values), 1),
        "highest": round(max(values), 1),
    }


def _tell(number: int, kind: str, result: CheckResult) -> None:
    print(f"{number + 1:>4} {kind}  {result.outcome:<13} {result.seen}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--slowdown", type=int, default=30)
    parser.add_argument("--work", type=int, help="take this much more processor time, in percent; find out nothing")
    parser.add_argument("--fault", default="", help="a fault of the sample that the new release of A/B has instead")
    parser.add_argument("--synthetic", action="store_true", help="made-up times instead of the sample program")
    parser.add_argument("--scenario", default="", help="of the made-up ones, those only whose name has this")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _table(report: dict[str, Any]) -> str:
    lines = ["", f"{'':<6}" + "".join(f"{outcome:>14}" for outcome in OUTCOMES) + f"{'shift, %':>26}"]
    for kind, counts in report["counts"].items():
        shift = report["shift_percent"][kind]
        row = "".join(f"{counts[outcome]:>14}" for outcome in OUTCOMES)
        lines.append(f"{kind:<6}{row}{shift['lowest']:>12} to {shift['highest']} ({shift['median']})")
    runs, needed = report["runs"], report["needed"]
    slower = f"slower by {report['slowdown_percent']} % ({report['work_percent']} % more work)"
    made = f"with {report['fault']}" if report["fault"] else slower
    lines += [
        "",
        f"{report['not_failed_of_a_a']} of {runs} A/A runs did not fail, {report['caught_of_a_b']} of {runs} {made} "
        f"were caught; {needed:g} are needed: {'reached' if report['reached'] else 'NOT reached'}.",
        f"It took {report['seconds']:g} s; load average over five minutes {report['load_average']}.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
