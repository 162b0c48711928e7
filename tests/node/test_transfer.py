"""Bytes between real processes: whole, cut, wrong, refused, too many, and on a full disk."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from backports import zstd
from starlette.requests import Request

from ashat.bundle.manifest import FILE_MODE, PART_SIZE, FileEntry, Manifest
from ashat.bundle.pack import Packed, pack_directory, pack_git_ref
from ashat.client import fetching, line, transfer
from ashat.client.elsewhere import Part
from ashat.client.environment import is_loopback
from ashat.client.http import Timeouts, Transport, normalise_url
from ashat.client.line import Line
from ashat.client.transfer import Lack, fetch_objects, lacking, missing, pull_bundle, push_bundle, relay_bundle
from ashat.errors import (
    IntegrityError,
    NodeAuthError,
    NodeBusyError,
    NodeConflictError,
    NodeError,
    NodeFaultError,
    NodeRefusedError,
    NodeUnreachableError,
    NodeUntrustedError,
    ObjectsMissingError,
    SourceChangedError,
    UsageError,
)
from ashat.node.api import bundles as routes
from ashat.node.core.errors import ApiError
from ashat.node.store.store import Store
from ashat.protocol.frames import frame_header
from ashat.protocol.messages import FRAMES, REQUEST_LIMIT, Role, Scope
from tests.support.fakes.bad_network import CuttingProxy, answering, make_certificate
from tests.support.fakes.flaky_proxy import Cut, MoodyProxy
from tests.support.processes.node import NodeProcess, free_port

ROOT = Path(__file__).resolve().parents[2]
MB = 1024 * 1024
Found = TypeVar("Found")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A Public node that every test here may push to: no two push the same bytes."""
    with NodeProcess(tmp_path_factory.mktemp("nodes") / "public") as process:
        yield process


@pytest.fixture
def transport(node: NodeProcess) -> Iterator[Transport]:
    with Transport(node.url, token=node.token(Scope.PUSH), name="staging") as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """About 20 MB: many small files, an empty one, one of several parts, and one twice."""
    root = tmp_path / "source"
    (root / "Modules/Auth").mkdir(parents=True)
    for number in range(120):
        (root / f"Modules/Auth/f{number:03d}").write_bytes(os.urandom(100 + number * 97))
    (root / "empty").touch()
    for name, size in (("big", 2 * PART_SIZE + 77_777), ("middle", 3 * MB), ("other", 8 * MB)):
        (root / name).write_bytes(os.urandom(size))
    shutil.copy(root / "middle", root / "again")
    return root


@pytest.fixture
def packed(source: Path) -> Packed:
    return pack_directory(source)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def frame(content: bytes) -> bytes:
    return frame_header(digest(content), len(content)) + content


def post_frames(transport: Transport, content: bytes, kind: str = FRAMES) -> dict[str, Any]:
    return transport.json("POST", "/v1/objects", content=content, headers={"Content-Type": kind})


def wait_until(condition: Callable[[], Found]) -> Found:
    """What `condition` answers once it is true, for which a busy machine has two minutes."""
    deadline = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


def refused(error: pytest.ExceptionInfo[NodeError], status: int, code: str) -> dict[str, object]:
    """The refusal's body; it has the documented shape and its message is one line that names the server."""
    assert error.value.status == status
    assert error.value.body["error"] == code
    assert str(error.value).startswith("staging: ")
    assert "\n" not in str(error.value)
    return error.value.body


# Whole


def test_a_bundle_is_pushed_then_nothing_then_only_what_changed(transport: Transport, source: Path) -> None:
    packed, seen = pack_directory(source), []
    report = push_bundle(transport, packed, progress=lambda done, total: seen.append((done, total)))
    objects = packed.manifest.objects
    assert (report.bundle, report.files) == (packed.manifest.digest, len(packed.manifest.files))
    assert (report.bytes_total, report.bytes_sent) == (packed.manifest.size, sum(objects.values()))
    assert report.objects_sent == len(objects)
    assert seen[-1] == (report.bytes_sent, report.bytes_sent)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    again = push_bundle(transport, packed)
    assert (again.bytes_sent, again.objects_sent) == (0, 0)
    (source / "Modules/Auth/f000").write_bytes(b"changed")
    changed = push_bundle(transport, pack_directory(source))
    assert (changed.bytes_sent, changed.objects_sent) == (7, 1)


def test_what_is_pulled_is_what_was_pushed(transport: Transport, packed: Packed, tmp_path: Path) -> None:
    push_bundle(transport, packed)
    bundle = packed.manifest.digest
    seen: list[tuple[int, int]] = []
    with Store(tmp_path / "store") as store:
        report = pull_bundle(transport, bundle, store, progress=lambda done, total: seen.append((done, total)))
        assert store.manifest(bundle) == packed.manifest
        for name in packed.manifest.objects:
            assert store.read(name) == packed.read_object(name)
        assert report.bytes_sent == sum(packed.manifest.objects.values()) == seen[-1][0] == seen[-1][1]
        assert pull_bundle(transport, bundle, store).bytes_sent == 0
    asked = list(packed.manifest.objects)[:5]
    assert list(fetch_objects(transport, asked)) == [(name, packed.read_object(name)) for name in asked]


