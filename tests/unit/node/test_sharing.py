"""What a release shares with those before it; no program and no damage reaches another release through that."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ashat.bundle.manifest import PART_SIZE, Manifest
from ashat.node.store import sharing, trees, written
from ashat.node.store.releases import Release, Releases
from ashat.node.store.sharing import MARK
from ashat.node.store.store import Store
from ashat.node.store.trees import read_tree
from tests.support.needs import SYSTEM_PYTHON, requires_reflinks, requires_root
from tests.unit.node.test_releases import contents, keep

UNCHANGED = ("raos.toml", "run.sh", "large", "Modules/Core/core.py")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "data" / "store") as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "Modules" / "Core").mkdir(parents=True)
    (root / "raos.toml").write_text("raos")
    (root / "Modules" / "Core" / "core.py").write_text("core")
    (root / "Modules" / "Core" / "empty").touch()
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "large").write_bytes(os.urandom(PART_SIZE + 12345))
    (root / "changes").write_text("0")
    (root / "link").symlink_to("large")
    return root


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, store: Store) -> list[str]:
    """The objects that were read from the store, and the files that were read to be hashed."""
    found: list[str] = []
    path_of, file_digest, sha256_of = store.path, sharing.hashlib.file_digest, trees.sha256_of

    def path(digest: str) -> Path:
        found.append(digest)
        return path_of(digest)

    def digest(file: object, name: str) -> object:
        found.append(str(file.name))  # type: ignore[attr-defined]
        return file_digest(file, name)  # type: ignore[arg-type]

    def of_tree(fd: int, block: memoryview) -> str:
        found.append(os.readlink(f"/proc/self/fd/{fd}"))
        return sha256_of(fd, block)

    monkeypatch.setattr(store, "path", path)
    monkeypatch.setattr(sharing.hashlib, "file_digest", digest)
    monkeypatch.setattr(trees, "sha256_of", of_tree)
    return found


def open_releases(store: Store, *, read_only: bool = True) -> Releases:
    releases = Releases(store.root.parent, store, read_only=read_only)
    releases.__dict__["shares_blocks"] = False
    return releases


def run_next(releases: Releases, store: Store, source: Path, number: int) -> tuple[Release, Manifest]:
    """Change a file of the source, and switch to it."""
    (source / "changes").write_text(str(number))
    manifest = keep(store, source)
    release = releases.materialise(manifest.digest)
    releases.link(release)
    os.utime(release.path, (number, number))
    return release, manifest


def inode(release: Release, name: str) -> int:
    return (release.path / name).lstat().st_ino


def test_what_did_not_change_is_shared_with_the_release_before_and_not_read(
    store: Store, source: Path, read: list[str]
) -> None:
    releases = open_releases(store)
    first, _ = run_next(releases, store, source, 1)
    read.clear()
    second, manifest = run_next(releases, store, source, 2)
    assert set(read) == {manifest.by_path["changes"].sha256, manifest.by_path["Modules/Core/empty"].sha256}
    for name in UNCHANGED:
        assert inode(second, name) == inode(first, name)
    assert inode(second, "changes") != inode(first, "changes")
    assert contents(second.path) == contents(source)
    assert read_tree(second.path, manifest).matches(manifest)
    for path in (store.root / "objects").rglob("*"):
        assert path.is_dir() or path.stat().st_nlink == 1
    read.clear()
    assert open_releases(store).materialise(second.bundle) == second
    assert open_releases(store).materialise(first.bundle) == first
    assert read == []


def test_files_are_shared_wherever_they_lie_and_through_releases_that_are_deleted(
    store: Store, source: Path, read: list[str]
) -> None:
    releases = open_releases(store)
    first, _ = run_next(releases, store, source, 1)
    (source / "large").rename(source / "moved")
    (source / "link").unlink()
    large = inode(first, "large")
    for number in range(2, 6):
        read.clear()
        release, manifest = run_next(releases, store, source, number)
        assert set(read) == {manifest.by_path["changes"].sha256, manifest.by_path["Modules/Core/empty"].sha256}
        assert inode(release, "moved") == large
        releases.prune([], 2)
    assert not first.path.exists()
    assert (release.path / "moved").stat().st_nlink == 2


def test_a_program_that_may_write_its_files_shares_none(store: Store, source: Path) -> None:
    releases = open_releases(store, read_only=False)
    first, before = run_next(releases, store, source, 1)
    second, _ = run_next(releases, store, source, 2)
    for release in (first, second):
        for path in release.path.rglob("*"):
            assert path.is_dir() or path.lstat().st_nlink == 1
    for name in UNCHANGED:
        (second.path / name).write_text("the program wrote this")
    assert read_tree(first.path, before).matches(before)
    assert not (first.path.parent / MARK).exists()


def written_in_place(path: Path) -> None:
    state = path.stat()
    with path.open("r+b") as file:
        file.write(b"!")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def replaced(path: Path) -> None:
    path.unlink()
    path.write_text("raos")


def replaced_by_a_link(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def gone(path: Path) -> None:
    path.unlink()


def writable(path: Path) -> None:
    path.chmod(0o664)


def anothers(path: Path) -> None:
    os.chown(path, 65534, 65534)


@pytest.mark.parametrize("name", ["raos.toml", "large"])
@pytest.mark.parametrize(
    "change",
    [
        written_in_place,
        replaced_by_a_link,
        gone,
        writable,
        pytest.param(anothers, marks=requires_root),
    ],
)
def test_a_file_that_was_touched_is_not_shared(
    store: Store, source: Path, change: Callable[[Path], None], name: str
) -> None:
    releases = open_releases(store)
    first, before = run_next(releases, store, source, 1)
    change(first.path / name)
    touched = (first.path / name).stat().st_ino if (first.path / name).exists() else 0
    second, manifest = run_next(releases, store, source, 2)
    assert read_tree(second.path, manifest).matches(manifest)
    assert contents(second.path) == contents(source)
    assert inode(second, name) != touched
    again = releases.materialise(first.bundle)
    assert read_tree(again.path, before).matches(before)


def test_a_file_of_the_same_bytes_that_this_node_did_not_write_is_read_first(
    store: Store, source: Path, read: list[str]
) -> None:
    releases = open_releases(store)
    first, _ = run_next(releases, store, source, 1)
    replaced(first.path / "raos.toml")
    read.clear()
    second, _ = run_next(releases, store, source, 2)
    assert len(read) == 3
    assert inode(second, "raos.toml") == inode(first, "raos.toml")


@pytest.mark.parametrize("damage", ["lost", "cut", "flipped", "foreign", "another start"])
def test_notes_that_are_not_whole_or_of_another_start_cost_time_only(
    store: Store, source: Path, damage: str, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = open_releases(store)
    first, _ = run_next(releases, store, source, 1)
    notes = store.root.parent / "release-files"
    raw = notes.read_bytes()
    assert stat.S_IMODE(notes.stat().st_mode) == 0o600
    if damage == "lost":
        notes.unlink()
    elif damage == "another start":
        monkeypatch.setattr(written, "_boot", lambda: b"another")
    else:
        notes.write_bytes({"cut": raw[:-40], "flipped": raw[:80] + b"!" + raw[81:], "foreign": b"{}"}[damage])
    read.clear()
    second, manifest = run_next(releases, store, source, 2)
    assert len(read) == 2 + len(UNCHANGED)
    assert inode(second, "large") == inode(first, "large")
    assert read_tree(second.path, manifest).matches(manifest)


def test_without_that_user_every_release_gets_files_of_its_own(store: Store, source: Path) -> None:
    first, before = run_next(open_releases(store), store, source, 1)
    second, after = run_next(open_releases(store), store, source, 2)
    assert (first.path.parent / MARK).exists()
    releases = open_releases(store, read_only=False)
    assert not (first.path.parent / MARK).exists()
    for release, manifest in ((first, before), (second, after)):
        assert read_tree(release.path, manifest).matches(manifest)
        for path in release.path.rglob("*"):
            assert path.is_dir() or path.lstat().st_nlink == 1
    (second.path / "large").write_text("the program wrote this")
    assert releases.materialise(first.bundle) == first


def test_a_filesystem_that_makes_no_more_names_gets_copies(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = open_releases(store)
    first, _ = run_next(releases, store, source, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))

    monkeypatch.setattr(sharing.os, "link", full)
    second, manifest = run_next(releases, store, source, 2)
    assert inode(second, "large") != inode(first, "large")
    assert read_tree(second.path, manifest).matches(manifest)


def test_a_build_that_is_broken_off_leaves_the_other_releases_known(
    store: Store, source: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = open_releases(store)
    run_next(releases, store, source, 1)
    with monkeypatch.context() as broken:
        broken.setattr(os, "symlink", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            run_next(releases, store, source, 2)
    assert len(releases.directories(run_next(releases, store, source, 1)[0].bundle)) == 1
    read.clear()
    run_next(releases, store, source, 2)
    assert len(read) == 2


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    """A filesystem whose files share blocks until one is written."""
    image, place = tmp_path / "image", tmp_path / "xfs"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(400 * 1024 * 1024)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


@requires_reflinks
def test_clones_are_not_read_take_no_room_and_are_each_programs_own(xfs: Path, source: Path) -> None:
    (source / "large").write_bytes(os.urandom(8 * PART_SIZE))
    with Store(xfs / "data" / "store") as store:
        releases = Releases(xfs / "data", store)
        assert releases.shares_blocks
        first, before = run_next(releases, store, source, 1)
        read = []
        path_of = store.path
        store.path = lambda digest: (read.append(digest), path_of(digest))[1]  # type: ignore[method-assign]
        os.sync()
        free = os.statvfs(xfs).f_bfree
        second, after = run_next(releases, store, source, 2)
        os.sync()
        assert (free - os.statvfs(xfs).f_bfree) * os.statvfs(xfs).f_bsize < PART_SIZE
        assert set(read) == {after.by_path["changes"].sha256, after.by_path["Modules/Core/empty"].sha256}
        for name in UNCHANGED:
            assert inode(second, name) != inode(first, name)
        with (second.path / "large").open("r+b") as file:
            file.write(b"the program wrote this")
        assert read_tree(first.path, before).matches(before)
        third, manifest = run_next(releases, store, source, 3)
        assert read_tree(third.path, manifest).matches(manifest)
        assert contents(third.path) == contents(source)


_ATTACK = """
import os, sys
place = sys.argv[1]
tries = {
    "write": lambda: open(place, "r+b"),
    "append": lambda: open(place, "ab"),
    "truncate": lambda: os.truncate(place, 0),
    "mode": lambda: os.chmod(place, 0o777),
    "times": lambda: os.utime(place, (1, 1)),
    "remove": lambda: os.unlink(place),
    "replace": lambda: os.rename(place, place + ".old"),
    "beside": lambda: open(place + ".new", "xb"),
    "owner": lambda: os.chown(place, os.getuid(), os.getgid()),
}
for name, attack in tries.items():
    try:
        attack()
    except OSError:
        continue
    print(name)
assert open(place, "rb").read(1)
"""


@requires_root
def test_that_user_can_change_nothing_that_is_shared(source: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        data = Path(directory, "data")
        with Store(data / "store") as store:
            data.chmod(0o711)
            releases = open_releases(store)
            first, before = run_next(releases, store, source, 1)
            second, after = run_next(releases, store, source, 2)
            for name in UNCHANGED:
                done = subprocess.run(
                    [SYSTEM_PYTHON, "-I", "-c", _ATTACK, str(second.path / name)],
                    user=65534,
                    group=65534,
                    extra_groups=[],
                    cwd="/",
                    capture_output=True,
                    text=True,
                )
                assert (done.returncode, done.stdout) == (0, ""), done.stderr
            for release, manifest in ((first, before), (second, after)):
                assert read_tree(release.path, manifest).matches(manifest)
