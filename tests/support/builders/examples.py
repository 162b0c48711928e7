"""The programs in `examples/`, made ready to run as their READMEs say."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.support.builders.repositories import git
from tests.support.drivers.doc_console import Block, blocks
from tests.support.processes.node import QUICK, ROOT

EXAMPLES = ROOT / "examples"
_SERVER = "/srv/"  # where the READMEs have what a program runs on


@dataclass(frozen=True)
class Example:
    """One of `examples/`. `change` makes its second version, whose `page` has `after` where it had `before`."""

    name: str
    change: Callable[[Path], None]
    page: str
    before: str
    after: str

    def copy(self, to: Path, server: Path) -> None:
        """Make `to` a repository of the example, with one commit, and install what its README says, on ALPHA and on the
        servers, of which `server` is the place below /srv."""
        shutil.copytree(EXAMPLES / self.name, to, ignore=shutil.ignore_patterns("__pycache__"))
        server.mkdir()
        for block in self._blocks("sh"):
            for line in block.lines:
                _run(line.replace(f"{_SERVER}{self.name}", str(server)), to)
        git(to, "init", "--quiet", "--initial-branch=main")
        self.commit(to, "The first version")

    def commit(self, tree: Path, message: str) -> None:
        """Commit the whole tree, also what Git is told to ignore."""
        git(tree, "add", "--all", "--force", ".")
        git(tree, "commit", "--quiet", "-m", message)

    def settings(self, server: Path, database: sa.URL | None = None) -> dict[str, Any]:
        """What the README has in a server's node.toml, with another `database` on PostgreSQL where one is given."""
        (block,) = self._blocks("toml")
        found = tomllib.loads("\n".join(block.lines).replace(f"{_SERVER}{self.name}", str(server)))
        app = {**QUICK, **found["app"]}
        if database is None:
            return {**found, "app": app}
        reached = {"PGHOST": database.host, "PGPORT": database.port, "PGUSER": database.username}
        reached |= {"PGPASSWORD": database.password, "PGDATABASE": database.database}
        app["env"] |= {key: str(value) for key, value in reached.items() if value}
        return {"app": app, "database": {"dsn": database.render_as_string(hide_password=False)}}

    def _blocks(self, language: str) -> list[Block]:
        readme = (EXAMPLES / self.name / "README.md").read_text("utf-8")
        return [block for block in blocks(readme) if block.language == language]


def _run(line: str, where: Path) -> None:
    done = subprocess.run(
        line, shell=True, cwd=where, env={**os.environ}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def replace(file: Path, old: str, new: str, times: int = -1) -> None:
    """Replace a text that the file has, everywhere or only the first `times`."""
    text = file.read_text("utf-8")
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new, times), "utf-8")
