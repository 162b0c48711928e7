"""Another user of this machine: code that runs with the rights of nobody, in a process forked for it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

NOBODY = 65534
_SECONDS = 120


def as_nobody(act: Callable[..., Any], *words: Any) -> Any:
    """What `act(*words)` returns when a user calls it who owns nothing; root only, and `act` imports nothing new."""
    ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_run, args=(theirs, act, words))
    process.start()
    theirs.close()
    assert ours.poll(_SECONDS), "nobody did not come to an end"
    result = ours.recv()
    process.join(_SECONDS)
    return result


def _run(result: Connection, act: Callable[..., Any], words: tuple[Any, ...]) -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    result.send(act(*words))
