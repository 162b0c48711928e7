"""A Mainframe pulls no faster than its owner lets it."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

from ashat.client.pace import Pace
from ashat.protocol.messages import Role
from tests.node.test_mainframe import Install
from tests.support.processes.node import NodeProcess, tiny_app
from tests.support.processes.omega import ship, source

MB = 1_000_000


def test_20_mb_come_at_the_rate_that_was_set(tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "omega", role=Role.OMEGA, app=tiny_app()) as omega, omega.client() as client:
        release = source(tmp_path)
        (release / "large").write_bytes(os.urandom(20 * MB))
        current = ship(client, release)
        with Install(tmp_path / "baker", omega, max_download_rate=5 * MB) as baker:
            baker.wait_until_runs(current)
            found = re.search(r"is here: (\d+) bytes came in (\d+\.\d) s", baker.log())
            assert found
            size, seconds = int(found[1]), float(found[2])
            assert size > 20 * MB
            assert 0.9 * 5 * MB <= size / seconds <= 1.1 * 5 * MB


def test_several_connections_share_one_pace_and_no_pause_is_made_up_for() -> None:
    pace, came = Pace(1 * MB), []

    def fetch() -> None:
        came.extend(pace.keep([bytes(10_000)] * 10))

    time.sleep(0.2)
    began = time.monotonic()
    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(map(len, came)) == 300_000
    assert time.monotonic() - began >= 0.29
