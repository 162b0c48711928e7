"""A look at a source tree to find out what kind of program it is: names, and the texts of some files, within bounds."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from ashat.common.documents import load_json, load_toml
from ashat.errors import DocumentError, UsageError

ENTRIES = 20_000
TEXT_BYTES = 256 * 1024
TEXTS_BYTES = 16 * 1024 * 1024
# What a tree brings along, but others wrote.
_FOREIGN = {"node_modules", "site-packages", "vendor", "__pycache__", "bower_components", "obj", "tests"}


class SourceTree:
    """A directory's files by their paths; those that others wrote are left out, and what begins with a dot."""

    def __init__(self, root: Path) -> None:
        """Look at the names.

        Raises:
            UsageError: it is no directory that can be read.
        """
        self.root = root
        self._left = TEXTS_BYTES
        self.paths = list(self._walk())

    def matching(self, pattern: str) -> list[str]:
        """List the paths that are like `pattern`, such as `*/settings.py`; those near the root first."""
        found = [path for path in self.paths if fnmatch.fnmatchcase(path, pattern)]
        return sorted(found, key=lambda path: (path.count("/"), path))

    def has(self, path: str) -> bool:
        """Tell whether there is such a file."""
        return path in self._known

    def text(self, path: str) -> str:
        """Read a file's text; "" where there is none, it is too large, or all that was read together is."""
        try:
            with open(self.root / path, "rb") as file:
                raw = file.read(TEXT_BYTES + 1)
        except OSError:
            return ""
        self._left -= len(raw)
        return raw.decode("utf-8", "replace") if len(raw) <= TEXT_BYTES and self._left >= 0 else ""

    def json(self, path: str) -> dict[str, Any]:
        """Read a JSON object; an empty one where there is none."""
        try:
            found = load_json(self.text(path) or "{}", limit=TEXT_BYTES)
        except DocumentError:
            return {}
        return found if isinstance(found, dict) else {}

    def toml(self, path: str) -> dict[str, Any]:
        """Read a TOML document; an empty one where there is none."""
        try:
            return load_toml(self.text(path), limit=TEXT_BYTES)
        except DocumentError:
            return {}

    def search(self, pattern: str, *files: str) -> tuple[re.Match[str], str] | None:
        """Find the first place that matches in files like `files`, and the path of its file."""
        compiled = re.compile(pattern)
        for path in (path for like in files for path in self.matching(like)):
            if found := compiled.search(self.text(path)):
                return found, path
        return None

    @cached_property
    def _known(self) -> set[str]:
        return set(self.paths)

    def _walk(self) -> Iterator[str]:
        """Yield the paths, directory by directory, `ENTRIES` at most."""
        waiting, left = [""], ENTRIES
        while waiting and left > 0:
            prefix = waiting.pop(0)
            try:
                entries = sorted(os.scandir(self.root / prefix), key=lambda entry: entry.name)
            except OSError:
                if prefix:
                    continue
                raise UsageError(f"The source {self.root} is not a directory that can be read.") from None
            for entry in entries[:left]:
                left -= 1
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith(".") and not self._is_foreign(prefix + entry.name):
                        waiting.append(f"{prefix}{entry.name}/")
                elif entry.is_file(follow_symlinks=False):
                    yield prefix + entry.name

    def _is_foreign(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        return name in _FOREIGN or (self.root / path / "pyvenv.cfg").exists()
