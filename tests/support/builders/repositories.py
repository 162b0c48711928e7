"""Git repositories as people leave them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

IDENTITY = {"name": "Kim", "email": "kim@example.com"}
COMMITTER = {f"GIT_{who}_{key.upper()}": value for who in ("AUTHOR", "COMMITTER") for key, value in IDENTITY.items()}


def git(where: Path, *words: str, stdin: bytes = b"", fails: bool = False) -> str:
    """Run git as somebody without a configuration of their own; what it says."""
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, **COMMITTER}
    command = ["git", "-C", str(where), "-c", "protocol.file.allow=always", *words]
    done = subprocess.run(command, env={**os.environ, **nobody}, input=stdin, capture_output=True, check=False)
    assert (done.returncode != 0) == fails, done.stderr.decode()
    return done.stdout.decode().strip()


def make_repository(where: Path, files: dict[str, bytes | str], object_format: str = "sha1") -> str:
    """Make `where` a repository of one commit with `files`; the id of the commit."""
    where.mkdir(parents=True, exist_ok=True)
    git(where, "init", "--quiet", "--initial-branch=main", f"--object-format={object_format}")
    for key, value in IDENTITY.items():
        git(where, "config", f"user.{key}", value)
    return commit(where, files)


def commit(where: Path, files: dict[str, bytes | str], message: str = "a change") -> str:
    """Write `files` and commit everything; the id of the commit."""
    write(where, files)
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--allow-empty", f"--message={message}")
    return git(where, "rev-parse", "HEAD")


def write(where: Path, files: dict[str, bytes | str]) -> None:
    """Write `files` below `where`."""
    for path, content in files.items():
        place = where / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
