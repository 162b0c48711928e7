"""Opens the fleet of one OMEGA: its database, and what is kept in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ashat.errors import AshatError, AuditError, UsageError
from ashat.node.core.config import NodeConfig, read_secret
from ashat.node.core.db import Database
from ashat.node.logs.change_log_audit import Audited, audit
from ashat.node.omega.fleet.database import FILE, FleetDatabase
from ashat.node.omega.fleet.freezes import FreezeStore
from ashat.node.omega.fleet.licences import LicenceStore
from ashat.node.omega.fleet.mainframes import MainframeStore
from ashat.node.omega.fleet.outbox import relay
from ashat.node.omega.fleet.rollouts import RolloutStore
from ashat.node.omega.fleet.takeover import take_over
from ashat.transparency.checkpoint import Checkpoint

_ADDRESS = "fleet_database"
# What the record says where the fleet is in the file beside it: a directory may be moved, or restored elsewhere.
_BESIDE = "beside"


@dataclass
class Fleet:
    """The fleet of the OMEGA whose record is `record`."""

    database: FleetDatabase
    record: Database
    licences: LicenceStore = field(init=False)
    mainframes: MainframeStore = field(init=False)
    rollouts: RolloutStore = field(init=False)
    freezes: FreezeStore = field(init=False)

    def __post_init__(self) -> None:
        take_over(self.record, self.database)
        self._follow_address()
        self.relay()
        self.licences = LicenceStore(self.database, self.relay)
        self.mainframes = MainframeStore(self.database, self.relay)
        self.freezes = FreezeStore(self.database)
        self.rollouts = RolloutStore(self.database, self.freezes)

    def _follow_address(self) -> None:
        """Move the fleet, where the settings name another database than before, into that one, if it is empty."""
        file = self.record.path.parent / FILE
        before = self.record.get_meta(_ADDRESS)
        address = _BESIDE if self.database.name == str(file) else self.database.name
        if before and before != address and self.database.is_empty():
            if before != _BESIDE or not file.is_file():
                raise AshatError(
                    f"This OMEGA's fleet is in {before}, and {self.database.name}, which the settings name, is empty. "
                    "Set fleet_dsn_file back, or restore the fleet there."
                )
            old = FleetDatabase(file)
            old.copy_to(self.database)
            old.close()
        self.record.set_meta(_ADDRESS, address)

    def relay(self) -> None:
        """Have the change log say what was done to the fleet."""
        relay(self.database, self.record)

    def audit(self, checkpoints: Sequence[Checkpoint] = ()) -> Audited:
        """Check the change log and what it says of the record and of the licences, as `change_log_audit.audit` does.

        Raises:
            AuditError: something does not fit, in a moment in which nobody changed a licence.
        """
        while True:
            before = self.database.number("outbox")
            self.relay()
            kept = self.licences.kept()
            try:
                return audit(self.record, checkpoints, kept)
            except AuditError:
                if self.database.number("outbox") == before:
                    raise

    def close(self) -> None:
        """Keep what is not kept yet, and close the database."""
        self.mainframes.keep_seen()
        self.database.close()


def fleet_address(config: NodeConfig) -> str:
    """Read the URL of the fleet's database; "" where it is the file in the node's directory.

    Raises:
        UsageError: the file that holds it cannot be read, or others may read it.
    """
    return read_secret(config.fleet_dsn_file, "fleet_dsn_file") if config.fleet_dsn_file else ""


@contextmanager
def open_fleet(record: Database, data: Path, settings: Path | None) -> Iterator[Fleet]:
    """Open the fleet of the OMEGA in the directory `data`, whose settings are in that file.

    Raises:
        UsageError: its settings name another database than the file in `data`, and were not given.
        AshatError: it cannot be opened.
    """
    url = fleet_address(NodeConfig.load(settings)) if settings else ""
    kept = record.get_meta(_ADDRESS)
    if not url and kept not in (None, _BESIDE):
        raise UsageError(f"This OMEGA keeps its fleet in {kept}. Give its settings: --config FILE.")
    fleet = Fleet(FleetDatabase(url or data / FILE), record)
    try:
        yield fleet
    finally:
        fleet.close()
