"""Open the ledger that the settings name: once a command, and only if it needs more than the list of deployments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ashat.ledger.ledger import Ledger


class _Command:
    """The ledger of a command that runs, and what closes it at the end."""

    def __init__(self, closing: ExitStack) -> None:
        self.closing = closing
        self.ledger: Ledger | None = None


_running: ContextVar[_Command | None] = ContextVar("command", default=None)


@contextmanager
def one_ledger() -> Iterator[None]:
    """Have `open_ledger` open the ledger once while a command runs, and close it with the command."""
    with ExitStack() as closing:
        token = _running.set(_Command(closing))
        closing.callback(_running.reset, token)
        yield


@contextmanager
def open_ledger() -> Iterator[Ledger]:
    """Use the ledger that the settings name: the command's, if this is part of one.

    Raises:
        LedgerError: it does not open, or a newer version wrote it.
    """
    from ashat.ledger.ledger import Ledger

    command = _running.get()
    if command is None:
        with Ledger.configured() as ledger:
            yield ledger
        return
    if command.ledger is None:
        command.ledger = command.closing.enter_context(Ledger.configured())
    yield command.ledger
