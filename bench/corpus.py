"""What the security check finds in the corpus of small faults, and what it takes for one that is none.

    python bench/corpus.py [--json] [--markdown]

Each case of tests/corpus is a bundle with one fault, or a good one that looks bad. Every case is judged in this process
by the parts of the check that look at files. `caught` is how many faults were found by one of their rules,
`false_alarms` how many good cases had a finding that a person has to look at.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.corpus import cases
from tests.corpus.case import Case, judged

LEAST = 0.95


def main() -> int:
    """Print the table, or one JSON object; 1 where recall or precision is below 95 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--markdown", action="store_true", help="the table as docs/checks.md has it")
    options = parser.parse_args()
    found = measure()
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(table(found)))
        for name in () if options.markdown else found["missed"]:
            print(f"wrong: {name}")
    return 0 if found["recall"] >= LEAST and found["precision"] >= LEAST else 1


def measure(corpus: tuple[Case, ...] = ()) -> dict[str, Any]:
    """Judge every case, and count by kind."""
    kinds: dict[str, dict[str, int]] = {}
    wrong = []
    for case in corpus or cases():
        row = kinds.setdefault(case.kind, {"faults": 0, "caught": 0, "good": 0, "false_alarms": 0})
        right = judged(case)
        row["good" if case.good else "faults"] += 1
        row["false_alarms"] += case.good and not right
        row["caught"] += right and not case.good
        if not right:
            wrong.append(f"{case.kind}: {case.name}")
    total = {key: sum(row[key] for row in kinds.values()) for key in ("faults", "caught", "good", "false_alarms")}
    alarms = total["caught"] + total["false_alarms"]
    return {
        **total,
        "recall": total["caught"] / max(1, total["faults"]),
        "precision": total["caught"] / max(1, alarms),
        "kinds": kinds,
        "missed": wrong,
    }


def table(found: dict[str, Any]) -> list[str]:
    """Lay the counts out as a table in Markdown."""
    rows = [*found["kinds"].items(), ("all", found)]
    lines = ["| kind | faults | caught | good that look bad | false alarms |", "|---|---|---|---|---|"]
    for kind, row in rows:
        lines.append(f"| {kind} | {row['faults']} | {row['caught']} | {row['good']} | {row['false_alarms']} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
