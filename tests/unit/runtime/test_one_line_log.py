"""What was refused is a line of the log, no traceback; a fault of the code still is one."""

from __future__ import annotations

import logging
import sys

import pytest

from ashat.errors import BundleError, NodeError
from tasks.runtime.one_line_log import OneLine


def record(error: Exception | None, message: str = "Task run failed", level: int = logging.ERROR) -> logging.LogRecord:
    """A record as Prefect's engine makes it of `error`."""
    raised = None
    try:
        if error is not None:
            raise error
    except Exception:  # noqa: BLE001  it is what is recorded
        raised = sys.exc_info()
    return logging.LogRecord("prefect.task_runs", level, __file__, 1, message, (), raised)


@pytest.mark.parametrize("error", [BundleError("The tree is dirty: commit it."), NodeError("It is\x1b[2J away")])
def test_an_error_of_ours_is_its_one_printable_line(error: Exception) -> None:
    seen = record(error)
    assert OneLine().filter(seen)
    assert seen.exc_info is None
    assert logging.Formatter().format(seen) == str(error).replace("\x1b", "\\x1b")


def test_a_fault_of_the_code_keeps_its_traceback() -> None:
    seen = record(ZeroDivisionError("division by zero"))
    assert OneLine().filter(seen)
    assert "Traceback" in logging.Formatter().format(seen)


def test_a_task_that_ended_well_is_no_line_and_one_that_did_not_is() -> None:
    assert not OneLine().filter(record(None, "Finished in state Completed()", logging.INFO))
    assert OneLine().filter(record(None, "Finished in state Failed('x')", logging.INFO))
