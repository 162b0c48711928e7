"""The data of a node as its operator's commands reach it, whether or not it runs: the directory, and the record."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ashat.errors import UsageError
from ashat.node.core.config import NodeConfig
from ashat.node.core.db import RECORD_FILE, Database
from ashat.node.logs.change_log import asked_by, local_operator

Config = Annotated[Path | None, typer.Option("--config", "-c", help="The node's settings, a TOML file.")]
Data = Annotated[Path | None, typer.Option("--data", help="The directory that holds everything the node keeps.")]


def data_of(config: Path | None, data: Path | None) -> Path:
    """Find the node's data directory: `--data`, else what the settings say, else `ASHAT_NODE_DATA`.

    Raises:
        UsageError: none of them says, or the settings are wrong.
    """
    if data is not None:
        return data.absolute()
    if config is not None:
        return NodeConfig.load(config).data
    if os.environ.get("ASHAT_NODE_DATA"):
        return Path(os.environ["ASHAT_NODE_DATA"]).absolute()
    raise UsageError("Which node? Give --data DIR or --config FILE.")


@contextmanager
def open_record(data: Path, *, make: bool = False) -> Iterator[Database]:
    """Open the record in `data`; what is changed in it is said to be asked for by who types here.

    Raises:
        UsageError: no node has served from there, and none is to be made (`make`).
        AshatError: it cannot be opened.
    """
    if not (make or (data / RECORD_FILE).is_file()):
        raise UsageError(f"There is no node in {data}: none has served from there yet. Give --data or --config.")
    database = Database(data / RECORD_FILE)
    try:
        with asked_by(local_operator()):
            yield database
    finally:
        database.close()
