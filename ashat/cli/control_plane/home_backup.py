"""What a backup of a home holds: its ledger, its keys, what it remembers of logs, and Prefect's database.

Prefect's database is copied first and the ledger last, so that the ledger is never behind what the others say of it;
`reconcile` brings Prefect's runs up to the record.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
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
from ashat.cli.control_plane.state import (
    LOCK_FILE,
    LOG_FILE,
    PASSWORD_FILE,
    STATE_FILE,
    ControlState,
    read_state,
    write_state,
)
from ashat.common.home import LOOKED_FILE
from ashat.errors import BackupError, UsageError
from ashat.ledger.copying import LoadedLedger, dump_ledger, load_ledger
from ashat.ledger.database import address_of
from ashat.ledger.remembered import require_ledger
from ashat.settings import Settings

LEDGER: Final = "ledger.jsonl"
PREFECT: Final = "prefect/prefect.db"
_OWN_LEDGER = "ledger.db"
# What is made anew, belongs to a process that runs, or is a copy of what is elsewhere.
_LEFT_OUT: Final = (STATE_FILE, LOCK_FILE, LOG_FILE, LOOKED_FILE, "logs", "tmp", "digests", "searched.db", _OWN_LEDGER)
_BESIDE_A_DATABASE = ("-wal", "-shm", "-journal")


@dataclass(frozen=True)
class HomeBackup:
    """What was backed up, or put back. `events` are the ledger's; `left_out` says in words what is missing. `kept` says
    that the ledger was there, as one on a server of its own is, and was left as it is."""

    header: Header
    events: int
    left_out: tuple[str, ...]
    kept: bool = False


def back_up_home(settings: Settings, target: Path, *, with_secrets: bool) -> HomeBackup:
    """Write the home and the ledger that the settings name into the new file `target`.

    Raises:
        UsageError: `target` is there already, or lies in the home.
        BackupError: something cannot be read or written.
        LedgerError: the ledger does not open.
    """
    home = settings.home.absolute()
    if not home.is_dir():
        raise UsageError(f"There is nothing to back up: ASHAT_HOME ({home}) is not there.")
    if target.absolute().is_relative_to(home):
        raise UsageError(f"{target} is in ASHAT_HOME itself; write the backup to another disk.")
    if target.exists():
        raise UsageError(f"{target} is there already; give the backup another name.")
    left_out = []
    with staging_beside(target.absolute()) as staged:
        if not (home / PREFECT).is_file():
            left_out.append("Prefect's database, which is not in this home")
        elif with_secrets:
            (staged / PREFECT).parent.mkdir(mode=0o700)
            copy_sqlite(home / PREFECT, staged / PREFECT)
        else:
            left_out.append("Prefect's database, as the servers' tokens are in it")
        if known := read_state(home):
            write_state(staged, ControlState(port=known.port))  # so that the address of the UI stays the same
        kept_back = _copy_files(home, staged, with_secrets=with_secrets)
        if kept_back:
            left_out.append(f"{kept_back} files with keys or passwords")
        events = _dump(settings, staged / LEDGER)
        if events is None:
            left_out.append("a ledger, as there is none yet")
        facts: dict[str, str | int] = {"events": events or 0}
        header = write_backup(target, staged, "home", with_secrets=with_secrets, facts=facts)
    return HomeBackup(header, events or 0, tuple(left_out))


def _dump(settings: Settings, target: Path) -> int | None:
    """Write the ledger that the settings name; a ledger that this home knows and that is gone is no empty one."""
    address = address_of(settings.effective_ledger_url, settings.home)
    known = partial(require_ledger, settings.home, address, origin="", events=0)
    return dump_ledger(settings.effective_ledger_url, target, where_none_is=known)


def _copy_files(home: Path, staged: Path, *, with_secrets: bool) -> int:
    """Copy the home's own files; how many were kept back for the secrets in them."""
    kept_back = 0
    for path in _own_files(home):
        source = home / path
        if not with_secrets and (path == PASSWORD_FILE or is_private_key(source)):
            kept_back += 1
            continue
        target = staged / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            shutil.copy2(source, target, follow_symlinks=False)
        except FileNotFoundError:
            continue  # a file that another process replaced or removed in this moment
        except OSError as error:
            raise BackupError(f"{source} cannot be copied: {error.strerror}.") from None
    return kept_back


def _own_files(home: Path) -> Iterator[str]:
    for path in files_below(home):
        database = path.removesuffix(next(filter(path.endswith, _BESIDE_A_DATABASE), ""))
        first, name = path.split("/")[0], path.rpartition("/")[2]
        left_out = {first, database} & {*_LEFT_OUT, PREFECT}
        if not left_out and not name.endswith(".lock") and name != LEDGER:
            yield path


def check_backup(settings: Settings, source: Path) -> Header:
    """Read the whole backup `source`, and see that the home is empty; return what it says of itself.

    Raises:
        UsageError: the home holds something, or there is no such backup.
        BackupError: the backup is damaged, or of another kind.
    """
    home = settings.home.absolute()
    _require_empty(home)
    with staging_beside(home) as staging:
        return read_backup(source, staging, "home")


def restore_home(settings: Settings, source: Path) -> HomeBackup:
    """Put the backup `source` back: the files into the home, the ledger to where the settings say.

    Raises:
        UsageError: the home holds something, or there is no such backup.
        BackupError: the backup is damaged, or of another kind, or a ledger is there already. Nothing was changed.
        LedgerTooNewError: a newer version wrote the ledger.
    """
    home = settings.home.absolute()
    _require_empty(home)
    with staging_beside(home) as staging:
        staged = staging / "home"
        staged.mkdir(mode=0o700)
        header = read_backup(source, staged, "home")
        found = LoadedLedger(0)
        place = partial(put_in_place, staged, home)
        if LEDGER in header.files:
            ledger = staging / LEDGER
            (staged / LEDGER).rename(ledger)
            if settings.ledger_url:
                found = load_ledger(settings.ledger_url, ledger, place)
                return HomeBackup(header, found.events, (), kept=found.kept)
            found = load_ledger(f"sqlite:///{staged / _OWN_LEDGER}", ledger)
        place()
    return HomeBackup(header, found.events, ())


def _require_empty(home: Path) -> None:
    found = sorted(os.listdir(home)) if home.is_dir() else []
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UsageError(
            f"ASHAT_HOME ({home}) holds {', '.join(found[:3])}{more}: nothing is overwritten. Move it away, or give "
            "ASHAT_HOME another directory."
        )
