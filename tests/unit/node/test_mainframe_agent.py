"""A Mainframe's agent outlives whatever happens in a turn, and its end is seen."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ashat.node.context import NodeContext, open_node
from ashat.node.core.config import NodeConfig
from ashat.node.mainframe.agent import MainframeAgent
from ashat.protocol.messages import Role
from tests.support.processes.omega import eventually

PAUSES = (math.nan, -1.0)
ERRORS = (OverflowError("timeout value is too large"), ValueError("²"), RecursionError(), MemoryError(), KeyError("x"))


@pytest.fixture
def context(tmp_path: Path) -> Iterator[NodeContext]:
    licence = tmp_path / "licence"
    settings = {"omega": "http://127.0.0.1:1", "license_file": licence, "unsigned_releases": True}
    with open_node(NodeConfig(role=Role.MAINFRAME, data=tmp_path / "data", poll_interval=0.01, **settings)) as opened:
        yield opened


def test_no_failure_of_a_turn_ends_the_agent(context: NodeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = itertools.count()
    beyond = threading.Event()

    def turn(_: MainframeAgent) -> float:
        number = next(turns)
        if number < len(ERRORS):
            raise ERRORS[number]
        if number - len(ERRORS) < len(PAUSES):
            return PAUSES[number - len(ERRORS)] if number > len(ERRORS) else 0.0
        beyond.set()
        return math.inf

    monkeypatch.setattr(MainframeAgent, "_turn", turn)
    agent = MainframeAgent(context)
    agent.start()
    try:
        assert beyond.wait(60)
        assert agent.thread.is_alive()
        assert (agent.state().status, "log says why" in agent.state().detail) == ("failed", True)
    finally:
        context.stopping.set()
        agent.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_agent_that_has_ended_is_seen(context: NodeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def turn(_: MainframeAgent) -> float:
        raise SystemExit

    monkeypatch.setattr(MainframeAgent, "_turn", turn)
    agent = MainframeAgent(context)
    context.services.append(agent)
    assert context.ended_threads() == []
    agent.start()
    eventually(lambda: not agent.thread.is_alive(), "its end")
    assert context.ended_threads() == ["mainframe"]
    state = agent.state()
    assert (state.status, "restart the node" in state.detail) == ("failed", True)
