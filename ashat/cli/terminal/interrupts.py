"""What ends a command from outside: Ctrl-C, and the signals that ask a process to end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ashat.errors import AshatError

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StoppedError(AshatError):
    """A person interrupted the command."""

    exit_code = 130


@contextmanager
def when_interrupted(advice: str) -> Iterator[None]:
    """Turn Ctrl-C within the block into a line that ends in `advice`.

    Raises:
        StoppedError: it was pressed.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(f"Interrupted. {advice}") from None


@contextmanager
def on_ending_signals(act: Callable[[int], object]) -> Iterator[None]:
    """Within the block, call `act` with the number of each SIGINT, SIGTERM and SIGHUP, in place of what they do."""
    before = {number: signal.signal(number, lambda number, _: act(number)) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
