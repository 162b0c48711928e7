"""Git as a source: which commit a directory is at, which commits it builds on, and a clone of what is elsewhere.

Every call runs `git` without the `GIT_*` variables that could point it at another repository (a hook's environment
does), keeping those that say how to reach a remote and the settings that its user gives it (`GIT_CONFIG_COUNT`).
Replacement objects and grafts do not count: a commit is what its id says. What a commit holds is read in
`ashat.bundle.git_objects`, without the repository's own configuration.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer

from ashat.errors import BundleError, UsageError

SECONDS = 600
COMMITS = 20
_SUBJECT = 100
_MESSAGES = 500
MESSAGES_LIMIT = 1024 * 1024
CLONE_SECONDS = 3600
OUTPUT_LIMIT = 128 * 1024 * 1024
_WORDS_LIMIT = 64 * 1024

_KEPT = re.compile(
    r"GIT_(SSH|ASKPASS|SSL_|PROXY_|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_\d+|VALUE_\d+)|CEILING_|EXEC_PATH)"
)
_FORMATS = ("sha1", "sha256")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_OUTSIDE = (b"(or any of the parent directories)", b"(or any parent up to mount point")
# So that a clone has the bytes and modes that the commit says, whatever its user likes for work of their own.
_AS_COMMITTED = ("-c", "core.autocrlf=false", "-c", "core.fileMode=true", "-c", "core.symlinks=true")
_LFS = (
    *("-c", "filter.lfs.smudge=git-lfs smudge -- %f", "-c", "filter.lfs.clean=git-lfs clean -- %f"),
    *("-c", "filter.lfs.process=git-lfs filter-process", "-c", "filter.lfs.required=true"),
)


@dataclass(frozen=True)
class Repository:
    """A repository with a work tree, as seen from one directory of it.

    `objects` is where its objects are, `object_format` how they are named (`sha1` or `sha256`). `prefix` is the way
    from the top of the work tree, such as `a/b/`; "" at the top. `shallow` is the file that lists where its history
    was cut off, None where it was not.
    """

    objects: Path
    object_format: str
    prefix: str
    shallow: Path | None
    bare: bool = False


@dataclass(frozen=True)
class GitInfo:
    """What git says of a directory. `commit` is None before the first one, `branch` on a detached head; `author` is the
    configured "name <email>", empty where there is none."""

    repository: Repository
    commit: str | None
    branch: str | None
    author: str


def find_repository(path: Path) -> Repository | None:
    """Find the repository that directory `path` is in; None where it is in none.

    Raises:
        UsageError: git is not installed, or refuses to read the repository.
    """
    words = ("--is-inside-work-tree", "--is-shallow-repository", "--show-object-format")
    paths = ("--git-path", "objects", "--git-path", "shallow", "--show-prefix")
    asked = run_git(path, "rev-parse", *words, *paths, check=False)
    if asked.returncode != 0:
        if any(words in asked.stderr for words in _OUTSIDE) and not os.path.lexists(path / ".git"):
            return None
        raise _refused(path, asked)
    inside, cut, form, objects, shallow, prefix = os.fsdecode(asked.stdout).split("\n", 5)
    if form not in _FORMATS:
        raise UsageError("git is too old here: it does not say how it names objects. Install 2.31 or later.")
    return Repository(
        objects=(path / objects).absolute(),
        object_format=form,
        prefix=prefix.removesuffix("\n"),
        shallow=(path / shallow).absolute() if cut == "true" else None,
        bare=inside != "true",
    )


def git_info(path: Path) -> GitInfo | None:
    """Ask git about the directory `path`; None where it is in no repository.

    Raises:
        UsageError: git is not installed, or refuses to read the repository.
        BundleError: the repository is damaged.
    """
    repository = find_repository(path)
    if repository is None:
        return None
    head = _commit_of(path, "HEAD")
    if head.returncode != 0 and run_git(path, "rev-parse", "--verify", "--quiet", "HEAD", check=False).returncode == 0:
        raise BundleError(f"The repository of {path} lacks the commit that is checked out; it is damaged.")
    return GitInfo(repository, head.stdout.decode().strip() or None, branch_of(path, "HEAD"), _author(path))


def branch_of(path: Path, ref: str) -> str | None:
    """Name the branch that `ref` is the name of; None where it is none, such as a tag, or a detached `HEAD`."""
    words = ("rev-parse", "--verify", "--quiet", "--symbolic-full-name", "--end-of-options", ref)
    name = run_git(path, *words, check=False).stdout.decode("utf-8", "replace").strip().splitlines()
    return name[-1].removeprefix("refs/heads/") if name and name[-1].startswith("refs/heads/") else None


def commit_time(path: Path, commit: str) -> datetime | None:
    """Return when `commit` was made, as its committer's clock had it; None where git cannot tell."""
    said = run_git(path, "log", "--no-show-signature", "--max-count=1", "--format=%cI", commit, "--", check=False)
    try:
        at = datetime.fromisoformat(said.stdout.decode("ascii").strip())
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):
        return None


