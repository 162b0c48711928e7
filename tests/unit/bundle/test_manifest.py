"""The bundle's rules, each by name, and the format that both ends must agree on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.bundle.manifest import (
    EXECUTABLE_MODE,
    FILE_MODE,
    PART_SIZE,
    FileEntry,
    Manifest,
    check_path,
    check_paths,
    diff,
)
from ashat.common.canonical_json import canonical_json
from ashat.errors import ManifestError

A, B = "a" * 64, "b" * 64


def entry(
    path: str, *, size: int = 1, mode: int = FILE_MODE, sha256: str = A, parts: tuple[str, ...] = ()
) -> FileEntry:
    return FileEntry(path, size, mode, sha256, parts)


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("", "absolute or empty"),
        ("/etc/passwd", "absolute or empty"),
        ("../up", "'..' part"),
        ("a/../b", "'..' part"),
        ("a/./b", "'..' part"),
        ("a//b", "'..' part"),
        ("a/", "'..' part"),
        ("cafe\u0301", "normal form C"),
        ("a\udc80b", "UTF-8"),
        ("a\\b", "Windows"),
        ("C:/x", "Windows"),
        ("a\nb", "control character"),
        ("a\x7fb", "control character"),
        ("what?", "Windows"),
        ("con", "reserved name"),
        ("Modules/A/NUL.txt", "reserved name"),
        ("lpt1", "reserved name"),
        ("com¹.log", "reserved name"),
        ("dot.", "end in a dot"),
        ("space ", "end in a dot or a space"),
        ("n" * 256, "at most 255 bytes"),
        ("/".join(["d" * 200] * 6), "at most 1024"),
    ],
)
def test_a_path_is_refused_by_the_rule_it_breaks(path: str, rule: str) -> None:
    with pytest.raises(ManifestError, match=rule):
        check_path(path)


@pytest.mark.parametrize("path", ["a", "Modules/Auth/auth.dll", "ünï/cödé", ".hidden", "console", "com10", "a b/c.d"])
def test_a_plain_path_is_accepted(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    ("paths", "rule"),
    [
        ([], "empty"),
        (["a", "a"], "named twice"),
        (["Readme", "README"], "equal under case folding"),
        (["Dir/a", "dir/b"], "equal under case folding"),
        (["straße", "STRASSE"], "equal under case folding"),
        (["\u01c5", "\u01c6"], "equal under case folding"),
        (["a", "a/b"], "both a file and a directory"),
    ],
)
def test_paths_that_cannot_lie_side_by_side_are_refused(paths: list[str], rule: str) -> None:
    with pytest.raises(ManifestError, match=rule):
        check_paths(paths)


def manifest_json(**changes: Any) -> bytes:
    file: dict[str, Any] = {"path": "Modules/A/a", "size": 1, "mode": FILE_MODE, "sha256": A} | changes
    return canonical_json({"format": "ashat-bundle/1", "modules": {"A": [file]}})


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        (b"", "not JSON"),
        (b"[]", "'format' and 'modules'"),
        (b"[" * 100_000, "not JSON"),
        (canonical_json({"format": "ashat-bundle/2", "modules": {}}), "this version reads"),
        (canonical_json({"format": "ashat-bundle/1", "modules": []}), "must be an object"),
        (canonical_json({"format": "ashat-bundle/1", "modules": {"A": {}}}), "must be a list"),
        (canonical_json({"format": "ashat-bundle/1", "modules": {}}), "empty"),
        (manifest_json(path=7), "a path is a string"),
        (manifest_json(path="../x"), "'..' part"),
        (manifest_json(size=-1), "number of bytes"),
        (manifest_json(size=True), "number of bytes"),
        (manifest_json(mode=0o777), "mode must be"),
        (manifest_json(mode=0o4755), "mode must be"),
        (manifest_json(sha256="A" * 64), "64 lower-case hex"),
        (manifest_json(owner="root"), "must have path"),
        (manifest_json(parts=[]), "not empty"),
        (manifest_json(parts=[B]), "come in 0 parts"),
        (manifest_json(size=PART_SIZE + 1), "come in 2 parts"),
        (manifest_json(size=PART_SIZE + 1, parts=[B]), "come in 2 parts"),
        (manifest_json(size=PART_SIZE + 1, parts=[B, "zz"]), "come in 2 parts"),
        (manifest_json() + b"\n", "canonical form"),
        (manifest_json().replace(b'"A":[', b'"B":['), "canonical form"),
    ],
)
def test_a_manifest_is_refused_by_the_rule_it_breaks(raw: bytes, rule: str) -> None:
    with pytest.raises(ManifestError, match=rule):
        Manifest.parse(raw)


def test_the_digest_of_a_known_bundle_never_changes() -> None:
    manifest = Manifest.from_files(
        [
            entry("raos.toml", size=3, sha256=B),
            entry("Modules/Auth/run", mode=EXECUTABLE_MODE),
            entry("Modules/Auth/big", size=PART_SIZE + 1, parts=(A, B)),
        ]
    )
    assert manifest.digest == hashlib.sha256(manifest.canonical).hexdigest()
    assert json.loads(manifest.canonical) == {
        "format": "ashat-bundle/1",
        "modules": {
            "": [{"path": "raos.toml", "size": 3, "mode": 420, "sha256": B}],
            "Auth": [
                {"path": "Modules/Auth/big", "size": PART_SIZE + 1, "mode": 420, "sha256": A, "parts": [A, B]},
                {"path": "Modules/Auth/run", "size": 1, "mode": 493, "sha256": A},
            ],
        },
    }
    assert manifest.digest == "82e99963f26367e16cae0dde0f88f6b999aea6730651305adb05e1e549ae7a5d"


NAMES = st.text(alphabet="abcXYZ019._-éß ", min_size=1, max_size=8)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def accepted(paths: list[str]) -> bool:
    try:
        check_paths(paths)
    except ManifestError:
        return False
    return True


@given(st.lists(PATHS, min_size=1, max_size=6).filter(accepted), st.randoms())
def test_a_manifest_survives_the_wire_and_the_order_it_was_made_in(paths: list[str], random: Any) -> None:
    files = [entry(path, size=index, mode=(FILE_MODE, EXECUTABLE_MODE)[index % 2]) for index, path in enumerate(paths)]
    manifest = Manifest.from_files(files)
    random.shuffle(files)
    assert Manifest.from_files(files).canonical == manifest.canonical
    assert Manifest.parse(manifest.canonical) == manifest


@pytest.mark.parametrize(
    "changed", [entry("a", sha256=B), entry("a", size=2), entry("a", mode=EXECUTABLE_MODE), entry("b")]
)
def test_any_change_of_a_file_changes_the_digest(changed: FileEntry) -> None:
    assert Manifest.from_files([changed]).digest != Manifest.from_files([entry("a")]).digest


def test_a_difference_names_what_was_added_removed_and_changed() -> None:
    old = Manifest.from_files([entry("Modules/A/same"), entry("Modules/A/gone"), entry("Modules/B/new"), entry("run")])
    new = Manifest.from_files(
        [
            entry("Modules/A/same"),
            entry("Modules/B/new", sha256=B),
            entry("Modules/C/more"),
            entry("run", mode=EXECUTABLE_MODE),
        ]
    )
    found = diff(old, new)
    assert (found.added, found.removed) == (("Modules/C/more",), ("Modules/A/gone",))
    assert (found.changed, found.mode_changed) == (("Modules/B/new",), ("run",))
    assert found.by_module() == {
        "": {"added": 0, "removed": 0, "changed": 1},
        "A": {"added": 0, "removed": 1, "changed": 0},
        "B": {"added": 0, "removed": 0, "changed": 1},
        "C": {"added": 1, "removed": 0, "changed": 0},
    }
    assert diff(new, new).empty
    assert diff(None, new).added == tuple(sorted(new.by_path))


def test_objects_are_counted_once_and_parts_have_their_sizes() -> None:
    manifest = Manifest.from_files(
        [entry("a", size=5), entry("b", size=5), entry("c", size=PART_SIZE + 7, sha256=B, parts=("c" * 64, "d" * 64))]
    )
    assert manifest.objects == {A: 5, "c" * 64: PART_SIZE, "d" * 64: 7}
    assert manifest.size == 10 + PART_SIZE + 7
