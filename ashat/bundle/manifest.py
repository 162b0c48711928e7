"""A bundle: a directory tree as data. The manifest names every file by content; its digest names the bundle.

The manifest is canonical JSON, `{"format": "ashat-bundle/1", "modules": {NAME: [FILE, ...]}}`. A file below
`Modules/NAME/` belongs to module NAME, every other to the module named "". FILE is `{"path", "size", "mode",
"sha256"}`, and `"parts"` where size is over `PART_SIZE`: the sha256 of each 4 MiB piece in order. Sizes are bytes,
modes are 0o644 or 0o755 as integers, files are sorted by path within their module.

A tree that has symbolic links or empty directories is of format "ashat-bundle/2": among the files of their module
stand `{"kind": "link", "path", "target"}` and `{"kind": "directory", "path"}`. No other tree is written so, hence each
tree has one spelling, and one without them has the digest that it always had.

A manifest is read file by file, since there is one spelling of it: what it takes is a few times its size, whatever a
stranger puts into it.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from ashat.bundle.rules import DIRECTORIES_LIMIT, LINKS_LIMIT, PATH_BYTES, LinkEntry, followed, tree_refusals
from ashat.common.canonical_json import canonical_json, is_digest
from ashat.common.documents import load_json
from ashat.errors import DocumentError, ManifestError

FORMAT = "ashat-bundle/1"
LINKED_FORMAT = "ashat-bundle/2"
PART_SIZE = 4 * 1024 * 1024
MODULES_DIR = "Modules"
FILE_MODE = 0o644
EXECUTABLE_MODE = 0o755
SIZE_LIMIT = 1 << 53
MANIFEST_LIMIT = 32 * 1024 * 1024

_FILE = re.compile(
    rb'\{"mode":([1-9]\d{1,3}),(?:"parts":\[((?:"[0-9a-f]{64}",?+)++)\],)?'
    rb'"path":("(?:[^"\\]++|\\.)*+"),"sha256":"([0-9a-f]{64})","size":(\d{1,16}+)\}'
)
_LINK = re.compile(rb'\{"kind":"link","path":("(?:[^"\\]++|\\.)*+"),"target":("(?:[^"\\]++|\\.)*+")\}')
_DIRECTORY = re.compile(rb'\{"kind":"directory","path":("(?:[^"\\]++|\\.)*+")\}')
_SPELLED_AT_ONCE = 500
_EXPLAINED = 1024 * 1024


Listing = dict[str, tuple[str, int | str]]


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
    """Every file, link and empty directory of a bundle, sorted by path. Build it with `from_files` or `parse`: both
    enforce the rules."""

    files: tuple[FileEntry, ...]
    links: tuple[LinkEntry, ...] = ()
    directories: tuple[str, ...] = ()

    @classmethod
    def from_files(
        cls,
        files: Iterable[FileEntry],
        links: Iterable[LinkEntry] = (),
        directories: Iterable[str] = (),
        *,
        windows_names: bool = True,
    ) -> Manifest:
        """Make a manifest of `files`, `links` and empty `directories`, sorted.

        With `windows_names`, names that Windows cannot hold are refused as well.

        Raises:
            ManifestError: rules are broken; the message names each rule, and paths that break it.
        """
        manifest = cls.unchecked(files, links, directories)
        manifest._check(windows_names)
        return manifest

    @classmethod
    def parse(cls, raw: bytes, *, windows_names: bool = True) -> Manifest:
        """Read the manifest that `raw` spells; `windows_names` as for `from_files`.

        Raises:
            ManifestError: it is no canonical manifest, or breaks a bundle rule.
        """
        if len(raw) > MANIFEST_LIMIT:
            raise ManifestError(f"The manifest has {len(raw)} bytes; at most {MANIFEST_LIMIT} are read.")
        manifest = cls.unchecked(_spelled(raw), _spelled_links(raw), _spelled_directories(raw))
        for kind, found, limit in (
            ("symbolic links", manifest.links, LINKS_LIMIT),
            ("empty directories", manifest.directories, DIRECTORIES_LIMIT),
        ):
            if len(found) > limit:
                raise ManifestError(f"The bundle has more than {limit} {kind}; no more are made.")
        if manifest.canonical != raw:
            raise _misspelt(raw)
        manifest._check(windows_names)
        return manifest

    @classmethod
    def unchecked(cls, files: Iterable[FileEntry], links: Iterable[LinkEntry], directories: Iterable[str]) -> Manifest:
        """Make a manifest of what is known to break no rule."""
        return cls(
            tuple(sorted(files, key=lambda file: file.path)),
            tuple(sorted(links, key=lambda link: link.path)),
            tuple(sorted(directories)),
        )

    def _check(self, windows_names: bool) -> None:
        if not self.files:
            raise ManifestError("The bundle is empty: there is no file to ship.")
        paths = (file.path for file in self.files)
        if refusals := tree_refusals(paths, self.links, self.directories, windows=windows_names):
            raise ManifestError(str(refusals))

    @cached_property
    def canonical(self) -> bytes:
        """The bytes whose sha256 is the bundle's identity.

        Raises:
            ManifestError: they are more than any server reads.
        """
        modules = [canonical_json(name) + b":[" + b",".join(spelt) + b"]" for name, spelt in self._spelt_modules()]
        form = LINKED_FORMAT if self.links or self.directories else FORMAT
        raw = b'{"format":%s,"modules":{%s}}' % (canonical_json(form), b",".join(modules))
        if len(raw) > MANIFEST_LIMIT:
            raise ManifestError(
                f"The list of the bundle's {len(self.files)} files has {len(raw)} bytes, and at most {MANIFEST_LIMIT} "
                "are read: ship fewer files, such as an archive of those that belong together."
            )
        return raw

    def _spelt_modules(self) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Write each module's entries, sorted by path."""
        if not self.links and not self.directories:
            yield from ((name, _spell(files)) for name, files in self.modules.items())
            return
        files = ((file.path, canonical_json(file.as_json())) for file in self.files)
        links = (
            (path, canonical_json({"kind": "link", "path": path, "target": to})) for path, to in self.targets.items()
        )
        empty = ((path, canonical_json({"kind": "directory", "path": path})) for path in self.directories)
        modules: dict[str, list[bytes]] = {}
        for path, spelt in heapq.merge(files, links, empty):
            modules.setdefault(module_of(path), []).append(spelt)
        yield from ((name, iter(entries)) for name, entries in sorted(modules.items()))

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

    @cached_property
    def targets(self) -> dict[str, str]:
        """Each link's target by its path."""
        return {link.path: link.target for link in self.links}

    @cached_property
    def folders(self) -> tuple[str, ...]:
        """Every directory of the tree, "." first, each after the one that it is in."""
        leaves = (*self.by_path, *(link.path for link in self.links), *(f"{path}/." for path in self.directories))
        known = {leaf.rpartition("/")[0] for leaf in leaves} | set(self.directories)
        return tuple(sorted({str(parent) for path in known for parent in PurePosixPath(path, "x").parents}))

    @cached_property
    def listing(self) -> Listing:
        """Everything in the tree by its path, as it is compared: a directory ends in a slash."""
        return {
            **{file.path: (file.sha256, file.mode) for file in self.files},
            **{path: ("link", target) for path, target in self.targets.items()},
            **{f"{path}/": ("directory", "") for path in self.directories},
        }

    def without_directories(self) -> Manifest:
        """Make the manifest that the same tree had before empty directories were carried."""
        return Manifest(self.files, self.links)

    def file_at(self, path: str) -> FileEntry | None:
        """Find the file that a program reads at `path`, links followed; None where there is none."""
        if path in self.by_path:
            return self.by_path[path]
        place = followed(self.links, path) if self.links else None
        return self.by_path.get(place) if place else None


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
    before = old.listing if old else {}
    after = new.listing
    both = sorted(before.keys() & after.keys())
    return BundleDiff(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed=tuple(path for path in both if not _same_content(before[path], after[path])),
        mode_changed=tuple(
            path for path in both if _same_content(before[path], after[path]) and before[path] != after[path]
        ),
    )


