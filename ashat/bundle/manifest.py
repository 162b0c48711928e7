"""A bundle: a directory tree as data. The manifest names every file by content; its digest names the bundle.

The manifest is canonical JSON, `{"format": "ashat-bundle/1", "modules": {NAME: [FILE, ...]}}`. A file below
`Modules/NAME/` belongs to module NAME, every other to the module named "". FILE is `{"path", "size", "mode",
"sha256"}`, and `"parts"` where size is over `PART_SIZE`: the sha256 of each 4 MiB piece in order. Sizes are bytes,
modes are 0o644 or 0o755 as integers, files are sorted by path within their module.

A manifest is read file by file, since there is one spelling of it: what it takes is a few times its size, whatever a
stranger puts into it.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from ashat.common.canonical_json import canonical_json, is_digest
from ashat.common.documents import load_json
from ashat.common.text import hidden_character
from ashat.errors import DocumentError, ManifestError

FORMAT = "ashat-bundle/1"
PART_SIZE = 4 * 1024 * 1024
MODULES_DIR = "Modules"
FILE_MODE = 0o644
EXECUTABLE_MODE = 0o755
PATH_BYTES = 1024
NAME_BYTES = 255
SIZE_LIMIT = 1 << 53
MANIFEST_LIMIT = 32 * 1024 * 1024
DEPTH_LIMIT = 64
DIRECTORIES_LIMIT = 100_000

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: reserved with any extension.
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?")
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')
_FILE = re.compile(
    rb'\{"mode":([1-9]\d{1,3}),(?:"parts":\[((?:"[0-9a-f]{64}",?+)++)\],)?'
    rb'"path":("(?:[^"\\]++|\\.)*+"),"sha256":"([0-9a-f]{64})","size":(\d{1,16}+)\}'
)
_SPELLED_AT_ONCE = 500
_EXPLAINED = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a bundle. `size` is in bytes; `parts` is empty unless it is over `PART_SIZE`."""

    path: str
    size: int
    mode: int
    sha256: str
    parts: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """The module the file belongs to; "" for what is outside `Modules/NAME/`."""
        return module_of(self.path)

    @property
    def executable(self) -> bool:
        """Whether the file is to be run as a program."""
        return self.mode == EXECUTABLE_MODE

    def objects(self) -> Iterator[tuple[str, int]]:
        """List the stored objects the file is made of, as (sha256, size), in order."""
        if not self.parts:
            yield self.sha256, self.size
        for index, part in enumerate(self.parts):
            yield part, min(PART_SIZE, self.size - index * PART_SIZE)

    def as_json(self) -> dict[str, Any]:
        """Write the file as it stands in the manifest."""
        entry: dict[str, Any] = {"path": self.path, "size": self.size, "mode": self.mode, "sha256": self.sha256}
        if self.parts:
            entry["parts"] = list(self.parts)
        return entry


@dataclass(frozen=True)
class Manifest:
    """Every file of a bundle, sorted by path. Build it with `from_files` or `parse`: both enforce the rules."""

    files: tuple[FileEntry, ...]

    @classmethod
    def from_files(cls, files: Iterable[FileEntry]) -> Manifest:
        """Make a manifest of `files`, sorted.

        Raises:
            ManifestError: a rule is broken; the message names the rule and the path.
        """
        ordered = tuple(sorted(files, key=lambda file: file.path))
        check_paths([file.path for file in ordered])
        return cls(ordered)

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Read the manifest that `raw` spells.

        Raises:
            ManifestError: it is no canonical manifest, or breaks a bundle rule.
        """
        if len(raw) > MANIFEST_LIMIT:
            raise ManifestError(f"The manifest has {len(raw)} bytes; at most {MANIFEST_LIMIT} are read.")
        manifest = cls(tuple(sorted(_spelled(raw), key=lambda file: file.path)))
        if manifest.canonical != raw:
            raise _misspelt(raw)
        check_paths([file.path for file in manifest.files])
        return manifest

    @cached_property
    def canonical(self) -> bytes:
        """The bytes whose sha256 is the bundle's identity.

        Raises:
            ManifestError: they are more than any server reads.
        """
        modules = [
            canonical_json(name) + b":[" + b",".join(_spell(files)) + b"]" for name, files in self.modules.items()
        ]
        raw = b'{"format":%s,"modules":{%s}}' % (canonical_json(FORMAT), b",".join(modules))
        if len(raw) > MANIFEST_LIMIT:
            raise ManifestError(
                f"The list of the bundle's {len(self.files)} files has {len(raw)} bytes, and at most {MANIFEST_LIMIT} "
                "are read: ship fewer files, such as an archive of those that belong together."
            )
        return raw

    @cached_property
    def digest(self) -> str:
        """The bundle's identity: sha256 of `canonical`."""
        return hashlib.sha256(self.canonical).hexdigest()

    @cached_property
    def objects(self) -> dict[str, int]:
        """Each distinct stored object and its size in bytes."""
        return {digest: size for file in self.files for digest, size in file.objects()}

    @cached_property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @cached_property
    def modules(self) -> dict[str, tuple[FileEntry, ...]]:
        """The files of each module, by name, "" (outside any module) included when it has files."""
        found: dict[str, list[FileEntry]] = {}
        for file in self.files:
            found.setdefault(file.module, []).append(file)
        return {name: tuple(files) for name, files in sorted(found.items())}

    @cached_property
    def by_path(self) -> dict[str, FileEntry]:
        """Each file by its path."""
        return {file.path: file for file in self.files}