def newest_commits(path: Path, commit: str) -> tuple[str, ...]:
    """List the newest `COMMITS` commits that `commit` builds on, itself first: each its id and its subject, shortened;
    none where git cannot tell."""
    format_ = f"--format=%H %<({_SUBJECT},trunc)%s"
    said = run_git(path, "log", "--no-show-signature", f"--max-count={COMMITS}", format_, commit, "--", check=False)
    return tuple(line.strip() for line in said.stdout.decode("utf-8", "replace").split("\n") if line.strip())


def messages_since(path: Path, commit: str, earlier: str | None) -> str:
    """Read the messages of the commits that `commit` has and `earlier` lacks, the newest first, of 500 commits and
    1 MiB at most; without `earlier`, or where that is not here, of the newest `COMMITS`. "" where git cannot tell."""
    since = earlier if earlier and _commit_of(path, earlier).returncode == 0 else None
    range_ = (f"--max-count={_MESSAGES}", commit, f"^{since}") if since else (f"--max-count={COMMITS}", commit)
    words = ("log", "--no-show-signature", "--format=%B", *range_, "--")
    with open(os.devnull, "r+b") as nothing:
        descriptor = nothing.fileno()
        with start_git(path, *words, stdin=descriptor, stderr=descriptor, seconds=SECONDS) as process:
            assert process.stdout is not None
            return process.stdout.read(MESSAGES_LIMIT).decode("utf-8", "replace")


def commit_tracked(path: Path, message: str) -> tuple[str, bool]:
    """Commit the tracked changes below `path` with `message`; the id of the head then, and whether that is a new
    commit: it is none where git sees no change, as of a file that is ignored or marked `skip-worktree`.

    It is `git commit` as its user would type it, with the hooks and filters of the repository.

    Raises:
        UsageError: git refuses, such as for want of a user's name; its own words say why.
    """
    theirs = git_env(fetches=True)
    run_git(path, "add", "--update", "--", ".", env=theirs)
    changed = run_git(path, "diff", "--cached", "--quiet", check=False, env=theirs).returncode != 0
    if changed:
        run_git(path, "commit", "--quiet", "--file=-", stdin=message.encode(), env=theirs)
    return resolve(path, "HEAD"), changed


def clone(url: str, directory: Path, ref: str | None = None) -> None:
    """Clone `url` into the new `directory`, with the tree of `ref` (a branch, a tag or a commit; None: the default),
    its submodules, and what Git LFS keeps of it where that is installed.

    Raises:
        BundleError: git cannot reach it or a submodule, or it has no such ref. Credentials in the URL are not repeated.
        UsageError: git is not installed.
    """
    words = ("clone", "--quiet", "--no-checkout", "--", url, str(directory))
    _fetch(directory.parent, url, *words)
    for name in (f"origin/{ref}", ref) if ref else ("HEAD",):
        found = _commit_of(directory, name)
        if found.returncode == 0:
            break
    else:
        raise BundleError(f"{without_credentials(url)} has no branch, tag or commit {ref or 'at its HEAD'!r}.")
    lfs = _LFS if run_git(directory, "lfs", "version", check=False).returncode == 0 else ()
    _fetch(directory, url, *lfs, "checkout", "--quiet", "--detach", found.stdout.decode().strip())
    # Git lets no repository have files of this machine cloned, unless who names the repository wants files of it.
    local = ("-c", "protocol.file.allow=always") if url.startswith("file://") else ()
    _fetch(directory, url, *lfs, *local, "submodule", "--quiet", "update", "--init", "--recursive")


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


