"""Small files that are read often, from memory for as long as nobody replaced them."""

from __future__ import annotations

import os
from typing import Final

SMALL: Final = 64 * 1024
MOST: Final = 64


class RememberedFiles:
    """The contents of at most `MOST` files of at most `SMALL` bytes each; larger ones are read each time.

    It is for files that are only ever replaced whole, as `ashat.common.files.replace_file` does.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, ...], bytes]] = {}

    def read(self, path: str) -> bytes:
        """Return what is in the file at `path` now.

        Raises:
            OSError: it cannot be read.
        """
        found = os.stat(path)
        identity = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        known = self._known.get(path)
        if known is not None and known[0] == identity:
            return known[1]
        with open(path, "rb") as file:
            content = file.read()
        if len(content) <= SMALL:
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[path] = identity, content
        return content
