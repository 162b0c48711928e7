"""Where our files are. Apart from `ashat.settings`, so that `deploy status` need not wait for what that imports."""

from __future__ import annotations

import os
from pathlib import Path

LOOKED_FILE = "reconciled.json"
"""In the home: when `reconcile` last looked at everything."""


def home() -> Path:
    """The directory of all our files: `ASHAT_HOME`, or `~/.ashat`."""
    named = os.environ.get("ASHAT_HOME")
    return Path(named) if named is not None else Path.home() / ".ashat"
