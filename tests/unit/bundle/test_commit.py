"""What is shipped is what is named: the files packed from a directory against the commit that git says they are of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ashat.bundle.blob_ids import BlobIds
from ashat.bundle.compare import NAMES_SHOWN, compare_with_commit, refuse_lfs_pointers
from ashat.bundle.git import (
    COMMITS,
    branch_of,
    clone,
    find_repository,
    git_info,
    messages_since,
    newest_commits,
    run_git,
)
from ashat.bundle.git_objects import ObjectStore
from ashat.bundle.pack import pack_directory, pack_git_ref
from ashat.errors import BundleError, SourceChangedError, UsageError
from ashat.protocol.origins import Differences, DifferingFiles
from tests.support.builders.repositories import commit, git, make_repository, write
from tests.support.needs import requires_git_lfs, requires_root

FILES: dict[str, bytes | str] = {
    "raos.toml": "x",
    "Modules/Chat/chat.txt": "hello\n",
    "Modules/Chat/same": "hello\n",
    "empty": "",
}
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


@pytest.fixture(autouse=True)
def nobodys_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    make_repository(tmp_path / "tree", FILES)
    return tmp_path / "tree"


def compared(tree: Path, kept: Path | None = None) -> Differences:
    info = git_info(tree)
    assert info is not None
    assert info.commit is not None
    with TemporaryDirectory() as directory, pack_directory(tree) as packed:
        ids = BlobIds(kept or Path(directory, "ids"), info.repository.object_format)
        return compare_with_commit(packed, tree, info.repository, info.commit, ids)


def names(found: Differences) -> dict[str, list[str]]:
    return {way: list(files.names) for way, files in found.ways if files.count}


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_clean_tree_is_that_commits_file_by_file(tmp_path: Path, object_format: str) -> None:
    tree = tmp_path / "tree"
    make_repository(tree, {**FILES, "Modules/Chat/big": os.urandom(9_000_000)}, object_format)
    (tree / "run.sh").touch(mode=0o755)
    commit(tree, {"Modules/Chat/__pycache__/a.pyc": "x"})
    shutil.rmtree(tree / "Modules/Chat/__pycache__")
    assert compared(tree) == Differences()
    assert compared(tree / "Modules") == Differences()


def changed(tree: Path) -> None:
    write(tree, {"raos.toml": "y"})


def mode(tree: Path) -> None:
    (tree / "raos.toml").chmod(0o755)


def mode_that_git_is_told_not_to_see(tree: Path) -> None:
    git(tree, "config", "core.fileMode", "false")
    mode(tree)


def assumed_unchanged(tree: Path) -> None:
    git(tree, "update-index", "--assume-unchanged", "raos.toml")
    changed(tree)


def skipped(tree: Path) -> None:
    git(tree, "update-index", "--skip-worktree", "raos.toml")
    changed(tree)


def staged(tree: Path) -> None:
    changed(tree)
    git(tree, "add", "raos.toml")


def same_size_and_time(tree: Path) -> None:
    stat = (tree / "raos.toml").stat()
    changed(tree)
    os.utime(tree / "raos.toml", ns=(stat.st_atime_ns, stat.st_mtime_ns))


def untracked(tree: Path) -> None:
    write(tree, {"new": "hello\n"})


def ignored(tree: Path) -> None:
    write(tree / ".git", {"info/exclude": "new"})
    untracked(tree)


def of_another_repository_inside(tree: Path) -> None:
    make_repository(tree / "inner", {"new": "x"})


def removed(tree: Path) -> None:
    (tree / "raos.toml").unlink()


def removed_and_hidden(tree: Path) -> None:
    git(tree, "update-index", "--skip-worktree", "raos.toml")
    removed(tree)


def sparse(tree: Path) -> None:
    git(tree, "sparse-checkout", "set", "--no-cone", "/*", "!/raos.toml")


def replaced(tree: Path) -> None:
    """`git show HEAD` now tells of another commit, under the name of this one."""
    first = git(tree, "rev-parse", "HEAD")
    second = commit(tree, {"raos.toml": "y"})
    git(tree, "reset", "--quiet", "--soft", first)
    git(tree, "replace", first, second)


def attributes_that_are_not_committed(tree: Path) -> None:
    write(tree / ".git", {"info/attributes": "raos.toml eol=crlf"})
    commit(tree, {"raos.toml": "a\n"})
    write(tree, {"raos.toml": "a\r\n"})


def line_ends_of_the_users_liking(tree: Path) -> None:
    git(tree, "config", "core.autocrlf", "true")
    commit(tree, {"raos.toml": "a\n"})
    write(tree, {"raos.toml": "a\r\n"})


@pytest.mark.parametrize(
    ("hide", "told"),
    [
        (changed, {"changed": ["raos.toml"]}),
        (mode, {"changed": ["raos.toml"]}),
        (mode_that_git_is_told_not_to_see, {"changed": ["raos.toml"]}),
        (assumed_unchanged, {"changed": ["raos.toml"]}),
        (skipped, {"changed": ["raos.toml"]}),
        (staged, {"changed": ["raos.toml"]}),
        (same_size_and_time, {"changed": ["raos.toml"]}),
        (untracked, {"not in it": ["new"]}),
        (ignored, {"not in it": ["new"]}),
        (of_another_repository_inside, {"not in it": ["inner/new"]}),
        (removed, {"missing": ["raos.toml"]}),
        (removed_and_hidden, {"missing": ["raos.toml"]}),
        (sparse, {"missing": ["raos.toml"]}),
        (replaced, {"changed": ["raos.toml"]}),
        (attributes_that_are_not_committed, {"changed": ["raos.toml"]}),
        (line_ends_of_the_users_liking, {"changed": ["raos.toml"]}),
    ],
)
def test_whatever_git_says_of_it_a_difference_is_named(
    tree: Path, hide: Callable[[Path], None], told: dict[str, list[str]]
) -> None:
    hide(tree)
    assert names(compared(tree)) == told


def test_empty_directories_which_no_commit_holds_are_counted(tree: Path) -> None:
    (tree / "logs/old").mkdir(parents=True)
    (tree / "Modules/Chat/__pycache__").mkdir()
    assert compared(tree) == Differences(directories=1)


def test_a_directory_that_git_ignores_is_in_no_commit(tree: Path) -> None:
    commit(tree, {".gitignore": "dist/"})
    write(tree, {"dist/raos.toml": "x"})
    assert git(tree / "dist", "status", "--porcelain", "--", ".") == ""
    assert names(compared(tree / "dist")) == {"not in it": ["raos.toml"]}


def test_a_few_names_are_told_and_the_rest_is_counted(tree: Path) -> None:
    long = "/".join(["d" * 60] * 4) + "/end"
    write(tree, {f"new{number:03}": "x" for number in range(100)} | {long: "x"})
    found = compared(tree)
    assert found.count == 101
    assert len(found.added.names) == NAMES_SHOWN
    assert found.added.names[0] == f"…{long[-99:]}"
    assert str(found).startswith("101 not in it: …")
    assert str(found).endswith(", new008 and 91 more")


def test_names_that_nobody_can_read_are_spelled_out(tree: Path) -> None:
    blob = git(tree, "hash-object", "-w", "--stdin", stdin=b"x")
    entries = b"100644 %s\tb\\303\\202\n" % blob.encode() + b'100644 %s\t"c\\377"\n' % blob.encode()
    git(tree, "update-index", "--index-info", stdin=entries + b'100644 %s\t"d\\033[2J"\n' % blob.encode())
    git(tree, "commit", "--quiet", "--message=odd")
    assert compared(tree).missing.names[-2:] == ("c\\xff", "d\\x1b[2J")


def test_what_its_own_attributes_have_checked_out_otherwise_is_the_commits(tree: Path) -> None:
    attributes = "*.bat text eol=crlf\n*.id ident\n*.u16 working-tree-encoding=UTF-16LE-BOM\n*.txt text\n"
    write(tree, {".gitattributes": attributes, "sub/.gitattributes": "*.csv text=auto eol=crlf\nout export-subst\n"})
    write(tree, {"sub/a.csv": "1\n2\n", "sub/out": "$Format:%H$", "a.bat": "x\ny\n", "b.id": "$Id$\n", "out": "x\n"})
    write(tree, {"c.u16": b"\xff\xfex\x00\n\x00"})
    commit(tree, {})
    for name in ("a.bat", "b.id", "sub/a.csv"):
        (tree / name).unlink()
    git(tree, "checkout", "--quiet", ".")
    assert (tree / "a.bat").read_bytes() == b"x\r\ny\r\n"
    assert compared(tree) == Differences(converted=4)
    assert compared(tree / "sub") == Differences(converted=1)
    write(tree, {"a.bat": "x\ny\n"})
    assert compared(tree) == Differences(converted=3), "the very bytes of the commit"
    write(tree, {"a.bat": "x\ny\r\n", "c.u16": b"\xff\xfey\x00\n\x00", "Modules/Chat/chat.txt": "hello\r\n"})
    assert names(compared(tree)) == {"changed": ["Modules/Chat/chat.txt", "a.bat", "c.u16"]}
    with pack_git_ref(tree, "HEAD") as packed:
        assert packed.read_file("a.bat") == b"x\ny\n"


def test_a_commit_is_packed_whole_whatever_an_archive_of_it_would_leave_out(tree: Path) -> None:
    commit(tree, {".gitattributes": "raos.toml export-ignore\nempty export-subst\n", "empty": "$Format:%H$"})
    with pack_git_ref(tree, "HEAD") as packed:
        assert packed.read_file("raos.toml") == b"x"
        assert packed.read_file("empty") == b"$Format:%H$"
    assert compared(tree) == Differences()


def test_a_file_that_git_lfs_fetched_is_the_commits_and_another_one_is_not(tree: Path) -> None:
    content = os.urandom(5000)
    pointer = POINTER.format(sha256(content).hexdigest(), len(content))
    commit(tree, {".gitattributes": "*.bin filter=lfs -text\n", "a.bin": pointer, "b.bin": pointer})
    write(tree, {"a.bin": content, "b.bin": os.urandom(5000)})
    found = compared(tree)
    assert (names(found), found.converted) == ({"changed": ["b.bin"]}, 1)


def test_pointers_that_git_lfs_left_are_refused_by_name_also_when_they_were_seen_before(tmp_path: Path) -> None:
    pointer = POINTER.format("0" * 64, 5)
    write(tmp_path / "plain", {"raos.toml": "x", "a.bin": pointer, "long.txt": pointer + "x" * 1024})
    for _ in range(2):
        with pack_directory(tmp_path / "plain") as packed, pytest.raises(BundleError, match=r"^a.bin: Git LFS left a"):
            refuse_lfs_pointers(packed, BlobIds(tmp_path / "ids"))
    make_repository(tmp_path / "tree", {"raos.toml": "x", "a.bin": pointer, "b.bin": pointer})
    for _ in range(2):
        with pytest.raises(BundleError, match=r"^a.bin, b.bin: Git LFS left a pointer"):
            compared(tmp_path / "tree")


@pytest.fixture
def with_submodules(tmp_path: Path) -> Path:
    """A repository with a submodule that has one itself, cloned without either."""
    make_repository(tmp_path / "inner", {"inner.txt": "inner\n"})
    make_repository(tmp_path / "lib", {"lib.txt": "lib\r\n"})
    git(tmp_path / "lib", "submodule", "--quiet", "add", (tmp_path / "inner").as_uri(), "deep/inner")
    commit(tmp_path / "lib", {".gitattributes": "inner.txt eol=crlf"})
    make_repository(tmp_path / "origin", FILES)
    git(tmp_path / "origin", "submodule", "--quiet", "add", (tmp_path / "lib").as_uri(), "vendor/lib")
    commit(tmp_path / "origin", {})
    git(tmp_path, "clone", "--quiet", str(tmp_path / "origin"), "tree")
    return tmp_path / "tree"


def test_submodules_that_were_not_fetched_are_refused_by_name(with_submodules: Path) -> None:
    tree = with_submodules
    with pytest.raises(BundleError, match=r"^vendor/lib: a submodule .*git submodule update --init --recursive"):
        compared(tree)
    write(tree, {"vendor/lib/lib.txt": "lib\r\n"})
    with pytest.raises(BundleError, match=r"^vendor/lib: a submodule"):
        compared(tree)
    (tree / "vendor/lib/lib.txt").unlink()
    git(tree, "submodule", "--quiet", "update", "--init")
    with pytest.raises(BundleError, match=r"^vendor/lib/deep/inner: a submodule"):
        compared(tree)


def test_submodules_are_compared_with_the_commits_that_are_named(with_submodules: Path) -> None:
    tree = with_submodules
    git(tree, "submodule", "--quiet", "update", "--init", "--recursive")
    assert compared(tree) == Differences()
    assert compared(tree / "vendor") == Differences()
    inner = tree / "vendor/lib/deep/inner"
    commit(inner, {"new": "x", "inner.txt": "changed"})
    write(tree / "vendor/lib", {"untracked": "x"})
    assert git(tree, "-c", "diff.ignoreSubmodules=all", "status", "--porcelain") == ""
    assert names(compared(tree)) == {
        "changed": ["vendor/lib/deep/inner/inner.txt"],
        "not in it": ["vendor/lib/deep/inner/new", "vendor/lib/untracked"],
    }
    shutil.rmtree(tree / ".git/modules/vendor/lib/modules")
    (inner / ".git").unlink()
    make_repository(inner, {})
    with pytest.raises(BundleError, match=r"^vendor/lib/deep/inner: a submodule"):
        compared(tree)


def test_files_of_one_name_in_two_repositories_are_each_their_own_commits(tmp_path: Path) -> None:
    make_repository(tmp_path / "lib", {".gitattributes": "*.bat eol=crlf", "a.bat": "lib\n"})
    make_repository(tmp_path / "origin", {".gitattributes": "*.bat eol=crlf", "a.bat": "top\n"})
    git(tmp_path / "origin", "submodule", "--quiet", "add", (tmp_path / "lib").as_uri(), "lib")
    commit(tmp_path / "origin", {})
    clone((tmp_path / "origin").as_uri(), tmp_path / "clone")
    assert compared(tmp_path / "clone") == Differences(converted=2)


def test_a_clone_of_a_url_has_its_submodules(with_submodules: Path, tmp_path: Path) -> None:
    clone((tmp_path / "origin").as_uri(), tmp_path / "clone")
    assert (tmp_path / "clone/vendor/lib/deep/inner/inner.txt").read_text() == "inner\n"
    assert compared(tmp_path / "clone") == Differences()


@requires_git_lfs
def test_a_clone_of_a_url_has_what_git_lfs_keeps(tmp_path: Path) -> None:
    origin, content = tmp_path / "origin", os.urandom(5000)
    make_repository(origin, FILES)
    git(origin, "lfs", "install", "--local", "--skip-repo")
    commit(origin, {".gitattributes": "*.bin filter=lfs -text\n", "a.bin": content})
    assert git(origin, "show", "HEAD:a.bin").startswith("version https://git-lfs")
    clone(origin.as_uri(), tmp_path / "clone")
    assert (tmp_path / "clone/a.bin").read_bytes() == content
    assert compared(tmp_path / "clone") == Differences(converted=1)


def test_a_clone_has_the_commits_bytes_whatever_its_user_likes(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, {"gitconfig": "[core]\nautocrlf = true\n"})
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    clone(tree.as_uri(), tmp_path / "clone")
    assert (tmp_path / "clone/Modules/Chat/chat.txt").read_bytes() == b"hello\n"


def test_nothing_that_a_repository_configures_is_run(tree: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\necho $0 >> {mark}\ncat\n")
    trap.chmod(0o755)
    commit(tree, {".gitattributes": "* filter=trap diff=trap merge=trap\n*.bat eol=crlf\n", "a.bat": "x\n"})
    write(tree, {"a.bat": "x\r\n"})
    for key in (
        *("core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.gitProxy", "core.askPass"),
        *("filter.trap.clean", "filter.trap.smudge", "filter.trap.process", "diff.trap.textconv", "diff.trap.command"),
        *(
            "diff.external",
            "credential.helper",
            "gpg.program",
            "uploadpack.packObjectsHook",
            "core.alternateRefsCommand",
        ),
    ):
        git(tree, "config", key, str(trap))
    for hook in ("post-index-change", "post-checkout", "reference-transaction", "pre-auto-gc", "fsmonitor-watchman"):
        shutil.copy(trap, tree / ".git/hooks" / hook)
    (tmp_path / "remote").write_text(f"#!/bin/sh\necho $0 >> {mark}\n")
    (tmp_path / "remote").chmod(0o755)
    git(tree, "config", "remote.origin.url", f"ext::{tmp_path}/remote")
    git(tree, "config", "remote.origin.promisor", "true")
    git(tree, "config", "protocol.ext.allow", "always")
    git(tree, "config", "extensions.partialClone", "origin")
    git(tree, "config", "core.repositoryFormatVersion", "1")
    git(tree, "config", "alias.rev-parse", f"!{trap}")
    first = git(tree, "rev-parse", "HEAD")
    git(tree, "status")
    assert mark.read_text(), "the trap is set"
    mark.unlink()

    assert compared(tree) == Differences(converted=1)
    with pack_git_ref(tree, "HEAD"):
        pass
    for name in git(tree, "rev-list", "--objects", "HEAD").split("\n"):
        if name.endswith(" a.bat"):
            (tree / ".git/objects" / name[:2] / name[2:40]).unlink()
    mark.unlink(missing_ok=True)
    assert names(compared(tree)) == {"changed": ["a.bat"]}
    with pytest.raises(BundleError, match=r"git does not have 'a.bat' here: the clone is a partial one"):
        pack_git_ref(tree, first)
    git_info(tree)
    with pytest.raises(UsageError, match=r"names no commit|git refuses"):
        pack_git_ref(tree, "f" * 40)
    assert not mark.exists(), mark.read_text()
    git(tree, "cat-file", "-t", "f" * 40, fails=True)
    assert mark.read_text(), "that trap is set, too"


def test_git_that_falls_silent_within_a_commit_is_ended(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tree.parent / "bin/git"
    write(
        tree.parent,
        {"bin/git": f'#!/bin/sh\ncase "$*" in *batch) exec sleep 60;; esac\nexec {shutil.which("git")} "$@"\n'},
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("ashat.bundle.git_objects.SECONDS", 0.1)
    with pytest.raises(BundleError, match="git does not have"):
        pack_git_ref(tree, "HEAD")


def test_what_was_learnt_of_files_is_kept_and_read_only_if_it_is_whole(tree: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert compared(tree, kept) == Differences()
    content = kept.read_bytes()
    known = BlobIds(kept)
    with pack_directory(tree) as packed:
        for path in ("raos.toml", "empty"):
            (tree / path).write_text("another")
        assert known.learn(packed, packed.manifest.files) == [], "none of them is read"
        with pytest.raises(SourceChangedError):
            BlobIds(tmp_path / "nowhere").learn(packed, packed.manifest.files)
    git(tree, "checkout", "--quiet", ".")
    for spoiled in (b"", content[:-1], content[:-40] + content[-32:], content.replace(b"sha1", b"sha3"), bytes(100)):
        kept.write_bytes(spoiled)
        assert compared(tree, kept) == Differences()
    assert kept.read_bytes() == content


def test_few_git_processes_whatever_the_number_of_files(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tree, {"real": f'#!/bin/sh\necho x >> {tree.parent}/runs\nexec {shutil.which("git")} "$@"\n'})
    bin_directory = tree.parent / "bin"
    bin_directory.mkdir()
    (tree / "real").rename(bin_directory / "git")
    (bin_directory / "git").chmod(0o755)
    commit(tree, {".gitattributes": "*.bat eol=crlf\n"} | {f"many/{n}.bat": f"{n}\n" for n in range(200)})
    write(tree, {f"many/{n}.bat": f"{n}\r\n" for n in range(200)})
    monkeypatch.setenv("PATH", f"{bin_directory}:{os.environ['PATH']}")
    assert compared(tree) == Differences(converted=200)
    assert len((tree.parent / "runs").read_text().split()) < 16


def test_git_says_what_a_directory_is(tree: Path, tmp_path: Path) -> None:
    info = git_info(tree / "Modules")
    assert info is not None
    assert (info.commit, info.branch) == (git(tree, "rev-parse", "HEAD"), "main")
    assert (info.author, info.repository.prefix) == ("Kim <kim@example.com>", "Modules/")
    git(tree, "tag", "v1")
    git(tree, "branch", "other")
    assert [branch_of(tree, ref) for ref in ("other", "HEAD", "v1", "main~0", str(info.commit))] == [
        "other",
        "main",
        None,
        None,
        None,
    ]
    git(tree, "checkout", "--quiet", "--detach")
    info = git_info(tree)
    assert info is not None
    assert info.branch is None
    assert git_info(tmp_path) is None


def test_a_repository_without_a_commit_names_none_and_a_damaged_one_is_refused(tree: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "new")
    info = git_info(tmp_path / "new")
    assert info is not None
    assert info.commit is None
    head = git(tree, "rev-parse", "HEAD")
    (tree / ".git/objects" / head[:2] / head[2:]).unlink()
    with pytest.raises(BundleError, match="lacks the commit that is checked out"):
        git_info(tree)
    (tree / ".git/HEAD").unlink()
    with pytest.raises(UsageError, match=r"git refuses in .*not a git repository"):
        git_info(tree)
    shutil.rmtree(tree / ".git")
    (tree / ".git").write_text(f"gitdir: {tmp_path}/nowhere\n")
    with pytest.raises(UsageError, match=r"git refuses in .*not a git repository"):
        git_info(tree)


def test_a_bare_repository_has_commits_and_no_work_tree(tree: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", "tree", "bare.git")
    for place in (tmp_path / "bare.git", tree / ".git"):
        found = find_repository(place)
        assert found is not None
        assert found.bare
        with pack_git_ref(place, "HEAD") as packed:
            assert packed.manifest.by_path.keys() == FILES.keys()


@requires_root
def test_another_owners_repository_is_refused_with_what_to_do_unless_its_user_trusts_it(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (tree, tree / ".git"):
        os.chown(place, 12345, 12345)
    with pytest.raises(UsageError, match=r"belongs to somebody else.*--add safe.directory") as refused:
        git_info(tree)
    assert "\n" not in str(refused.value)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(tree))
    assert compared(tree) == Differences()


def test_the_environment_points_to_no_other_repository(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    make_repository(other, {"raos.toml": "other"})
    untracked(tree)
    for name, value in {
        "GIT_DIR": f"{other}/.git",
        "GIT_WORK_TREE": str(other),
        "GIT_INDEX_FILE": f"{other}/.git/index",
        "GIT_OBJECT_DIRECTORY": f"{other}/.git/objects",
        "GIT_COMMON_DIR": f"{other}/.git",
        "GIT_NAMESPACE": "other",
        "GIT_CONFIG_PARAMETERS": f"'core.worktree'='{other}'",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.attributesFile",
        "GIT_CONFIG_VALUE_0": "/nowhere",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_SHALLOW_FILE": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    assert names(compared(tree)) == {"not in it": ["new"]}


def test_history_is_followed_as_far_as_it_is_here(tree: Path, tmp_path: Path) -> None:
    first = git(tree, "rev-parse", "HEAD")
    second = commit(tree, {"raos.toml": "y"})
    other = commit(tree, {})
    git(tree, "replace", second, other)
    assert history(tree, second) == {first, second}
    git(tmp_path, "clone", "--quiet", "--depth=1", tree.as_uri(), "shallow")
    repository = find_repository(tmp_path / "shallow")
    assert repository is not None
    assert repository.shallow is not None
    assert history(tmp_path / "shallow", other) == {other}
    assert history(tmp_path / "shallow", "0" * 40) is None
    assert compared(tmp_path / "shallow") == Differences()


def history(tree: Path, commit: str) -> set[str] | None:
    repository = find_repository(tree)
    assert repository is not None
    with ObjectStore(repository) as store:
        found = store.history(commit)
        return None if found is None else set(found)


def test_linked_work_trees_and_borrowed_objects_are_read(tree: Path, tmp_path: Path) -> None:
    git(tree, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    assert compared(tmp_path / "side") == Differences()
    git(tmp_path, "clone", "--quiet", "--shared", "tree", "shared")
    assert compared(tmp_path / "shared") == Differences()


def test_git_that_is_missing_old_slow_or_says_too_much_is_said_to_be_so(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/git"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent))
    with pytest.raises(UsageError, match="git is not installed"):
        git_info(tree)
    program.write_text("#!/bin/sh\n/bin/sleep 60 &\n/bin/sleep 60\n")
    program.chmod(0o755)
    with pytest.raises(BundleError, match="was killed; it has 0 s at most"):
        run_git(tree, "status", seconds=0.1)
    program.write_text("#!/bin/sh\nprintf 'true\\nfalse\\n--show-object-format\\n.git/objects\\n.git/shallow\\n\\n'\n")
    with pytest.raises(UsageError, match="git is too old here"):
        git_info(tree)
    program.write_text("#!/bin/sh\nexec /usr/bin/yes\n")
    monkeypatch.setattr("ashat.bundle.git.OUTPUT_LIMIT", 100_000)
    with pytest.raises(BundleError, match="lists more than 100000 bytes"):
        run_git(tree, "ls-tree")


def test_differences_are_told_in_words() -> None:
    found = Differences(
        changed=DifferingFiles(count=1, names=("a",)), added=DifferingFiles(count=12, names=("b", "c")), converted=3
    )
    assert str(found) == "1 changed: a; 12 not in it: b, c and 10 more"
    assert found.count == 13


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_links_are_compared_by_their_targets(tmp_path: Path, object_format: str) -> None:
    tree = tmp_path / "linked"
    make_repository(tree, FILES, object_format)
    for name in ("same", "moved", "gone", "filled"):
        (tree / name).symlink_to("raos.toml")
    commit(tree, {})
    assert compared(tree) == Differences()
    for name in ("moved", "gone", "filled"):
        (tree / name).unlink()
    (tree / "moved").symlink_to("run.sh")
    (tree / "filled").write_text("raos.toml")
    (tree / "new").symlink_to("raos.toml")
    found = compared(tree)
    assert (found.changed.names, found.added.names, found.missing.names) == (("filled", "moved"), ("new",), ("gone",))


def test_the_newest_commits_are_listed_by_id_and_subject_and_no_more_than_are_shown(tree: Path) -> None:
    first = git(tree, "rev-parse", "HEAD")
    last = commit(tree, {"empty": "not any more"}, "x" * 5000 + "\n\nmore")
    (newest, oldest) = newest_commits(tree, last)
    assert newest.startswith(f"{last} xxx")
    assert len(newest) < 200
    assert oldest.startswith(f"{first} ")
    assert newest_commits(tree, "0" * 40) == ()
    for number in range(COMMITS):
        last = commit(tree, {"empty": str(number)}, f"change {number}")
    listed = newest_commits(tree, last)
    assert len(listed) == COMMITS
    assert listed[0] == f"{last} change {COMMITS - 1}"


def test_the_messages_since_a_commit_are_those_that_it_lacks_and_without_it_the_newest(tree: Path) -> None:
    first = git(tree, "rev-parse", "HEAD")
    commit(tree, {"empty": "1"}, "second\n\nwith a body")
    last = commit(tree, {"empty": "2"}, "third")
    assert messages_since(tree, last, first).split() == ["third", "second", "with", "a", "body"]
    assert messages_since(tree, last, last) == ""
    assert len(messages_since(tree, last, None)) > len(messages_since(tree, last, first))
    assert messages_since(tree, last, "0" * 40) == messages_since(tree, last, None)
    assert messages_since(tree, "0" * 40, None) == ""
