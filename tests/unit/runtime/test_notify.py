"""Whoever is told something may take for ever, or fail; a deployment goes on."""

from __future__ import annotations

import time
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from tasks.runtime.notify import _within
from tests.support.fakes.stranger import OK, dripping, stranger


def channel(notify: Any) -> Any:
    return cast(Any, SimpleNamespace(notify=notify, raise_on_failure=nullcontext))


def test_a_channel_that_drips_its_answer_is_left_alone() -> None:
    began = time.monotonic()
    with (
        stranger(dripping(OK + b"Content-Length: 1000000\r\n\r\n")) as url,
        pytest.raises(TimeoutError, match=r"0\.3 s"),
    ):
        _within(0.3, channel(lambda *_: httpx.get(url)), "body", "subject")
    assert time.monotonic() - began < 20


def test_one_that_fails_says_so_and_one_that_works_is_told_once() -> None:
    def broken(*_: str) -> None:
        raise ValueError("no such room")

    with pytest.raises(ValueError, match="no such room"):
        _within(20, channel(broken), "body", "subject")
    told: list[tuple[str, ...]] = []
    _within(20, channel(lambda *words: told.append(words)), "body", "subject")

    async def later(*words: str) -> None:
        told.append(words)

    _within(20, channel(later), "later", "subject")
    assert told == [("body", "subject"), ("later", "subject")]
