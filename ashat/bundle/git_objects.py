"""What a commit holds, read from the objects of its repository and from nothing else.

git runs in a repository of our own, which is empty but for the place of those objects. So no configuration of the
repository that is read counts, nor its user's: no filter, hook, monitor or remote of theirs is run, no object is
replaced by another, and none is fetched.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import Final, NamedTuple, Self

from ashat.bundle.git import SECONDS, Repository, end_git, find_repository, git_env, resolve, run_git, start_git
from ashat.bundle.rules import PATH_BYTES
from ashat.common.files import read_bounded
from ashat.errors import BundleError

SUBMODULE: Final = "160000"
LINK: Final = "120000"
POINTER_LIMIT: Final = 1024
"""The most bytes that a Git LFS pointer has, as https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md says."""
CONVERTED_LIMIT: Final = 32 * 1024 * 1024
ATTRIBUTES_LIMIT: Final = 1024 * 1024
_SHALLOW_LIMIT = 16 * 1024 * 1024
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LFS_CONTENT = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.M)
_ATTRIBUTES = ("eol", "ident", "working-tree-encoding", "filter")
_UNSET = (b"unspecified", b"unset", b"lf")


class TreeFile(NamedTuple):
    """A file of a commit: `blob` is the id of its bytes, `mode` what git says that it is."""

    path: str
    blob: str
    mode: str = "100644"

    @property
    def executable(self) -> bool:
        """Whether it is a program."""
        return self.mode == "100755"

    @property
    def link(self) -> bool:
        """Whether it is a symbolic link; its bytes are the target then."""
        return self.mode == LINK


class ObjectStore:
    """The objects of a repository. Close it, or use it in a `with` block."""

    def __init__(self, repository: Repository) -> None:
        self._closing = ExitStack()
        self._own = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix="ashat-git-")))
        self.work_tree = self._own / "tree"
        for name in ("refs", "tree"):
            (self._own / name).mkdir()
        (self._own / "HEAD").write_text("ref: refs/heads/none\n")
        version, extensions = (
            (0, "")
            if repository.object_format == "sha1"
            else (1, f"[extensions]\nobjectFormat={repository.object_format}\n")
        )
        (self._own / "config").write_text(f"[core]\nrepositoryformatversion={version}\nbare=false\n{extensions}")
        if repository.shallow is not None:
            (self._own / "shallow").write_bytes(_bounded(repository.shallow, _SHALLOW_LIMIT))
        self.env = _own_env(self._own, self.work_tree, repository.objects)

    def run(self, *words: str, stdin: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run git on these objects; raises as `ashat.bundle.git.run_git`."""
        return run_git(self.work_tree, *words, stdin=stdin, check=check, env=self.env)

    def tree(self, commit: str, prefix: str, *more: str) -> list[TreeFile]:
        """List the files of `commit` below `prefix` ("" for all, or `a/b/`), by their whole paths; `more` paths, too.

        A path that is not UTF-8 has its odd bytes as surrogates.

        Raises:
            UsageError: these objects lack the commit, or a tree of it.
        """
        below = ["--", prefix, *more] if prefix else []
        listing = self.run("--literal-pathspecs", "ls-tree", "-r", "-z", "--full-tree", commit, *below).stdout
        return [_tree_file(line) for line in listing.split(b"\0")[:-1]]

    def history(self, commit: str) -> Iterator[str] | None:
        """List the ids of every commit that `commit` builds on, itself included; None where git cannot follow it."""
        listed = self.run("rev-list", commit, check=False)
        if listed.returncode != 0:
            return None
        return (found[0].decode() for found in re.finditer(rb"[0-9a-f]+", listed.stdout))

    def checked_out(self, commit: str, prefix: str, files: Iterable[TreeFile]) -> dict[str, str]:
        """Tell the sha256 of what a checkout makes of those of `files` for which the attributes that stand in `commit`
        ask for a conversion: ends of lines, `$Id$`, encodings, and what Git LFS keeps elsewhere.

        Of a file over `CONVERTED_LIMIT` nothing is told. `prefix` is as for `tree`, and so are the paths.
        """
        named = {file.path: file for file in files}
        if not named or not self._lay_out_attributes(commit, prefix):
            return {}
        asked = self._attributes(named)
        sizes = self._sizes([named[path] for path in asked])
        found: dict[str, str] = {}
        for group in _groups(_small((named[path] for path in asked), sizes, CONVERTED_LIMIT), sizes):
            for file, content in zip(group, self._contents(group, converted=True), strict=False):
                kept = lfs_content(content) if "filter" in asked[file.path] else None
                found[file.path] = kept or sha256(content).hexdigest()
        return found

    def close(self) -> None:
        """Remove our repository."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lay_out_attributes(self, commit: str, prefix: str) -> bool:
        """Put every `.gitattributes` of the commit that counts below `prefix` where git looks for it."""
        above = prefix.split("/")[:-1]
        names = ["/".join([*above[:depth], ".gitattributes"]) for depth in range(len(above))]
        files = [file for file in self.tree(commit, prefix, *names) if file.path.rpartition("/")[2] == ".gitattributes"]
        sizes = self._sizes(files)
        counting = [file for file in _small(files, sizes, ATTRIBUTES_LIMIT) if not file.link and _is_below(file.path)]
        for group in _groups(counting, sizes):
            for file, content in zip(group, self._contents(group, converted=False), strict=False):
                place = self.work_tree / file.path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
        return bool(counting)

    def _attributes(self, files: Iterable[str]) -> dict[str, set[str]]:
        """Those of `files` that a checkout converts, and for which attributes."""
        paths = b"".join(os.fsencode(path) + b"\0" for path in files if "\n" not in path)
        told = self.run("check-attr", "-z", "--stdin", *_ATTRIBUTES, stdin=paths).stdout.split(b"\0")[:-1]
        found: dict[str, set[str]] = {}
        for path, name, value in zip(told[::3], told[1::3], told[2::3], strict=True):
            if value not in _UNSET:
                found.setdefault(os.fsdecode(path), set()).add(name.decode())
        return found

    def _sizes(self, files: Iterable[TreeFile]) -> dict[str, int]:
        """How many bytes each of their blobs has that is here."""
        asked = "".join(f"{file.blob}\n" for file in files).encode()
        told = self.run("cat-file", "--batch-check", stdin=asked).stdout.decode().splitlines() if asked else []
        words = (line.split(" ") for line in told)
        return {line[0]: int(line[2]) for line in words if len(line) == 3}

    def _contents(self, files: list[TreeFile], *, converted: bool) -> list[bytes]:
        """The bytes of each, or what a checkout writes for it; git tells no size of that, so a word that it cannot hold
        stands between."""
        between = secrets.token_hex(32).encode()
        names = [file.blob.encode() + (b" " + os.fsencode(file.path) if converted else b"") for file in files]
        words = ("cat-file", f"--batch={between.decode()}", *(["--filters"] if converted else []))
        told = self.run(*words, stdin=b"".join(name + b"\n" for name in names), check=False)
        if told.returncode != 0:
            return []
        return (b"\n" + told.stdout).removesuffix(b"\n").split(b"\n" + between + b"\n")[1:]


class Blobs:
    """The blobs of a repository: one `git cat-file --batch`, asked for one blob at a time. Close it."""

    def __init__(self, repo: Path) -> None:
        self._closing = ExitStack()
        store = self._closing.enter_context(ObjectStore(repository_of(repo)))
        self._process = self._closing.enter_context(
            start_git(
                store.work_tree,
                *("cat-file", "--batch"),
                stdin=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=store.env,
            )
        )
        self._since: float | None = None
        self._closed = Event()
        Thread(target=self._watch, daemon=True).start()

    def read(self, file: TreeFile, part_size: int) -> Iterator[bytes]:
        """Read the file's bytes, `part_size` at a time; one empty part for an empty file. Exhaust it before the next.

        Raises:
            BundleError: git does not have it whole.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{file.blob}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BundleError(f"git stopped before {file.path!r}; the repository is damaged.") from None
        answer = self._timed(self._process.stdout.readline).split()
        if len(answer) != 3 or answer[1] != b"blob":
            raise BundleError(
                f"git does not have {file.path!r} here: the clone is a partial one, or damaged. Push a whole clone."
            )
        left = int(answer[2])
        for _ in range(0, max(left, 1), part_size):
            part = self._timed(partial(self._process.stdout.read, min(left, part_size)))
            if len(part) < min(left, part_size):
                raise BundleError(f"git stopped within {file.path!r}; the repository is damaged.")
            left -= len(part)
            if not left:
                self._process.stdout.read(1)
            yield part

    def close(self) -> None:
        """End git."""
        self._closed.set()
        self._closing.close()

    def _timed(self, read: Callable[[], bytes]) -> bytes:
        self._since = time.monotonic()
        try:
            return read()
        finally:
            self._since = None

    def _watch(self) -> None:
        """End a git that is silent for too long: a commit may be sent for hours, but its files are read at once."""
        while not self._closed.wait(1):
            since = self._since
            if since is not None and time.monotonic() - since > SECONDS:
                end_git(self._process)
                return


