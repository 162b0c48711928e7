"""Report a flow's progress to the terminal of `deploy`, or else to Prefect's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from prefect.logging import get_run_logger
from prefect.logging.loggers import get_logger

from ashat.common.text import printable
from ashat.protocol.messages import Lease
from tasks.checks.kit.base import CheckResult


class Reporter(Protocol):
    """Shows a flow's progress. Several threads call its methods."""

    def step(self, number: int, title: str) -> None:
        """Show that the plan's step `number` begins."""

    def say(self, line: str) -> None:
        """Show a line."""

    def moved(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes have arrived."""

    def check(self, result: CheckResult) -> None:
        """Show how a check ended."""

    def waiting(self, lease: Lease) -> None:
        """Show that this update waits for its turn, because another has the server's `lease`."""

    def doing(self, what: str) -> AbstractContextManager[None]:
        """Say `what` is being done while the `with` block runs, where nothing else is shown for a while."""


class LogReporter:
    """Writes a flow's progress to the log of its run, which Prefect shows."""

    def step(self, number: int, title: str) -> None:
        """Show that the plan's step `number` begins."""
        self.say(f"Step {number}: {title}")

    def say(self, line: str) -> None:
        """Show a line."""
        _logger().info(printable(line))

    def moved(self, done: int, total: int) -> None:
        """Log nothing: a progress artifact shows the bytes."""

    def check(self, result: CheckResult) -> None:
        """Show how a check ended."""
        self.say(f"{result.title}: {result.outcome}: {result.seen}")

    def waiting(self, lease: Lease) -> None:
        """Log that another update has the server's `lease`."""
        self.say(f"Waiting for {lease.holder} ({lease.who}: {lease.why}, since {lease.since:%H:%M:%S} UTC)")

    def doing(self, what: str) -> AbstractContextManager[None]:
        """Log nothing: the state of the task run shows it."""
        return nullcontext()


_watching: list[Reporter] = [LogReporter()]


def reporter() -> Reporter:
    """Return what shows the progress of this process's flow."""
    return _watching[-1]


@contextmanager
def use_reporter(watcher: Reporter) -> Iterator[None]:
    """Report to `watcher` in the whole process until the block ends."""
    _watching.append(watcher)
    try:
        yield
    finally:
        _watching.pop()


def _logger() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    try:
        return get_run_logger()
    except RuntimeError:
        return get_logger("ashat")
