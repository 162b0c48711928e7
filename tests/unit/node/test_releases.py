"""Releases as directories: copies that match their manifest, one link, and nothing in the store that they can reach."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.bundle.manifest import PART_SIZE, Manifest
from ashat.bundle.pack import pack_directory
from ashat.errors import IntegrityError, NotStoredError
from ashat.node.context import open_node
from ashat.node.core.config import NodeConfig
from ashat.node.maintenance import collect, needed_bundles
from ashat.node.operations import records
from ashat.node.store import releases as materialise
from ashat.node.store.releases import Release, Releases
from ashat.node.store.store import Store
from ashat.node.store.trees import read_tree
from ashat.protocol.frames import frame_header
from ashat.protocol.messages import OperationRequest


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "data" / "store") as opened:
        yield opened


@pytest.fixture
def releases(tmp_path: Path, store: Store) -> Releases:
    return Releases(tmp_path / "data", store)


def keep(store: Store, source: Path) -> Manifest:
    """Put a directory into the store, as a push would."""
    with pack_directory(source) as packed, store.receive() as incoming:
        for digest, size in packed.manifest.objects.items():
            incoming.feed([frame_header(digest, size), packed.read_object(digest)])
        incoming.finish()
        manifest, _ = store.put_manifest(packed.manifest.canonical, packed.manifest.digest)
    return manifest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Small, empty, executable and large files; two of them with the same content."""
    root = tmp_path / "source"
    (root / "Modules" / "Core").mkdir(parents=True)
    (root / "Modules" / "Core" / "core.py").write_text("core")
    (root / "Modules" / "Core" / "same.py").write_text("core")
    (root / "empty").touch()
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "large").write_bytes(os.urandom(2 * PART_SIZE + 12345))
    (root / "Modules" / "Alias").symlink_to("Core")
    (root / "start").symlink_to("Modules/Alias/../../run.sh")
    (root / "nowhere").symlink_to("Modules/gone")
    (root / "logs" / "old").mkdir(parents=True)
    return root


def contents(root: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(root)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            stat.S_IMODE(path.stat().st_mode),
        )
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_release_is_the_source_file_by_file_and_shares_nothing_with_the_store(
    releases: Releases, store: Store, source: Path, tmp_path: Path
) -> None:
    manifest = keep(store, source)
    old_mask = os.umask(0o077)
    try:
        release = releases.materialise(manifest.digest)
    finally:
        os.umask(old_mask)
    assert release == Release(manifest.digest, tmp_path / "data" / "releases" / manifest.digest)
    assert contents(release.path) == contents(source)
    for path in release.path.rglob("*"):
        assert path.is_dir() or path.lstat().st_nlink == 1
    assert stat.S_IMODE((release.path / "Modules" / "Core").stat().st_mode) == 0o755
    assert {link.path: os.readlink(release.path / link.path) for link in manifest.links} == {
        "Modules/Alias": "Core",
        "start": "Modules/Alias/../../run.sh",
        "nowhere": "Modules/gone",
    }
    assert list((release.path / "logs" / "old").iterdir()) == []
    assert read_tree(release.path, manifest).matches(manifest)
    assert [path.name for path in release.path.parent.iterdir()] == [manifest.digest]


@pytest.mark.parametrize(
    "damage", ["content", "mode", "missing", "extra", "link", "target", "link-gone", "link-file", "no-dir", "more-dir"]
)
def test_a_directory_that_differs_is_left_and_built_again_under_its_next_name(
    releases: Releases, store: Store, source: Path, damage: str
) -> None:
    manifest = keep(store, source)
    first = releases.materialise(manifest.digest)
    assert releases.materialise(manifest.digest) == first
    releases.link(first)
    target = first.path / "run.sh"
    if damage == "content":
        target.write_text("#!/bin/hs\n")
    elif damage == "mode":
        target.chmod(0o644)
    elif damage == "missing":
        target.unlink()
    elif damage == "extra":
        (first.path / "new").touch()
    elif damage == "no-dir":
        (first.path / "logs" / "old").rmdir()
    elif damage == "more-dir":
        (first.path / "logs" / "new").mkdir()
    elif damage in ("target", "link-gone", "link-file"):
        (first.path / "Modules" / "Alias").unlink()
        if damage == "target":
            (first.path / "Modules" / "Alias").symlink_to("Cora")
        if damage == "link-file":
            (first.path / "Modules" / "Alias").write_text("Core")
    else:
        target.unlink()
        target.symlink_to(source / "run.sh")
    again = releases.materialise(manifest.digest)
    assert again.path.name == f"{manifest.digest}.1"
    assert contents(again.path) == contents(source)
    assert first.path.exists()
    assert releases.linked() == first
    releases.link(again)
    assert releases.linked() == again
    releases.prune([], 1)
    assert [path.name for path in first.path.parent.iterdir()] == [again.path.name]
    assert releases.materialise(manifest.digest) == again


