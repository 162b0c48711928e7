"""From an archive, a wheel or an OCI image to a bundle: what is packed, and what is refused by name."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import stat
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ashat.bundle.artifacts import spool
from ashat.bundle.artifacts.archives import CENTRAL_LIMIT
from ashat.bundle.artifacts.oci import DOCUMENT_LIMIT
from ashat.bundle.artifacts.pack import Wanted, is_artifact, pack_artifact, parse_digest
from ashat.bundle.artifacts.streams import HEADERS_LIMIT
from ashat.bundle.manifest import EXECUTABLE_MODE, PART_SIZE
from ashat.bundle.pack import Packed, pack_directory
from ashat.errors import BundleError, UsageError
from ashat.protocol.origins import Artifact
from tests.unit.bundle.test_pack import contents, files_of, make_source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": lambda content: bz2.compress(content, 1),
    "tar.xz": lambda content: lzma.compress(content, preset=0),
    "tar.zst": zstd.compress,
}


def packed_from(path: Path, **wanted: str) -> tuple[Packed, Artifact]:
    return pack_artifact(path, Wanted(**wanted))


def refusal(path: Path, **wanted: str) -> str:
    with pytest.raises((BundleError, UsageError)) as raised:
        packed_from(path, **wanted)
    return str(raised.value)


def tree(root: Path) -> Path:
    """The usual source, with a link and an empty directory."""
    made = make_source(root)
    (made / "latest").symlink_to("Modules/Auth")
    (made / "logs").mkdir()
    return made


def member(name: str, content: bytes = b"x", **changes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def tar_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return made.getvalue()


def zip_of(**files: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return made.getvalue()


def written(directory: Path, name: str, content: bytes) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=kind, linkname=target)


@pytest.mark.parametrize("kind", COMPRESS)
def test_a_tar_is_the_bundle_of_the_directory_that_was_put_into_it(kind: str, tmp_path: Path) -> None:
    source = tree(tmp_path)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.add(source, ".")
    path = written(tmp_path, f"app.{kind}", COMPRESS[kind](made.getvalue()))

    packed, artifact = packed_from(path)
    with packed:
        assert packed.manifest == pack_directory(source).manifest
        assert contents(packed) == files_of(source) | {}
        assert packed.manifest.by_path["run.sh"].mode == EXECUTABLE_MODE
        whole = packed.manifest.by_path["Modules/Chat/big"].objects()
        assert [size for _, size in whole] == [PART_SIZE, PART_SIZE, 123]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (artifact.kind, artifact.digest, artifact.size) == (kind, digest, path.stat().st_size)


def test_a_zip_is_the_bundle_of_the_directory_with_its_links_and_executable_bits(tmp_path: Path) -> None:
    source = tree(tmp_path)
    path = tmp_path / "app.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for found in sorted(source.rglob("*")):
            name = str(found.relative_to(source))
            if found.is_symlink():
                info = zipfile.ZipInfo(name)
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(info, os.readlink(found))
            else:
                archive.write(found, name)
    packed, artifact = packed_from(path)
    with packed:
        assert packed.manifest == pack_directory(source).manifest
        assert contents(packed) == files_of(source)
    assert artifact.kind == "zip"


def test_git_and_compiled_python_are_left_out_as_of_a_directory(tmp_path: Path) -> None:
    given = zip_of(**{"raos.toml": b"x", ".git/config": b"x", "a/__pycache__/b.pyc": b"x", "sub/.git": b"x"})
    packed, _ = packed_from(written(tmp_path, "a.zip", given))
    assert (set(packed.manifest.by_path), packed.manifest.directories) == ({"raos.toml"}, ())


def test_a_part_of_an_archive_is_packed_and_only_that_is_judged(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "a.tgz",
        gzip.compress(tar_of(member("raos-1/raos.toml"), member("dev/zero", b"", type=tarfile.CHRTYPE))),
    )
    assert "'dev/zero' is a device" in refusal(path)
    packed, _ = packed_from(path, subdirectory="raos-1/")
    assert set(packed.manifest.by_path) == {"raos.toml"}
    assert "holds no file to ship in nowhere" in refusal(path, subdirectory="nowhere")


def test_all_that_a_tar_may_not_hold_is_told_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "evil.tar",
        tar_of(
            member("raos.toml"),
            member("../up"),
            member("a/../../up"),
            member("/etc/passwd"),
            link("out", "../../etc"),
            link("abs", "/etc"),
            link("deep/hard", "../../etc/shadow", tarfile.LNKTYPE),
            member("null", b"", type=tarfile.CHRTYPE),
            member("disk", b"", type=tarfile.BLKTYPE),
            member("pipe", b"", type=tarfile.FIFOTYPE),
            member("twice"),
            member("./twice", b"y"),
            member("Case"),
            member("case"),
            member("con.txt"),
            member("turn\u202e.txt"),
        ),
    )
    said = refusal(path)
    assert said.startswith("The tree holds 13 paths that a bundle cannot hold:\n")
    for words in (
        "3 devices, pipes or sockets; remove them: 'null', 'disk', 'pipe'",
        "3 that are no plain relative paths; rename them: '../up', 'a/../../up', '/etc/passwd'",
        "2 symbolic links that lead out of the tree",
        "1 symbolic links to an absolute path",
        "1 paths that are named twice, or both as a directory and as something else: 'twice'",
        "1 names that Windows cannot hold; rename them: 'con.txt'",
    ):
        assert words in said
    assert not (tmp_path / "up").exists()
    assert not (tmp_path.parent / "up").exists()


def test_a_hard_link_is_the_file_once_more(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tar", tar_of(member("one", b"same"), link("two", "one", tarfile.LNKTYPE)))
    packed, _ = packed_from(path)
    with packed:
        assert contents(packed) == {"one": b"same", "two": b"same"}


def test_a_zip_with_entries_that_cannot_be_read_is_refused_by_their_names(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, method in (("raos.toml", zipfile.ZIP_STORED), ("odd", zipfile.ZIP_LZMA), ("sec", zipfile.ZIP_STORED)):
            archive.writestr(zipfile.ZipInfo(name), b"x", method)
        device = zipfile.ZipInfo("null")
        device.external_attr = (stat.S_IFCHR | 0o666) << 16
        archive.writestr(device, b"")
        archive.writestr("../up", b"")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("raos.toml", b"other")
    raw = bytearray(made.getvalue())
    at = raw.rindex(b"sec") - 46
    raw[at + 8] |= 1  # the flag of an encrypted entry, in the list at the end
    said = refusal(written(tmp_path, "a.zip", bytes(raw)))
    for words in (
        "encrypted entries; make the archive without a password: 'sec'",
        "deflate: 'odd'",
        "sockets",
        "'../up'",
        "twice",
    ):
        assert words in said
    assert said.startswith("The tree holds 5 paths")


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("missing", [1, 700, 20_000])
def test_a_cut_tar_is_refused(kind: str, missing: int, tmp_path: Path) -> None:
    whole = COMPRESS[kind](tar_of(member("raos.toml"), member("big", os.urandom(100_000))))
    if kind == "tar":
        missing += 10_240  # tars end in blocks of zeros, of which two are the end
    said = refusal(written(tmp_path, f"a.{kind}", whole[:-missing]))
    assert "is cut off or damaged" in said


def test_a_tar_cut_between_two_files_or_with_a_broken_header_is_refused(tmp_path: Path) -> None:
    whole = tar_of(member("raos.toml", bytes(512)), member("b"))
    assert "cut off or damaged" in refusal(written(tmp_path, "a.tar", whole[:1024]))
    broken = bytearray(whole)
    broken[1024 + 10] ^= 1
    assert "cut off or damaged" in refusal(written(tmp_path, "b.tar", bytes(broken)))
    assert "goes on behind the end" in refusal(written(tmp_path, "c.tar", whole + b"x" * 512))


def test_damaged_bytes_of_a_compressed_file_are_refused(tmp_path: Path) -> None:
    for kind in ("tar.gz", "tar.xz", "zip"):
        content = os.urandom(50_000)
        whole = bytearray(zip_of(a=content) if kind == "zip" else COMPRESS[kind](tar_of(member("a", content))))
        whole[len(whole) // 2] ^= 0xFF
        assert "cut off or damaged" in refusal(written(tmp_path, f"a.{kind}", bytes(whole)))
    assert "cut off or damaged" in refusal(written(tmp_path, "cut.zip", zip_of(a=b"x" * 999)[:-30]))


def test_bombs_are_refused_before_they_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "RATIO_FROM", 1024**2)
    zeros = bytes(8 * 1024**2)
    for name, bomb in (
        ("a.zip", zip_of(a=zeros)),
        ("a.tgz", gzip.compress(tar_of(member("a", zeros)))),
        ("a.txz", lzma.compress(tar_of(member("a", zeros)))),
        ("behind.tgz", gzip.compress(tar_of(member("a")) + zeros)),
    ):
        assert "unpacks to more than 200 times its" in refusal(written(tmp_path, name, bomb))
    monkeypatch.setattr(spool, "TOTAL_LIMIT", 1000)
    assert "unpacks to more than 1000 bytes" in refusal(written(tmp_path, "b.zip", zip_of(a=os.urandom(1001))))
    monkeypatch.undo()
    monkeypatch.setattr(spool, "FILE_LIMIT", 1000)
    assert "has 1001 bytes unpacked" in refusal(written(tmp_path, "c.zip", zip_of(a=os.urandom(1001))))
    assert "has 1001 bytes unpacked" in refusal(written(tmp_path, "c.tar", tar_of(member("a", bytes(1001)))))
    monkeypatch.setattr(spool, "ENTRIES_LIMIT", 2)
    assert "more than 2 entries" in refusal(written(tmp_path, "d.zip", zip_of(a=b"", b=b"", c=b"")))


def test_headers_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    long = tar_of(member("a" * (HEADERS_LIMIT + 10)), form=tarfile.GNU_FORMAT)
    assert f"headers of more than {HEADERS_LIMIT} bytes" in refusal(written(tmp_path, "a.tar", long))
    chained = b"".join(
        tarfile.TarInfo._create_gnu_long_header("x", tarfile.GNUTYPE_LONGNAME, "utf-8", "strict")  # type: ignore[attr-defined]
        for _ in range(1000)
    )
    assert "cut off or damaged" in refusal(written(tmp_path, "b.tar", chained + tar_of(member("a"))))
    entries = io.BytesIO()
    with zipfile.ZipFile(entries, "w") as archive:
        info = zipfile.ZipInfo("a")
        info.comment = b"c" * 65_000
        for number in range(CENTRAL_LIMIT // 65_000 + 1):
            info.filename = info.orig_filename = str(number)
            archive.writestr(info, b"")
    assert f"in more than {CENTRAL_LIMIT} bytes" in refusal(written(tmp_path, "a.zip", entries.getvalue()))


def test_an_xz_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    hungry = lzma.compress(
        tar_of(member("a")), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1024**3}], preset=None
    )
    assert "Memory usage limit" in refusal(written(tmp_path, "a.tar.xz", hungry)) or "nothing that can" in refusal(
        tmp_path / "a.tar.xz"
    )


def test_a_digest_that_does_not_fit_is_refused_and_one_that_does_is_not(tmp_path: Path) -> None:
    path = written(tmp_path, "a.zip", zip_of(a=b"x"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    packed, artifact = packed_from(path, digest=parse_digest(f"sha256:{digest.upper()}"))
    assert (artifact.digest, str(artifact)) == (digest, f"zip a.zip (sha256:{digest})")
    packed.close()
    said = refusal(path, digest="0" * 64)
    assert f"it is sha256:{digest}, and --digest says sha256:{'0' * 64}" in said
    for wrong in ("sha1:00", "abc", "sha256:" + "g" * 64):
        with pytest.raises(UsageError, match="is no digest"):
            parse_digest(wrong)


def test_what_is_no_archive_is_refused_in_a_line(tmp_path: Path) -> None:
    assert "is nothing that can be pushed: name a directory, a .zip" in refusal(written(tmp_path, "a.txt", b"hello"))
    assert "nothing that can be pushed" in refusal(written(tmp_path, "e", b""))
    assert not is_artifact(tmp_path)
    (tmp_path / "oci-layout").write_text("a tree may have a file of that name")
    assert not is_artifact(tmp_path)
    assert not is_artifact(tmp_path / "nothing")
    assert "no OCI image layout: --ref names nothing" in refusal(written(tmp_path, "a.zip", zip_of(a=b"x")), ref="v1")


def wheel(directory: Path, record: str | None = None, **files: bytes) -> Path:
    listed = {
        "app/__init__.py": b"x = 1\n",
        "raos.toml": b"t",
        "app-1.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
    } | files
    lines = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b'=').decode()},1\n"
        for name, content in listed.items()
    )
    raw = zip_of(**listed, **{"app-1.dist-info/RECORD": (record or lines).encode()})
    return written(directory, "app-1-py3-none-any.whl", raw)


def test_a_wheel_is_packed_if_it_is_what_its_record_says(tmp_path: Path) -> None:
    packed, artifact = packed_from(wheel(tmp_path))
    assert artifact.kind == "wheel"
    assert "app/__init__.py" in packed.manifest.by_path
    packed.close()
    said = refusal(wheel(tmp_path, "raos.toml,sha256=AAAA,1\ngone.py,,\n"))
    assert said.startswith(
        "The tree holds 4 paths that a bundle cannot hold:\n  4 digests that do not fit what is there"
    )
    assert "'raos.toml'" in said
    assert "'gone.py'" in said
    assert "RECORD cannot be read" in refusal(wheel(tmp_path, "a\n"))
    assert "has 0 files RECORD" in refusal(written(tmp_path, "b.whl", zip_of(a=b"x")))


class Layout:
    """An OCI image layout that is being written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "blobs/sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, content: bytes, media: str = "application/octet-stream", **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (self.root / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)} | more

    def image(self, *layers: dict[str, Any], **more: Any) -> dict[str, Any]:
        content = {"schemaVersion": 2, "config": self.blob(b"{}"), "layers": layers}
        return self.blob(json.dumps(content).encode(), "application/vnd.oci.image.manifest.v1+json", **more)

    def index(self, *images: dict[str, Any]) -> Path:
        (self.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": images}))
        return self.root


LAYER = "application/vnd.oci.image.layer.v1.tar"


def layer(layout: Layout, *members: tuple[tarfile.TarInfo, bytes], how: str = "+gzip") -> dict[str, Any]:
    compress = {"": bytes, "+gzip": gzip.compress, "+zstd": zstd.compress}[how]
    return layout.blob(compress(tar_of(*members)), LAYER + how)


def tagged(name: str) -> dict[str, Any]:
    return {"annotations": {"org.opencontainers.image.ref.name": name}}


def test_whiteouts_take_away_what_lower_layers_hold_and_nothing_of_their_own(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    first = layer(
        layout,
        *(
            member(name)
            for name in ("app/keep", "app/old", "app/dir/a", "app/dir/b/c", "app/data/old", "app/raos.toml")
        ),
        member("app/was-file"),
        member("app/was-dir/x"),
        link("app/alias", "keep"),
    )
    second = layer(
        layout,
        member("app/data/new", b"new"),  # before the opaque mark, and kept
        member("app/data/.wh..wh..opq", b""),
        member("app/.wh.old", b""),
        member("app/.wh.dir", b""),
        member("app/dir/again", b"2"),
        member("app/was-file", b"", type=tarfile.DIRTYPE),
        member("app/was-file/in", b"3"),
        member("app/was-dir", b"file"),
        member("app/alias", b"no link"),
        how="+zstd",
    )
    root = layout.index(layout.image(first, second))
    packed, artifact = packed_from(root, subdirectory="app")
    with packed:
        assert contents(packed) == {
            "keep": b"x",
            "raos.toml": b"x",
            "data/new": b"new",
            "dir/again": b"2",
            "was-file/in": b"3",
            "was-dir": b"file",
            "alias": b"no link",
        }
    assert artifact.kind == "oci"
    assert f"sha256:{artifact.digest}" == json.loads((root / "index.json").read_text())["manifests"][0]["digest"]


def test_a_whole_directory_root_can_be_made_empty_and_bad_whiteouts_are_named(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    layers = layer(layout, member("a"), member("b/c")), layer(layout, member(".wh..wh..opq", b""), member("d"))
    packed, _ = packed_from(layout.index(layout.image(*layers)))
    assert set(packed.manifest.by_path) == {"d"}
    packed.close()
    bad = layer(layout, member("x/.wh..", b""), member(".wh..wh.aufs", b""), member("x/.wh.", b""), member("ok"))
    assert "3 that are no plain relative paths" in refusal(layout.index(layout.image(bad)))


def test_blobs_that_are_not_what_their_digests_say_are_all_named(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    one, two, three = (layer(layout, member(name)) for name in ("a", "b", "c"))
    root = layout.index(layout.image(one, two, three))
    blobs = {each["digest"]: root / "blobs/sha256" / each["digest"][7:] for each in (one, two)}
    blobs[one["digest"]].write_bytes(b"other")
    blobs[two["digest"]].unlink()
    said = refusal(root)
    assert "2 digests that do not fit what is there" in said
    assert all(digest in said for digest in blobs)
    assert three["digest"] not in said


def test_a_manifest_and_an_index_are_held_against_their_digests(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    image = layout.image(layer(layout, member("a")))
    inner = layout.blob(json.dumps({"manifests": [image]}).encode(), "application/vnd.oci.image.index.v1+json")
    root = layout.index(inner)
    packed, artifact = packed_from(root, digest=inner["digest"][7:])  # what a person calls an image of many platforms
    packed.close()
    assert artifact.digest == image["digest"][7:]
    for descriptor in (image, inner):
        blob = root / "blobs/sha256" / descriptor["digest"][7:]
        kept = blob.read_bytes()
        blob.write_bytes(kept + b" ")
        assert f"{descriptor['digest']} is not what its digest says" in refusal(root)
        blob.write_bytes(kept)
    (root / "index.json").write_bytes(b" " * (DOCUMENT_LIMIT + 1))
    assert "index.json cannot be read" in refusal(root)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    assert "oci-layout cannot be read" in refusal(root)


def test_a_layer_that_ends_with_its_last_file_is_whole_by_its_digest(tmp_path: Path) -> None:
    """As umoci 0.4 writes them; a file that ends early is not taken for that."""
    layout = Layout(tmp_path / "image")
    tar = tar_of(member("raos.toml"), member("last", b"four"))
    end = tar.index(b"four") + 4
    whole = layout.blob(gzip.compress(tar[:end]), LAYER + "+gzip")
    packed, _ = packed_from(layout.index(layout.image(whole)))
    with packed:
        assert contents(packed) == {"raos.toml": b"x", "last": b"four"}
    cut = layout.blob(gzip.compress(tar[: end - 1]), LAYER + "+gzip")
    assert "cut off or damaged" in refusal(layout.index(layout.image(cut)))
    assert "cut off or damaged" in refusal(written(tmp_path, "a.tgz", gzip.compress(tar[:end])))


def test_of_several_images_one_is_named_by_tag_platform_or_digest(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    one = layout.image(layer(layout, member("a")), **tagged("v1"))
    other = layout.image(layer(layout, member("b")), platform={"os": "linux", "architecture": "arm64"})
    statement = layout.image(layout.blob(b"{}"), annotations={"vnd.docker.reference.type": "attestation-manifest"})
    root = layout.index(one, other, statement)
    for ref, path in (("v1", "a"), ("linux/arm64", "b"), (other["digest"], "b")):
        packed, _ = packed_from(root, ref=ref)
        assert set(packed.manifest.by_path) == {path}
        packed.close()
    said = refusal(root)
    assert "has 2 images; say which one with --ref" in said
    assert f"v1 {one['digest']}, linux/arm64 {other['digest']}" in said
    assert "has 0 images called 'v9'" in refusal(root, ref="v9")


def test_an_artifact_of_oras_is_its_files_under_their_titles(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    title = "org.opencontainers.image.title"
    file = layout.blob(b"t", annotations={title: "raos.toml"})
    directory = gzip.compress(tar_of(member("modules", b"", type=tarfile.DIRTYPE), member("modules/.wh.x", b"1")))
    unpack = {title: "modules", "io.deis.oras.content.unpack": "true"}
    root = layout.index(layout.image(file, layout.blob(directory, LAYER + "+gzip", annotations=unpack)))
    packed, _ = packed_from(root)
    with packed:
        assert contents(packed) == {"raos.toml": b"t", "modules/.wh.x": b"1"}
    assert "'../up'" in refusal(layout.index(layout.image(layout.blob(b"t", annotations={title: "../up"}))))
    assert "of the type 'application/octet-stream': no archive" in refusal(
        layout.index(layout.image(layout.blob(b"t")))
    )


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_layout_in_a_tar_is_read_like_a_directory_of_it(kind: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "image")
    root = layout.index(layout.image(layer(layout, member("raos.toml", mode=0o755)), **tagged("v1")))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.add(root, ".")
    path = written(tmp_path, f"image.{kind}", COMPRESS[kind](made.getvalue()))
    from_tar, artifact = packed_from(path, ref="v1", digest=hashlib.sha256(path.read_bytes()).hexdigest())
    from_directory, same = packed_from(root)
    with from_tar, from_directory:
        assert from_tar.manifest == from_directory.manifest
        assert from_tar.manifest.by_path["raos.toml"].executable
    assert (artifact.digest, artifact.kind, artifact.name) == (same.digest, "oci", path.name)


def test_nothing_is_left_behind_in_the_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    refusal(written(tmp_path, "a.tar", tar_of(member("../up"))))
    packed, _ = packed_from(written(tmp_path, "b.tar", tar_of(member("a"))))
    packed.close()
    assert list(place.iterdir()) == []
