"""The user as whom the program and the hook run (`[app] user`), and what keeps the node's own files from that user."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import ashat
from ashat.errors import UsageError
from ashat.node.core.config import NodeConfig

# What of the node's environment the program gets where it is not to have what the node has.
_PASSED = ("PATH", "LANG", "LANGUAGE", "TZ")
_THE_PROGRAMS = ("releases", "app-data", "current")
# Asked as that user: access lists, read-only mounts and capabilities count as they do for the program.
_ASK = 'for path; do for right in r w x; do [ "-$right" "$path" ] && printf %s "$right"; done; echo; done'


@dataclass(frozen=True)
class ProgramUser:
    """A user of this machine, with all of its groups; `umask` is the one that the node was started with."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    umask: int

    def popen_options(self) -> dict[str, Any]:
        """Return what makes `subprocess.Popen` run something as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": self.groups, "umask": self.umask}

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Choose what the program gets of the node's environment, and say whose home is whose."""
        passed = {key: text for key, text in inherited.items() if key in _PASSED or key.startswith("LC_")}
        return {**passed, "HOME": self.home, "USER": self.name, "LOGNAME": self.name}

    def rights(self, paths: Iterable[Path]) -> list[str]:
        """Ask the system, as this user, what it may do with each path: some of `rwx`.

        Raises:
            UsageError: nothing can be run as this user.
        """
        command = ["/bin/sh", "-c", _ASK, "sh", *map(str, paths)]
        try:
            asked = subprocess.run(
                command, env={}, cwd="/", capture_output=True, text=True, timeout=60, check=True, **self.popen_options()
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise UsageError(f"app.user: nothing can be run as {self.name!r} here: {error}.") from None
        return str(asked.stdout).splitlines()


def program_user(config: NodeConfig) -> ProgramUser | None:
    """Look up the user of the settings; None where the program runs as the node's own.

    Raises:
        UsageError: there is no such user, it is the node's own, or the node may not run anything as another one.
    """
    name = config.app.user
    if not name:
        return None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(
            f"app.user: there is no user {name!r} here; make it (useradd --system {name}) or name another."
        ) from None
    if os.geteuid() != 0:
        raise UsageError(
            f"app.user: only a node that root starts can run the program as {name!r}, and this one runs as "
            f"{psutil.Process().username()!r}; start it as root, or leave app.user out."
        )
    if entry.pw_uid == 0:
        raise UsageError(f"app.user: {name!r} is the node's own user; name one that was made for the program.")
    groups = tuple(sorted(set(os.getgrouplist(name, entry.pw_gid))))
    umask = os.umask(0o077)
    os.umask(umask)
    return ProgramUser(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir, umask)


def keep_apart(config: NodeConfig, user: ProgramUser) -> None:
    """Keep everything of the node's from the program's user, but the releases, which it may read, and its own data.

    From here on nobody else can read what this process makes.

    Raises:
        UsageError: a line for each path outside the data directory that this user could change, or for each secret
            that it could read, and for what it cannot reach.
        OSError: a mode cannot be set.
    """
    os.umask(0o077)
    _close(config, user)
    _give(config, user)
    problems = [*_open_to(config, user), *_closed_to(config, user)]
    if problems:
        raise UsageError("\n".join(problems))


def _close(config: NodeConfig, user: ProgramUser) -> None:
    releases = config.data / "releases"
    releases.mkdir(exist_ok=True)
    for path in (config.data, releases):
        os.chown(path, 0, user.gid)
        path.chmod(0o710)
    for path in config.data.iterdir():
        if path.name not in _THE_PROGRAMS and not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)


def _give(config: NodeConfig, user: ProgramUser) -> None:
    """Make the program's data directory. One that is there already is not touched: who knows what lies in it?"""
    try:
        config.app_data.mkdir(mode=0o700)
    except FileExistsError:
        if any(config.app_data.iterdir()):
            return
    os.chown(config.app_data, user.uid, user.gid)


def _open_to(config: NodeConfig, user: ProgramUser) -> Iterator[str]:
    """Say what the user could change or read though it should not."""
    secrets = [path for path in _secrets(config) if path.exists()]
    owned = [*secrets, *(path for path in _owned(config) if path.exists())]
    guarded = {place: None for path in owned for place in (path, *path.parents, *path.resolve().parents)}
    for path, rights in zip(guarded, user.rights(guarded), strict=True):
        info = path.stat()
        shared = path.is_dir() and info.st_mode & stat.S_ISVTX and info.st_uid == 0
        if info.st_uid == user.uid or ("w" in rights and not shared):
            yield (
                f"app.user: {user.name!r} could change {path}, which decides what this node does; "
                f"run: chown root {path} && chmod go-w {path}"
            )
        elif "r" in rights and path in secrets:
            yield f"app.user: {user.name!r} could read {path}, which holds a secret; run: chmod 600 {path}"


def _closed_to(config: NodeConfig, user: ProgramUser) -> Iterator[str]:
    needed = [*reversed(config.data.parents), config.data, config.data / "releases", config.app_data]
    for path, rights in zip(needed, user.rights(needed), strict=True):
        if "x" not in rights:
            yield f"app.user: {user.name!r} cannot reach what lies in {path}; run: {_let_in(path, config, user)}"
            return
    if "w" not in user.rights([config.app_data])[0]:
        yield (
            f"app.user: {user.name!r} cannot write its data in {config.app_data}; "
            f"run: chown -R {user.name}: {config.app_data}"
        )


def _let_in(path: Path, config: NodeConfig, user: ProgramUser) -> str:
    return f"chown -R {user.name}: {path}" if path == config.app_data else f"chmod o+x {path}"


def _secrets(config: NodeConfig) -> Iterator[Path]:
    named = (config.tokens_path, config.license_file, config.tls_key, config.database.dsn_file, config.fleet_dsn_file)
    yield from (path for path in named if path is not None)
    if config.file is not None and config.database.dsn is not None:
        yield config.file
    for path in config.data.iterdir():
        if path.name not in _THE_PROGRAMS:
            yield path


def _owned(config: NodeConfig) -> Iterator[Path]:
    """List what decides what the node does: its settings, its trust, and its own program."""
    named = (config.file, config.trust_root, config.ca_file, config.tls_cert)
    traffic = [config.slots.snippet, config.slots.snippet.parent] if config.slots.snippet else []
    yield from (path for path in (*named, *traffic) if path is not None)
    yield from (config.data / "releases", Path(sys.executable), Path(ashat.__file__).parent)
