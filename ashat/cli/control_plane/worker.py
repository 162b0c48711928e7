"""A worker for one of our pools: Prefect's own, held to the flows that are installed here; run as a module.

The embedded one is imported while the server starts. `prefect worker start` itself would look for the server once, and
again only after half a minute.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from pathlib import Path

from prefect.cli import app

from ashat.cli.control_plane import pinned
from ashat.cli.control_plane.connect import READY_TIMEOUT, wait_for
from ashat.cli.control_plane.prefect_file import find_prefect_file, read_prefect_file
from ashat.errors import AshatError


def main() -> int:
    """Wait for the server and the pool, if told to, then become `prefect worker start`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pool")
    parser.add_argument("--name", default="")
    parser.add_argument("--prefect-file", type=Path)
    parser.add_argument("--wait", action="store_true")
    options = parser.parse_args()
    try:
        entries = read_prefect_file(options.prefect_file or find_prefect_file())
    except AshatError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    pinned.pin({entry["name"]: entry["entrypoint"] for entry in entries})
    if options.wait:
        url, password = os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"]
        if not wait_for(f"{url}/work_pools/{options.pool}", READY_TIMEOUT, password=password):
            sys.stderr.write(f"Prefect's server has no pool {options.pool}.\n")
            return 1
    name = options.name or f"{options.pool}@{socket.gethostname()}"
    sys.argv = ["prefect", "worker", "start", "--pool", options.pool, "--type", "process", "--name", name]
    app()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
