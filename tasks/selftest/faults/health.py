"""Seeded faults: a program that is not well."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tasks.selftest.seeded import Seeded, told


def _hurried(fault: Seeded) -> Seeded:
    """The same release, which promises to start within a second."""

    def change(tree: Path) -> None:
        fault.change(tree)
        file = tree / "raos.toml"
        text, found = re.subn(r"(?m)^start_seconds = .*$", "start_seconds = 1", file.read_text(encoding="utf-8"))
        if found != 1:
            raise LookupError(f"raos.toml holds start_seconds {found} times")
        file.write_text(text, encoding="utf-8")

    return replace(fault, change=change)


FAULTS: tuple[Seeded, ...] = (
    told("health", r"reports version 9\.4\.0, but raos\.toml says 9\.4\.1", "wrong-version=9.4.0"),
    told("health", r"looks were not healthy; the last: .*seeded fault", "unhealthy-after=8"),
    told("health", r"looks were not healthy; the last: .*503", "flapping=3"),
    told("health", r"restarted .*while it was watched; the last time, .* on signal 9", "crash-on-health=8"),
    told("health", r"restarted once after it was switched to .* on signal 9", "crash-once=8", late=True),
    _hurried(told("health", r"not ready within 1 s .*\(/health is well\): /ready: status 503", "not-ready")),
    told("health", r"looks found it alive, but not ready; the last: /ready: status 503", "unready-after=3"),
    _hurried(told("health", r"took \d+\.\d s from its start until it was healthy, over the 1 s", "slow-start=1.5")),
)
