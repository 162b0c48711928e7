"""`ashat-node import` and `import-report`: a release that was carried here by hand, and what goes back to OMEGA."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from ashat.bundle.manifest import MANIFEST_LIMIT
from ashat.common.files import replace_file, sync_directory
from ashat.common.shortage import reason
from ashat.common.text import printable
from ashat.errors import AshatError, CarriedFileError, UsageError
from ashat.node.cli.record import open_record
from ashat.node.cli.status import is_held
from ashat.node.context import LOCK_FILE
from ashat.node.core.db import Database
from ashat.node.mainframe.carried import check_addressee, read_manifest
from ashat.node.mainframe.importer import LICENCE
from ashat.node.mainframe.imports import Import, Imports
from ashat.node.store.room import RESERVE_BYTES
from ashat.protocol.carried import CarriedFile
from ashat.protocol.messages import Role

_LOOK_EVERY = 0.2
_NOTHING = "Nothing was changed."


class ImportFailedError(AshatError):
    """What was carried here was refused, or does not run."""


def import_file(data: Path, file: Path, report: Path | None, wait: float, tell: Callable[[str], None]) -> str:
    """Hand a file over to the Mainframe of that data directory, which serves, and wait until it has dealt with it, for
    `wait` seconds at most; say how it gets on, and write the report to `report`.

    Raises:
        UsageError: there is no Mainframe that serves, or the file cannot be read.
        CarriedFileError: it is none of ours, was cut or altered, or is for another Mainframe.
        ImportFailedError: the Mainframe refused it, or it does not run there.
    """
    with open_record(data) as database:
        _check_node(data, database)
        imports = Imports(data, database)
        found = _hand_over(imports, file, database.get_meta(LICENCE) or "")
        tell(f"{file} came whole; the Mainframe looks at who signed it.")
        found = _await(imports, found.id, wait)
        if report is not None:
            _write_report(found, report)
    if found.status in ("refused", "failed"):
        raise ImportFailedError(f"{found.detail.rstrip('.')}. What runs here keeps running.")
    return _words(found)


def write_report(data: Path, report: Path) -> str:
    """Write the report on the last import of the Mainframe of that data directory to `report`.

    Raises:
        UsageError: there is no Mainframe, nothing was imported, or the file cannot be written.
    """
    with open_record(data) as database:
        _check_role(database)
        last = Imports(data, database).last()
    if last is None:
        raise UsageError("Nothing was imported here.")
    _write_report(last, report)
    return f"{report}: {_words(last)}"


def _check_role(database: Database) -> None:
    if database.get_meta("role") != Role.MAINFRAME:
        raise UsageError(f"This node is no Mainframe: nothing is imported here. {_NOTHING}")


def _check_node(data: Path, database: Database) -> None:
    _check_role(database)
    if not is_held(data / LOCK_FILE):
        raise UsageError(f"The node of {data} does not run, and it is who imports: ashat-node serve. {_NOTHING}")


class _Copying:
    """A file that is copied while it is read."""

    def __init__(self, source: BinaryIO, target: BinaryIO) -> None:
        self._source = source
        self._target = target

    def read(self, size: int) -> bytes:
        content = self._source.read(size)
        self._target.write(content)
        return content


def _hand_over(imports: Imports, file: Path, licence: str) -> Import:
    """Read the file to its end, to see that it came whole and is for here, and give a copy to the agent."""
    found = Import(id=secrets.token_hex(8), file=printable(str(file))[:200])
    path = imports.path(found.id)
    try:
        imports.make_place()
        try:
            with file.open("rb") as source, path.open("xb") as target:
                os.fchmod(target.fileno(), 0o600)
                _check(
                    CarriedFile(_Copying(source, target), str(file), manifest_limit=MANIFEST_LIMIT), imports, licence
                )
                target.flush()
                os.fsync(target.fileno())
            sync_directory(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(f"{file} cannot be taken in: {reason(error, path.parent)}. {_NOTHING}") from None
    return imports.keep(found)


def _check(carried: CarriedFile, imports: Imports, licence: str) -> None:
    """Read the file to its end; see that it fits, and that it is for the Mainframe with that licence."""
    word, contents = carried.word, carried.contents
    if licence:
        check_addressee(word, licence)
    free = imports.free_bytes()
    if contents.bytes + RESERVE_BYTES > free:
        raise CarriedFileError(
            f"The file holds {contents.bytes / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free here, of which "
            f"{RESERVE_BYTES / 1e6:.1f} MB stay in reserve; make room and try again. {_NOTHING}"
        )
    manifest = read_manifest(carried.manifest(), word.offer.bundle)
    for _ in carried.objects(manifest.objects):
        pass  # each is verified as it is read


def _await(imports: Imports, identity: str, seconds: float) -> Import:
    deadline = time.monotonic() + seconds
    while True:
        found = imports.last()
        if found is None or found.id != identity:
            raise ImportFailedError("Another file was imported meanwhile, and took the place of this one.")
        if found.status not in ("handed-over", "installing") or time.monotonic() >= deadline:
            return found
        time.sleep(_LOOK_EVERY)


def _words(found: Import) -> str:
    brought = f"{found.offer.update_id}/{found.offer.attempt}" if found.offer else found.file
    match found.status:
        case "running":
            return f"{brought} runs here."
        case "handed-over":
            return f"{brought} was handed over, and the Mainframe has not looked at it yet; it does without you."
        case "installing":
            return f"{brought} is being installed; that goes on without you."
        case "waiting":
            return f"{found.detail}."
        case _:
            return f"{brought}: {found.detail}"


def _write_report(found: Import, report: Path) -> None:
    if found.report is None:
        raise UsageError(f"There is nothing to report yet, so {report} was not written: {_words(found)}")
    try:
        replace_file(report, found.report.model_dump_json().encode() + b"\n")
    except OSError as error:
        raise UsageError(f"{report} cannot be written: {error.strerror}.") from None
