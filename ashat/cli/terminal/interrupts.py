"""Ctrl-C: what goes on without us, and how to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ashat.errors import AshatError


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
