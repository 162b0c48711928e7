"""Room that a node keeps on its disk, so that it can start and end what it began where everything else is full.

SQLite cannot even read a record in WAL mode where it cannot make its two small files. The reserve is a few files, for
inodes may be what is lacking; they are given up one by one, and made again once there is plenty of room.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ashat.common.shortage import Kind, shortage

FILES = 8
FILE_BYTES = 256 * 1024
_PLENTY = 4 * FILES * FILE_BYTES

_Opened = TypeVar("_Opened")


class Reserve:
    """The reserve in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def give_up(self) -> bool:
        """Give a part of it up; False where none is left."""
        for path in self._parts():
            with suppress(OSError):
                path.unlink()
                return True
        return False

    def restore(self) -> None:
        """Make again what was given up, where there is plenty of room."""
        with suppress(OSError):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            for path in self._all():
                if not path.exists() and shutil.disk_usage(self._directory).free > _PLENTY:
                    path.write_bytes(os.urandom(FILE_BYTES))  # which no filesystem makes smaller

    def spend(self, work: Callable[[], _Opened]) -> _Opened:
        """Do `work`, again with a part of the reserve less for as long as the disk is full.

        Raises:
            Exception: what `work` raised last; nothing is left, or something else is the matter.
        """
        while True:
            try:
                return work()
            except Exception as error:
                lack = shortage(error, self._directory.parent)
                if lack is None or lack.kind is not Kind.FULL or not self.give_up():
                    raise

    def _all(self) -> list[Path]:
        return [self._directory / str(number) for number in range(FILES)]

    def _parts(self) -> list[Path]:
        return [path for path in self._all() if path.exists()]
