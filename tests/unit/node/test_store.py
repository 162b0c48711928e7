"""The content store: nothing partial is ever called present, nothing acknowledged is ever lost."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ashat.bundle.manifest import FILE_MODE, PART_SIZE, FileEntry, Manifest
from ashat.common import files
from ashat.common.failpoints import FAULT_POINTS
from ashat.errors import (
    FrameError,
    FrameTooLargeError,
    IntegrityError,
    ManifestError,
    NotStoredError,
    ObjectsMissingError,
    StoreError,
)
from ashat.node.store import staging
from ashat.node.store.store import Store
from ashat.protocol.frames import FrameDecoder, frame_header, frames_size
from tests.support.processes.forks import FORKS

ROOT = Path(__file__).resolve().parents[3]


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def frame(content: bytes) -> bytes:
    return frame_header(digest(content), len(content)) + content


def bundle_of(*contents: bytes) -> Manifest:
    return Manifest.from_files(
        FileEntry(f"f{number}", len(content), FILE_MODE, digest(content)) for number, content in enumerate(contents)
    )


def put_objects(store: Store, *contents: bytes) -> int:
    with store.receive() as incoming:
        incoming.feed([frame(content) for content in contents])
        incoming.finish()
        return incoming.stored


def put(store: Store, manifest: Manifest) -> bool:
    return store.put_manifest(manifest.canonical, manifest.digest)[1]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as opened:
        yield opened


# Sizes on both sides of what is written past the page cache, and the largest object there is.
SIZES = (0, 1, 4095, 4096, 256 * 1024 - 1, 256 * 1024, 2_200_001, PART_SIZE)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_put_is_read_back(store: Store, size: int) -> None:
    content = os.urandom(size)
    assert store.missing([digest(content)]) == [digest(content)]
    assert put_objects(store, content) == 1
    assert store.missing([digest(content)]) == []
    assert put(store, bundle_of(content))
    assert store.read(digest(content)) == content
    assert store.path(digest(content)).stat().st_size == size
    assert store.verify(digest(content))
    assert put_objects(store, content) == 0
    assert not put(store, bundle_of(content))
    state = store.state()
    assert (state.objects, state.bytes) == (1, size)
    assert state.free_bytes > 0


def test_what_is_missing_is_named_in_the_order_asked_and_once(store: Store) -> None:
    put_objects(store, b"here")
    asked = [digest(b"z"), digest(b"here"), digest(b"a"), digest(b"z")]
    assert store.missing(asked) == [digest(b"z"), digest(b"a")]


def test_bytes_that_do_not_match_keep_nothing_of_that_frame_but_what_came_before(store: Store) -> None:
    good, bad = b"good", frame_header(digest(b"bad"), 3) + b"BAD"
    with pytest.raises(IntegrityError) as refused, store.receive() as incoming:
        incoming.feed([frame(good), bad])
    assert refused.value.digest == digest(b"bad")
    assert store.missing([digest(good), digest(b"bad"), digest(b"BAD")]) == [digest(b"bad"), digest(b"BAD")]


def test_a_frame_announced_too_large_is_refused_before_its_bytes(store: Store) -> None:
    with pytest.raises(FrameTooLargeError, match="at most 4194304"), store.receive() as incoming:
        incoming.feed([frame_header("a" * 64, PART_SIZE + 1)])


@pytest.mark.parametrize("cut", [1, 39, 40, 41])
def test_a_stream_that_ends_within_a_frame_is_refused_and_its_whole_objects_stay(store: Store, cut: int) -> None:
    stream = frame(b"whole") + frame(b"two bytes or more")[:cut]
    with store.receive() as incoming:
        incoming.feed([stream])
        with pytest.raises(FrameError, match="ends within a frame"):
            incoming.finish()
    assert store.missing([digest(b"whole"), digest(b"two bytes or more")]) == [digest(b"two bytes or more")]


@pytest.mark.parametrize("step", [1, 7, 39, 40, 41, 1000])
def test_frames_are_found_however_the_stream_is_cut(step: int) -> None:
    contents = [b"", b"a" * 100, b"", b"b", os.urandom(2500), b""]
    stream = b"".join(frame(content) for content in contents)
    assert len(stream) == frames_size(map(len, contents))
    decoder, found, held = FrameDecoder(), [], bytearray()
    for start in range(0, len(stream), step):
        for piece in decoder.feed(stream[start : start + step]):
            assert piece.offset == len(held)
            held += piece.data
            if piece.last:
                assert piece.digest == digest(bytes(held))
                found.append(bytes(held))
                held.clear()
    decoder.finish()
    assert found == contents


def test_a_manifest_is_refused_while_an_object_is_missing(store: Store) -> None:
    manifest = bundle_of(b"one", b"two", b"three")
    put_objects(store, b"two")
    with pytest.raises(ObjectsMissingError) as refused:
        put(store, manifest)
    assert refused.value.missing == [digest(b"one"), digest(b"three")]
    assert not store.has_bundle(manifest.digest)
    with pytest.raises(NotStoredError):
        store.manifest(manifest.digest)
    put_objects(store, b"one", b"three")
    assert put(store, manifest)
    assert store.manifest(manifest.digest) == manifest
    assert store.bundles() == [manifest.digest]


def test_a_manifest_that_lies_is_refused(store: Store) -> None:
    put_objects(store, b"content")
    lying = Manifest.from_files([FileEntry("f", 5, FILE_MODE, digest(b"content"))])
    with pytest.raises(ManifestError, match="has 5 bytes; it has 7"):
        put(store, lying)
    assert put(store, bundle_of(b"content")), "the refusal left the object where it was"
    with pytest.raises(ManifestError, match="has 5 bytes; it has 7"):
        put(store, lying)
    with pytest.raises(IntegrityError):
        store.put_manifest(lying.canonical, "a" * 64)
    with pytest.raises(ManifestError, match="not JSON"):
        store.put_manifest(b"hello", digest(b"hello"))


def test_a_damaged_object_is_found_out_and_can_be_sent_again(store: Store) -> None:
    content = os.urandom(1000)
    manifest = bundle_of(content)
    put_objects(store, content)
    put(store, manifest)
    path = store.path(digest(content))
    path.chmod(0o600)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="damaged"):
        store.read(digest(content))
    assert not store.verify(digest(content))
    assert store.missing([digest(content)]) == [digest(content)]
    assert store.state().objects == 0
    with pytest.raises(ObjectsMissingError):
        put(store, manifest)
    put_objects(store, content)
    put(store, manifest)
    assert store.read(digest(content)) == content


def test_a_truncated_object_is_missing_to_the_manifest_that_names_it(store: Store) -> None:
    put_objects(store, b"whole")
    put(store, bundle_of(b"whole"))
    store.path(digest(b"whole")).chmod(0o600)
    os.truncate(store.path(digest(b"whole")), 2)
    with pytest.raises(ObjectsMissingError):
        put(store, bundle_of(b"whole"))
    put_objects(store, b"whole")
    put(store, bundle_of(b"whole"))
    assert store.read(digest(b"whole")) == b"whole"


def test_a_damaged_manifest_is_not_served_and_can_be_put_again(store: Store) -> None:
    manifest = bundle_of(b"content")
    put_objects(store, b"content")
    put(store, manifest)
    assert store.manifest(manifest.digest) == manifest
    (store.root / "bundles" / manifest.digest).write_bytes(b"{}")
    with pytest.raises(IntegrityError, match="damaged"):
        store.manifest(manifest.digest)
    with pytest.raises(IntegrityError, match="damaged"):
        store.gc([manifest.digest])
    put(store, manifest)
    assert store.manifest(manifest.digest) == manifest


def test_two_uploads_of_one_object_at_once_leave_one(store: Store) -> None:
    contents = [os.urandom(300_000) for _ in range(12)]
    barrier = threading.Barrier(4)

    def upload(stored: list[int]) -> None:
        barrier.wait()
        stored.append(put_objects(store, *contents))

    counts: list[int] = []
    threads = [threading.Thread(target=upload, args=(counts,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == len(contents)
    assert len(os.listdir(store.root / "staging")) == len(contents)
    put(store, bundle_of(*contents))
    assert os.listdir(store.root / "staging") == []


def test_two_manifests_at_once_that_share_objects_are_both_kept(store: Store) -> None:
    shared = [os.urandom(20_000) for _ in range(20)]
    own = [os.urandom(100) for _ in range(4)]
    manifests = [bundle_of(*shared, mine) for mine in own]
    put_objects(store, *shared, *own)
    failures: list[BaseException] = []

    def commit(manifest: Manifest) -> None:
        try:
            put(store, manifest)
        except StoreError as error:
            failures.append(error)

    threads = [threading.Thread(target=commit, args=(manifest,)) for manifest in manifests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.bundles()) == 4


def test_a_store_belongs_to_one_process_at_a_time(store: Store) -> None:
    program = "import sys, pathlib; from ashat.node.store.store import Store; Store(pathlib.Path(sys.argv[1]))"
    done = FORKS.run(["-c", program, str(store.root)])
    assert done.returncode != 0
    assert "is in use by another process" in done.stderr


def test_a_store_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path / "file" / "store")


def test_a_crash_keeps_whole_staged_objects_and_drops_torn_old_and_strange_ones(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        put_objects(store, b"whole", b"torn", b"old", b"twice")
    waiting = {path.name.partition(".")[0]: path for path in (tmp_path / "store/staging").iterdir()}
    for path in waiting.values():
        path.chmod(0o600)
    waiting[digest(b"torn")].write_bytes(b"to\0\0")
    day_ago = time.time() - staging.MAX_AGE - 10
    os.utime(waiting[digest(b"old")], (day_ago, day_ago))
    shutil.copy(waiting[digest(b"twice")], tmp_path / f"store/staging/{digest(b'twice')}.77")
    (tmp_path / "store/staging/unfinished.manifest").write_text("{")
    with Store(tmp_path / "store") as store:
        asked = [digest(content) for content in (b"whole", b"torn", b"old", b"twice")]
        assert store.missing(asked) == [digest(b"torn"), digest(b"old")]
        assert len(os.listdir(tmp_path / "store/staging")) == 2
        put_objects(store, b"torn", b"old")
        put(store, bundle_of(b"whole", b"torn", b"old", b"twice"))
        assert os.listdir(tmp_path / "store/staging") == []


@pytest.mark.parametrize("point", sorted(point for point in FAULT_POINTS if point.startswith("store.")))
def test_a_kill_at_any_point_of_a_commit_loses_nothing(tmp_path: Path, point: str) -> None:
    """Kill -9 within `put_manifest`; then the manifest is there whole, or can be put without sending anything."""
    program = (
        "import sys, pathlib, tests.unit.node.test_store as t\n"
        "store = t.Store(pathlib.Path(sys.argv[1]))\n"
        "t.put_objects(store, b'one', b'two' * 100_000)\n"
        "t.put(store, t.bundle_of(b'one', b'two' * 100_000))\n"
    )
    environment = os.environ | {"ASHAT_FAULT": point}
    done = FORKS.run(["-c", program, str(tmp_path / "store")], env=environment)
    assert done.returncode == -9, done.stderr
    manifest = bundle_of(b"one", b"two" * 100_000)
    with Store(tmp_path / "store") as store:
        assert store.missing(manifest.objects) == []
        assert store.has_bundle(manifest.digest) == (point == "store.manifest-written")
        put(store, manifest)
        assert store.read(digest(b"one")) == b"one"
        assert os.listdir(tmp_path / "store/staging") == []


def test_nothing_is_named_before_what_it_names_is_durable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands under which name whenever the store waits for the disk."""
    seen: list[tuple[str, bool, bool, bool]] = []
    content = b"content"
    manifest = bundle_of(content)

    def look(waits_for: str) -> None:
        named = store.root / "objects" / digest(content)[:2] / digest(content)[2:]
        staged = any((store.root / "staging").glob("*.manifest"))
        seen.append((waits_for, named.exists(), staged, store.has_bundle(manifest.digest)))

    monkeypatch.setattr("ashat.node.store.store.sync_filesystem", lambda _fd: look("everything"))
    monkeypatch.setattr("ashat.node.store.store.sync_directory", lambda _path: look("bundles"))
    put_objects(store, content)
    assert seen == [], "an upload waits for no disk"
    put(store, manifest)
    assert seen == [
        ("everything", False, True, False),
        ("everything", True, True, False),
        ("bundles", True, False, True),
    ]


