"""The nodes of `deploy demo`: their settings, their comparison file by file, and the signals that end them."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import AbstractContextManager

from ashat.bundle.manifest import Manifest
from ashat.cli.terminal.interrupts import ENDING_SIGNALS, on_ending_signals
from ashat.client.local_node import LocalNode
from ashat.errors import AshatError, IntegrityError

MARKER = "DEPLOY_DEMO_RUN"
# The sample as `[app]` and `[database]` of a node.toml would name it, with less patience than a real server needs.
SETTINGS = {
    "ASHAT_NODE_APP__COMMAND": json.dumps([sys.executable, "raos.py"]),
    "ASHAT_NODE_APP__SETTLE": "1",
    "ASHAT_NODE_APP__STOP_TIMEOUT": "5",
    "ASHAT_NODE_DATABASE__DSN": "sqlite:///{data}/raos.db",
    "ASHAT_NODE_POLL_INTERVAL": "1",
}


class DemoError(AshatError):
    """The demonstration did not come to its end."""


class EndedBySignal(BaseException):
    """A signal, whose number is `number`, ended the demonstration."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def refuse_differences(manifest: Manifest, nodes: list[LocalNode]) -> None:
    """Compare what lies on each node's disk with the source, file by file.

    Raises:
        IntegrityError: a file differs, is missing, or is too many; the message names it.
    """
    wanted = manifest.listing
    for node in nodes:
        with node.client() as client:
            tree = client.tree()
        found = tree.listing
        odd = sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))
        if odd or tree.extra or tree.bundle != manifest.digest:
            what = (odd + tree.extra or ["its manifest"])[0]
            raise IntegrityError(f"{node.name} does not have what the source has: {what} differs.")


def ended_by_signals() -> AbstractContextManager[None]:
    """Within the block the first SIGINT, SIGTERM or SIGHUP raises `EndedBySignal`; nothing interrupts what follows."""

    def end(number: int) -> None:
        ignore_signals()
        raise EndedBySignal(number)

    return on_ending_signals(end)


def ignore_signals() -> None:
    """Let no signal interrupt the cleaning up."""
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda *_: None)