def _same_content(one: tuple[str, int | str], other: tuple[str, int | str]) -> bool:
    """Tell whether two files have the same bytes, or two links the same target."""
    return one == other or (one[0] == other[0] and isinstance(one[1], int))


def module_of(path: str) -> str:
    """Name the module that a path belongs to: NAME for `Modules/NAME/...`, else ""."""
    head, _, rest = path.partition("/")
    name, slash, _ = rest.partition("/")
    return name if head == MODULES_DIR and slash else ""


def _spell(files: Sequence[FileEntry]) -> Iterator[bytes]:
    """Write files as they stand in a manifest, some hundred at a time."""
    for start in range(0, len(files), _SPELLED_AT_ONCE):
        yield canonical_json([file.as_json() for file in files[start : start + _SPELLED_AT_ONCE]])[1:-1]


def _spelled(raw: bytes) -> Iterator[FileEntry]:
    """Read the files that `raw` spells as a manifest does, wherever they stand in it."""
    for found in _FILE.finditer(raw):
        mode, parts, path, sha256, size = found.groups()
        pieces = {"parts": parts.decode()[1:-1].split('","')} if parts else {}
        yield _entry({"path": _text(path), "sha256": sha256.decode(), "mode": int(mode), "size": int(size), **pieces})


def _spelled_links(raw: bytes) -> Iterator[LinkEntry]:
    # One beyond the limit is enough to be refused.
    for found in islice(_LINK.finditer(raw), LINKS_LIMIT + 1) if _is_linked(raw) else ():
        path, target = found.groups()
        yield LinkEntry(_text(path), _text(target))