def tree_files(repo: Path, ref: str) -> Iterator[TreeFile]:
    """List the files, links and submodules of commit `ref`, below directory `repo` if that is not the top of its
    repository. A path that is not UTF-8 has its odd bytes as surrogates.

    Raises:
        UsageError: `ref` names no commit, or `repo` is no repository.
    """
    commit, repository = resolve(repo, ref), repository_of(repo)
    with ObjectStore(repository) as store:
        found = store.tree(commit, repository.prefix)
    for file in found:
        yield file._replace(path=file.path.removeprefix(repository.prefix))


def repository_of(path: Path) -> Repository:
    """Find the repository of directory `path`.

    Raises:
        UsageError: git is not installed, or refuses.
        BundleError: there is none.
    """
    found = find_repository(path)
    if found is None:
        raise BundleError(f"{path} is in no git repository.")
    return found


def is_lfs_pointer(content: bytes) -> bool:
    """Tell whether `content`, a file's beginning, is that of a Git LFS pointer."""
    return content.startswith(_LFS_POINTER)


def lfs_content(content: bytes) -> str | None:
    """Find the sha256 of the content that a Git LFS pointer stands for; None if `content` is no pointer."""
    found = _LFS_CONTENT.search(content) if is_lfs_pointer(content) and len(content) <= POINTER_LIMIT else None
    return found[1].decode() if found else None


