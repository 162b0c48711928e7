"""Two slots: a release starts beside what runs, gets the traffic, and goes back; nobody who asks the proxy notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.client.node import NodeClient
from tests.support.drivers.load import Load
from tests.support.needs import requires_nginx
from tests.support.processes.front import Front
from tests.support.processes.node import NodeProcess, push, switch, tiny_app, tiny_bundle

pytestmark = requires_nginx


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with Front(tmp_path / "nginx") as started:
        yield started


@pytest.fixture
def node(front: Front, tmp_path: Path) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path / "public", app=tiny_app(), settings={"slots": front.slots()}) as started:
        front.start()
        yield started


@pytest.fixture
def client(node: NodeProcess) -> Iterator[NodeClient]:
    with node.client() as opened:
        yield opened


def test_no_request_fails_while_the_traffic_goes_there_and_back(
    node: NodeProcess, front: Front, client: NodeClient, tmp_path: Path
) -> None:
    old, new = (push(client, tiny_bundle(tmp_path / name, name=name)) for name in ("old", "new"))
    done = switch(client, old, expected=None)
    assert done.status == "succeeded", done.reason
    with Load(front.url) as load:
        load.wait_for(100)
        there = switch(client, new, expected=old)
        load.wait_for(300)
        back = switch(client, old, expected=new)
        load.wait_for(300)
    print(there, back, load.counted)
    assert (there.status, back.status) == ("succeeded", "succeeded")
    assert load.counted.failed == 0, load.counted.reasons
    assert min(load.counted.answered[old], load.counted.answered[new]) > 0
