"""A worker of the embedded control plane: Prefect's own, imported while the server starts.

`prefect worker start` itself would look for the server once, and again only after half a minute.
"""

from __future__ import annotations

import importlib
import os
import sys

from prefect.cli import app

from ashat.cli.control_plane.children import worker_words
from ashat.cli.control_plane.connect import READY_TIMEOUT, wait_for


def main() -> int:
    """Wait for the server and the pool that the first argument names, then become `prefect worker start`."""
    pool = sys.argv[1]
    for slow in ("prefect.cli.worker", "prefect.workers.process"):
        importlib.import_module(slow)
    url, password = os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"]
    if not wait_for(f"{url}/work_pools/{pool}", READY_TIMEOUT, password=password):
        sys.stderr.write(f"Prefect's server has no pool {pool}.\n")
        return 1
    sys.argv = ["prefect", *worker_words(pool)]
    app()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