def test_a_commit_is_pushed_too(transport: Transport, source: Path, packed: Packed) -> None:
    git = ["git", "-C", str(source), "-c", "user.name=Kim", "-c", "user.email=kim@example.com"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=first"]):
        subprocess.run(git + words, check=True, capture_output=True)
    with pack_git_ref(source, "HEAD") as committed:
        assert committed.manifest == packed.manifest
        assert push_bundle(transport, committed).bytes_sent == sum(packed.manifest.objects.values())


def test_a_bundle_is_relayed_from_node_to_node(transport: Transport, packed: Packed, tmp_path: Path) -> None:
    push_bundle(transport, packed)
    bundle = packed.manifest.digest
    with (
        NodeProcess(tmp_path / "omega", role=Role.OMEGA) as omega,
        Transport(omega.url, token=omega.token(Scope.ADMIN), name="omega") as target,
    ):
        report = relay_bundle(transport, target, bundle)
        assert report.bytes_sent == sum(packed.manifest.objects.values())
        assert relay_bundle(transport, target, bundle).bytes_sent == 0
        for name, content in fetch_objects(target, list(packed.manifest.objects)):
            assert content == packed.read_object(name)


def test_uploads_survive_a_restart_of_the_node(tmp_path: Path, packed: Packed) -> None:
    names = list(packed.manifest.objects)
    with NodeProcess(tmp_path / "node") as process, Transport(process.url, token=process.token()) as transport:
        for name in names[:10]:
            post_frames(transport, frame(packed.read_object(name)))
        process.kill9()
        process.start()
        assert missing(transport, names) == names[10:]
        assert push_bundle(transport, packed).objects_sent == len(names) - 10


# Cut


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut is tried again at once, three times."""
    monkeypatch.setattr(transfer, "PAUSES", (0.05, 0.05, 0.05))


@pytest.mark.usefixtures("soon")
def test_a_push_over_a_line_that_is_cut_within_every_object_ends_and_sends_little_twice(
    node: NodeProcess, packed: Packed
) -> None:
    total = sum(packed.manifest.objects.values())
    with CuttingProxy(node.port, up=3 * MB, again=True) as proxy, Transport(proxy.url, token=node.token()) as cut:
        seen: list[int] = []
        report = push_bundle(cut, packed, progress=lambda done, _: seen.append(done))
        assert proxy.cuts >= total // (3 * MB)
        assert proxy.passed["up"] < 2 * total  # without it, none would end; what lies in sockets is lost on loopback
    assert report.bytes_sent == seen[-1] == total
    with Transport(node.url, token=node.token()) as whole:
        for name, content in fetch_objects(whole, list(packed.manifest.objects)):
            assert content == packed.read_object(name)


@pytest.mark.usefixtures("soon")
def test_a_pull_over_a_line_that_is_cut_within_every_object_ends_and_fetches_little_twice(
    node: NodeProcess, transport: Transport, packed: Packed, tmp_path: Path
) -> None:
    push_bundle(transport, packed)
    total = sum(packed.manifest.objects.values())
    with (
        Store(tmp_path / "store") as store,
        CuttingProxy(node.port, down=3 * MB, again=True) as proxy,
        Transport(proxy.url, token=node.token()) as cut,
    ):
        pull_bundle(cut, packed.manifest.digest, store)
        assert proxy.cuts >= total // (3 * MB)
        assert proxy.passed["down"] < 2 * total
        assert all(store.read(name) == packed.read_object(name) for name in packed.manifest.objects)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("ends", [True, False], ids=["three cuts", "four cuts"])
def test_a_push_that_is_cut_and_brings_nothing_is_tried_again_three_times(
    tmp_path: Path, packed: Packed, ends: bool
) -> None:
    with (
        NodeProcess(tmp_path / "node") as process,
        MoodyProxy(process.port) as proxy,
        Transport(proxy.url, token=process.token()) as cut,
    ):
        for _ in range(3 if ends else 4):
            proxy.expect("POST", "/v1/objects$", Cut())
        if ends:
            assert push_bundle(cut, packed, connections=1).objects_sent == len(packed.manifest.objects)
        else:
            with pytest.raises(NodeUnreachableError, match="the connection was cut; try again"):
                push_bundle(cut, packed, connections=1)
            assert len(proxy.requests("POST", "/v1/objects$")) == 4
        assert proxy.pending == []


@pytest.mark.usefixtures("soon")
def test_a_relay_whose_target_is_cut_goes_on_within_an_object(
    transport: Transport, packed: Packed, tmp_path: Path
) -> None:
    push_bundle(transport, packed)
    total = sum(packed.manifest.objects.values())
    with (
        NodeProcess(tmp_path / "omega", role=Role.OMEGA) as omega,
        CuttingProxy(omega.port, up=3 * MB, again=True) as proxy,
        Transport(proxy.url, token=omega.token(Scope.ADMIN), name="omega") as target,
    ):
        relay_bundle(transport, target, packed.manifest.digest)
        assert proxy.passed["up"] < 2 * total


def test_a_beginning_outlives_the_node_and_another_offset_is_refused(tmp_path: Path) -> None:
    content = os.urandom(2 * MB)
    name = digest(content)
    with NodeProcess(tmp_path / "node") as process, Transport(process.url, token=process.token(), name="n") as sent:
        cut_upload(process, frame(content)[:-1000])
        begun = wait_until(lambda: lacking(sent, [name]).begun).get(name, 0)
        assert 1.9 * MB < begun <= 2 * MB - 1000
        process.kill9()
        process.start()
        assert lacking(sent, [name]).begun == {name: begun}
        for first in (begun - 1, begun + 1):
            with pytest.raises(NodeConflictError) as refusal:
                put_rest(sent, name, content, first)
            assert (refusal.value.body["error"], refusal.value.body["begun"]) == ("wrong_offset", begun)
        assert put_rest(sent, name, content, begun)["stored"] == 1
        assert lacking(sent, [name]) == Lack([], {})


def test_a_wrong_beginning_is_forgotten_and_the_object_sent_whole(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(os.urandom(2 * MB))
    packed = pack_directory(tmp_path / "source")
    (name,) = packed.manifest.objects
    with NodeProcess(tmp_path / "node") as process, Transport(process.url, token=process.token()) as sent:
        cut_upload(process, frame_header(name, 2 * MB) + os.urandom(MB))
        wait_until(lambda: lacking(sent, [name]).begun)
        push_bundle(sent, packed)
        assert lacking(sent, [name]) == Lack([], {})
        assert list(fetch_objects(sent, [name])) == [(name, packed.read_object(name))]


@pytest.mark.parametrize("range_", ["", "bytes 0-9/10", "bytes 5-8/10", "bytes 9-5/10", "bytes 5-9/*", "bytes ٥-9/10"])
def test_a_rest_that_is_not_one_is_refused(transport: Transport, range_: str) -> None:
    headers: Any = {"Content-Range": range_.encode()} if range_ else {}
    with pytest.raises(NodeRefusedError) as refusal:
        transport.request("PUT", f"/v1/objects/{'a' * 64}", content=b"12345", headers=headers)
    refused(refusal, 400, "bad_request")


# Compressed


@pytest.fixture
def text(tmp_path: Path) -> Packed:
    """About 4 MB that compress well, no two pieces alike."""
    root = tmp_path / "text"
    root.mkdir()
    for number in range(40):
        (root / f"f{number}.py").write_text("".join(f"value_{number}_{line} = {line}\n" for line in range(4500)))
    return pack_directory(root)


@pytest.mark.parametrize("far", [True, False])
def test_text_crosses_a_far_line_compressed_and_a_near_one_as_it_is(
    text: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, far: bool
) -> None:
    monkeypatch.setattr(line, "FAR_SECONDS", -1 if far else 60)
    monkeypatch.setattr(line, "SLOW_RATE", 0)
    total = sum(text.manifest.objects.values())
    with (
        NodeProcess(tmp_path / "public") as public,
        NodeProcess(tmp_path / "omega", role=Role.OMEGA) as omega,
        CuttingProxy(public.port) as here,
        CuttingProxy(omega.port) as there,
        Transport(here.url, token=public.token(Scope.ADMIN)) as source,
        Transport(there.url, token=omega.token(Scope.ADMIN)) as target,
        Store(tmp_path / "store") as store,
    ):
        assert push_bundle(source, text).bytes_sent == total
        assert relay_bundle(source, target, text.manifest.digest).bytes_sent == total
        assert pull_bundle(target, text.manifest.digest, store).bytes_sent == total
        assert all(store.read(name) == text.read_object(name) for name in text.manifest.objects)
        moved = (here.passed["up"], here.passed["down"], there.passed["up"], there.passed["down"])
        assert all(count < total / 2 if far else count > total for count in moved), moved


def test_what_does_not_get_smaller_is_not_compressed(
    node: NodeProcess, packed: Packed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "FAR_SECONDS", -1)
    encoded: list[str] = []
    request = Transport.request

    def seen(self: Transport, method: str, path: str, **options: Any) -> Any:
        encoded.append((options.get("headers") or {}).get("Content-Encoding", ""))
        return request(self, method, path, **options)

    monkeypatch.setattr(Transport, "request", seen)
    with Transport(node.url, token=node.token()) as transport:
        push_bundle(transport, packed)
    assert set(encoded) == {""}


def test_a_line_that_turns_out_slow_compresses_what_follows() -> None:
    slow, fast = Line(), Line()
    slow.saw(256 * 1024, 2.0)
    fast.saw(256 * 1024, 0.01)
    fast.saw(256 * 1024, 2.0)
    assert (slow.compresses, fast.compresses) == (True, False)


def test_what_was_compressed_badly_is_refused_within_bounds(transport: Transport, node: NodeProcess) -> None:
    zeros = bytes(4 * MB)
    bomb = zstd.compress(b"".join(frame_header(digest(zeros), len(zeros)) + zeros for _ in range(20)))
    assert len(bomb) < 100_000
    whole = zstd.compress(frame(os.urandom(1000)))
    for body, encoding, status, code in (
        (bomb, "zstd", 413, "too_large"),
        (b"not zstd", "zstd", 422, "bad_frames"),
        (whole[:-5], "zstd", 422, "bad_frames"),
        (whole + b"more", "zstd", 422, "bad_frames"),
        (whole + whole, "zstd", 422, "bad_frames"),
        (zstd.compress(frame(b"") * 16_385), "zstd", 413, "too_large"),
        (whole, "gzip", 415, "bad_request"),
    ):
        headers = {"Content-Type": FRAMES, "Content-Encoding": encoding}
        with pytest.raises(NodeRefusedError) as refusal:
            transport.request("POST", "/v1/objects", content=body, headers=headers)
        refused(refusal, status, code)
    post_frames(transport, frame(b"a node that lives"))


def cut_upload(node: NodeProcess, content: bytes) -> None:
    """Send so many bytes of an upload that promises more, and hang up."""
    raw = http.client.HTTPConnection("127.0.0.1", node.port)
    raw.putrequest("POST", "/v1/objects")
    for header in (
        ("Authorization", f"Bearer {node.token()}"),
        ("Content-Type", FRAMES),
        ("Content-Length", "9999999"),
    ):
        raw.putheader(*header)
    raw.endheaders(content)
    raw.close()


def put_rest(transport: Transport, name: str, content: bytes, first: int) -> dict[str, Any]:
    headers = {"Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
    return transport.json("PUT", f"/v1/objects/{name}", content=content[first:], headers=headers)


@pytest.mark.usefixtures("soon")
def test_a_push_that_is_cut_goes_on_where_it_stopped(node: NodeProcess, packed: Packed) -> None:
    total = sum(packed.manifest.objects.values())
    with (
        CuttingProxy(node.port, up=total // 2) as proxy,
        Transport(proxy.url, token=node.token()) as cut,
        pytest.raises(NodeUnreachableError) as error,
    ):
        push_bundle(cut, packed, connections=1)  # of half, no more than one part is cut; on several, all may be
    assert error.value.transient
    objects = packed.manifest.objects
    with Transport(node.url, token=node.token()) as whole:
        wait_until(lambda: sum(objects[name] for name in missing(whole, objects)) < total * 0.8)
        report = push_bundle(whole, packed)
    assert 0 < report.bytes_sent < total * 0.8


@pytest.mark.usefixtures("soon")
def test_a_pull_that_is_cut_goes_on_where_it_stopped(
    node: NodeProcess, transport: Transport, packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "CONNECTIONS", 1)
    monkeypatch.setattr(line, "FAR_CONNECTIONS", 1)
    push_bundle(transport, packed)
    total = sum(packed.manifest.objects.values())
    with Store(tmp_path / "store") as store:
        with (
            CuttingProxy(node.port, down=total // 2) as proxy,
            Transport(proxy.url, token=node.token()) as cut,
            pytest.raises(NodeUnreachableError),
        ):
            pull_bundle(cut, packed.manifest.digest, store)
        assert not store.has_bundle(packed.manifest.digest)
        report = pull_bundle(transport, packed.manifest.digest, store)
        assert 0 < report.bytes_sent < total * 0.8
        assert all(store.verify(name) for name in packed.manifest.objects)


def test_a_connection_cut_within_a_frame_keeps_no_object_of_it(node: NodeProcess, transport: Transport) -> None:
    whole, torn = os.urandom(3 * MB), os.urandom(2 * MB)
    body = frame(whole) + frame(torn)
    raw = http.client.HTTPConnection("127.0.0.1", node.port)
    raw.putrequest("POST", "/v1/objects")
    for name, value in (
        ("Authorization", f"Bearer {node.token()}"),
        ("Content-Type", FRAMES),
        ("Content-Length", str(len(body))),
    ):
        raw.putheader(name, value)
    raw.endheaders(body[:-10])
    wait_until(lambda: not missing(transport, [digest(whole)]))
    raw.close()
    assert missing(transport, [digest(whole), digest(torn)]) == [digest(torn)]


def test_an_upload_that_falls_silent_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, torn = os.urandom(1000), os.urandom(1000)
    arriving = [frame(whole), frame(torn)[:500]]

    async def receive() -> dict[str, Any]:
        if not arriving:
            await asyncio.sleep(30)
        return {"type": "http.request", "body": arriving.pop(0), "more_body": True}

    monkeypatch.setattr(routes, "STALL_SECONDS", 0.1)
    with Store(tmp_path / "store") as store:
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        with pytest.raises(ApiError, match="was cut"):
            asyncio.run(routes.receive_objects(store, request))
        assert store.missing([digest(whole), digest(torn)]) == [digest(torn)]


# Wrong


def test_bytes_that_do_not_match_are_refused_in_the_middle_of_a_large_upload(transport: Transport) -> None:
    before, wrong, after = os.urandom(1000), os.urandom(1000), [os.urandom(PART_SIZE) for _ in range(4)]
    body = frame(before) + frame_header(digest(wrong), 1000) + bytes(1000) + b"".join(map(frame, after))
    with pytest.raises(NodeRefusedError) as error:
        post_frames(transport, body)
    assert refused(error, 422, "digest_mismatch")["digest"] == digest(wrong)
    assert digest(before) not in missing(transport, [digest(before), digest(wrong)])
    assert digest(wrong) in missing(transport, [digest(wrong)])


def test_a_file_that_changes_unseen_is_named_by_what_the_node_refused(
    transport: Transport, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that believes a file unchanged makes a wrong digest, and the bytes betray it."""
    packed = pack_directory(source)
    name = next(file.sha256 for file in packed.manifest.files if file.path == "middle")
    read = packed.stream_object
    monkeypatch.setattr(
        packed, "stream_object", lambda d, n: iter([bytes(n)] * (3 * MB // n)) if d == name else read(d, n)
    )
    with pytest.raises(SourceChangedError, match=r"'(middle|again)' changed"):
        push_bundle(transport, packed)


def test_a_source_that_changes_during_the_push_is_named(transport: Transport, source: Path) -> None:
    packed = pack_directory(source)
    (source / "other").write_bytes(os.urandom(8 * MB))
    with pytest.raises(SourceChangedError, match="'other' changed"):
        push_bundle(transport, packed)


def test_a_manifest_of_missing_objects_is_refused_and_names_them(transport: Transport, packed: Packed) -> None:
    names = missing(transport, packed.manifest.objects)
    post_frames(transport, frame(packed.read_object(names[0])))
    with pytest.raises(NodeConflictError) as error:
        transport.request("PUT", f"/v1/bundles/{packed.manifest.digest}", content=packed.manifest.canonical)
    body = refused(error, 409, "objects_missing")
    assert body["missing"] == names[1:]
    assert body["count"] == len(names) - 1
    with pytest.raises(NodeRefusedError) as unknown:
        transport.request("GET", f"/v1/bundles/{packed.manifest.digest}")
    refused(unknown, 404, "not_found")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"not a manifest", 422, "bad_manifest"),
        (b'{"format":"ashat-bundle/1","modules":{}}', 422, "bad_manifest"),
        (Manifest(()).canonical.replace(b"/1", b"/9"), 422, "bad_manifest"),
    ],
)
def test_a_bad_manifest_is_refused(transport: Transport, content: bytes, status: int, code: str) -> None:
    with pytest.raises(NodeRefusedError) as error:
        transport.request("PUT", f"/v1/bundles/{digest(content)}", content=content)
    refused(error, status, code)
    with pytest.raises(NodeRefusedError) as error:
        transport.request("PUT", f"/v1/bundles/{'a' * 64}", content=content)
    assert refused(error, 422, "digest_mismatch")["digest"] == "a" * 64


