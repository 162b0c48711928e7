"""Git as a source: what a commit is, what a tree at some revision holds.

Every call runs `git` without the `GIT_*` variables that could point it at another repository (a hook's environment
does), keeping those that say how to reach a remote.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ashat.errors import BundleError, UsageError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"

_KEPT = re.compile(r"GIT_(SSH|ASKPASS|SSL_|PROXY_|CONFIG_GLOBAL|CONFIG_SYSTEM|CONFIG_NOSYSTEM|CEILING_|EXEC_PATH)")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class GitInfo:
    """What git says of a directory. `branch` is None on a detached head; `dirty` counts changed and untracked files;
    `author` is the configured "name <email>", empty where there is none."""

    commit: str
    branch: str | None
    dirty: bool
    author: str


class TreeFile(NamedTuple):
    """A file of a commit: `blob` is the id of its bytes."""

    path: str
    blob: str
    executable: bool


def git_info(path: Path) -> GitInfo | None:
    """Ask git about the directory `path`; None where it is in no repository, or one without a commit.

    Raises:
        UsageError: git is not installed, or refuses to read the repository.
    """
    inside = run_git(path, "rev-parse", "--is-inside-work-tree", check=False)
    if inside.returncode != 0:
        if b"not a git repository" in inside.stderr:
            return None
        raise _refused(path, inside)
    head = _commit_of(path, "HEAD")
    if head.returncode != 0:
        return None
    branch = run_git(path, "symbolic-ref", "--short", "--quiet", "HEAD", check=False).stdout.decode().strip()
    changes = run_git(path, "status", "--porcelain", "-z", "--untracked-files=normal", "--", ".").stdout
    return GitInfo(
        commit=head.stdout.decode().strip(), branch=branch or None, dirty=bool(changes), author=_author(path)
    )


def commit_tracked(path: Path, message: str) -> str:
    """Commit the tracked changes below `path` with `message`; the commit's id, or the head's where nothing changed.

    Raises:
        UsageError: git refuses, such as for want of a user's name; its own words say why.
    """
    run_git(path, "add", "--update", "--", ".")
    if run_git(path, "diff", "--cached", "--quiet", check=False).returncode != 0:
        run_git(path, "commit", "--quiet", "--file=-", stdin=message.encode())
    return resolve(path, "HEAD")


def ancestors(repo: Path, commit: str) -> set[str]:
    """List the ids of every commit that `commit` builds on, itself included; empty where the repository lacks it.

    Raises:
        UsageError: git is not installed.
    """
    listed = run_git(repo, "rev-list", "--end-of-options", commit, check=False)
    return set(listed.stdout.decode().split()) if listed.returncode == 0 else set()


def clone(url: str, directory: Path, ref: str | None = None) -> None:
    """Clone `url` into the new `directory`, with the tree of `ref` (a branch, a tag or a commit; None: the default).

    Raises:
        BundleError: git cannot reach it, or it has no such ref. Credentials in the URL are not repeated.
        UsageError: git is not installed.
    """
    words = ("clone", "--quiet", "--no-checkout", "--", url, str(directory))
    done = run_git(directory.parent, *words, check=False)
    if done.returncode != 0:
        raise BundleError(f"git cannot clone {without_credentials(url)}: {_why(done)}")
    for name in (f"origin/{ref}", ref) if ref else ("HEAD",):
        found = _commit_of(directory, name)
        if found.returncode == 0:
            run_git(directory, "checkout", "--quiet", "--detach", found.stdout.decode().strip())
            return
    raise BundleError(f"{without_credentials(url)} has no branch, tag or commit {ref or 'at its HEAD'!r}.")


def without_credentials(text: str) -> str:
    """Leave the user and password of every URL in `text` out."""
    return _CREDENTIALS.sub("", text)


def resolve(repo: Path, ref: str) -> str:
    """Find the id of the commit that `ref` names.

    Raises:
        UsageError: it names none, or `repo` is no repository.
    """
    found = _commit_of(repo, ref)
    if found.returncode == 0:
        return found.stdout.decode().strip()
    if found.stderr:
        raise _refused(repo, found)
    raise UsageError(f"{ref!r} names no commit in {repo}; give a branch, a tag or a commit id.")


def tree_files(repo: Path, ref: str) -> Iterator[TreeFile]:
    """List the files of commit `ref`, below directory `repo` if that is not the top of its repository.

    Raises:
        UsageError: `ref` names no commit, or `repo` is no repository.
        BundleError: a submodule, a symbolic link, or a path that is no UTF-8; the message names it.
    """
    listing = run_git(repo, "ls-tree", "-r", "-z", resolve(repo, ref)).stdout
    for line in listing.split(b"\0")[:-1]:
        words, _, raw = line.partition(b"\t")
        mode, _, blob = words.decode().split(" ")
        try:
            path = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise BundleError(f"{os.fsdecode(raw)!r} is not valid UTF-8; rename it.") from None
        if mode == "160000":
            raise BundleError(f"{path!r} is a git submodule; a bundle holds files only. Push a checkout instead.")
        if mode == "120000":
            raise BundleError(f"{path!r} is a symbolic link; a bundle holds regular files only.")
        yield TreeFile(path, blob, mode == "100755")


class Blobs:
    """The blobs of a repository: one `git cat-file --batch`, asked for one blob at a time. Close it."""

    def __init__(self, repo: Path) -> None:
        words = git_command(repo, "cat-file", "--batch")
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=git_env())

    def read(self, file: TreeFile, part_size: int) -> Iterator[bytes]:
        """Read the file's bytes, `part_size` at a time; one empty part for an empty file. Exhaust it before the next.

        Raises:
            BundleError: git does not have it whole, or has only a Git LFS pointer.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{file.blob}\n".encode())
        self._process.stdin.flush()
        answer = self._process.stdout.readline().split()
        if len(answer) != 3 or answer[1] != b"blob":
            raise BundleError(f"git cannot read {file.path!r}; the repository is incomplete or damaged.")
        left = int(answer[2])
        for start in range(0, max(left, 1), part_size):
            part = self._process.stdout.read(min(left, part_size))
            if len(part) < min(left, part_size):
                raise BundleError(f"git stopped within {file.path!r}; the repository is damaged.")
            if start == 0 and part.startswith(_LFS_POINTER):
                raise BundleError(f"{file.path!r} is a Git LFS pointer in that commit; push a checkout instead.")
            left -= len(part)
            if not left:
                self._process.stdout.read(1)
            yield part

    def close(self) -> None:
        """End git."""
        self._process.kill()
        self._process.communicate()


