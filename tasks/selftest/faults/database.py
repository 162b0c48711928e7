"""Seeded faults: a database in disorder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from ashat.client.node import NodeClient
from ashat.protocol.probes import DatabaseProbe, DatabaseProbeRequest
from tasks.checks.kit.base import CheckContext, Outcome
from tasks.selftest.faults.base import SeededFault, edited, faulty, promising_nothing


class _Busy:
    """The node, with other figures of the database: no crowded or distant database server is at hand here."""

    def __init__(self, node: NodeClient, figures: dict[str, Any]) -> None:
        self._node = node
        self._figures = figures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def probe_database(self, request: DatabaseProbeRequest) -> DatabaseProbe:
        """Return what the node found, with those figures."""
        return self._node.probe_database(request).model_copy(update=self._figures)


def _measured(name: str, says: str, expects: Outcome = "fail", **figures: Any) -> SeededFault:
    """Make a good release beside a database of which the node measures `figures`."""

    @contextmanager
    def around(context: CheckContext) -> Iterator[CheckContext]:
        yield replace(context, public=cast(NodeClient, _Busy(context.public, figures)))

    return SeededFault(name, "database", says, lambda _: None, around=around, expects=expects)


FAULTS: tuple[SeededFault, ...] = (
    faulty("database", r"tables are missing: orders", "drop-table=orders"),
    faulty("database", r"stands at migration 0002, but raos\.toml says 0003", "skip-migration=0003"),
    faulty("database", r"1 of 3 migrations were not applied: migrations/0002_talk\.sql", "skip-migration=0002"),
    faulty("database", r"cannot be written to: .*locked", "database-locked"),
    faulty("database", r"cannot be written to: .*readonly database", "database-read-only"),
    faulty("database", r"the table orders cannot be read: no such table: main\.orders_lost", "unreadable-table=orders"),
    faulty("database", r"could not be looked at: there is no database", "database-gone=8", late=True),
    faulty("database", r"could not be looked at: .*not a database", "database-damaged=8", late=True),
    edited(
        "a migration is promised that does not exist",
        "database",
        r"stands at migration 0003, but raos\.toml says 0004",
        "raos.toml",
        'migration = "0003"',
        'migration = "0004"',
    ),
    _measured(
        "the connections are used up",
        r"98 of the 100 connections that it may have are taken, 2 are free, 3 must be",
        dialect="postgresql",
        uncounted="",
        connections=98,
        max_connections=100,
    ),
    _measured(
        "connections cannot be counted",
        r"connections were not counted: permission denied",
        "warn",
        dialect="postgresql",
        uncounted="permission denied",
    ),
    _measured(
        "the database is far away",
        r"a round trip to the database takes 700\.0 ms in the median of 9, over the 500 ms",
        round_trips_us=[700_000] * 9,
    ),
    _measured(
        "one round trip is slow", r"one of 9 round trips took 700\.0 ms", "warn", round_trips_us=[*[900] * 8, 700_000]
    ),
    _measured("connecting is slow", r"connecting took 900 ms, over the 500 ms", connect_ms=900),
    _measured(
        "the migrations have two heads",
        r"the database stands at 2 heads, 1f0c, 9e2a: merge them into one",
        migrations=["1f0c", "9e2a"],
        migrations_in="alembic_version",
    ),
    *promising_nothing([("database", r"raos\.toml has no \[database\], so none was looked at")]),
)