def test_malformed_uploads_are_refused(node: NodeProcess, transport: Transport) -> None:
    with pytest.raises(NodeRefusedError) as error:
        post_frames(transport, frame(b"x"), "application/octet-stream")
    refused(error, 400, "bad_request")
    with pytest.raises(NodeRefusedError) as error:
        post_frames(transport, frame(os.urandom(100))[:-1])
    refused(error, 422, "bad_frames")
    with pytest.raises(NodeRefusedError) as error:
        post_frames(transport, frame_header("a" * 64, PART_SIZE + 1) + b"x")
    refused(error, 413, "too_large")
    announced = f"POST /v1/objects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token()}\r\n"
    announced += f"Content-Type: {FRAMES}\r\nContent-Length: {REQUEST_LIMIT + 1}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", node.port)) as raw:
        raw.sendall(announced.encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_request_without_a_length_is_bounded_too(transport: Transport) -> None:
    chunk = os.urandom(PART_SIZE)
    frames = (frame(chunk) for _ in range(REQUEST_LIMIT // PART_SIZE + 1))
    with pytest.raises(NodeRefusedError) as error:
        transport.json("POST", "/v1/objects", content=frames, headers={"Content-Type": FRAMES})
    refused(error, 413, "too_large")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/objects/missing", {"digests": ["zz"]}, 400, "bad_request"),
        ("POST", "/v1/objects/missing", {"digests": "a"}, 400, "bad_request"),
        ("POST", "/v1/objects/missing", None, 400, "bad_request"),
        ("POST", "/v1/objects/fetch", {"digests": ["a" * 63]}, 400, "bad_request"),
        ("POST", "/v1/objects/fetch", {"digests": ["0" * 64]}, 404, "not_found"),
        ("GET", f"/v1/objects/{'0' * 64}", None, 404, "not_found"),
        ("GET", "/v1/objects/..%2f..%2fetc", None, 404, "not_found"),
        ("GET", "/v1/bundles/xyz", None, 400, "bad_request"),
        ("GET", "/v1/nothing", None, 404, "not_found"),
        ("DELETE", "/v1/objects/missing", {}, 405, "bad_request"),
    ],
)
def test_every_refusal_has_the_documented_shape(
    transport: Transport, method: str, path: str, body: object, status: int, code: str
) -> None:
    with pytest.raises(NodeRefusedError) as error:
        transport.request(method, path, json=body)
    refused(error, status, code)


def test_a_fetch_names_the_first_that_is_missing_before_any_byte(transport: Transport, packed: Packed) -> None:
    push_bundle(transport, packed)
    here = next(iter(packed.manifest.objects))
    with pytest.raises(NodeRefusedError, match="1" * 64):
        list(fetch_objects(transport, [here, "1" * 64, "2" * 64]))


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/objects/missing", Scope.READ),
        ("POST", "/v1/objects", Scope.READ),
        ("PUT", f"/v1/bundles/{'a' * 64}", Scope.READ),
    ],
)
def test_reading_is_not_writing(node: NodeProcess, method: str, path: str, scope: Scope) -> None:
    with Transport(node.url, token=node.token(scope), name="staging") as transport:
        with pytest.raises(NodeAuthError) as error:
            transport.request(method, path, json={"digests": []}, headers={"Content-Type": FRAMES})
        refused(error, 403, "forbidden")
    with Transport(node.url, token="tok-nobody-has", name="staging") as transport:
        with pytest.raises(NodeAuthError) as error:
            transport.request(method, path, json={"digests": []})
        refused(error, 401, "unauthenticated")
        assert "nobody-has" not in str(error.value)


