"""Keep tracebacks of what was refused, or did not answer, out of the logs that people read."""

from __future__ import annotations

import logging

from prefect.logging.loggers import get_logger

from ashat.common.text import printable
from ashat.errors import AshatError

_TASKS = "task_runs"
_FINISHED = "Finished in state Completed"


class OneLine(logging.Filter):
    """Log an `AshatError` by its one line, which says what to do; and no line of a task that simply ended well."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record, or drop it."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, AshatError):
            record.msg, record.args, record.exc_info = printable(str(error)), (), None
        return not (record.levelno <= logging.INFO and record.getMessage().startswith(_FINISHED))


_filter = OneLine()


def log_errors_in_one_line() -> None:
    """Have the log of this process's tasks kept short; once or again."""
    get_logger(_TASKS).addFilter(_filter)
