"""A node whose store is gone: it runs on, restores what it can by digest, and says what it cannot."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from ashat.errors import SessionError
from ashat.protocol.messages import Role
from tasks.servers.heal import heal
from tests.support.processes.node import NodeProcess, push, switch, tiny_app, tiny_bundle

BIG = "x" * (5 << 20)  # more than one object


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "public", app=tiny_app()) as node:
        yield node


def until(seen: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def two_releases(client: NodeClient, tmp_path: Path) -> tuple[str, str]:
    first = push(client, tiny_bundle(tmp_path / "first"))
    second = push(client, tiny_bundle(tmp_path / "second", big=BIG))
    assert switch(client, first, expected=None).status == "succeeded"
    assert switch(client, second, expected=first).status == "succeeded"
    return first, second


def take_away(place: Path) -> None:
    """Delete a directory all at once, as the node may be making it again meanwhile."""
    shutil.rmtree(place.rename(place.with_name("gone")))


def test_a_store_that_is_gone_at_the_start_is_restored_from_the_releases(node: NodeProcess, tmp_path: Path) -> None:
    with node.client() as client:
        first, second = two_releases(client, tmp_path)
        node.stop()
        take_away(node.data / "store")
        node.start()
        until(lambda: client.state().store.restored)
        until(lambda: client.state().store.lost == () and client.probe_health().bundle == second)
        assert client.file_bytes(client.manifest(second), "big") == BIG.encode()
        assert switch(client, first, expected=second).status == "succeeded"


def test_a_store_that_goes_while_the_node_runs_is_restored(node: NodeProcess, tmp_path: Path) -> None:
    with node.client() as client:
        _, second = two_releases(client, tmp_path)
        take_away(node.data / "store")
        until(lambda: (node.data / "store" / "bundles" / second).exists())
        assert client.state().store.lost == ()
        third = push(client, tiny_bundle(tmp_path / "third"))
        assert switch(client, third, expected=second).status == "succeeded"


def test_a_file_of_a_release_that_was_changed_restores_nothing(node: NodeProcess, tmp_path: Path) -> None:
    with node.client() as client:
        _, second = two_releases(client, tmp_path)
        node.stop()
        take_away(node.data / "store")
        (node.data / "releases" / second / "big").write_text("other bytes")
        node.start()
        until(lambda: client.state().store.lost)
        lost = client.state().store.lost
        assert [(one.bundle, one.why, one.objects) for one in lost] == [(second, "runs", None)]
        assert not (node.data / "store" / "bundles" / second).exists()
        until(lambda: client.probe_health().bundle == second)  # as it lies on disk


def test_without_store_and_releases_it_runs_once_the_bytes_are_back(node: NodeProcess, tmp_path: Path) -> None:
    with node.client() as client:
        _, second = two_releases(client, tmp_path)
        node.stop()
        take_away(node.data / "store")
        shutil.rmtree(node.data / "releases")
        node.start()
        until(lambda: len(client.state().store.lost) == 2)
        assert client.state().app.status == "stopped"
        assert push(client, tmp_path / "second") == second
        until(lambda: [one.why for one in client.state().store.lost] == ["ran before"])
        push(client, tmp_path / "first")
        until(lambda: client.probe_health().bundle == second and client.state().store.lost == ())


def test_an_object_that_is_missing_or_cut_is_restored(node: NodeProcess, tmp_path: Path) -> None:
    with node.client() as client:
        _, second = two_releases(client, tmp_path)
        missing, cut = (digest for digest, _ in client.manifest(second).by_path["big"].objects())
        node.stop()
        objects = node.data / "store" / "objects"
        (objects / missing[:2] / missing[2:]).unlink()
        (objects / cut[:2] / cut[2:]).chmod(0o644)
        (objects / cut[:2] / cut[2:]).write_bytes(b"cut")
        node.start()
        until(lambda: client.state().store.restored)
        restored = client.state().store.restored
        assert restored is not None
        assert (restored.bundle, restored.objects) == (second, 2)
        assert client.file_bytes(client.manifest(second), "big") == BIG.encode()


def test_a_manifest_that_is_damaged_is_restored(node: NodeProcess, tmp_path: Path) -> None:
    with node.client() as client:
        _, second = two_releases(client, tmp_path)
        node.stop()
        manifest = node.data / "store" / "bundles" / second
        whole = manifest.read_bytes()
        manifest.write_bytes(whole[:-1] + b" ")
        node.start()
        until(lambda: client.state().store.restored)
        assert manifest.read_bytes() == whole


def lose_all(node: NodeProcess) -> None:
    node.stop()
    for name in ("store", "releases"):
        shutil.rmtree(node.data / name)
    node.start()


def test_another_server_heals_it_by_digest(node: NodeProcess, tmp_path: Path) -> None:
    with NodeProcess(tmp_path / "other", role=Role.OMEGA, app=tiny_app()) as other, node.client() as client:
        first, second = two_releases(client, tmp_path)
        lose_all(node)
        until(lambda: client.identity().lost == 2)
        said: list[str] = []
        with other.client() as source:
            with pytest.raises(SessionError, match=f"Nobody has .*{second[:12]}.*Push the same tree again"):
                heal(client, [source], said.append)
            for name in ("first", "second"):
                push(source, tmp_path / name)
            assert heal(client, [source], said.append) == 2
        until(lambda: client.probe_health().bundle == second and client.identity().lost == 0)
        assert said[-1] == "other had it: every byte is back on public, verified by its digest"
        assert heal(client, [], said.append) == 0
        digest = client.manifest(second).by_path["behaviour"].sha256
        (node.data / "store" / "objects" / digest[:2] / digest[2:]).unlink()
        with other.client() as source:
            assert heal(client, [source], said.append) == 2, "which it sees before the node does; both releases have it"
        assert switch(client, first, expected=second).status == "succeeded"
