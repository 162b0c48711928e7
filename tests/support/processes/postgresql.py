"""A PostgreSQL server of one's own, from the binaries that are installed: it may be killed and started again."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.support.processes.node import free_port

_USER = "postgres"
_PLACES = Path("/usr/lib/postgresql")
_SECONDS = 60


def lacking() -> str:
    """Why no server can be started here; "" where one can."""
    if os.geteuid() != 0:
        return "only root can start PostgreSQL as another user"
    return "" if _binaries() else f"initdb and pg_ctl are not below {_PLACES}"


class OwnPostgresql:
    """An empty server on a free port of loopback, as another user. Use it in a `with` block, which ends it."""

    def __init__(self) -> None:
        found = _binaries()
        assert found is not None, lacking()
        self._binaries = found
        self._directory = Path(tempfile.mkdtemp(prefix="ashat-postgresql-"))
        shutil.chown(self._directory, _USER, _USER)
        self.port = free_port()
        self.url = f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={_USER}")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        words = f"-p {self.port} -h 127.0.0.1 -k {self._directory} -c shared_buffers=32MB"
        self._run("pg_ctl", "--wait", f"--log={self._directory}/log", f"--options={words}", "start")

    def kill(self) -> None:
        """End it as a crash would: connections break, and at the next start it recovers from its journal."""
        self._run("pg_ctl", "--wait", "--mode=immediate", "stop")

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [self._binaries / program, f"--pgdata={self._directory / 'data'}", *words],
            user=_USER,
            group=_USER,
            extra_groups=(),
            cwd=self._directory,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
        )


def _binaries() -> Path | None:
    """Find the newest version's programs that are there."""
    found = [path.parent for path in _PLACES.glob("*/bin/initdb") if (path.parent / "pg_ctl").exists()]
    return max(found, key=lambda path: [int(part) for part in path.parent.name.split(".")], default=None)
