"""What a step tells whoever watches: the terminal of `deploy`, or Prefect's log when nobody set another."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from prefect.logging import get_run_logger
from prefect.logging.loggers import get_logger

from ashat.protocol.messages import Lease
from tasks.checks.kit.base import CheckResult


class Reporter(Protocol):
    """Whoever watches a flow. Its methods are called from several threads."""

    def step(self, number: int, title: str) -> None:
        """The plan's step `number` begins."""

    def say(self, line: str) -> None:
        """Something worth a line."""

    def moved(self, done: int, total: int) -> None:
        """`done` of `total` bytes have arrived."""

    def check(self, result: CheckResult) -> None:
        """A check has ended."""

    def waiting(self, lease: Lease) -> None:
        """Another update has the server; this one waits its turn."""


class LogReporter:
    """Writes to the log of the flow run, which Prefect shows."""

    def step(self, number: int, title: str) -> None:
        """The plan's step `number` begins."""
        self.say(f"Step {number}: {title}")

    def say(self, line: str) -> None:
        """Something worth a line."""
        _logger().info(line)

    def moved(self, done: int, total: int) -> None:
        """Bytes are shown as a progress artifact, not in the log."""

    def check(self, result: CheckResult) -> None:
        """A check has ended."""
        self.say(f"{result.title}: {result.outcome}: {result.seen}")

    def waiting(self, lease: Lease) -> None:
        """Another update has the server."""
        self.say(f"Waiting for {lease.holder} ({lease.who}: {lease.why}, since {lease.since:%H:%M:%S} UTC)")


_watching: list[Reporter] = [LogReporter()]


def reporter() -> Reporter:
    """Whoever watches this process's flow."""
    return _watching[-1]


@contextmanager
def use_reporter(watcher: Reporter) -> Iterator[None]:
    """Let `watcher` be told, for the whole process, until the block ends."""
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