def test_a_source_that_sends_other_bytes_is_not_believed(node: NodeProcess, packed: Packed, tmp_path: Path) -> None:
    """A node whose disk, or whose owner, lies: what it sends is refused on the way and at the end."""
    with NodeProcess(tmp_path / "liar") as liar, Transport(liar.url, token=liar.token(), name="liar") as source:
        push_bundle(source, packed)
        bundle = packed.manifest.digest
        manifest = liar.data / "store/bundles" / bundle
        honest = manifest.read_bytes()
        manifest.write_bytes(honest.replace(b"Auth", b"Evil"))
        with Store(tmp_path / "store") as store, pytest.raises(NodeFaultError, match="damaged"):
            pull_bundle(source, bundle, store)
        manifest.write_bytes(honest)
        name = packed.manifest.by_path["middle"].sha256
        damaged = liar.data / "store/objects" / name[:2] / name[2:]
        damaged.chmod(0o600)
        damaged.write_bytes(bytes(3 * MB))
        with pytest.raises(NodeFaultError, match="damaged"):
            source.request("GET", f"/v1/objects/{name}")
        with Store(tmp_path / "store") as store, pytest.raises(NodeUnreachableError, match="cut"):
            pull_bundle(source, bundle, store)


def test_wrong_bytes_are_refused_on_the_way(packed: Packed, tmp_path: Path, transport: Transport) -> None:
    manifest = packed.manifest
    batch = [(name, size) for name, size in manifest.objects.items() if 0 < size < 20_000][:2]
    wrong = b"".join(frame_header(name, size) + bytes(size) for name, size in batch)
    strange = frame(b"something else")
    for stream, message in ((wrong, "do not match"), (strange, "not asked for")):
        with answering(200, stream, {"Content-Type": FRAMES}) as url, Transport(url, name="liar") as liar:
            with pytest.raises(IntegrityError, match=message), fetching.fetching(liar, Part(batch)) as response:
                b"".join(fetching.verified(response.iter_raw(), batch, "liar"))
            with pytest.raises(IntegrityError, match=message):
                list(fetch_objects(liar, [name for name, _ in batch]))
    first, second = (frame(packed.read_object(name)) for name, _ in batch)
    for stream, message in ((second + first, "not asked for"), (first, "did not send"), (b"", "did not send")):
        with (
            answering(200, stream, {"Content-Type": FRAMES}) as url,
            Transport(url, name="liar") as liar,
            pytest.raises(IntegrityError, match=message),
        ):
            list(fetch_objects(liar, [name for name, _ in batch]))
    with (
        answering(200, manifest.canonical) as url,
        Transport(url, name="liar") as liar,
        pytest.raises(IntegrityError, match="another manifest"),
    ):
        transfer.fetch_manifest(liar, "a" * 64)


