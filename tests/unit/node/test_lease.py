"""Leases end when they were to, whatever happens to the clock, the node and the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ashat.node.core.db import Database
from ashat.node.core.errors import ApiError
from ashat.node.operations import lease
from ashat.protocol.messages import LEASE_SECONDS, LeaseRequest

REQUEST = LeaseRequest(holder="UPD-1/1", who="kim", why="verify", ttl=60)
OTHER = LeaseRequest(holder="UPD-2/1", who="lee", why="push", ttl=60)
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass
class Machine:
    """A machine whose clock, time since its start, and start are what the test says."""

    time: datetime = NOW
    up: float = 1000.0
    boot: str = "boot-1"
    path: Path = field(default_factory=Path)

    def open(self) -> Database:
        """The record, as a node opens it at its start."""
        db = Database(self.path)
        lease.resume(db)
        return db

    def passes(self, seconds: float) -> None:
        """Time goes by."""
        self.time += timedelta(seconds=seconds)
        self.up += seconds

    def boots(self) -> None:
        """The machine starts anew."""
        self.up, self.boot = 5.0, "boot-2"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(path=tmp_path / "node.db")
    monkeypatch.setattr(lease, "now", lambda: made.time)
    monkeypatch.setattr(lease, "uptime", lambda: made.up)
    monkeypatch.setattr(lease, "boot_id", lambda: made.boot)
    return made


@pytest.fixture
def db(machine: Machine) -> Iterator[Database]:
    opened = machine.open()
    yield opened
    opened.close()


@pytest.mark.parametrize("years", [-20, -2, 0, 5, 100])
def test_a_lease_lasts_as_long_as_it_was_asked_for_however_the_clock_is_set(
    machine: Machine, db: Database, years: int
) -> None:
    lease.acquire(db, REQUEST)
    machine.time = machine.time.replace(year=machine.time.year + years)
    machine.passes(59)
    held = lease.held(db)
    assert held is not None
    assert held.expires == machine.time + timedelta(seconds=1), "what is said is by the clock as it is now"
    with pytest.raises(ApiError, match=re.escape("UPD-1/1 has this server")):
        lease.acquire(db, OTHER)
    machine.passes(1)
    assert lease.held(db) is None
    assert lease.acquire(db, OTHER).holder == "UPD-2/1"


def test_a_restart_of_the_node_changes_nothing(machine: Machine, db: Database) -> None:
    taken = lease.acquire(db, REQUEST)
    db.close()
    machine.passes(59)
    again = machine.open()
    assert lease.held(again) == taken
    machine.passes(1)
    assert lease.held(again) is None
    again.close()


@pytest.mark.parametrize(
    ("years", "left"), [(0, 50), (-5, LEASE_SECONDS), (5, 0)], ids=["as it was", "set back", "set ahead"]
)
def test_after_a_restart_of_the_machine_no_lease_lasts_longer_than_any_may(
    machine: Machine, db: Database, years: int, left: int
) -> None:
    lease.acquire(db, REQUEST)
    db.close()
    machine.passes(10)
    machine.boots()
    machine.time = machine.time.replace(year=machine.time.year + years)
    again = machine.open()
    for _ in range(left // 10):
        assert lease.held(again) is not None
        machine.passes(10)
    assert lease.held(again) is None
    again.close()
