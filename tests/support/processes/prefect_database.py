"""Prefect's database as its migrations leave it, made once a session, since they take four seconds of processor."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock


def begin_with_empty_database(ashat_home: Path) -> None:
    """Let the control plane of `ashat_home`, which has none yet, start on an empty database of today's schema."""
    made = _template(Path(os.environ["ASHAT_TEST_HOMES"]))
    prefect_home = ashat_home / "prefect"
    ashat_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    prefect_home.mkdir(mode=0o700)
    shutil.copyfile(made, prefect_home / made.name)


def _template(homes: Path) -> Path:
    directory = homes / "migrated"
    with FileLock(homes / "migrated.lock"):
        if not directory.exists():
            unfinished = homes / "migrating"
            subprocess.run(
                [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"],
                env={**os.environ, "PREFECT_HOME": str(unfinished), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
                check=True,
                capture_output=True,
                timeout=360,
            )
            unfinished.rename(directory)
    assert not (directory / "prefect.db-wal").exists(), "all of it is in the one file"
    return directory / "prefect.db"