def test_a_disk_that_fails_to_sync_is_not_believed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports a failed write once, and may have dropped the pages: the objects must be sent again."""

    def fail(_fd: int) -> None:
        raise OSError(5, "Input/output error")

    put_objects(store, b"content")
    monkeypatch.setattr("ashat.node.store.store.sync_filesystem", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        put(store, bundle_of(b"content"))
    monkeypatch.setattr("ashat.node.store.store.sync_filesystem", files.sync_filesystem)
    assert store.missing([digest(b"content")]) == [digest(b"content")]
    assert os.listdir(store.root / "staging") == []


def test_gc_keeps_what_is_named_what_is_young_and_what_is_staged(store: Store) -> None:
    kept, dropped = bundle_of(b"shared", b"kept"), bundle_of(b"shared", b"dropped")
    for manifest, contents in ((kept, (b"shared", b"kept")), (dropped, (b"dropped",))):
        put_objects(store, *contents)
        put(store, manifest)
    put_objects(store, b"staged")
    assert store.gc([kept.digest]).objects == 0, "all of it is younger than the grace"
    assert store.bundles() == sorted([kept.digest, dropped.digest])
    swept = store.gc([kept.digest], grace=0)
    assert (swept.bundles, swept.objects, swept.bytes) == (1, 1, len(b"dropped"))
    assert store.bundles() == [kept.digest]
    asked = [digest(content) for content in (b"shared", b"kept", b"dropped", b"staged")]
    assert store.missing(asked) == [digest(b"dropped")]
    with pytest.raises(ObjectsMissingError):
        put(store, dropped)
    put_objects(store, b"dropped")
    assert put(store, dropped)


def test_putting_a_bundle_again_protects_it_from_gc(store: Store) -> None:
    manifest = bundle_of(b"content")
    put_objects(store, b"content")
    put(store, manifest)
    long_ago = time.time() - 10_000
    os.utime(store.root / "bundles" / manifest.digest, (long_ago, long_ago))
    put(store, manifest)
    store.gc([])
    assert store.has_bundle(manifest.digest)


def test_what_a_clock_that_was_ahead_dated_is_not_kept_until_then(store: Store) -> None:
    manifest = bundle_of(b"content")
    put_objects(store, b"content")
    put(store, manifest)
    path = store.root / "bundles" / manifest.digest
    ahead = time.time() + 5 * 365 * 86_400
    os.utime(path, (ahead, ahead))
    store.gc([], grace=60)
    assert store.has_bundle(manifest.digest), "its time is not known: it is young"
    assert abs(path.stat().st_mtime - time.time()) < 60
    assert store.gc([], grace=0).bundles == 1


CONTENTS = [bytes([65 + number]) * (1 + number * 3000) for number in range(7)]
one = st.integers(0, len(CONTENTS) - 1).map(lambda number: CONTENTS[number])
some = st.lists(one, min_size=1, max_size=4, unique=True)


class StoreMachine(RuleBasedStateMachine):
    """A store against a model of it: what is durable, what is staged, which bundles there are."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="ashat-store-"))
        self.store = Store(self.root / "store")
        self.durable: set[bytes] = set()
        self.staged: set[bytes] = set()
        self.known: dict[str, tuple[bytes, ...]] = {}

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)

    @initialize(contents=some)
    def begin_with_something(self, contents: list[bytes]) -> None:
        self.upload(contents)

    @rule(contents=some)
    def upload(self, contents: list[bytes]) -> None:
        new = set(contents) - self.durable - self.staged
        assert put_objects(self.store, *contents) == len(new)
        self.staged |= new

    @rule(contents=some, cut=st.floats(0, 0.999))
    def upload_that_is_cut(self, contents: list[bytes], cut: float) -> None:
        stream = b"".join(frame(content) for content in contents)
        stream = stream[: int(len(stream) * cut)]
        with self.store.receive() as incoming:
            incoming.feed([stream])
        for content in contents:
            if len(stream) < len(frame(content)):
                break
            stream = stream[len(frame(content)) :]
            self.staged |= {content} - self.durable

    @rule(content=one, other=some)
    def upload_of_wrong_bytes(self, content: bytes, other: list[bytes]) -> None:
        wrong = frame_header(digest(content), len(content)) + b"-" * len(content)
        with pytest.raises(IntegrityError), self.store.receive() as incoming:
            incoming.feed([*(frame(content) for content in other), wrong])
        self.staged |= set(other) - self.durable

    @rule(contents=some)
    def put_manifest(self, contents: list[bytes]) -> None:
        manifest = bundle_of(*contents)
        missing = [digest(content) for content in contents if content not in self.durable | self.staged]
        if missing:
            with pytest.raises(ObjectsMissingError) as refused:
                put(self.store, manifest)
            assert refused.value.missing == missing
            return
        assert put(self.store, manifest) == (manifest.digest not in self.known)
        self.known[manifest.digest] = tuple(contents)
        self.durable |= set(contents)
        self.staged -= set(contents)

    @rule(torn=st.booleans())
    def crash_and_open_again(self, torn: bool) -> None:
        self.store.close()
        if torn and self.staged:
            victim = min(self.staged)
            for path in (self.root / "store/staging").glob(f"{digest(victim)}.*"):
                path.chmod(0o600)
                os.truncate(path, len(victim) - 1)
            self.staged.remove(victim)
        self.store = Store(self.root / "store")

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def collect(self, data: st.DataObject) -> None:
        keep = data.draw(st.sets(st.sampled_from(sorted(self.known))))
        self.known = {name: contents for name, contents in self.known.items() if name in keep}
        before = self.durable
        self.durable = {content for contents in self.known.values() for content in contents}
        swept = self.store.gc(keep, grace=-1)
        assert swept.objects == len(before - self.durable)

    @invariant()
    def agrees_with_the_model(self) -> None:
        held = self.durable | self.staged
        asked = [digest(content) for content in CONTENTS]
        assert self.store.missing(asked) == [digest(content) for content in CONTENTS if content not in held]
        assert self.store.bundles() == sorted(self.known)
        state = self.store.state()
        assert (state.objects, state.bytes) == (len(self.durable), sum(map(len, self.durable)))
        for name, contents in self.known.items():
            assert self.store.manifest(name) == bundle_of(*contents)
        for content in self.durable:
            assert self.store.read(digest(content)) == content


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
