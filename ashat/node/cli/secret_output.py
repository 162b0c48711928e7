"""A token or a key that is shown once: on stdout, or in a new file that only its owner reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ashat.errors import UsageError

Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write it to this new file, mode 0600, instead of stdout.")
]


def say_where(out: Path | None) -> str:
    """End the sentence that announces a secret: where it is."""
    return f" is in {out}, and kept nowhere else." if out else ", which is shown this once and kept nowhere:"


@contextmanager
def secret_output(out: Path | None) -> Iterator[Callable[[str], None]]:
    """Open where a secret goes, before it is made; yields what writes it. The file goes again where none was made.

    Raises:
        UsageError: the file is there already, or cannot be made.
    """
    if out is None:
        yield typer.echo
        return
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UsageError(f"{out} is there already; give --out a new file.") from None
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}.") from None
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask
            yield lambda secret: print(secret, file=file)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        out.unlink(missing_ok=True)
        raise