def run_git(
    where: Path,
    *words: str,
    stdin: bytes | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    seconds: float = SECONDS,
) -> subprocess.CompletedProcess[bytes]:
    """Run `git` in directory `where`, for `seconds` at most.

    Raises:
        UsageError: git is not installed, `where` is no directory, or (with `check`) git fails.
        BundleError: it takes longer, or says more than `OUTPUT_LIMIT` bytes.
    """
    if not where.is_dir():
        raise UsageError(f"The source {where} is not a directory.")
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as told:
        given.write(stdin or b"")
        given.seek(0)
        with start_git(where, *words, stdin=given.fileno(), stderr=told.fileno(), env=env, seconds=seconds) as process:
            assert process.stdout is not None
            said = process.stdout.read(OUTPUT_LIMIT + 1)
            if len(said) > OUTPUT_LIMIT:
                raise BundleError(f"git in {where} lists more than {OUTPUT_LIMIT} bytes; pack a part of the tree.")
            code = process.wait()
        if code == -signal.SIGKILL:
            raise BundleError(f"git in {where} was killed; it has {seconds:.0f} s at most.")
        told.seek(0)
        done = subprocess.CompletedProcess(words, code, said, told.read(_WORDS_LIMIT))
    if check and done.returncode != 0:
        raise _refused(where, done)
    return done


@contextmanager
def start_git(
    where: Path,
    *words: str,
    stdin: int,
    stderr: int,
    env: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start `git` in directory `where`; it is ended, with what it started, with the `with` block, or after `seconds`.

    Raises:
        UsageError: git is not installed.
    """
    command = ["git", "-C", str(where), *words]
    given = git_env() if env is None else env
    try:
        process = subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=given, start_new_session=True
        )
    except FileNotFoundError:
        raise UsageError("git is not installed here; install it.") from None
    timer = Timer(seconds or 0, end_git, [process])
    timer.daemon = True
    if seconds is not None:
        timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        end_git(process)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        process.wait()


def git_env(*, fetches: bool = False) -> dict[str, str]:
    """Make this process's environment without what steers git, and without our secrets; git answers in English, asks
    nothing, and takes every object for what its id says. Unless it `fetches`, it reaches no remote, also not for what a
    partial clone lacks."""
    foreign = ("GIT_", "ASHAT_", "PREFECT_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign) or _KEPT.match(name)}
    quiet = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    local = {} if fetches else {"GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1"}
    return kept | quiet | local | {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_GRAFT_FILE": os.devnull}


def _fetch(where: Path, url: str, *words: str) -> None:
    env = git_env(fetches=True)
    done = run_git(where, *_AS_COMMITTED, *words, check=False, env=env, seconds=CLONE_SECONDS)
    if done.returncode != 0:
        raise BundleError(f"git cannot clone {without_credentials(url)}: {_why(done)}")


def end_git(process: subprocess.Popen[bytes]) -> None:
    """End a git that was started here, with what it started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _commit_of(repo: Path, name: str) -> subprocess.CompletedProcess[bytes]:
    return run_git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", check=False)


def _author(path: Path) -> str:
    name, email = (
        run_git(path, "config", "--get", key, check=False).stdout.decode("utf-8", "replace").strip()
        for key in ("user.name", "user.email")
    )
    return f"{name} <{email}>" if name and email else name or email


def _refused(where: Path, done: subprocess.CompletedProcess[bytes]) -> UsageError:
    if b"dubious ownership" in done.stderr:
        return UsageError(
            f"git refuses in {where}: the repository belongs to somebody else. If you trust them: "
            f"git config --global --add safe.directory {where}"
        )
    return UsageError(f"git refuses in {where}: {_why(done)}")


def _why(done: subprocess.CompletedProcess[bytes]) -> str:
    """The line of git's own words that says what is wrong."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"exit code {done.returncode}"]
    words = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[-1])
    return without_credentials(words)