def test_a_server_that_sends_more_or_less_than_was_asked_is_refused(tmp_path: Path) -> None:
    content = os.urandom(100)
    manifest = Manifest.from_files([FileEntry("f", 100, FILE_MODE, digest(content))])
    asked = {f"/v1/bundles/{manifest.digest}": manifest.canonical}
    for sent, expected in (
        (frame(content) + frame(b"unasked"), IntegrityError),
        (frame(b"unasked"), ObjectsMissingError),
        (b"", ObjectsMissingError),
    ):
        with (
            answering(200, bodies=asked | {"/v1/objects/fetch": sent}) as url,
            Transport(url, name="liar") as liar,
            Store(tmp_path / "store") as store,
        ):
            with pytest.raises(expected):
                pull_bundle(liar, manifest.digest, store)
            assert store.bundles() == []
    for answer in (b"{}", b'{"missing": 3}', b'{"missing": ["unasked"]}'):
        with (
            answering(200, answer) as url,
            Transport(url, name="liar") as liar,
            pytest.raises(NodeRefusedError, match="not as an ASHAT node does"),
        ):
            missing(liar, ["0" * 64])


def test_the_first_failure_stops_the_other_connections(transport: Transport, tmp_path: Path) -> None:
    """One file is gone when its turn comes; what other connections had begun is not sent to its end."""
    root = tmp_path / "large"
    root.mkdir()
    for number in range(24):
        (root / f"f{number:02d}").write_bytes(os.urandom(PART_SIZE))
    packed, sent = pack_directory(root), [0]
    (root / "f04").unlink()
    with pytest.raises(SourceChangedError, match="'f04' changed"):
        push_bundle(transport, packed, progress=lambda done, _: sent.append(done))
    assert sent[-1] < 24 * PART_SIZE / 2