def test_other_bytes_are_found_though_size_and_time_were_set_back(
    releases: Releases, store: Store, source: Path
) -> None:
    manifest = keep(store, source)
    first = releases.materialise(manifest.digest)
    target = first.path / "run.sh"
    before = target.stat()
    target.write_text("#!/bin/hs\n")
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = target.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (before.st_ino, before.st_size, before.st_mtime_ns)
    again = releases.materialise(manifest.digest)
    assert again.path != first.path
    assert contents(again.path) == contents(source)


def test_damage_in_the_store_never_becomes_a_release(
    releases: Releases, store: Store, source: Path, tmp_path: Path
) -> None:
    manifest = keep(store, source)
    damaged = store.path(manifest.by_path["run.sh"].sha256)
    damaged.chmod(0o644)
    damaged.write_text("#!/bin/hs\n")
    with pytest.raises(IntegrityError, match=r"'run\.sh'"):
        releases.materialise(manifest.digest)
    assert not damaged.exists()
    with pytest.raises(NotStoredError):
        releases.materialise(manifest.digest)
    with pytest.raises(NotStoredError):
        releases.materialise("f" * 64)
    assert list((tmp_path / "data" / "releases").iterdir()) == []
    assert releases.unverified(manifest.digest) is None


def test_what_a_full_disk_leaves_is_taken_away(
    releases: Releases, store: Store, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = keep(store, source)
    written = materialise._write_all

    def full(fd: int, data: memoryview) -> None:
        written(fd, data[:1])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(materialise, "_clone", lambda *_: False)
    monkeypatch.setattr(materialise, "_write_all", full)
    with pytest.raises(OSError, match="No space left"):
        releases.materialise(manifest.digest)
    assert list((tmp_path / "data" / "releases").iterdir()) == []


def test_the_link_is_relative_and_replaced_in_one_step(
    releases: Releases, store: Store, source: Path, tmp_path: Path
) -> None:
    link = tmp_path / "data" / "current"
    assert releases.linked() is None
    releases.link(None)
    release = releases.materialise(keep(store, source).digest)
    releases.link(release)
    assert os.readlink(link) == f"releases/{release.bundle}"
    (source / "more").write_text("more")
    other = releases.materialise(keep(store, source).digest)
    releases.link(other)
    assert releases.linked() == other
    assert sorted(path.name for path in link.parent.iterdir()) == ["current", "release-files", "releases", "store"]
    releases.link(None)
    assert releases.linked() is None
    link.symlink_to("/etc")
    assert releases.linked() is None


def test_pruning_keeps_the_current_the_named_and_the_newest(
    releases: Releases, store: Store, source: Path, tmp_path: Path
) -> None:
    made = []
    for number in range(5):
        (source / "number").write_text(str(number))
        release = releases.materialise(keep(store, source).digest)
        os.utime(release.path, (number, number))
        made.append(release)
    root = tmp_path / "data" / "releases"
    (root / "operators-own").mkdir()
    (root / ".building-left").mkdir()
    releases.link(made[0])
    releases.prune([made[1].bundle], 3)
    kept = {path.name for path in root.iterdir()}
    assert kept == {made[0].bundle, made[1].bundle, made[4].bundle, "operators-own"}
    releases.prune([made[1].bundle], 2)
    assert {path.name for path in root.iterdir()} == {made[0].bundle, made[1].bundle, "operators-own"}


def test_the_store_drops_what_nobody_needs_any_more(tmp_path: Path, source: Path) -> None:
    config = NodeConfig.load(role="public", data=tmp_path / "node", keep_days=1)
    with open_node(config) as node:
        bundles = []
        for number in range(5):
            (source / "number").write_text(str(number))
            bundles.append(keep(node.store, source).digest)
        unused, previous, current, offered, young = bundles
        for running, bundle in ((None, previous), (previous, current)):
            request = OperationRequest(
                action="switch", bundle=bundle, expected_current=running, update_id="UPD-1", attempt=1
            )
            with node.db.transaction() as connection:
                records.begin(connection, bundle[:8], request, running=running, release_seq=None)
            assert needed_bundles(node) >= {bundle}
            operation = records.find(node.db, bundle[:8])
            assert operation is not None
            records.succeed(node.db, operation)
        node.keep.append(lambda: [offered])
        old = time.time() - 2 * 86400
        for bundle in (unused, previous, current, offered):
            os.utime(node.store.root / "bundles" / bundle, (old, old))
        assert needed_bundles(node) == {previous, current, offered}
        collect(node)
        assert set(node.store.bundles()) == {previous, current, offered, young}
