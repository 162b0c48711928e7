"""Where a program of the node runs: in place, as the only one, or in one of two slots with a port of its own."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from ashat.node.core.config import NodeConfig
from ashat.node.core.db import Database

SLOTS = ("blue", "green")


@dataclass(frozen=True)
class Place:
    """A place by its name, "" for the only one; `port` is the slot's, 0 where the settings say otherwise."""

    name: str = ""
    port: int = 0

    @property
    def log_name(self) -> str:
        """The name of its log below the node's data; "" for the usual one."""
        return f"app-{self.name}.log" if self.name else ""

    @property
    def suffix(self) -> str:
        """What is appended to names of things that each place has."""
        return f"-{self.name}" if self.name else ""

    def mark(self, data: Path) -> Path:
        """Return the path by which its keeper is found."""
        return data / "slots" / self.name if self.name else data

    def row(self, db: Database) -> sqlite3.Row | None:
        """Read what the record says of the program there."""
        return db.one(f"SELECT * FROM {self._table} WHERE {self._key} = ?", (self._value,))  # noqa: S608

    def write(self, connection: sqlite3.Connection, *facts: object) -> None:
        """Record the program there: its pid, when it was created, its release directory's name, its port, its start."""
        connection.execute(
            f"INSERT OR REPLACE INTO {self._table} ({self._key}, pid, created, release, port, started_at)"  # noqa: S608
            " VALUES (?, ?, ?, ?, ?, ?)",
            (self._value, *facts),
        )

    def forget(self, connection: sqlite3.Connection) -> None:
        """Record that no program is there."""
        connection.execute(f"DELETE FROM {self._table} WHERE {self._key} = ?", (self._value,))  # noqa: S608

    @property
    def _table(self) -> str:
        return "slots" if self.name else "program"

    @property
    def _key(self) -> str:
        return "slot" if self.name else "only"

    @property
    def _value(self) -> str | int:
        return self.name or 1


def former_slots(db: Database) -> list[Place]:
    """List the slots that the settings of before may have left, to a node that has none any more."""
    return [Place(name) for name in SLOTS] if db.one("SELECT 1 FROM traffic") else []


def slots_of(config: NodeConfig) -> list[Place]:
    """List the slots of a node with two ports."""
    return [Place(name, port) for name, port in zip(SLOTS, config.slots.ports, strict=True)]