# Range, ETag


def test_one_object_has_an_etag_and_ranges(node: NodeProcess, transport: Transport, packed: Packed) -> None:
    push_bundle(transport, packed)
    name = packed.manifest.by_path["middle"].sha256
    content = packed.read_object(name)
    etag = f'"{name}"'

    def get(**headers: str) -> httpx.Response:
        return transport.request(
            "GET", f"/v1/objects/{name}", headers={k.replace("_", "-"): headers[k] for k in headers}
        )

    whole = get()
    assert (whole.status_code, whole.content, whole.headers["etag"]) == (200, content, etag)
    assert whole.headers["accept-ranges"] == "bytes"
    assert get(If_None_Match=etag).status_code == 304
    assert get(If_None_Match=f'"{"0" * 64}"').status_code == 200
    size = len(content)
    for asked, first, last in (
        ("0-9", 0, 9),
        ("100-", 100, size - 1),
        ("-7", size - 7, size - 1),
        ("5-99999999", 5, size - 1),
    ):
        part = get(Range=f"bytes={asked}", If_Range=etag)
        assert (part.status_code, part.content) == (206, content[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
    assert get(Range="bytes=0-9", If_Range='"other"').status_code == 200
    assert get(Range="lines=0-9").status_code == 200
    assert get(Range="bytes=0-1,5-6").content == content
    with pytest.raises(NodeRefusedError) as error:
        get(Range=f"bytes={size}-")
    refused(error, 416, "bad_request")

    bundle = f"/v1/bundles/{packed.manifest.digest}"
    answer = transport.request("GET", bundle)
    assert answer.content == packed.manifest.canonical
    assert transport.request("GET", bundle, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


# Too many, too much


def test_more_uploads_than_fit_are_asked_to_come_back(node: NodeProcess, transport: Transport) -> None:
    head = (
        f"POST /v1/objects HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {node.token()}\r\n"
        f"Content-Type: {FRAMES}\r\nContent-Length: 1000\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        for _ in range(9):  # one more than fit: the request below may take a place before the last of them comes
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", node.port)))
            slow.sendall(head)
        error = wait_until(lambda: refusal(transport))
    assert error is not None
    assert (error.status, error.retry_after, error.transient) == (503, 1.0, True)
    assert error.body["error"] == "busy"
    wait_until(lambda: refusal(transport) is None)


def refusal(transport: Transport) -> NodeBusyError | None:
    try:
        post_frames(transport, frame(b"one more"))
    except NodeBusyError as error:
        return error
    return None


def peak(pid: int | str, *, reset: bool = False) -> int:
    """The most memory that the process had since the last reset, in bytes."""
    if reset:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_bundle(node: NodeProcess, transport: Transport, tmp_path: Path) -> None:
    """192 MB through the node and through this process; neither may grow by more than 64 MB."""
    root = tmp_path / "large"
    root.mkdir()
    for number in range(6):
        (root / f"f{number}").write_bytes(os.urandom(32 * MB))
    packed = pack_directory(root)
    missing(transport, ["0" * 64])
    before = {pid: peak(pid, reset=True) for pid in (node.pid, os.getpid())}
    push_bundle(transport, packed)
    with Store(tmp_path / "store") as store:
        pull_bundle(transport, packed.manifest.digest, store)
    grown = {pid: (peak(pid) - before[pid]) / MB for pid in before}
    assert max(grown.values()) < 64, grown


@contextmanager
def small_disk(directory: Path, size: int) -> Iterator[None]:
    """`directory` as a filesystem of its own with room for `size` bytes; skips where none can be mounted."""
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no filesystem can be mounted here, which filling one needs: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_full_disk_keeps_nothing_of_the_request_that_failed(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "node", 12 * MB),
        NodeProcess(tmp_path / "node") as node,
        Transport(node.url, token=node.token(), name="staging") as transport,
    ):
        first, second = [os.urandom(2 * MB) for _ in range(2)], [os.urandom(2 * MB) for _ in range(6)]
        post_frames(transport, b"".join(map(frame, first)))
        with pytest.raises(NodeFaultError) as error:
            post_frames(transport, b"".join(map(frame, second)))
        refused(error, 507, "disk_full")
        assert missing(transport, map(digest, first + second)) == [digest(content) for content in second]
        assert post_frames(transport, b"".join(map(frame, second[:2])))["stored"] == 2, "there is room for less"


def test_the_bench_measures_all_that_it_promises(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "bench/transfer.py",
        "--size",
        "small",
        "--runs",
        "1",
        "--json",
        "--directory",
        str(tmp_path),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    result = json.loads(done.stdout)
    rows = result["rows"]
    pushed = ("full re-hash", "first push", "unchanged push", "two files changed", "Mainframe pull")
    assert all(rows[name]["seconds"] > 0 for name in (*pushed, "switch: materialise"))
    compared = {name for name, row in rows.items() if row.get("ratio", 0) > 0}
    assert compared == (set(pushed[1:]) if shutil.which("rsync") else set())
    one = {name for name in rows if name.startswith("one of many files changed")}
    assert len(one) == (4 if b"Nothing can be shared" not in done.stderr else 0)
    judged = {target["row"] for target in result["targets"]}
    assert judged >= {"unchanged push", "two files changed"} | (compared - {"unchanged push"})
    assert list(tmp_path.iterdir()) == []


def test_the_bench_of_lines_measures_what_a_cut_costs() -> None:
    words = [sys.executable, "bench/lines.py", "--json", "--no-latency"]
    words += ["--megabytes", "2", "--rate-mbit", "16", "--cut-every", "0.5"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    result = json.loads(done.stdout)
    assert (result["cut_done"], result["cuts"] > 0, result["latency_push_vs_rsync"]) == (True, True, None)
    assert 1 <= result["cut_sent_ratio"] < 1.6  # each cut costs a request anew, and here one comes every 0.5 s


# The transport


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("omega.example", "http://omega.example"),
        ("10.0.0.1:8443", "http://10.0.0.1:8443"),
        ("localhost:80", "http://localhost"),
        ("[::1]:9000", "http://[::1]:9000"),
        (" https://Omega.Example:8443/ ", "https://omega.example:8443"),
        ("https://omega.example/prefix/", "https://omega.example/prefix"),
    ],
)
def test_an_address_is_made_a_url(given: str, url: str) -> None:
    assert normalise_url(given) == url


@pytest.mark.parametrize(
    "given",
    [
        "",
        "ftp://x",
        "https://",
        "http://a b",
        "http://[::1",
        "http://x:99999",
        "file:///etc",
        "http://u:secret@x",
        "http://x/?a=1",
    ],
)
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(UsageError) as error:
        normalise_url(given)
    assert "secret" not in str(error.value)


def test_a_token_does_not_cross_a_network_in_the_clear() -> None:
    with pytest.raises(UsageError, match="--insecure-http") as error:
        Transport("omega.example", token="secret-token")
    assert "secret-token" not in str(error.value)
    with pytest.raises(UsageError, match="--insecure-http"):
        Transport("http://10.0.0.1:80", licence="RACORE-00000000-00000000-00000000")
    Transport("http://10.0.0.1:80", token="t", insecure_http=True).close()
    Transport("http://10.0.0.1:80").close()
    Transport("https://10.0.0.1", token="t").close()
    for host in ("localhost", "127.0.0.1", "[::1]", "127.3.2.1", "a.localhost"):
        Transport(f"http://{host}:80", token="t").close()
        assert is_loopback(host)
    assert not is_loopback("localhost.example.com")


ERROR = json.dumps({"error": "x", "detail": "Something is wrong; mend it."}).encode()


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (400, NodeRefusedError, False),
        (401, NodeAuthError, False),
        (403, NodeAuthError, False),
        (404, NodeRefusedError, False),
        (409, NodeConflictError, False),
        (413, NodeRefusedError, False),
        (422, NodeRefusedError, False),
        (423, NodeRefusedError, False),
        (429, NodeBusyError, True),
        (500, NodeFaultError, True),
        (502, NodeBusyError, True),
        (503, NodeBusyError, True),
        (504, NodeBusyError, True),
        (507, NodeFaultError, False),
    ],
)
def test_every_status_becomes_the_error_that_says_whose_fault_it_is(
    status: int, kind: type[NodeError], transient: bool
) -> None:
    with (
        answering(status, ERROR) as url,
        Transport(url, name="staging") as transport,
        pytest.raises(NodeError) as error,
    ):
        transport.request("GET", "/v1/state")
    assert type(error.value) is kind
    assert error.value.transient is transient
    assert (error.value.status, error.value.server) == (status, "staging")
    assert str(error.value) == "staging: Something is wrong; mend it."
    assert error.value.body["error"] == "x"


@pytest.mark.parametrize(
    ("status", "body", "headers", "said"),
    [
        (404, b"<html>not here</html>", {}, "check the address"),
        (502, b"<html>bad gateway</html>", {}, "not available now"),
        (500, b"", {}, "see its log"),
        (302, b"", {"Location": "https://login.example/"}, "redirects to https://login.example/"),
        (200, b"<html>Welcome</html>", {}, "not as an ASHAT node does"),
        (200, b"[1]", {}, "not as an ASHAT node does"),
    ],
)
def test_an_answer_that_is_no_nodes_is_said_to_be(status: int, body: bytes, headers: dict[str, str], said: str) -> None:
    with (
        answering(status, body, headers) as url,
        Transport(url, name="staging") as transport,
        pytest.raises(NodeError, match=said) as error,
    ):
        transport.json("GET", "/v1/state")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        ("in an hour", 3500, 3600),
        ("Mon, 01 Jan 2024 00:00:00 GMT", 0, 0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, low: float, high: float) -> None:
    if value == "in an hour":
        value = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    with (
        answering(429, ERROR, {"Retry-After": value}) as url,
        Transport(url) as transport,
        pytest.raises(NodeBusyError) as error,
    ):
        transport.request("GET", "/")
    assert error.value.retry_after is not None
    assert low <= error.value.retry_after <= high


def test_a_retry_after_that_says_nothing_is_none() -> None:
    for value in ("soon", "-3"):
        with (
            answering(503, ERROR, {"Retry-After": value}) as url,
            Transport(url) as transport,
            pytest.raises(NodeBusyError) as error,
        ):
            transport.request("GET", "/")
        assert error.value.retry_after is None


def test_no_answer_is_said_to_be_one() -> None:
    with (
        Transport(f"127.0.0.1:{free_port()}", name="staging") as transport,
        pytest.raises(NodeUnreachableError, match="staging: Connection refused; is the node running at") as error,
    ):
        transport.request("GET", "/")
    assert error.value.transient
    with (
        Transport("http://no-such-host.invalid", name="staging") as transport,
        pytest.raises(NodeUnreachableError, match=r"staging: .*is the node running") as error,
    ):
        transport.request("GET", "/")
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Transport(f"127.0.0.1:{silent.getsockname()[1]}", timeouts=Timeouts(read=0.2), name="staging") as transport,
    ):
        with pytest.raises(NodeUnreachableError, match="did not answer in time"):
            transport.request("GET", "/")
        with pytest.raises(NodeUnreachableError, match="did not answer in time"):
            transport.request("GET", "/", timeout=0.1)


