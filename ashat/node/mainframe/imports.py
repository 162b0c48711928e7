"""The import of a Mainframe: a file that was carried here, handed over to the agent, and what came of it.

`ashat-node import` copies the file to `<data>/imports/ID`, and then notes it in the record; from there on it is the
agent's. There is one import at a time: the next one takes the place of one that still waits.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ashat.common.documents import STATE_LIMIT, load_json
from ashat.errors import DocumentError
from ashat.node.core.db import Database
from ashat.protocol.carried import CarriedReport
from ashat.protocol.messages import Message, Offer

Status = Literal["handed-over", "waiting", "installing", "running", "failed", "refused"]
_KEY = "import"


class Import(Message):
    """An import, by its `id`: how it gets on, and in words. `file` is the file as it was named.

    `offer` is what it brings, once it was verified and all of it is `taken`, from when on the file is not needed; the
    approval ends at `expires`. `failures` are the attempts at that release that had failed before. `report` is for
    OMEGA.
    """

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    file: str
    status: Status = "handed-over"
    detail: str = ""
    offer: Offer | None = None
    taken: bool = False
    expires: datetime | None = None
    failures: int | None = None
    report: CarriedReport | None = None

    @property
    def pending(self) -> bool:
        """Whether it is still to be dealt with."""
        return self.status in ("handed-over", "waiting", "installing")


class Imports:
    """The import of the Mainframe whose data is in `data`; any process may ask."""

    def __init__(self, data: Path, database: Database) -> None:
        self._directory = data / "imports"
        self._database = database

    def last(self) -> Import | None:
        """Read the last import; None where there was none, or it cannot be read."""
        try:
            return Import.model_validate(load_json(self._database.get_meta(_KEY) or "", limit=STATE_LIMIT))
        except (DocumentError, ValidationError):
            return None

    def pending(self) -> Import | None:
        """Read the import that is still to be dealt with."""
        last = self.last()
        return last if last is not None and last.pending else None

    def keep(self, found: Import) -> Import:
        """Note how it gets on, durably, and return it; where it has ended or was taken, its file goes."""
        self._database.set_meta(_KEY, found.model_dump_json())
        if found.taken or not found.pending:
            self.path(found.id).unlink(missing_ok=True)
        return found

    def path(self, identity: str) -> Path:
        """Name the file of an import."""
        return self._directory / identity

    def make_place(self) -> None:
        """Make the directory for files, and remove those of imports that were given up.

        Raises:
            OSError: it cannot be made.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        last = self.pending()
        for path in self._directory.iterdir():
            if last is None or path.name != last.id:
                with suppress(OSError):
                    path.unlink()

    def free_bytes(self) -> int:
        """Count the bytes that are free for a file."""
        return shutil.disk_usage(self._directory).free
