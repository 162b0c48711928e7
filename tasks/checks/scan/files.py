"""Finds what the bundle's files, and the running release on the server's disk, should not hold or allow.

Rules, by path: `key-file`, `executable`, `secret`, `password`, `unsearched` of the bundle; `setuid`, `world-writable`
on the disk.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.protocol.messages import Tree
from tasks.checks.kit.base import CheckContext, Finding, one_line
from tasks.checks.scan.credentials import find_secrets

FILE_LIMIT = 1024 * 1024
TOTAL_LIMIT = 128 * 1024 * 1024
BATCH_BYTES = 4 * 1024 * 1024
BATCH_FILES = 512
BINARY_HEAD = 8192

_KEY_FILE = re.compile(
    r"(^|/)(\.env(\.(?!example$|sample$|template$)[^/]*)?|\.git|\.svn|\.hg|\.netrc|\.pgpass|\.htpasswd|\.npmrc|\.pypirc"
    r"|id_(rsa|dsa|ecdsa|ed25519)|[^/]*\.(p12|pfx|jks|keystore|kdbx|ppk)|\.aws/credentials|\.docker/config\.json)(/|$)",
    re.IGNORECASE,
)


@dataclass
class Scan:
    """What was searched, and what was not: binary or large files, or those after the total limit."""

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    size: int = 0
    binary: int = 0
    large: int = 0
    late: int = 0
    not_read_bytes: int = 0

    @property
    def not_read(self) -> int:
        """How many files were not searched."""
        return self.binary + self.large + self.late

    @property
    def not_read_shown(self) -> str:
        """The files that were not searched, in words."""
        kinds = ((self.binary, "binary"), (self.large, "over 1 MB"), (self.late, "beyond 128 MB in all"))
        listed = ", ".join(f"{count} {kind}" for count, kind in kinds if count)
        return f"{self.not_read} files of {self.not_read_bytes / 1e6:.1f} MB ({listed})"


def odd_files(manifest: Manifest) -> Iterator[Finding]:
    """Find the files whose very name says that they hold credentials or history."""
    for file in manifest.files:
        if _KEY_FILE.search(file.path):
            text = f"{one_line(file.path)} is in the bundle: such files hold credentials or history; leave it out"
            yield Finding("high", text, "key-file", file.path)


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


def search_for_secrets(context: CheckContext) -> Scan:
    """Search each distinct small file once, in batches, so that memory stays at a few megabytes."""
    scan = Scan()
    known: set[str] = set()
    batch: list[FileEntry] = []
    for file in context.manifest.files:
        if file.sha256 in known or not file.size:
            continue
        known.add(file.sha256)
        if file.size > FILE_LIMIT:
            _leave_out(context, file, scan)
            continue
        batch.append(file)
        if len(batch) == BATCH_FILES or sum(each.size for each in batch) >= BATCH_BYTES:
            _search(context, batch, scan)
            batch = []
    _search(context, batch, scan)
    return scan


def _leave_out(context: CheckContext, file: FileEntry, scan: Scan) -> None:
    """Count a file that is too large to be searched; where it is text, somebody has to look."""
    context.left()
    scan.large += 1
    scan.not_read_bytes += file.size
    if b"\0" not in context.public.head_of(file, BINARY_HEAD):
        where = f"{one_line(file.path)} is a text of {file.size / 1e6:.1f} MB"
        text = f"{where}, too large to be searched for credentials: see for yourself that it has none, and allow it"
        scan.findings.append(Finding("medium", text, "unsearched", file.path))


def _search(context: CheckContext, batch: Sequence[FileEntry], scan: Scan) -> None:
    if scan.size >= TOTAL_LIMIT:
        scan.late += len(batch)
        scan.not_read_bytes += sum(file.size for file in batch)
        return
    for file, content in zip(batch, context.public.files_bytes(batch) if batch else (), strict=True):
        context.left()
        if b"\0" in content[:BINARY_HEAD]:
            scan.binary += 1
            scan.not_read_bytes += file.size
            continue
        scan.files += 1
        scan.size += file.size
        for secret in find_secrets(content.decode("utf-8", "replace"), file.path):
            place = f"{one_line(file.path)}, line {secret.line}"
            if secret.sure:
                text = f"{place}: {secret.kind}: take it out and revoke it"
                scan.findings.append(Finding("high", text, "secret", file.path))
            else:
                text = f"{place}: this may be a credential ({secret.kind}): look, and take it out if it is one"
                scan.findings.append(Finding("medium", text, "password", file.path))
