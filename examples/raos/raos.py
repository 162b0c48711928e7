"""RaOS, the sample program: `python3 raos.py [--port N] [--data DIR]`. Needs nothing but Python 3.11 or later."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import tomllib
from pathlib import Path
from types import FrameType

sys.dont_write_bytecode = True  # the release directory is not ours to write into

from kernel import Kernel
from kernel.database import Database
from kernel.faults import Faults
from kernel.modules import load_modules
from kernel.web import Server

RELEASE = Path(__file__).resolve().parent


def main() -> int:
    """Load every module, serve until SIGTERM or SIGINT, and return the exit status."""
    started = time.monotonic()
    arguments = parse_arguments()
    data = arguments.data.resolve()
    if data == RELEASE or RELEASE in data.parents:
        print(f"raos: {data} is inside the release; point RAOS_DATA somewhere else.", file=sys.stderr)
        return 2
    faults = Faults.read(RELEASE, os.environ.get("RAOS_FAULT", ""))
    faults.at_start(RELEASE)
    with open(RELEASE / "raos.toml", "rb") as file:
        promises = tomllib.load(file)
    database = Database(data, RELEASE / "migrations", faults)
    database.migrate()
    kernel = Kernel(
        name=promises["raos"]["name"],
        version=faults.text("wrong-version") or promises["raos"]["version"],
        bundle=("0" * 64 if faults.has("wrong-bundle") else os.environ.get("ASHAT_BUNDLE") or None),
        release=RELEASE,
        database=database,
        faults=faults,
    )
    load_modules(kernel)
    server = Server(kernel, arguments.host, arguments.port)
    stop = threading.Event()

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask_to_stop)
    signal.signal(signal.SIGINT, ask_to_stop)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    milliseconds = round((time.monotonic() - started) * 1000)
    print(f"raos: {kernel.version} on {server.url}, {len(kernel.modules)} modules, {milliseconds} ms", file=sys.stderr)
    faults.while_running(database, RELEASE)
    stop.wait()
    server.drain(seconds=1)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line; each option's default comes from the environment."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    parser = argparse.ArgumentParser(description="RaOS, the sample program of ASHAT Deploy.")
    parser.add_argument("--host", default=os.environ.get("RAOS_HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("RAOS_PORT", "8080")))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RAOS_DATA") or state / "raos"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
