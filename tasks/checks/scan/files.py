"""Finds what the bundle's files, and the running release on the server's disk, should not hold or allow.

Rules, by path: `key-file`, `executable` of the bundle; `setuid`, `world-writable` on the disk.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator

from ashat.bundle.manifest import Manifest
from ashat.protocol.messages import Tree
from tasks.checks.kit.base import Finding, one_line
from tasks.checks.scan.key_files import named


def odd_files(manifest: Manifest) -> Iterator[Finding]:
    """Find the files, and links to files, whose very name says that they hold credentials or history."""
    for path in [*manifest.by_path, *(link.path for link in manifest.links)]:
        if named(path):
            text = f"{one_line(path)} is in the bundle: such files hold credentials or history; leave it out"
            yield Finding("high", text, "key-file", path)


def new_executables(previous: Manifest | None, manifest: Manifest) -> Iterator[Finding]:
    """Find the files that can be run as programs and could not in `previous`."""
    if previous is None:
        return
    for file in manifest.files:
        before = previous.by_path.get(file.path)
        if file.executable and not (before and before.executable):
            text = f"{one_line(file.path)} is executable and was not before: is it meant to be?"
            yield Finding("medium", text, "executable", file.path)


def loose_modes(tree: Tree) -> Iterator[Finding]:
    """Find the files of the running release that anybody on the server may change, or that run as somebody else."""
    for path, file in sorted(tree.files.items()):
        where = f"{one_line(path)} is {stat.S_IMODE(file.mode):04o} on the server"
        if file.mode & (stat.S_ISUID | stat.S_ISGID):
            text = f"{where}: it runs with its owner's rights, whoever starts it; take the setuid or setgid bit away"
            yield Finding("high", text, "setuid", path)
        if file.mode & stat.S_IWOTH:
            text = f"{where}: anybody there can change what the program runs; make it writable for its owner only"
            yield Finding("high", text, "world-writable", path)
