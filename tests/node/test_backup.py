"""A node's own records in one file, while it serves, and back into an empty directory, from which it serves again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.protocol.messages import Role, Scope
from tests.support.processes.node import NodeProcess, push, switch, tiny_app, tiny_bundle
from tests.support.processes.node_cli import ashat_node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "public", role=Role.PUBLIC, app=tiny_app()) as node:
        yield node


def test_a_node_comes_back_from_a_dead_disk_and_takes_its_bundle_again(node: NodeProcess, tmp_path: Path) -> None:
    backup, source = tmp_path / "public.backup", tiny_bundle(tmp_path / "source")
    with node.client() as client:
        bundle = push(client, source)
        assert switch(client, bundle, expected=None).status == "succeeded"
        done = ashat_node("backup", str(backup), "--data", str(node.data))
        assert (done.returncode, f"Written: {backup}" in done.stdout) == (0, True), done.stderr
        assert "Secrets are in it" in done.stderr
        before = client.identity()
        again = ashat_node("restore", str(backup), "--data", str(node.data))
        assert again.returncode == 2
        assert "nothing is overwritten" in again.stderr
        assert client.identity().current == before.current
    node.stop()
    shutil.rmtree(node.data)
    done = ashat_node("restore", str(backup), "--data", str(node.data))
    assert done.returncode == 0, done.stderr
    assert f"It ran bundle {bundle[:12]}, which is not in the backup" in done.stdout
    names = {path.name for path in node.data.iterdir()}
    assert {"node.db", "tokens.json"} <= names
    assert not names & {"store", "releases", "current", "journal", "node.json", "node.lock", "reserve", "app.log"}
    node.start()
    with node.client(Scope.ADMIN) as client:
        identity = client.identity()
        assert identity.current is not None
        assert identity.current.bundle == bundle
        assert push(client, source) == bundle
        second = push(client, tiny_bundle(tmp_path / "second", more="x"))
        assert switch(client, second, expected=bundle).status == "succeeded"


def test_a_backup_without_secrets_and_wrong_ones_are_told_in_a_line(node: NodeProcess, tmp_path: Path) -> None:
    backup = tmp_path / "a.backup"
    done = ashat_node("backup", str(backup), "--data", str(node.data), "--without-secrets")
    assert done.returncode == 0, done.stderr
    assert "No private key is in it" in done.stderr
    assert ashat_node("restore", str(backup), "--data", str(tmp_path / "other")).returncode == 0
    texts = [path.read_bytes() for path in (tmp_path / "other").rglob("*") if path.is_file()]
    assert texts
    assert not [text for text in texts if b"PRIVATE KEY" in text]
    backup.write_bytes(backup.read_bytes()[:-10])
    for words, said, code in (
        (("restore", str(backup), "--data", str(tmp_path / "new")), "nothing was changed", 1),
        (("restore", str(tmp_path / "none"), "--data", str(tmp_path / "new")), "cannot be read", 2),
        (("backup", str(tmp_path / "b"), "--data", str(tmp_path / "new")), "There is no node", 2),
        (("backup", str(backup), "--data", str(node.data)), "is there already", 2),
    ):
        done = ashat_node(*words)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
        assert said in done.stderr
    assert not (tmp_path / "new").exists()
