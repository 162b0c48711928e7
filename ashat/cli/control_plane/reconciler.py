"""The service of the control plane that runs `reconcile` each minute, in this one process; run as a module.

A scheduled deployment would start a process for each run, and list a hundred that are still to come.
"""

from __future__ import annotations

import sys
import threading

from ashat.cli.control_plane.connect import running_state
from ashat.cli.terminal.interrupts import on_ending_signals
from ashat.common.text import last_line, printable
from ashat.settings import Settings

_TAGS = ("ashat", "control")
_POLL = 0.2


def main() -> int:
    """Wait until the control plane is ready, then look each minute until a signal ends it; 1 where a look broke off."""
    ended, settings = threading.Event(), Settings()
    with on_ending_signals(lambda _: ended.set()):
        while running_state(settings.home) is None:
            if ended.wait(_POLL):
                return 0
        return _look_until(ended, settings.reconcile_seconds)


def _look_until(ended: threading.Event, seconds: float) -> int:
    from prefect import tags  # not before the control plane is ready, which has enough to import until then

    from flows.reconcile import reconcile

    with tags(*_TAGS):
        while not ended.is_set():
            try:
                reconcile(return_state=True)
            except Exception as error:  # noqa: BLE001  whatever it is, the supervisor starts another process
                sys.stderr.write(f"{type(error).__name__}: {printable(last_line(str(error)))}\n")
                return 1
            ended.wait(seconds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
