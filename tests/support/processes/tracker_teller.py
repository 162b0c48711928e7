"""Tell the trackers once, in a process of its own: `python -m … URL`, in the home of the environment.

Prefect's variables lie in the file `variables.json` of the home, and the one block is GitHub's at URL.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from prefect.blocks.core import Block
from prefect.variables import Variable
from pydantic import SecretStr

from ashat.common.files import replace_file
from ashat.common.home import home
from blocks.trackers import GitHubTracker
from tasks.reconcile.trackers import tell_trackers
from tasks.runtime.connections import connections
from tests.support.fakes.tracker_server import TOKEN


def main(url: str) -> None:
    """Tell what is due."""
    file = home() / "variables.json"

    def kept() -> dict[str, Any]:
        return dict(json.loads(file.read_bytes())) if file.exists() else {}

    def keep(name: str, value: Any, **_: Any) -> None:
        replace_file(file, json.dumps({**kept(), name: value}).encode())

    tracker = GitHubTracker(repository="owner/name", url=url, token=SecretStr(TOKEN))
    Variable.get = lambda name, *_: kept().get(name)  # type: ignore[method-assign]
    Variable.set = keep  # type: ignore[method-assign,assignment]
    Block.load = lambda *_: tracker  # type: ignore[method-assign]
    with connections():
        tell_trackers()


if __name__ == "__main__":
    main(sys.argv[1])
