"""What a Mainframe's question whether there is anything new costs it, in processor time: the median of many.

    python bench/trust.py [--rounds 200] [--json]

OMEGA's repository is served on loopback by other threads, whose time is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.trust import World, document, mainframe, serving  # noqa: E402

LIMIT_MS = 15.0


def main() -> int:
    """Print the figure, or one JSON object; 1 where it is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    milliseconds = statistics.median(measure(options.rounds))
    result = {
        "rounds": options.rounds,
        "median_cpu_ms": round(milliseconds, 2),
        "limit_ms": LIMIT_MS,
        "reached": milliseconds <= LIMIT_MS,
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        reached = "reached" if result["reached"] else "MISSED"
        print(f"anything new?  {milliseconds:.1f} ms of processor, at most {LIMIT_MS:.0f} ms: {reached}")
    return 0 if result["reached"] else 1


def measure(rounds: int) -> list[float]:
    """Milliseconds of this thread's processor time for each question, once the first release is known."""
    with tempfile.TemporaryDirectory(prefix="ashat-bench-") as directory:
        world = World(Path(directory) / "repository")
        world.publish(document(1))
        with serving(world.directory) as server, mainframe(server, world, Path(directory) / "cache") as client:
            client.latest_release("stable")
            taken = []
            for _ in range(rounds):
                before = time.thread_time()
                client.latest_release("stable")
                taken.append((time.thread_time() - before) * 1000)
    return taken


if __name__ == "__main__":
    raise SystemExit(main())
