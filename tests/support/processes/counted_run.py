"""`python -m tests.support.processes.counted_run DIRECTORY MODULE`: `python -m MODULE`, and what its flow run opens.

Python raises an audit event for each database and each TCP connection; of each, a line goes to a file in DIRECTORY.
"""

from __future__ import annotations

import os
import runpy
import sys
from collections import Counter
from pathlib import Path


def opened_by(directory: Path, flow_run: str) -> list[Counter[str]]:
    """How often each process of a flow run opened each database, by its file's name, and each port."""
    return [Counter(file.read_text().split()) for file in sorted(directory.glob(f"{flow_run}.*"))]


def _count(directory: Path) -> None:
    file = directory / f"{os.environ['PREFECT__FLOW_RUN_ID']}.{os.getpid()}"
    lines = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def hear(event: str, values: tuple[object, ...]) -> None:
        if event == "sqlite3.connect":
            os.write(lines, f"{Path(str(values[0])).name}\n".encode())
        elif event == "socket.connect" and isinstance(values[1], tuple):
            os.write(lines, f"{values[1][1]}\n".encode())

    sys.addaudithook(hear)


if __name__ == "__main__":
    _, directory, module = sys.argv
    _count(Path(directory))
    sys.argv = [module]
    sys.modules.pop(module, None)  # it is run as a script
    runpy.run_module(module, run_name="__main__", alter_sys=True)
