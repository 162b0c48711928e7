"""A file read whole, but never more of it than what it is for can have."""

from __future__ import annotations

import errno
from pathlib import Path


def read_bounded(path: Path, limit: int) -> bytes:
    """What the file `path` holds.

    Raises:
        OSError: it cannot be read, or has more than `limit` bytes; `strerror` says which.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
    return content
