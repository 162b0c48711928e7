"""A run gives up a server that hangs once, and not anew at each question that it has for it."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from ashat.errors import NodeUnreachableError
from blocks.server import RaosServer
from tasks.runtime.connections import Connections, connections
from tests.support.fakes.answering_server import a_node, answering

SECONDS = 0.5


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASHAT_READ_TIMEOUT", str(SECONDS))


@pytest.fixture
def hanging() -> Iterator[str]:
    """The URL of a server that takes each connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def knocked(url: str) -> Connections:
    """The connections of a run that has knocked at an OMEGA at `url`."""
    with connections({"omega": RaosServer(role="omega", url=url, title="production")}) as run:
        run.knock("omega")
        return run


def test_a_server_that_hangs_is_waited_for_once(hanging: str) -> None:
    began = time.monotonic()
    run = knocked(hanging)
    assert time.monotonic() - began >= SECONDS
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(NodeUnreachableError, match="it did not answer in time") as told:
            run.client("omega")
        assert not told.value.transient, "a retry would find the same"
    assert time.monotonic() - began < SECONDS


def test_a_server_that_answers_is_asked_what_follows() -> None:
    with (
        answering(a_node("omega")) as url,
        connections({"omega": RaosServer(role="omega", title="omega", url=url)}) as run,
    ):
        run.knock("omega")
        assert run.client("omega").identity().name == "omega"


def test_a_server_that_refuses_at_once_may_be_starting_and_is_asked_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with connections({"omega": RaosServer(role="omega", title="omega", url=url)}) as run:
        run.knock("omega")
        with pytest.raises(NodeUnreachableError) as told:
            run.client("omega").identity()
        assert told.value.transient