@dataclass(frozen=True)
class BundleDiff:
    """What changes from one bundle to another, as sorted paths."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    mode_changed: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether the two bundles are the same."""
        return not (self.added or self.removed or self.changed or self.mode_changed)

    def by_module(self) -> dict[str, dict[str, int]]:
        """Count the files of each module that were added, removed, changed (a mode change counts as changed)."""
        counts: dict[str, dict[str, int]] = {}
        kinds = (("added", self.added), ("removed", self.removed), ("changed", self.changed + self.mode_changed))
        for kind, paths in kinds:
            for path in paths:
                row = counts.setdefault(module_of(path), {"added": 0, "removed": 0, "changed": 0})
                row[kind] += 1
        return dict(sorted(counts.items()))


def diff(old: Manifest | None, new: Manifest) -> BundleDiff:
    """Compare two bundles: what changes when `new` takes the place of `old` (None: nothing ran)."""
    before = old.by_path if old else {}
    after = new.by_path
    both = sorted(before.keys() & after.keys())
    return BundleDiff(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(path for path in both if before[path].sha256 != after[path].sha256),
        mode_changed=tuple(
            path for path in both if before[path].sha256 == after[path].sha256 and before[path].mode != after[path].mode
        ),
    )


def module_of(path: str) -> str:
    """Name the module that a path belongs to: NAME for `Modules/NAME/...`, else ""."""
    head, _, rest = path.partition("/")
    name, slash, _ = rest.partition("/")
    return name if head == MODULES_DIR and slash else ""


def check_path(path: str) -> None:
    """Refuse a path that some filesystem of some server could misread.

    Raises:
        ManifestError: the message names the path and the rule.
    """
    if not path or path.startswith("/"):
        raise ManifestError(f"{path!r} is an absolute or empty path; a bundle holds relative paths only.")
    try:
        raw = path.encode("utf-8")
    except UnicodeEncodeError:
        raise ManifestError(f"{path!r} is not valid UTF-8; rename it.") from None
    if len(raw) > PATH_BYTES:
        raise ManifestError(f"{path[:60]!r}… is {len(raw)} bytes long; a path has at most {PATH_BYTES}.")
    if not unicodedata.is_normalized("NFC", path):
        raise ManifestError(f"{path!r} is not in Unicode normal form C (NFC); rename it.")
    names = path.split("/")
    if len(names) > DEPTH_LIMIT:
        raise ManifestError(f"{path[:60]!r}… is {len(names)} names deep; a path has at most {DEPTH_LIMIT}.")
    for name in names:
        _check_name(path, name)
    if found := hidden_character(path):
        raise ManifestError(f"{path!r} holds {found}, which nobody sees or which turns what is read; rename it.")


def check_paths(paths: list[str]) -> None:
    """Refuse a set of paths that cannot all exist side by side on every filesystem.

    Raises:
        ManifestError: it is empty, a path is refused by `check_path`, two are equal under case folding, one is both a
            file and a directory, or they have more directories than a server makes.
    """
    if not paths:
        raise ManifestError("The bundle is empty: there is no file to ship.")
    for path in paths:
        check_path(path)
    directories = 0
    # What stands below one directory stands together here, so that each path needs to be held against one other only.
    folded = sorted((fold(path).replace("/", "\0"), path) for path in paths)
    for (before, other), (key, path) in pairwise([("", ""), *folded]):
        shared = _shared(before.split("\0"), key.split("\0"))
        _check_neighbours(other.split("/"), path.split("/"), shared)
        directories += key.count("\0") - shared
    if directories > DIRECTORIES_LIMIT:
        raise ManifestError(f"The bundle has {directories} directories; at most {DIRECTORIES_LIMIT} are made.")


