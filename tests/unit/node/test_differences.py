"""What was done to a release's files is found by the node: bytes, modes, what is missing, and what was added."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ashat.bundle.manifest import Manifest
from ashat.bundle.pack import pack_directory
from ashat.node.store.differences import NAMES, compare_release
from ashat.protocol.probes import ReleaseProbe

KINDS = ("changed", "missing", "modes", "extra", "cached", "unread")


@pytest.fixture
def release(tmp_path: Path) -> tuple[Path, Manifest]:
    root = tmp_path / "release"
    (root / "pkg" / "inner").mkdir(parents=True)
    (root / "pkg" / "__init__.py").write_text("A = 1\n")
    (root / "pkg" / "inner" / "data.bin").write_bytes(bytes(3_000_000))
    (root / "main.py").write_text("print(1)\n")
    (root / "latest").symlink_to("main.py")
    with pack_directory(root) as packed:
        return root, packed.manifest


def found(probe: ReleaseProbe) -> dict[str, list[str]]:
    return {kind: getattr(probe, kind).names for kind in KINDS if getattr(probe, kind).count}


def test_an_untouched_release_differs_in_nothing(release: tuple[Path, Manifest]) -> None:
    probe = compare_release(*release, 30)
    assert (found(probe), probe.files, probe.bytes, probe.left, probe.walked) == ({}, 3, 3_000_015, 0, True)


def test_each_kind_of_difference_is_named(release: tuple[Path, Manifest]) -> None:
    root, manifest = release
    (root / "main.py").write_text("print(2)\n")
    (root / "latest").unlink()
    (root / "latest").symlink_to("pkg")
    (root / "pkg" / "__init__.py").unlink()
    (root / "pkg" / "inner").chmod(0o777)
    (root / "pkg" / "inner" / "data.bin").chmod(0o666)
    (root / "uploads").mkdir()
    (root / "uploads" / "a\nb").write_text("kept here")
    os.mkfifo(root / "pipe")
    assert {kind: sorted(names) for kind, names in found(compare_release(root, manifest, 30)).items()} == {
        "changed": ["latest", "main.py"],
        "missing": ["pkg/__init__.py"],
        "modes": ["pkg/inner/", "pkg/inner/data.bin"],
        "extra": ["pipe", "uploads/", "uploads/a b"],
    }


def test_a_flipped_bit_and_another_kind_of_entry_are_changes(release: tuple[Path, Manifest]) -> None:
    root, manifest = release
    with open(root / "pkg" / "inner" / "data.bin", "r+b") as file:
        file.seek(2_999_999)
        file.write(b"\1")
    (root / "main.py").unlink()
    (root / "main.py").mkdir()
    assert found(compare_release(root, manifest, 30)) == {"changed": ["main.py", "pkg/inner/data.bin"]}


def test_what_python_keeps_of_the_releases_own_modules_is_no_extra(release: tuple[Path, Manifest]) -> None:
    root, manifest = release
    for folder, names in {
        "__pycache__": ("main.cpython-313.pyc", "other.cpython-313.pyc", "main.txt"),
        "pkg/__pycache__": ("__init__.cpython-313.opt-1.pyc",),
        "tmp/__pycache__": (),
    }.items():
        (root / folder).mkdir(parents=True)
        for name in names:
            (root / folder / name).write_bytes(b"\0")
    probe = compare_release(root, manifest, 30)
    assert sorted(probe.cached.names) == [
        "__pycache__/",
        "__pycache__/main.cpython-313.pyc",
        "pkg/__pycache__/",
        "pkg/__pycache__/__init__.cpython-313.opt-1.pyc",
    ]
    assert sorted(probe.extra.names) == [
        "__pycache__/main.txt",
        "__pycache__/other.cpython-313.pyc",
        "tmp/",
        "tmp/__pycache__/",
    ]


def test_many_are_counted_and_the_first_named(release: tuple[Path, Manifest]) -> None:
    root, manifest = release
    for number in range(3 * NAMES):
        (root / f"left-{number}").touch()
    extra = compare_release(root, manifest, 30).extra
    assert (extra.count, len(extra.names)) == (3 * NAMES, NAMES)


def test_what_the_time_did_not_suffice_for_is_said(release: tuple[Path, Manifest]) -> None:
    probe = compare_release(*release, 0)
    assert (found(probe), probe.walked, probe.left) == ({}, False, 4)
