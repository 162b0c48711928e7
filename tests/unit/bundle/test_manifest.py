"""The bundle's rules, each by name, and the format that both ends must agree on."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.bundle.manifest import EXECUTABLE_MODE, FILE_MODE, PART_SIZE, FileEntry, Manifest, diff
from ashat.bundle.rules import DEPTH_LIMIT, path_refusal
from ashat.common.canonical_json import canonical_json
from ashat.errors import ManifestError

A, B = "a" * 64, "b" * 64


def entry(
    path: str, *, size: int = 1, mode: int = FILE_MODE, sha256: str = A, parts: tuple[str, ...] = ()
) -> FileEntry:
    return FileEntry(path, size, mode, sha256, parts)


def check_path(path: str) -> None:
    if refusal := path_refusal(path, windows=True):
        raise ManifestError(refusal.text)


def check_paths(paths: list[str]) -> None:
    Manifest.from_files(map(entry, paths))


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
        (canonical_json({"format": "ashat-bundle/3", "modules": {}}), "this version reads"),
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


@pytest.mark.parametrize(
    "letter",
    "\u202e\u2066\u200f\u061c\u0085\u2028\u2029\u200b\u00ad\ufeff\u3164\ufe0f\u2800\U000e0041",
)
def test_a_path_that_nobody_reads_as_it_is_is_refused_with_the_name_of_the_character(letter: str) -> None:
    with pytest.raises(ManifestError, match=f"holds U\\+{ord(letter):04X} .*; rename it") as refused:
        check_path(f"Modules/A/invoice{letter}fdp.exe")

    assert str(refused.value).isprintable()


def test_paths_are_held_against_each_other_wherever_they_stand() -> None:
    check_paths(["a b/x", "a/x", "a.b", "a-b/y", "ab", "a/b/c", "a/b.c"])
    for paths, said in (
        (["Dir/sub/a", "other", "dir/sub/b"], "'Dir' and 'dir' are equal|'dir' and 'Dir' are equal"),
        (["a/Sub/x", "a/b", "a/sub/y"], "'a/Sub' and 'a/sub' are|'a/sub' and 'a/Sub' are"),
        (["a/b/c/d", "a.x", "a/b"], "'a/b' is both a file and a directory"),
        (["A/b/c", "a.x", "a"], "are equal under case folding"),
        (["x/y", "x/y-z", "x/y"], "'x/y' is named twice"),
    ):
        for order in (paths, paths[::-1]):
            with pytest.raises(ManifestError, match=said):
                check_paths(order)


def test_a_tree_has_at_most_so_many_levels_and_directories() -> None:
    check_path("/".join("a" * DEPTH_LIMIT))
    with pytest.raises(ManifestError, match="is 65 names deep; a path has at most 64"):
        check_path("/".join("a" * (DEPTH_LIMIT + 1)))
    deep = [f"{number:04}/" + "a/" * 60 + "x" for number in range(1_640)]
    check_paths(deep[:1_639])
    with pytest.raises(ManifestError, match="has 100040 directories; at most 100000 are made"):
        check_paths(deep)


def test_a_manifest_beyond_the_limit_is_neither_made_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Manifest.from_files([entry("a"), entry("b")])
    raw = made.canonical
    monkeypatch.setattr("ashat.bundle.manifest.MANIFEST_LIMIT", len(raw) - 1)

    with pytest.raises(ManifestError, match=f"has {len(raw)} bytes; at most {len(raw) - 1} are read"):
        Manifest.parse(raw)
    with pytest.raises(ManifestError, match="list of the bundle's 2 files has"):
        _ = Manifest.from_files(made.files).digest


_NAMES = st.lists(st.text(st.sampled_from('abAZ."\\é😀[]{},: '), min_size=1, max_size=8), min_size=1, max_size=3)


@given(st.lists(st.tuples(_NAMES.map("/".join), st.integers(0, 3 * PART_SIZE)), max_size=5))
def test_what_is_written_is_read_back_and_nothing_else_is(files: list[tuple[str, int]]) -> None:
    try:
        made = Manifest.from_files(
            entry(path, size=size, parts=(B,) * (-(-size // PART_SIZE) if size > PART_SIZE else 0))
            for path, size in files
        )
    except ManifestError:
        return
    assert Manifest.parse(made.canonical) == made
    for at in range(0, len(made.canonical), 7):
        cut = made.canonical[:at] + made.canonical[at + 1 :]
        with suppress(ManifestError):
            assert Manifest.parse(cut).canonical == cut


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