def _small(files: Iterable[TreeFile], sizes: dict[str, int], limit: int) -> list[TreeFile]:
    """Those of `files` that are here and have at most `limit` bytes."""
    return [file for file in files if sizes.get(file.blob, limit + 1) <= limit]


def _is_below(path: str) -> bool:
    """Whether a path of a commit, which may be anything, stays in its tree and can be made."""
    names = path.split("/")
    return ".." not in names and "" not in names and len(path) <= PATH_BYTES


def _groups(files: list[TreeFile], sizes: dict[str, int]) -> Iterator[list[TreeFile]]:
    """Divide files into groups that together have no more bytes than a file may."""
    group: list[TreeFile] = []
    left = CONVERTED_LIMIT
    for file in files:
        if sizes[file.blob] > left and group:
            yield group
            group, left = [], CONVERTED_LIMIT
        group.append(file)
        left -= sizes[file.blob]
    if group:
        yield group


def _own_env(own: Path, work_tree: Path, objects: Path) -> dict[str, str]:
    """Make an environment in which git sees these objects, and no configuration but our own."""
    steering = ("GIT_CONFIG", "XDG_")
    kept = {name: value for name, value in git_env().items() if not name.startswith(steering)}
    return kept | {
        "HOME": str(own),
        "GIT_DIR": str(own),
        "GIT_WORK_TREE": str(work_tree),
        "GIT_OBJECT_DIRECTORY": str(objects),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
    }


def _tree_file(line: bytes) -> TreeFile:
    words, _, path = line.partition(b"\t")
    mode, _, blob = words.decode().split(" ")
    return TreeFile(path.decode("utf-8", "surrogateescape"), blob, mode)


def _bounded(path: Path, limit: int) -> bytes:
    try:
        return read_bounded(path, limit)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from None
