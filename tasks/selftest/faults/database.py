"""Seeded faults: a database in disorder."""

from __future__ import annotations

from tasks.selftest.seeded import Seeded, edited, told

FAULTS: tuple[Seeded, ...] = (
    told("database", r"tables are missing: orders", "drop-table=orders"),
    told("database", r"stands at migration 0002, but raos\.toml says 0003", "skip-migration=0003"),
    told("database", r"cannot be written to: .*locked", "database-locked"),
    told("database", r"cannot be written to: .*readonly database", "database-read-only"),
    told("database", r"the table orders cannot be read: no such table: main\.orders_lost", "unreadable-table=orders"),
    told("database", r"could not be looked at: there is no database", "database-gone=8", late=True),
    told("database", r"could not be looked at: .*not a database", "database-damaged=8", late=True),
    edited(
        "a migration is promised that does not exist",
        "database",
        r"stands at migration 0003, but raos\.toml says 0004",
        "raos.toml",
        'migration = "0003"',
        'migration = "0004"',
    ),
)
