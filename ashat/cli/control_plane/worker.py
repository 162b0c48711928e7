"""A worker of the embedded control plane: Prefect's own, imported while the server starts.

Run as `python -m ashat.cli.worker POOL`; it hands over to `prefect worker start` as soon as the pool is there.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys

from prefect.cli import app

from ashat.cli.control_plane.connect import READY_TIMEOUT, wait_for


def worker_arguments(pool: str, name: str = "") -> list[str]:
    """The words of `prefect` that start a worker for `pool`."""
    named = ["--name", name or f"{pool}@{socket.gethostname()}"]
    return ["worker", "start", "--pool", pool, "--type", "process", *named]


def main() -> int:
    """Wait for the server and its pool, then work."""
    pool = sys.argv[1]
    for slow in ("prefect.cli.worker", "prefect.workers.process"):
        importlib.import_module(slow)
    if not wait_for(f"{os.environ['PREFECT_API_URL']}/work_pools/{pool}", READY_TIMEOUT):
        sys.stderr.write(f"Prefect's server has no pool {pool}.\n")
        return 1
    sys.argv = ["prefect", *worker_arguments(pool)]
    app()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
