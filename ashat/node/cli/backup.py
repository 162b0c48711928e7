"""`ashat-node backup` and `restore`: a node's own records in one file, while it serves, and back.

Its settings, its tokens' hashes, its keys, what it remembers of trust and of logs, and its databases: the change log,
licences, operations, offers. Not the bundles and the releases, which come again from ALPHA or OMEGA; not the program's
data, which is the program's; not logs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ashat.backup.backup_file import (
    Header,
    copy_sqlite,
    files_below,
    is_private_key,
    put_in_place,
    read_backup,
    staging_beside,
    write_backup,
)
from ashat.errors import BackupError, UsageError
from ashat.node.core.db import RECORD_FILE, Database

NOT_IN_IT: Final = "bundles and releases (deploy heal, or pushing again, brings them), the program's data, and logs"
_DIRECTORIES: Final = ("audit", "trust", "witnessed")
_MADE_ANEW: Final = ("node.json", "release-files", "current")
_ENDINGS: Final = (".lock", ".log", "-wal", "-shm", "-journal")
_DATABASE = ".db"


def back_up_node(data: Path, target: Path, *, with_secrets: bool) -> Header:
    """Write the records of the node of directory `data`, which may serve meanwhile, into the new file `target`.

    Raises:
        UsageError: there is no node, or `target` is there already.
        BackupError: something cannot be read or written.
    """
    if not (data / RECORD_FILE).is_file():
        raise UsageError(f"There is no node in {data}: none has served from there yet. Give --data or --config.")
    if target.exists():
        raise UsageError(f"{target} is there already; give the backup another name.")
    with staging_beside(target.absolute()) as staged:
        databases = []
        for path in _own_files(data):
            if path.endswith(_DATABASE):
                databases.append(path)
            elif with_secrets or not is_private_key(data / path):
                _copy(data / path, staged / path)
        # Last: what the files remember of the databases, these have then at least.
        for path in databases:
            (staged / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            copy_sqlite(data / path, staged / path)
        return write_backup(target, staged, "node", with_secrets=with_secrets, facts={"bundle": _runs(staged)})


def restore_node(data: Path, source: Path) -> Header:
    """Put the backup `source` into the directory `data`, which must not be there or be empty.

    Raises:
        UsageError: something is there, or there is no such backup.
        BackupError: it is damaged, cut off, of another kind, or newer. Nothing was changed.
        AshatError: a newer version wrote the node's record.
    """
    data = data.absolute()
    found = sorted(os.listdir(data)) if data.is_dir() else []
    if found:
        raise UsageError(f"{data} holds {', '.join(found[:3])}: nothing is overwritten. Give another --data.")
    with staging_beside(data) as staging:
        staged = staging / "data"
        staged.mkdir(mode=0o700)
        header = read_backup(source, staged, "node")
        if RECORD_FILE not in header.files:
            raise BackupError(f"{source} has no {RECORD_FILE} in it; nothing was changed.")
        Database(staged / RECORD_FILE).close()
        put_in_place(staged, data)
    return header


def _own_files(data: Path) -> Iterator[str]:
    for entry in sorted(os.scandir(data), key=lambda entry: entry.name):
        if entry.is_file(follow_symlinks=False):
            if entry.name not in _MADE_ANEW and not entry.name.endswith(_ENDINGS) and ".log." not in entry.name:
                yield entry.name
        elif entry.name in _DIRECTORIES and entry.is_dir(follow_symlinks=False):
            for path in files_below(data / entry.name):
                if not path.endswith(_ENDINGS):
                    yield f"{entry.name}/{path}"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        shutil.copy2(source, target, follow_symlinks=False)
    except FileNotFoundError:
        return  # the node replaced or removed it in this moment
    except OSError as error:
        raise BackupError(f"{source} cannot be copied: {error.strerror}.") from None


def _runs(staged: Path) -> str:
    """The bundle that the node runs by its record, "" where it runs none."""
    database = Database(staged / RECORD_FILE)
    try:
        row = database.one("SELECT bundle FROM releases WHERE slot = 'current'")
        return str(row["bundle"]) if row else ""
    finally:
        database.close()
