"""What a tree may hold: links that stay inside it however they are followed, and all that is wrong told at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ashat.bundle.manifest import FILE_MODE, FileEntry, Manifest, diff
from ashat.bundle.pack import pack_directory
from ashat.bundle.rules import (
    DEPTH_LIMIT,
    LINKS_IN_A_ROW,
    LINKS_LIMIT,
    NAMES_SHOWN,
    Kind,
    LinkEntry,
    followed,
    path_refusal,
    tree_refusals,
)
from ashat.errors import BundleError, ManifestError

Links = dict[str, str]


def made(links: Links, *paths: str, directories: tuple[str, ...] = (), windows_names: bool = True) -> Manifest:
    files = [FileEntry(path, 1, FILE_MODE, "a" * 64) for path in paths or ("raos.toml",)]
    entries = [LinkEntry(path, target) for path, target in links.items()]
    return Manifest.from_files(files, entries, directories, windows_names=windows_names)


@pytest.mark.parametrize(
    "links",
    [
        {"node_modules/.bin/tool": "../tool/cli.js"},
        {"lib64": "lib"},
        {"lib/libx.so": "libx.so.1", "lib/libx.so.1": "libx.so.1.2"},
        {"here": "."},
        {"a/b/up": "../.."},
        {"a/up": "../", "a/down": "up/a/../x//y/"},
        {"dangling": "nowhere/at/all"},
        {"one": "two", "two": "three", "three": "one"},
        {"itself": "itself"},
        {"round": "round/../../.."},
        {"ünï": "cödé"},
    ],
)
def test_links_that_stay_inside_are_carried_as_they_are(links: Links) -> None:
    manifest = made(links)
    assert {link.path: link.target for link in manifest.links} == links
    assert Manifest.parse(manifest.canonical) == manifest


@pytest.mark.parametrize(
    ("links", "telling"),
    [
        ({"a": "/etc/passwd"}, "absolute path"),
        ({"a": "//x"}, "absolute path"),
        ({"a": ".."}, "leads out of the tree"),
        ({"d/a": "../../x"}, "leads out of the tree"),
        ({"a": "x/../.."}, "leads out of the tree"),
        ({"a": "missing/../../RELEASE/../../x"}, "leads out of the tree"),
        ({"d/up": "..", "x": "d/up/.."}, "'x' is a symbolic link to 'd/up/..', which leads out of the tree"),
        ({"d/up": "..", "x": "D/UP/.."}, "leads out of the tree"),
        ({"e/f/g": "../..", "b": "e/f", "c": "b/g/.."}, "leads out of the tree"),
        ({"a": "b", "b": "c", "c": "../out"}, "3 symbolic links that lead out of the tree"),
        ({"a": ""}, "to nothing"),
        ({"a": "x\0y"}, "to nothing"),
        ({"a": "x\ny"}, "control character"),
        ({"a": "cafe\u0301"}, "normal form C"),
        ({"a": "x\u202ey"}, "nobody sees"),
        ({"a": "C:\\x"}, "Windows"),
        ({"a": "aux/x"}, "reserved name"),
        ({"a": "x" * 1025}, "at most 1024"),
        ({"a": "../" * 200}, "more than 128 names"),
        ({"a": "b", "A": "c"}, "equal under case folding"),
        ({"RAOS.toml": "x"}, "equal under case folding"),
        ({"raos.toml": "x"}, "named twice"),
        ({"aux": "x"}, "reserved name"),
    ],
)
def test_links_that_leave_by_any_way_are_refused(links: Links, telling: str) -> None:
    with pytest.raises(ManifestError, match=telling):
        made(links)
    files = [FileEntry("raos.toml", 1, FILE_MODE, "a" * 64)]
    forged = Manifest.unchecked(files, (LinkEntry(*link) for link in links.items()), ())
    with pytest.raises(ManifestError):
        Manifest.parse(forged.canonical)


def test_nothing_stands_below_a_link() -> None:
    for links, paths in (({"a": ".."}, ("a/x",)), ({"a": "b"}, ("a/x", "b/y")), ({"A": "b"}, ("a/x",))):
        with pytest.raises(ManifestError):
            made(links, *paths)
    with pytest.raises(ManifestError, match="both"):
        made({"a": "b", "a/x": "../b"})
    with pytest.raises(ManifestError, match="both"):
        made({}, "d/x", directories=("d",))
    with pytest.raises(ManifestError, match="both"):
        made({"a": "b"}, directories=("a/d",), windows_names=False)


def test_a_chain_has_an_end() -> None:
    chain = {f"l{number}": f"l{number + 1}" for number in range(LINKS_IN_A_ROW + 1)}
    assert len(made(chain).links) == LINKS_IN_A_ROW + 1
    with pytest.raises(ManifestError, match=f"'l00' is .* over more than {LINKS_IN_A_ROW} others"):
        made(chain | {"l00": "l0/x"})
    wide = {f"w{number:05}": f"w{number + 1:05}" for number in range(LINKS_LIMIT)}
    refusals = tree_refusals([], [LinkEntry(*link) for link in wide.items()], [], windows=True)
    assert refusals.counts == {Kind.CHAIN: LINKS_LIMIT - LINKS_IN_A_ROW - 1}
    with pytest.raises(ManifestError, match=f"has {LINKS_LIMIT + 1} symbolic links; at most {LINKS_LIMIT}"):
        made(wide | {"more": "x"})


_NAMES = st.sampled_from(["a", "b", "c", "..", "."])
_PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
_TARGETS = st.lists(_NAMES, min_size=1, max_size=5).map("/".join)


@given(links=st.dictionaries(_PATHS, _TARGETS, max_size=5), files=st.sets(_PATHS, max_size=3), asked=_PATHS)
def test_the_kernel_follows_every_link_to_where_the_rules_say(
    links: Links, files: set[str], asked: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    try:
        manifest = made(links, "raos.toml", *files)
    except ManifestError:
        return
    root = tmp_path_factory.mktemp("tree").resolve()
    for folder in manifest.folders:
        (root / folder).mkdir(exist_ok=True)
    for file in manifest.files:
        (root / file.path).touch()
    for link in manifest.links:
        (root / link.path).symlink_to(link.target)
    for path in (*links, asked):
        try:
            reached = os.path.relpath(os.path.realpath(root / path, strict=True), root)
        except OSError:
            continue
        assert not reached.startswith("..")
        assert (followed(manifest.links, path) or ".") == reached
    with pack_directory(root) as packed:
        assert packed.manifest.links == manifest.links


def test_names_for_windows_are_a_rule_of_their_own() -> None:
    names = ("a:b.3pm", "x\\x2dy", "con", "dot.", "linux/xt_MARK.h", "linux/xt_mark.h")
    with pytest.raises(ManifestError, match="5 paths") as refused:
        made({}, *names)
    assert "4 names that Windows cannot hold" in str(refused.value)
    assert "1 names that differ from others only in case" in str(refused.value)
    manifest = made({}, *names, windows_names=False)
    assert Manifest.parse(manifest.canonical, windows_names=False) == manifest
    for path in ("a\nb", "../x", "a//b", "cafe\u0301", "n" * 256):
        assert path_refusal(path, windows=False), path


def test_all_that_is_wrong_is_told_at_once_by_kind(tmp_path: Path) -> None:
    (tmp_path / "raos.toml").touch()
    for number in range(107):
        (tmp_path / f"out{number:03}").symlink_to(f"../elsewhere/{number}")
    (tmp_path / "absolute").symlink_to("/etc/passwd")
    (tmp_path / "aux.c").touch()
    (tmp_path / "RAOS.toml").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / os.fsdecode(b"caf\xe9")).touch()
    with pytest.raises(BundleError) as refused:
        pack_directory(tmp_path)
    lines = str(refused.value).splitlines()
    assert lines[0] == "The tree holds 112 paths that a bundle cannot hold:"
    assert lines[1].startswith("  107 symbolic links that lead out of the tree;")
    assert lines[1].endswith(f"'out000', 'out001', 'out002', 'out003', 'out004' and {107 - NAMES_SHOWN} more")
    told = "\n".join(lines[2:])
    for name in ("'absolute'", "'aux.c'", "'pipe'", "'raos.toml' as 'RAOS.toml'", "caf"):
        assert name in told
    assert len(lines) == 7
    with pytest.raises(BundleError) as refused:
        pack_directory(tmp_path, windows_names=False)
    assert "aux.c" not in str(refused.value)


def test_a_tree_deeper_than_the_system_names_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "raos.toml").touch()
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("deeper" * 10, dir_fd=here)
        below = os.open("deeper" * 10, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(BundleError) as refused:
        pack_directory(tmp_path)
    assert "bytes long" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_tree_with_too_many_levels_is_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "raos.toml").touch()
    deep = tmp_path.joinpath(*["d"] * (DEPTH_LIMIT - 1))
    deep.mkdir(parents=True)
    (deep / "file").touch()
    pack_directory(tmp_path).close()
    (deep / "d").mkdir()
    with pytest.raises(BundleError, match=f"names deep; a path has at most {DEPTH_LIMIT}"):
        pack_directory(tmp_path)


def test_empty_directories_are_carried_and_change_the_digest(tmp_path: Path) -> None:
    (tmp_path / "raos.toml").touch()
    plain = pack_directory(tmp_path).manifest
    (tmp_path / "logs" / "old").mkdir(parents=True)
    (tmp_path / "cache" / "__pycache__").mkdir(parents=True)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "cache" / "kept").mkdir()
    (tmp_path / "left" / "by-a-branch" / "__pycache__").mkdir(parents=True)
    carried = pack_directory(tmp_path).manifest
    assert carried.directories == ("cache/kept", "logs/old")
    assert carried.folders == (".", "cache", "cache/kept", "logs", "logs/old")
    assert carried.without_directories().digest == plain.digest != carried.digest
    assert diff(plain, carried).added == ("cache/kept/", "logs/old/")


def test_a_difference_shows_links() -> None:
    old = made({"same": "x", "moved": "x", "gone": "x", "Modules/A/kind": "x"}, "raos.toml", "was")
    new = made({"same": "x", "moved": "y", "was": "raos.toml"}, "raos.toml", "Modules/A/kind")
    found = diff(old, new)
    assert (found.added, found.removed) == ((), ("gone",))
    assert found.changed == ("Modules/A/kind", "moved", "was")
    assert found.by_module()["A"]["changed"] == 1


def test_the_digest_of_a_bundle_with_links_never_changes() -> None:
    manifest = made({"Modules/A/link": "../../raos.toml", "top": "Modules"}, directories=("Modules/A/empty", "logs"))
    assert manifest.canonical.startswith(
        b'{"format":"ashat-bundle/2","modules":{"":[{"kind":"directory","path":"logs"}'
    )
    assert manifest.digest == "fbd934db25461dfc65ea82e912967ffd5a200aad24352a6a5f199cc859f2657c"


@pytest.mark.parametrize(
    "spelt",
    [
        b'{"kind":"link","path":"a"}',
        b'{"kind":"link","path":"a","target":7}',
        b'{"kind":"fifo","path":"a"}',
        b'{"kind":"directory","path":7}',
        b'{"kind":"directory","path":"a","target":"b"}',
        b'{"kind":"directory","path":"../a"}',
    ],
)
def test_an_entry_that_is_none_is_refused(spelt: bytes) -> None:
    raw = made({"a": "raos.toml"}).canonical
    entry = b'{"kind":"link","path":"a","target":"raos.toml"}'
    assert entry in raw
    with pytest.raises(ManifestError):
        Manifest.parse(raw.replace(entry, spelt))


def test_each_tree_has_one_spelling() -> None:
    plain = made({}).canonical
    with pytest.raises(ManifestError, match="canonical form"):
        Manifest.parse(plain.replace(b"ashat-bundle/1", b"ashat-bundle/2"))
    with pytest.raises(ManifestError, match="canonical form"):
        Manifest.parse(made({"a": "b"}).canonical.replace(b"ashat-bundle/2", b"ashat-bundle/1"))
