"""Do something that must hold nobody up, in a thread that is left alone once its time is over."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

Result = TypeVar("Result")


def in_time(seconds: float, act: Callable[[], Result], name: str = "bounded") -> Result:
    """Do it in a thread of that name, and wait at most so many seconds for what it returns.

    Raises what it raises, and TimeoutError where it goes on by then: whoever is asked may answer a byte a minute.
    """
    ended: queue.SimpleQueue[tuple[list[Result], Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ended.put(([act()], None))
        except Exception as error:  # noqa: BLE001  raised below, where the caller is
            ended.put(([], error))

    threading.Thread(target=copy_context().run, args=(run,), name=name, daemon=True).start()
    try:
        result, error = ended.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"it did not end within {seconds:g} s") from None
    if error is not None:
        raise error
    return result[0]
