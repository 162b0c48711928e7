"""Hold the files that were packed from a directory against the commit that they are said to be of.

Every file is compared by its bytes and its mode, whatever git's index says of it: what is ignored, or marked to be
assumed unchanged, or left out of a sparse checkout counts like any other. A file also counts as the commit's if it is
what a checkout makes by the attributes in the commit. Submodules are compared with the commits that it names.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ashat.bundle.blob_ids import BlobIds
from ashat.bundle.git import Repository, find_repository
from ashat.bundle.git_objects import POINTER_LIMIT, SUBMODULE, ObjectStore, TreeFile
from ashat.bundle.manifest import FileEntry, Manifest
from ashat.bundle.pack import LEFT_OUT, Packed
from ashat.common.text import printable
from ashat.errors import BundleError, UsageError
from ashat.protocol.origins import Differences, DifferingFiles

SUBMODULES: Final = 1000
NAMES_SHOWN: Final = 10
_NAME_SHOWN = 100


@dataclass(frozen=True)
class _Part:
    """The part of a tree that one repository holds: its files by their path in the release; `above` leads there."""

    store: ObjectStore
    commit: str
    prefix: str
    above: str
    files: dict[str, TreeFile]

    def checked_out(self, files: dict[str, TreeFile]) -> dict[str, str]:
        """The sha256 of what a checkout makes of `files`, by path; see `ObjectStore.checked_out`."""
        mine = {file.path: path for path, file in files.items() if path in self.files}
        made = self.store.checked_out(self.commit, self.prefix, [files[path] for path in mine.values()])
        return {mine[path]: digest for path, digest in made.items()}


def compare_with_commit(packed: Packed, root: Path, repository: Repository, commit: str, ids: BlobIds) -> Differences:
    """Compare what was packed from directory `root` of `repository` with `commit`.

    Raises:
        BundleError: a submodule was not fetched, or a file is a Git LFS pointer; the message names them.
        UsageError: git refuses to read a repository.
        SourceChangedError: a file is not what was packed.
    """
    manifest = packed.manifest
    with ExitStack() as closing:
        parts = _parts(root.resolve(), repository, commit, closing)
        files = {path: file for part in parts for path, file in part.files.items()}
        refuse_lfs_pointers(packed, ids, files)
        differing = {path: file for path, file in files.items() if _differs(manifest, path, file, ids)}
        readable = {path: file for path, file in differing.items() if path in manifest.by_path}
        made = {path: digest for part in parts for path, digest in part.checked_out(readable).items()}
    converted = {path for path, digest in made.items() if _is_made(manifest.by_path[path], files[path], digest)}
    shipped = manifest.by_path.keys() | manifest.targets.keys()
    return Differences(
        changed=_files(differing.keys() - converted),
        added=_files(shipped - files.keys()),
        missing=_files(path for path in files.keys() - shipped if not _left_out(path)),
        converted=len(converted),
        directories=len(manifest.directories),
    )


def refuse_lfs_pointers(packed: Packed, ids: BlobIds, more: Iterable[str] = ()) -> None:
    """Refuse a tree in which Git LFS left pointers in the place of files; `ids` learns of these files and of `more`.

    Raises:
        BundleError: it did; the message names them.
        SourceChangedError: a file is not what was packed.
    """
    by_path = packed.manifest.by_path
    wanted = {path for path in more if path in by_path}
    looked_at = (file for path, file in by_path.items() if path in wanted or file.size <= POINTER_LIMIT)
    if pointers := ids.learn(packed, looked_at):
        raise BundleError(
            f"{_files(pointers)}: Git LFS left a pointer in the file's place. Fetch what it stands for: git lfs pull"
        )
    ids.save()


def _parts(root: Path, repository: Repository, commit: str, closing: ExitStack) -> list[_Part]:
    """Open the repository of directory `root`, and those of its submodules and theirs."""
    parts: list[_Part] = []
    unfetched: list[str] = []
    waiting = [(repository, commit, "")]
    while waiting:
        repository, commit, above = waiting.pop()
        store = closing.enter_context(ObjectStore(repository))
        try:
            listed = store.tree(commit, repository.prefix)
        except UsageError:
            if not above:
                raise
            unfetched.append(above[:-1])
            continue
        named = {above + file.path.removeprefix(repository.prefix): file for file in listed}
        parts.append(_Part(store, commit, repository.prefix, above, _no_submodules(named)))
        for path, file in named.items():
            if file.mode == SUBMODULE:
                inner = _submodule(root, path)
                if inner is None:
                    unfetched.append(path)
                else:
                    waiting.append((inner, file.blob, f"{path}/"))
        if len(parts) + len(waiting) > SUBMODULES:
            raise BundleError(f"{root} has more than {SUBMODULES} submodules.")
    if unfetched:
        raise BundleError(
            f"{_files(unfetched)}: a submodule is not here as the commit names it. Fetch it: "
            "git submodule update --init --recursive"
        )
    return parts


def _submodule(root: Path, path: str) -> Repository | None:
    """The repository that is checked out as submodule `path`; None where none is."""
    place = root / path
    if not place.is_dir() or place.resolve() != place or not (place / ".git").exists():
        return None
    found = find_repository(place)
    return found if found and not found.bare and not found.prefix else None


def _no_submodules(files: dict[str, TreeFile]) -> dict[str, TreeFile]:
    return {path: file for path, file in files.items() if file.mode != SUBMODULE}


def _differs(manifest: Manifest, path: str, file: TreeFile, ids: BlobIds) -> bool:
    """Whether a file or link of the commit was packed, with other bytes, another target or as another kind."""
    target = manifest.targets.get(path)
    if target is not None:
        return not (file.link and ids.of_link(target) == file.blob)
    packed = manifest.by_path.get(path)
    return packed is not None and not (_same_kind(packed, file) and ids.of(packed) == file.blob)


def _is_made(packed: FileEntry, file: TreeFile, digest: str) -> bool:
    return _same_kind(packed, file) and packed.sha256 == digest


def _same_kind(packed: FileEntry, file: TreeFile) -> bool:
    return not file.link and packed.executable == file.executable


def _left_out(path: str) -> bool:
    """Whether no bundle holds that file."""
    return any(name in LEFT_OUT for name in path.split("/")[:-1])


def _files(paths: Iterable[str]) -> DifferingFiles:
    ordered = sorted(paths)
    return DifferingFiles(count=len(ordered), names=tuple(map(_shown, ordered[:NAMES_SHOWN])))


def _shown(path: str) -> str:
    text = printable(path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))
    return text if len(text) <= _NAME_SHOWN else f"…{text[1 - _NAME_SHOWN :]}"