def test_an_answer_cut_in_the_middle_is_unreachable_not_short() -> None:
    with (
        answering(200, b"short", {"Content-Length": "500"}) as url,
        Transport(url, name="staging") as transport,
        pytest.raises(NodeUnreachableError, match="the connection was cut"),
    ):
        transport.request("GET", "/")


def test_only_a_trusted_certificate_is_spoken_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    certificate, key = make_certificate(tmp_path)
    tls = (certificate, key, certificate)
    with NodeProcess(tmp_path / "node", tls=tls) as node:
        for ca in (certificate, certificate.read_text()):
            with Transport(node.url, token=node.token(), ca=ca) as transport:
                assert transport.json("GET", "/v1/identity")["role"] == "public"
        with (
            Transport(node.url, token=node.token(), name="staging") as transport,
            pytest.raises(
                NodeUntrustedError, match=r"staging: its TLS certificate is not trusted .*--ca FILE"
            ) as error,
        ):
            transport.request("GET", "/v1/identity")
        assert isinstance(error.value, NodeUnreachableError)
        assert not error.value.transient
        with (
            Transport(node.url.replace("127.0.0.1", "localhost"), ca=certificate, name="staging") as transport,
            pytest.raises(NodeUntrustedError, match="is not for the name localhost"),
        ):
            transport.request("GET", "/v1/identity")
    with (
        answering(200) as url,
        Transport(url.replace("http", "https"), name="staging") as transport,
        pytest.raises(NodeUntrustedError, match="does not speak https"),
    ):
        transport.request("GET", "/")


@pytest.mark.parametrize(
    "content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nnot base64\n-----END CERTIFICATE-----\n"]
)
def test_a_ca_that_is_none_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=r"ca.pem cannot be used"):
        Transport("https://x", ca=file)


def test_many_threads_may_share_a_transport(transport: Transport) -> None:
    failures: list[NodeError] = []

    def ask() -> None:
        try:
            for _ in range(10):
                assert missing(transport, ["0" * 64]) == ["0" * 64]
        except NodeError as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