def _spelled_directories(raw: bytes) -> Iterator[str]:
    for found in islice(_DIRECTORY.finditer(raw), DIRECTORIES_LIMIT + 1) if _is_linked(raw) else ():
        yield _text(found.group(1))


def _is_linked(raw: bytes) -> bool:
    return raw.startswith(b'{"format":%s' % canonical_json(LINKED_FORMAT))


def _text(spelt: bytes) -> str:
    """Read a string of the manifest.

    Raises:
        ManifestError: it is none.
    """
    try:
        text = load_json(spelt, limit=8 * PATH_BYTES) if b"\\" in spelt else spelt[1:-1].decode()
    except ValueError as error:
        raise ManifestError(f"The manifest holds a path that cannot be read: {error}.") from None
    return str(text)


def _misspelt(raw: bytes) -> ManifestError:
    """Find what is wrong with a manifest that is not spelled as one; what is large is not looked into."""
    if len(raw) <= _EXPLAINED:
        try:
            items = list(_items(load_json(raw, limit=_EXPLAINED)))
            others = [_other_entry(item) for item in items if isinstance(item, dict) and "kind" in item]
            Manifest.from_files(
                [_entry(item) for item in items if not (isinstance(item, dict) and "kind" in item)],
                [entry for entry in others if isinstance(entry, LinkEntry)],
                [entry for entry in others if isinstance(entry, str)],
                windows_names=False,
            )
        except DocumentError as error:
            return ManifestError(f"The manifest is not JSON: {error}")
        except ManifestError as error:
            return error
    return ManifestError("The manifest is not in canonical form (sorted, no spaces, files under their module).")


def _items(document: Any) -> Iterator[Any]:
    if not isinstance(document, dict) or set(document) != {"format", "modules"}:
        raise ManifestError("The manifest must be an object with 'format' and 'modules'.")
    if document["format"] not in (FORMAT, LINKED_FORMAT):
        read = f"{FORMAT!r} and {LINKED_FORMAT!r}"
        raise ManifestError(f"The manifest's format is {document['format']!r}; this version reads {read}.")
    if not isinstance(document["modules"], dict):
        raise ManifestError("The manifest's 'modules' must be an object.")
    for name, files in document["modules"].items():
        if not isinstance(files, list):
            raise ManifestError(f"The manifest's module {name!r} must be a list of files.")
        yield from files


def _other_entry(item: dict[str, Any]) -> LinkEntry | str:
    """Read a link or an empty directory."""
    kind, path, target = item["kind"], item.get("path"), item.get("target")
    if not isinstance(path, str) or kind not in ("link", "directory"):
        raise ManifestError(f"{path!r} must be a link or a directory, and its path a string.")
    if kind == "directory" and set(item) == {"kind", "path"}:
        return path
    if kind == "link" and set(item) == {"kind", "path", "target"} and isinstance(target, str):
        return LinkEntry(path, target)
    raise ManifestError(f"{path!r}: a link has kind, path and target, a directory kind and path.")


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
