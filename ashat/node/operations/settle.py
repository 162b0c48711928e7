"""Waits until a program has been healthy without a break for as long as a switch asks."""

from __future__ import annotations

import threading
import time

from ashat.errors import AshatError
from ashat.node.app_process.health import Health
from ashat.node.app_process.process import Program
from ashat.node.core.config import AppConfig
from ashat.node.store.releases import Release

_LOOK_EVERY = 0.2
_FIRST_PAUSE = 0.05  # a program that has just started is looked at again soon, and then ever less often


class Interrupted(Exception):
    """The node is stopping; what is under way is taken up by its next start."""


class UnhealthyError(AshatError):
    """The program did not become healthy, or did not stay so."""


def settle(
    program: Program, health: Health, release: Release | None, app: AppConfig, stopping: threading.Event
) -> None:
    """Wait until `program` has been healthy as `release` for the settle time without a break.

    Raises:
        UnhealthyError: it ended, or that did not come to be within the start timeout.
        Interrupted: `stopping` was set.
    """
    url = program.url
    if release is None or url is None:
        return
    began = time.monotonic()
    healthy_since: float | None = None
    pause = _FIRST_PAUSE
    while True:
        seen = health.look(url, bundle=release.bundle)
        at = time.monotonic()
        if failure := program.failure():
            raise UnhealthyError(failure)
        if not seen.healthy:
            healthy_since = None
            if at - began > app.start_timeout:
                raise UnhealthyError(f"not healthy within {app.start_timeout:g} s: {seen.detail}")
        elif healthy_since is None:
            healthy_since = at
        left = app.settle - (at - healthy_since) if healthy_since is not None else _LOOK_EVERY
        if left <= 0:
            return
        if stopping.wait(min(pause, left)):
            raise Interrupted
        pause = min(pause * 1.5, _LOOK_EVERY)
