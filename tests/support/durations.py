"""How long each group of tests took when that was last recorded, in `durations.json`: the longest is begun first.

`make test ARGS=--record-durations` records it anew, for the groups that ran.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[1] / "durations.json"


def group_of(item: pytest.Item) -> str:
    """The xdist group of a test: its module, unless it says otherwise."""
    marker = item.get_closest_marker("xdist_group")
    return str(marker.args[0]) if marker else item.nodeid.partition("::")[0]


def order_groups(items: Iterable[pytest.Item]) -> list[str]:
    """The groups of `items`, the longest first.

    One that was never recorded comes before; of several such, the one whose tests have the most time by their timeouts.
    """
    seconds, patience = recorded(), dict[str, float]()
    for item in items:
        timeout = item.get_closest_marker("timeout")
        patience[group_of(item)] = patience.get(group_of(item), 0) + (float(timeout.args[0]) if timeout else 0)
    return sorted(patience, key=lambda group: (-seconds.get(group, math.inf), -patience[group]))


def recorded() -> dict[str, float]:
    """The seconds of each group; nothing where none were recorded."""
    try:
        seconds: dict[str, float] = json.loads(FILE.read_bytes())
    except FileNotFoundError:
        return {}
    return seconds


class Recorder:
    """A plugin that records how long each group takes."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.group] += report.duration  # type: ignore[attr-defined]

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        seconds = recorded() | {group: round(took, 1) for group, took in self._seconds.items()}
        FILE.write_text(json.dumps(seconds, indent=1, sort_keys=True) + "\n")
