"""Where `deploy` and `ashat-node` begin: they import the rest from here, so that Ctrl-C is a line at any moment."""

from __future__ import annotations

import importlib
import sys

_INTERRUPTED = 130


def deploy() -> None:
    """Run `deploy` with this process's arguments, and end the process with its exit code."""
    _run("ashat.cli.main")


def ashat_node() -> None:
    """Run `ashat-node` with this process's arguments, and end the process with its exit code."""
    _run("ashat.node.cli.main")


def _run(module: str) -> None:
    try:
        main = importlib.import_module(module).main
    except KeyboardInterrupt:
        sys.stderr.write("❌ Interrupted.\n")
        sys.exit(_INTERRUPTED)
    main()
