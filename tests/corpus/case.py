"""What a case of the corpus is, and how one is judged in this process: by the files of its bundle alone.

No credential in this package is one: `letters` makes them up anew each time, from a fixed seed.
"""

from __future__ import annotations

import hashlib
import json
import random
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ashat.bundle.manifest import FileEntry, Manifest
from ashat.client.node import NodeClient
from ashat.raos_toml.load import load_raos_toml
from tasks.checks import CheckContext
from tasks.checks.kit.base import Finding
from tasks.checks.scan.files import odd_files
from tasks.checks.scan.lockfiles import declared_packages
from tasks.checks.scan.search import search_for_secrets
from tasks.checks.scan.searched import Searched

ALNUM = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + string.digits
LOWER = string.ascii_lowercase + string.digits
BASE32 = string.ascii_uppercase + "234567"
HEX = "0123456789abcdef"
DIGITS = string.digits
_RAOS = b'[raos]\nname = "RaOS"\nversion = "1"\n'


@dataclass(frozen=True)
class Case:
    """A bundle with one fault, or a good one that looks bad. `rules` are those of which one has to find the fault."""

    kind: str
    name: str
    files: Mapping[str, bytes | str]
    rules: frozenset[str] = frozenset()

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.rules


def fault(kind: str, name: str, files: Mapping[str, bytes | str], *rules: str) -> Case:
    """Make a case that one of `rules` (`secret`, `password` or `key-file` without any) has to find."""
    return Case(kind, name, files, frozenset(rules or ("secret", "password", "key-file")))


def good(kind: str, name: str, files: Mapping[str, bytes | str]) -> Case:
    """Make a case in which nothing is wrong."""
    return Case(kind, name, files)


def letters(seed: str, count: int, alphabet: str = ALNUM) -> str:
    """Make up `count` letters, the same ones for the same seed."""
    return "".join(random.Random(f"{seed}/{count}").choices(alphabet, k=count))


def uuid(seed: str) -> str:
    """Make up a UUID."""
    return "-".join(letters(f"{seed}{number}", count, HEX) for number, count in enumerate((8, 4, 4, 4, 12)))


@dataclass
class _Files:
    """The part of a node's client that gives the files of a bundle, in memory."""

    contents: dict[str, bytes] = field(default_factory=dict)

    def files_bytes(self, files: Iterable[FileEntry]) -> Iterator[bytes]:
        for file in files:
            yield self.contents[file.sha256]


def context_of(files: Mapping[str, bytes | str]) -> CheckContext:
    """Make the context in which a check looks at a bundle of `files`, without a node or a program."""
    node, entries = _Files(), []
    for path, text in {"raos.toml": _RAOS, **files}.items():
        content = text.encode() if isinstance(text, str) else text
        digest = hashlib.sha256(content).hexdigest()
        node.contents[digest] = content
        entries.append(FileEntry(path, len(content), 0o644, digest))
    manifest = Manifest.from_files(entries)
    return CheckContext(
        public=cast(NodeClient, node),
        app_url="http://127.0.0.1:9",
        bundle=manifest.digest,
        manifest=manifest,
        raos=load_raos_toml(_RAOS),
        source=lambda path: node.contents[manifest.by_path[path].sha256],
    )


def findings_in(case: Case) -> list[Finding]:
    """Find everything that the parts of the security check that look at files find in a case."""
    context = context_of(case.files)
    memory = Searched(Path("/nonexistent/searched.db"), "none")
    return [
        *odd_files(context.manifest),
        *declared_packages(context).findings(),
        *search_for_secrets(context, memory).findings,
    ]


def judged(case: Case) -> bool:
    """Tell whether the check is right about a case: the fault is found, or nothing is that a person has to look at."""
    telling = [each for each in findings_in(case) if each.severity != "low"]
    return not telling if case.good else any(each.rule in case.rules for each in telling)


def dumped(document: object) -> str:
    """Write a JSON document as programs do."""
    return json.dumps(document, indent=2)
