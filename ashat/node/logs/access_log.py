"""Every request that reaches a node: when, who asked, from where, for what, and what came of it. Never a secret.

One JSON object a line, in files that are rotated and bounded: those of tokens, of licences and of strangers each in
their own, so that neither many Mainframes nor whoever is not let in push out what operators did. `tokens.jsonl.1` is
the file before `tokens.jsonl`, and so on.

A line is handed to the system before the answer's last byte is sent, and not waited for on the disk: a node that is
killed loses none, a loss of power may take the last seconds.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import ValidationError

from ashat.common.rotation import RotatedFile, newest_first
from ashat.common.text import printable, without_secrets
from ashat.protocol.messages import AccessLogLine, Caller

log = logging.getLogger("ashat.node")

DIRECTORY = "journal"
DETAIL_LENGTH = 500
PATH_LENGTH = 500
_FILES = {Caller.TOKENS: 8, Caller.LICENCES: 4, Caller.ANONYMOUS: 2}


class AccessLog:
    """The requests of one node, in `directory`. Safe to use from many threads."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files = {caller: RotatedFile(_path(directory, caller), _FILES[caller]) for caller in Caller}
        self._failed = False

    def append(self, line: AccessLogLine) -> None:
        """Add a line. Where the disk takes none, the log says so once, and the request is served all the same."""
        caller = Caller.TOKENS if line.token else Caller.LICENCES if line.licence else Caller.ANONYMOUS
        try:
            self._files[caller].append(line.model_dump_json(exclude_defaults=True).encode() + b"\n")
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning("requests are not written down: %s", error)
            self._failed = True

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()


def cleaned(line: AccessLogLine) -> AccessLogLine:
    """Return `line` with its texts cut to what a log can hold, printable, and without secrets."""
    texts = {
        "method": printable(line.method)[:20],
        "path": printable(without_secrets(line.path))[:PATH_LENGTH],
        "client": printable(line.client)[:64],
        "detail": printable(without_secrets(line.detail))[:DETAIL_LENGTH],
    }
    same = all(getattr(line, name) == text for name, text in texts.items())
    return line if same else line.model_copy(update=texts)


def read_access_log(
    directory: Path, caller: Caller = Caller.TOKENS, *, limit: int, of: str = ""
) -> list[AccessLogLine]:
    """Read the newest `limit` lines, newest first; with `of` only those of the token or licence with that id.

    A line that a loss of power tore is left out.
    """
    found: list[AccessLogLine] = []
    for raw in newest_first(_path(directory, caller), _FILES[caller]):
        try:
            line = AccessLogLine.model_validate_json(raw)
        except ValidationError:
            continue
        if of in ("", line.token, line.licence):
            found.append(line)
        if len(found) == limit:
            break
    return found


def _path(directory: Path, caller: Caller) -> Path:
    return directory / f"{caller}.jsonl"
