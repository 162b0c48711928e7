"""Seeded faults: a program that is not well."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ashat.client.local_node import sample_directory
from tasks.checks.kit.base import CheckContext
from tasks.selftest.faults.base import SeededFault, faulty
from tasks.selftest.faults.staging import StagingError


def _hurried(fault: SeededFault) -> SeededFault:
    """Make the release promise to start within a second."""

    def change(tree: Path) -> None:
        fault.change(tree)
        file = tree / "raos.toml"
        text, found = re.subn(r"(?m)^start_seconds = .*$", "start_seconds = 1", file.read_text(encoding="utf-8"))
        if found != 1:
            raise LookupError(f"raos.toml holds start_seconds {found} times")
        file.write_text(text, encoding="utf-8")

    return replace(fault, change=change)


@contextmanager
def _old_process(context: CheckContext) -> Iterator[CheckContext]:
    """Run the good release's program under another bundle's name, where the check expects the new one."""
    with tempfile.TemporaryDirectory(prefix="ashat-old-") as data:
        environment = {**os.environ, "RAOS_DATA": data, "RAOS_FAULT": "wrong-bundle"}
        words = [sys.executable, str(sample_directory() / "raos.py"), "--port", "0"]
        with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                started = process.stderr.readline()
                if not (found := re.search(r"http://127\.0\.0\.1:\d+", started)):
                    raise StagingError(f"The sample did not start: {started or process.stderr.read()}")
                yield replace(context, app_url=found.group())
            finally:
                process.kill()


FAULTS: tuple[SeededFault, ...] = (
    faulty("health", r"reports version 9\.4\.0, but raos\.toml says 9\.4\.1", "wrong-version=9.4.0"),
    SeededFault(
        "a healthy old process answers",
        "health",
        r"/health reports bundle 000000000000, but [0-9a-f]{12} was pushed",
        lambda _: None,
        ("wrong-bundle",),
        around=_old_process,
    ),
    faulty("health", r"looks were not healthy; the last: .*seeded fault", "unhealthy-after=8"),
    faulty("health", r"looks were not healthy; the last: .*503", "flapping=3"),
    faulty("health", r"restarted .*while it was watched; the last time, .* on signal 9", "crash-on-health=8"),
    faulty("health", r"restarted once after it was switched to .* on signal 9", "crash-once=8", late=True),
    _hurried(faulty("health", r"not ready within 1 s .*\(/health is well\): /ready: status 503", "not-ready")),
    faulty("health", r"looks found it alive, but not ready; the last: /ready: status 503", "unready-after=3"),
    _hurried(faulty("health", r"took \d+\.\d s from its start until it was healthy, over the 1 s", "slow-start=1.5")),
)
