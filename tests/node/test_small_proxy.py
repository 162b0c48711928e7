"""A proxy before a node that takes small requests only: batches shrink to what it takes, and it is named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.bundle.pack import pack_directory
from ashat.client.http import Transport
from ashat.client.transfer import push_bundle
from ashat.errors import BodyTooLargeError
from tests.support.fakes.flaky_proxy import MoodyProxy
from tests.support.processes.node import NodeProcess

MOST = 100_000


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("public")) as made:
        yield made


def source(directory: Path, *sizes: int) -> Path:
    directory.mkdir()
    for number, size in enumerate(sizes):
        (directory / f"file{number}").write_bytes(os.urandom(size))
    return directory


def test_batches_shrink_to_what_it_takes(node: NodeProcess, tmp_path: Path) -> None:
    told: list[int] = []
    with (
        pack_directory(source(tmp_path / "small", *[20_000] * 60)) as packed,
        MoodyProxy(node.port, most=MOST) as proxy,
        Transport(proxy.url, token=node.token()) as transport,
    ):
        report = push_bundle(transport, packed, progress=lambda done, _: told.append(done))
        sent = proxy.requests("POST", "/v1/objects$")
        assert any(asked.status == 413 for asked in sent)
        assert all(len(asked.body) <= MOST for asked in sent if asked.status == 200)
    assert report.objects_sent == 60
    with Transport(node.url, token=node.token()) as whole:
        assert whole.request("GET", f"/v1/bundles/{packed.manifest.digest}").status_code == 200


def test_one_object_that_it_does_not_take_is_one_line(node: NodeProcess, tmp_path: Path) -> None:
    with (
        pack_directory(source(tmp_path / "large", 2 * MOST)) as packed,
        MoodyProxy(node.port, most=MOST) as proxy,
        Transport(proxy.url, token=node.token(), name="staging") as transport,
        pytest.raises(BodyTooLargeError, match=r"^staging: .*proxy.*HTTP 413.*client_max_body_size") as error,
    ):
        push_bundle(transport, packed)
    assert "\n" not in str(error.value)
    assert not error.value.transient
