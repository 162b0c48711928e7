"""From a source to a bundle: what is packed, what is refused by name, and what the digest cache may be trusted with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from ashat.bundle.git import clone, commit_tracked, resolve
from ashat.bundle.manifest import EXECUTABLE_MODE, FILE_MODE, PART_SIZE
from ashat.bundle.pack import Packed, pack_directory, pack_git_ref
from ashat.bundle.stat_cache import FileState, StatCache
from ashat.errors import BundleError, SourceChangedError, UsageError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small source, as `make_source` says."""
    return make_source(tmp_path)


def make_source(directory: Path) -> Path:
    """Two modules, an empty file, a program, and a file of three parts."""
    root = directory / "source"
    (root / "Modules/Auth").mkdir(parents=True)
    (root / "Modules/Auth/auth.dll").write_bytes(os.urandom(70_000))
    (root / "Modules/Auth/empty").touch()
    (root / "Modules/Chat").mkdir()
    (root / "Modules/Chat/big").write_bytes(os.urandom(2 * PART_SIZE + 123))
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o750)
    (root / "exact").write_bytes(os.urandom(PART_SIZE))
    return root


def contents(packed: Packed) -> dict[str, bytes]:
    return {path: packed.read_file(path) for path in packed.manifest.by_path}


def files_of(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_every_byte_can_be_read_back(source: Path) -> None:
    with pack_directory(source) as packed:
        assert contents(packed) == files_of(source)
        modes = {path: file.mode for path, file in packed.manifest.by_path.items()}
        for digest in packed.manifest.objects:
            assert b"".join(packed.stream_object(digest, 100_000)) == packed.read_object(digest)
    assert modes.pop("run.sh") == EXECUTABLE_MODE
    assert set(modes.values()) == {FILE_MODE}


def test_git_and_compiled_python_are_left_out_and_nothing_else(source: Path) -> None:
    plain = pack_directory(source).manifest
    for path in (".git/config", "Modules/.git", "Modules/Auth/__pycache__/a.pyc"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text("x")
    assert pack_directory(source).manifest == plain
    (source / ".gitignore").write_text("*.dll")
    assert set(pack_directory(source).manifest.by_path) - set(plain.by_path) == {".gitignore"}


def test_progress_ends_with_every_byte(source: Path) -> None:
    seen: list[int] = []
    packed = pack_directory(source, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == packed.manifest.size


def leaving_link(root: Path) -> str:
    (root / "link").symlink_to("../run.sh")
    return "'link' is a symbolic link to '../run.sh', which leads out of the tree"


def absolute_link(root: Path) -> str:
    (root / "link").symlink_to(root / "run.sh")
    return "'link' is a symbolic link to the absolute path"


def named_pipe(root: Path) -> str:
    os.mkfifo(root / "pipe")
    return "'pipe' is a named pipe"


def unix_socket(root: Path) -> str:
    os.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sock")
    return "'sock' is a socket"


def not_utf8(root: Path) -> str:
    (root / os.fsdecode(b"caf\xe9")).touch()
    return "not valid UTF-8"


def not_nfc(root: Path) -> str:
    (root / unicodedata.normalize("NFD", "café")).touch()
    return "normal form C"


def case_clash(root: Path) -> str:
    (root / "RUN.sh").touch()
    return "'RUN.sh' and 'run.sh' are equal under case folding"


def reserved(root: Path) -> str:
    (root / "Modules/Auth/aux.txt").touch()
    return "'aux.txt' is a reserved name on Windows"


def backslash(root: Path) -> str:
    (root / "a\\b").touch()
    return "which Windows does not allow"


@pytest.mark.parametrize(
    "spoil",
    [
        leaving_link,
        absolute_link,
        named_pipe,
        unix_socket,
        not_utf8,
        not_nfc,
        case_clash,
        reserved,
        backslash,
    ],
)
def test_what_a_bundle_cannot_hold_is_refused_by_name(
    source: Path, spoil: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source)
    message = spoil(source)
    with pytest.raises(BundleError) as refused:
        pack_directory(source)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device file")
def test_a_device_file_is_refused(source: Path) -> None:
    try:
        os.mknod(source / "null", 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError as error:
        pytest.skip(f"no device file can be made here: {error}")
    with pytest.raises(BundleError, match="'null' is a device file"):
        pack_directory(source)


@pytest.mark.parametrize(
    ("path", "message"),
    [("run.sh", "'run.sh' cannot be read"), ("Modules/Auth", "'Modules/Auth/' cannot be read")],
)
def test_what_cannot_be_read_is_refused_by_name(path: str, message: str) -> None:
    """In a process that is not root's, since root may read everything; it has imported all it needs before."""
    program = (
        "import os, sys, pathlib\n"
        "from ashat.bundle.pack import pack_directory\n"
        "from ashat.errors import BundleError\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "pack_directory(place).close()\n"
        "(place / sys.argv[2]).chmod(0)\n"
        "os.chdir(place.parent)\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try: pack_directory(place)\n"
        "except BundleError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        source = make_source(Path(directory))
        done = subprocess.run(
            [sys.executable, "-c", program, str(source), path], cwd=ROOT, capture_output=True, text=True, check=True
        )
        (source / path).chmod(0o700)
    assert message in done.stdout


def test_a_source_that_is_no_tree_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        pack_directory(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="is not a directory"):
        pack_directory(tmp_path / "file")
    (tmp_path / "empty/sub/.git").mkdir(parents=True)
    with pytest.raises(BundleError, match="holds no file to ship"):
        pack_directory(tmp_path / "empty")


def written_to(root: Path) -> None:
    with open(root / "Modules/Chat/big", "r+b") as file:
        file.write(b"changed")


def removed(root: Path) -> None:
    (root / "Modules/Chat/big").unlink()


def replaced_by_a_link(root: Path) -> None:
    (root / "Modules/Chat/big").unlink()
    (root / "Modules/Chat/big").symlink_to("/etc/passwd")


def replaced_by_a_pipe(root: Path) -> None:
    (root / "Modules/Chat/big").unlink()
    os.mkfifo(root / "Modules/Chat/big")


def shortened(root: Path) -> None:
    os.truncate(root / "Modules/Chat/big", 5)


@pytest.mark.parametrize("change", [written_to, removed, replaced_by_a_link, replaced_by_a_pipe, shortened])
def test_a_file_that_changes_before_it_is_sent_is_named(source: Path, change: Callable[[Path], None]) -> None:
    packed = pack_directory(source)
    part = packed.manifest.by_path["Modules/Chat/big"].parts[1]
    time.sleep(0.02)
    change(source)
    with pytest.raises(SourceChangedError, match=r"'Modules/Chat/big' changed"):
        packed.read_object(part)
    with pytest.raises(SourceChangedError, match=r"'Modules/Chat/big' changed"):
        list(packed.stream_object(part, 100_000))


def added(root: Path) -> None:
    (root / "Modules/late").touch()


@pytest.mark.parametrize(
    ("change", "named"), [(written_to, "Modules/Chat/big"), (removed, "Modules/Chat/big"), (added, "Modules/late")]
)
def test_a_tree_that_changes_while_it_is_packed_is_refused(
    source: Path, change: Callable[[Path], None], named: str
) -> None:
    """The change comes when some files were hashed, through the progress that packing reports."""
    once = threading.Event()

    def interfere(_done: int) -> None:
        if not once.is_set():
            once.set()
            time.sleep(0.02)
            change(source)

    with pytest.raises(SourceChangedError, match=f"'{named}' changed"):
        pack_directory(source, progress=interfere)


def age(root: Path) -> None:
    """Wait until the digest cache trusts the files of `root`."""
    newest = max(path.stat().st_ctime for path in root.rglob("*"))
    time.sleep(max(newest + 2.05 - time.time(), 0))


def test_the_cache_spares_the_reading_and_notices_every_change(source: Path, tmp_path: Path) -> None:
    def pack() -> tuple[str, int]:
        read: list[int] = []
        packed = pack_directory(source, cache=StatCache.for_source(tmp_path / "home", source), progress=read.append)
        return packed.manifest.digest, len(read)

    files = len(files_of(source))
    first = pack()
    assert first == pack() == (first[0], files), "files changed a moment ago are not trusted yet"
    age(source)
    assert pack() == (first[0], files)
    assert pack() == (first[0], 0)
    (cache,) = (tmp_path / "home/digests").iterdir()
    assert cache.stat().st_mode & 0o777 == 0o600

    stood = (source / "run.sh").stat()
    (source / "run.sh").write_text("#!/bin/SH\n")
    os.utime(source / "run.sh", ns=(stood.st_atime_ns, stood.st_mtime_ns))
    assert (source / "run.sh").stat().st_mtime_ns == stood.st_mtime_ns
    changed = pack()
    assert changed[0] != first[0], "same size and mtime, other bytes"
    assert changed[1] == 1


@pytest.mark.parametrize(
    "spoiled", [b"", b"{", b"[]", b'{"format":"other","files":{}}', b'{"format":"ashat-digests/1","files":{"a":[1]}}']
)
def test_a_spoiled_cache_is_as_good_as_none(tmp_path: Path, spoiled: bytes) -> None:
    file = tmp_path / "cache.json"
    file.write_bytes(spoiled)
    cache = StatCache(file)
    state = FileState(1, 2, 3, 4)
    assert cache.get("a", state) is None
    cache.put("a", state, ("a" * 64, ()), time.time_ns())
    cache.save()
    assert StatCache(file).get("a", state) == ("a" * 64, ())
    assert json.loads(file.read_bytes())["files"] == {"a": [1, 2, 3, 4, "a" * 64]}


def git(where: Path, *words: str) -> str:
    identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return subprocess.run(
        ["git", "-C", str(where), *words], env=os.environ | identity, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def repository(source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`source` as a git repository with one commit."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    git(source, "init", "--quiet", "--initial-branch=main")
    git(source, "config", "user.name", "Kim")
    git(source, "config", "user.email", "kim@example.com")
    git(source, "add", "--all")
    git(source, "commit", "--quiet", "--message=first")
    return source


def test_a_commit_packs_as_its_checkout_does(repository: Path) -> None:
    (repository / "Modules/Auth/__pycache__").mkdir()
    (repository / "Modules/Auth/__pycache__/a.pyc").touch()
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=compiled")
    lying = pack_directory(repository)
    (repository / "run.sh").write_text("changed since, not committed")
    with pack_git_ref(repository, "main") as packed:
        assert packed.manifest == lying.manifest
        found = contents(packed)
    assert found.keys() == lying.manifest.by_path.keys()
    assert found["run.sh"] == b"#!/bin/sh\n"
    assert found["Modules/Chat/big"] == (repository / "Modules/Chat/big").read_bytes()
    with pack_git_ref(repository / "Modules", "HEAD") as below:
        assert set(below.manifest.by_path) == {"Auth/auth.dll", "Auth/empty", "Chat/big"}


def test_what_git_holds_and_a_bundle_cannot_is_refused_by_name(repository: Path) -> None:
    (repository / "link").symlink_to("Modules/Auth")
    git(repository, "add", "link")
    git(repository, "commit", "--quiet", "--message=link")
    with pack_git_ref(repository, "HEAD") as packed:
        assert [(link.path, link.target) for link in packed.manifest.links] == [("link", "Modules/Auth")]
        assert packed.manifest.by_path.keys() == contents(packed).keys()
    (repository / "link").unlink()
    (repository / "link").symlink_to("../run.sh")
    git(repository, "commit", "--quiet", "--all", "--message=link")
    with pytest.raises(BundleError, match=r"'link' is a symbolic link to '\.\./run\.sh', which leads out"):
        pack_git_ref(repository, "HEAD")
    head = git(repository, "rev-parse", "HEAD")
    git(repository, "rm", "--quiet", "link")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{head},vendor/lib")
    git(repository, "commit", "--quiet", "--message=submodule")
    with pytest.raises(BundleError, match="'vendor/lib' is a git submodule"):
        pack_git_ref(repository, "HEAD")
    git(repository, "rm", "--quiet", "--cached", "vendor/lib")
    (repository / "asset.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    git(repository, "add", "asset.bin")
    git(repository, "commit", "--quiet", "--message=pointer")
    with pytest.raises(BundleError, match=r"'asset.bin' is a Git LFS pointer"):
        pack_git_ref(repository, "HEAD")
    (repository / "Modules" / "sound.wav").write_bytes((repository / "asset.bin").read_bytes())
    (repository / "link").symlink_to("../run.sh")
    git(repository, "add", "Modules", "link")
    git(repository, "commit", "--quiet", "--message=more of several kinds")
    with pytest.raises(BundleError) as refused:
        pack_git_ref(repository, "HEAD")
    said = str(refused.value)
    assert "holds 3 paths" in said
    assert "2 Git LFS pointers in place of files" in said
    assert all(name in said for name in ("'asset.bin'", "'Modules/sound.wav'", "'link'"))


@pytest.mark.parametrize("ref", ["nowhere", "", "--help", "HEAD~9", "HEAD:run.sh"])
def test_a_ref_that_names_no_commit_is_refused(repository: Path, ref: str) -> None:
    with pytest.raises(UsageError) as refused:
        pack_git_ref(repository, ref)
    assert "\n" not in str(refused.value)


def test_another_repositorys_environment_is_not_believed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = resolve(repository, "HEAD")
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    assert resolve(repository, "HEAD") == head


def test_tracked_changes_are_committed_with_the_message_given(repository: Path) -> None:
    first = resolve(repository, "HEAD")
    assert commit_tracked(repository, "nothing to do") == (first, False)
    (repository / "run.sh").chmod(0o700)
    git(repository, "update-index", "--skip-worktree", "run.sh")
    (repository / "run.sh").write_text("changed, and hidden from git\n")
    assert commit_tracked(repository, "hidden") == (first, False)
    git(repository, "update-index", "--no-skip-worktree", "run.sh")
    (repository / "run.sh").write_text("#!/bin/sh\nexit 0\n")
    (repository / "untracked").touch()
    second, new = commit_tracked(repository, "--UPD-1: a description")
    assert (second, new) == (resolve(repository, "HEAD"), True)
    assert git(repository, "log", "-1", "--format=%s") == "--UPD-1: a description"
    assert git(repository, "status", "--porcelain") == "?? untracked"


def test_a_clone_has_the_tree_of_the_ref_asked_for(repository: Path, tmp_path: Path) -> None:
    first = resolve(repository, "HEAD")
    git(repository, "checkout", "--quiet", "-b", "feature")
    (repository / "run.sh").write_text("feature")
    second, _ = commit_tracked(repository, "feature")
    git(repository, "checkout", "--quiet", "main")
    for number, (ref, commit) in enumerate([(None, first), ("feature", second), (second, second)]):
        directory = tmp_path / f"clone{number}"
        clone(str(repository), directory, ref)
        assert resolve(directory, "HEAD") == commit
    with pytest.raises(BundleError, match="has no branch, tag or commit 'nowhere'"):
        clone(str(repository), tmp_path / "clone9", "nowhere")
    with pytest.raises(BundleError) as refused:
        clone("http://kim:secret@127.0.0.1:1/x.git", tmp_path / "unreachable")
    assert "secret" not in str(refused.value)