def fold(path: str) -> str:
    """Fold `path` as a case-insensitive filesystem compares it (Unicode 3.13, canonical caseless matching)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _shared(one: list[str], other: list[str]) -> int:
    """Count the names that two paths, in any one spelling, begin with alike."""
    return next(
        (depth for depth, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _check_neighbours(one: list[str], other: list[str], shared: int) -> None:
    """Check two paths whose first `shared` names are equal under case folding."""
    alike = _shared(one[:shared], other[:shared])
    if alike < shared:
        first, second = ("/".join(names[: alike + 1]) for names in (one, other))
        raise ManifestError(f"{first!r} and {second!r} are equal under case folding; rename one.")
    if shared == len(other):
        raise ManifestError(f"{'/'.join(other)!r} is named twice.")
    if shared == len(one):
        raise ManifestError(f"{'/'.join(one)!r} is both a file and a directory.")


def _check_name(path: str, name: str) -> None:
    if name in ("", ".", ".."):
        raise ManifestError(f"{path!r} has an empty, '.' or '..' part; a bundle holds plain relative paths only.")
    if len(name.encode("utf-8")) > NAME_BYTES:
        raise ManifestError(f"{path[:60]!r}…: a name has at most {NAME_BYTES} bytes.")
    if _FORBIDDEN.search(name):
        raise ManifestError(f'{path!r} holds a control character or one of <>:"|?*\\, which Windows does not allow.')
    if name[-1] in ". ":
        raise ManifestError(f"{path!r}: a name cannot end in a dot or a space, which Windows drops.")
    if _RESERVED.fullmatch(name):
        raise ManifestError(f"{path!r}: {name!r} is a reserved name on Windows; rename it.")


def _spell(files: Sequence[FileEntry]) -> Iterator[bytes]:
    """Write files as they stand in a manifest, some hundred at a time."""
    for start in range(0, len(files), _SPELLED_AT_ONCE):
        yield canonical_json([file.as_json() for file in files[start : start + _SPELLED_AT_ONCE]])[1:-1]


def _spelled(raw: bytes) -> Iterator[FileEntry]:
    """Read the files that `raw` spells as a manifest does, wherever they stand in it."""
    for found in _FILE.finditer(raw):
        mode, parts, path, sha256, size = found.groups()
        try:
            text = load_json(path, limit=8 * PATH_BYTES) if b"\\" in path else path[1:-1].decode()
        except ValueError as error:
            raise ManifestError(f"The manifest holds a path that cannot be read: {error}.") from None
        pieces = {"parts": parts.decode()[1:-1].split('","')} if parts else {}
        yield _entry({"path": text, "sha256": sha256.decode(), "mode": int(mode), "size": int(size), **pieces})


def _misspelt(raw: bytes) -> ManifestError:
    """Find what is wrong with a manifest that is not spelled as one; what is large is not looked into."""
    if len(raw) <= _EXPLAINED:
        try:
            Manifest.from_files(_entries(load_json(raw, limit=_EXPLAINED)))
        except DocumentError as error:
            return ManifestError(f"The manifest is not JSON: {error}")
        except ManifestError as error:
            return error
    return ManifestError("The manifest is not in canonical form (sorted, no spaces, files under their module).")


def _entries(document: Any) -> Iterator[FileEntry]:
    if not isinstance(document, dict) or set(document) != {"format", "modules"}:
        raise ManifestError("The manifest must be an object with 'format' and 'modules'.")
    if document["format"] != FORMAT:
        raise ManifestError(f"The manifest's format is {document['format']!r}; this version reads {FORMAT!r}.")
    if not isinstance(document["modules"], dict):
        raise ManifestError("The manifest's 'modules' must be an object.")
    for name, files in document["modules"].items():
        if not isinstance(files, list):
            raise ManifestError(f"The manifest's module {name!r} must be a list of files.")
        for item in files:
            yield _entry(item)


def _entry(item: Any) -> FileEntry:
    if not isinstance(item, dict) or not {"path", "size", "mode", "sha256"} <= set(item) <= {
        "path",
        "size",
        "mode",
        "sha256",
        "parts",
    }:
        raise ManifestError("A file of the manifest must have path, size, mode, sha256 and, if large, parts.")
    path, size, mode, sha256, parts = (item.get(key) for key in ("path", "size", "mode", "sha256", "parts"))
    if not isinstance(path, str):
        raise ManifestError(f"{path!r}: a path is a string.")
    if type(size) is not int or not 0 <= size < SIZE_LIMIT:
        raise ManifestError(f"{path!r}: the size must be a number of bytes.")
    if type(mode) is not int or mode not in (FILE_MODE, EXECUTABLE_MODE):
        raise ManifestError(f"{path!r}: the mode must be {FILE_MODE} (0644) or {EXECUTABLE_MODE} (0755).")
    if not is_digest(sha256):
        raise ManifestError(f"{path!r}: sha256 must be 64 lower-case hex digits.")
    expected = -(-size // PART_SIZE) if size > PART_SIZE else 0
    if parts is None:
        parts = []
    elif not isinstance(parts, list) or not parts:
        raise ManifestError(f"{path!r}: parts must be a list that is not empty.")
    if len(parts) != expected or not all(is_digest(part) for part in parts):
        raise ManifestError(f"{path!r}: {size} bytes must come in {expected} parts of 4 MiB (none up to 4 MiB).")
    return FileEntry(path, size, mode, str(sha256), tuple(parts))
