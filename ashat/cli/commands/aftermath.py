"""Tell at a command's end, where it did not do what it was for, what goes on without it and how to stop that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from ashat.cli.terminal import output
from ashat.cli.terminal.interrupts import StoppedError
from ashat.errors import AshatError, UsageError
from ashat.ledger.opening import open_ledger

if TYPE_CHECKING:
    from ashat.deployment.state import State

    Advice = Callable[[State | None], str]


def of_a_run_here(state: State | None) -> str:
    """Advise whoever interrupts a push or a verification, which runs in this process."""
    from ashat.deployment.aftermath import after_an_interrupt

    return after_an_interrupt(state, output.now())


@contextmanager
def told_what_goes_on(update_id: str, advice: Advice = of_a_run_here) -> Iterator[None]:
    """Add to an error that ends the block what the control plane does by itself with the update, as the record has it
    by then; turn Ctrl-C into a line that ends in `advice`.

    Raises:
        StoppedError: it was pressed.
    """
    try:
        yield
    except (KeyboardInterrupt, typer.Abort):
        raise StoppedError(f"Interrupted. {advice(_state(update_id))}") from None
    except (UsageError, StoppedError):
        raise
    except AshatError as error:
        from ashat.deployment.aftermath import goes_on

        state = _state(update_id)
        if state is not None and (line := goes_on(state, output.now())):
            error.add_note(line)
        raise


def _state(update_id: str) -> State | None:
    try:
        with open_ledger() as ledger:
            return ledger.find(update_id)
    except AshatError:
        return None
