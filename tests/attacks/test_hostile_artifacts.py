"""Archives and images made to harm: whatever their bytes are, they are packed or refused, in bounded memory."""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ashat.backup.backup_file import read_backup, write_backup
from ashat.bundle.artifacts.archives import CENTRAL_LIMIT
from ashat.bundle.artifacts.pack import Wanted, pack_artifact
from ashat.errors import BackupError, BundleError, UsageError
from tests.unit.bundle.test_artifacts import COMPRESS, Layout, layer, link, member, tar_of, wheel, zip_of

ROOT = Path(__file__).parents[2]
MEMORY_MB = 700  # with the interpreter and its imports


def seeds(directory: Path) -> dict[str, bytes]:
    """One sound file of each kind, small."""
    plain = tar_of(member("raos.toml"), member("a/b", b"hello"), link("l", "a"), link("h", "a/b", tarfile.LNKTYPE))
    gnu = tar_of(member("x" * 150), member("s", b"1" * 600), form=tarfile.GNU_FORMAT)
    layout = Layout(directory / "image")
    root = layout.index(layout.image(layer(layout, member("raos.toml"), member("a/.wh.b", b""))))
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.add(root, ".")
    return {
        **{name: compress(plain) for name, compress in COMPRESS.items()},
        "gnu": gnu,
        "zip": zip_of(**{"raos.toml": b"x", "a/b": b"hello" * 20}),
        "whl": wheel(directory).read_bytes(),
        "oci": made.getvalue(),
    }


@pytest.mark.parametrize("name", [*COMPRESS, "gnu", "zip", "whl", "oci"])
def test_any_bytes_are_packed_or_refused_by_the_one_error(name: str, tmp_path: Path) -> None:
    good = seeds(tmp_path)[name]
    path = tmp_path / f"a.{name}"

    @settings(max_examples=120, deadline=None)
    @given(st.data())
    def look(data: st.DataObject) -> None:
        raw = bytearray(good)
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
            end = min(len(raw), at + data.draw(st.integers(0, 12)))
            raw[at:end] = data.draw(st.binary(max_size=12))
        path.write_bytes(bytes(raw))
        with suppress(BundleError, UsageError), pack_artifact(path, Wanted())[0] as packed:
            for digest in packed.manifest.objects:
                packed.read_object(digest)

    look()


def test_any_bytes_are_a_backup_or_refused_by_the_one_error(tmp_path: Path) -> None:
    staged = tmp_path / "staged"
    staged.mkdir()
    (staged / "a").write_text("hello")
    write_backup(tmp_path / "good", staged, "home", with_secrets=True, facts={})
    good = gzip.decompress((tmp_path / "good").read_bytes())
    number = 0

    @settings(max_examples=120, deadline=None)
    @given(st.data())
    def look(data: st.DataObject) -> None:
        nonlocal number
        number += 1
        into = tmp_path / f"into-{number}"
        into.mkdir()
        at = data.draw(st.integers(0, len(good) - 1))
        raw = good[:at] + data.draw(st.binary(max_size=12)) + good[at + data.draw(st.integers(0, 12)) :]
        (tmp_path / "bad").write_bytes(gzip.compress(raw, 1))
        with suppress(BackupError):
            read_backup(tmp_path / "bad", into, "home")

    look()


def sparse_map() -> bytes:
    """A sparse file whose map of holes never ends: each two lines of it would be a pair of numbers kept in memory."""
    made = io.BytesIO()
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a", "GNU.sparse.realsize": "1"}
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = pax
        content = b"99999999\n" + b"0\n" * (64 << 20)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return gzip.compress(made.getvalue(), 1)


def pax_records() -> bytes:
    """An entry whose pax header has hundreds of megabytes of zeros."""
    made = io.BytesIO()
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 400 << 20
    with gzip.GzipFile(fileobj=made, mode="wb", compresslevel=1) as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(400):
            file.write(bytes(1 << 20))
    return made.getvalue()


def central_directory() -> bytes:
    """A zip that lists as many entries as its list has room for, with the shortest names."""
    entry = b"PK\1\2" + bytes(24) + b"\1\0" + bytes(16) + b"a"
    count = CENTRAL_LIMIT // len(entry)
    end = b"PK\5\6" + bytes(4) + b"\xff\xff\xff\xff" + (count * len(entry)).to_bytes(4, "little") + bytes(6)
    return b"PK\3\4" + entry * count + end


BOMBS: dict[str, Callable[[], bytes]] = {
    "a sparse map": sparse_map,
    "pax records": pax_records,
    "a list of entries": central_directory,
    "empty entries": lambda: gzip.compress(tar_of(*(member(f"{n}", b"") for n in range(30_000))), 1),
    "deep names": lambda: gzip.compress(tar_of(*(member("a/" * 500 + str(n), b"") for n in range(4_000))), 1),
    "an xz with a dictionary of a gigabyte": lambda: lzma.compress(
        bytes(1 << 20), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    ),
}
_READ = """
import resource, sys
from pathlib import Path
from ashat.bundle.artifacts.pack import Wanted, pack_artifact
from ashat.errors import BundleError
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
try:
    packed, _ = pack_artifact(Path(sys.argv[1]), Wanted())
    print("packed", len(packed.manifest.files))
except BundleError as error:
    print("refused", error)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_no_archive_takes_more_memory_than_it_may(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[name]())
    words = [sys.executable, "-c", _READ, str(path), str(MEMORY_MB << 20)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(("packed", "refused")), done.stdout
    assert zipfile.is_zipfile(path) or name != "a list of entries"