def run_git(
    where: Path, *words: str, stdin: bytes | None = None, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run `git` in directory `where`.

    Raises:
        UsageError: git is not installed, `where` is no directory, or (with `check`) git fails.
    """
    if not where.is_dir():
        raise UsageError(f"The source {where} is not a directory.")
    try:
        done = subprocess.run(git_command(where, *words), input=stdin, capture_output=True, env=git_env(), check=False)
    except FileNotFoundError:
        raise UsageError("git is not installed here; install it, or push a directory without --ref.") from None
    if check and done.returncode != 0:
        raise _refused(where, done)
    return done


def git_command(where: Path, *words: str) -> list[str]:
    """Make the command line that runs git in directory `where`."""
    return ["git", "-C", str(where), *words]


def git_env() -> dict[str, str]:
    """Make this process's environment without what steers git, and without our secrets; git answers in English and asks
    nothing.
    """
    foreign = ("GIT_", "ASHAT_", "PREFECT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign) or _KEPT.match(name)}
    return kept | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}


def _commit_of(repo: Path, name: str) -> subprocess.CompletedProcess[bytes]:
    return run_git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", check=False)


def _author(path: Path) -> str:
    name, email = (
        run_git(path, "config", "--get", key, check=False).stdout.decode("utf-8", "replace").strip()
        for key in ("user.name", "user.email")
    )
    return f"{name} <{email}>" if name and email else name or email


def _refused(where: Path, done: subprocess.CompletedProcess[bytes]) -> UsageError:
    return UsageError(f"git refuses in {where}: {_why(done)}")


def _why(done: subprocess.CompletedProcess[bytes]) -> str:
    """The line of git's own words that says what is wrong."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
    words = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
    return without_credentials(words)
