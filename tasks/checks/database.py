"""Database: reached by the node with its operator's DSN, read, written to, migrated as raos.toml says, quick enough,
and with connections to spare."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median_low

from ashat.raos_model import DatabaseSection
from ashat.wire import DatabaseProbe, DatabaseProbeRequest
from tasks.checks.interface import Check, CheckContext, CheckResult, Finding, one_line

MIN_FREE = 3
LISTED = 50


class DatabaseCheck(Check):
    """Has the node look. The DSN never leaves the node; what it found does."""

    name = "database"
    title = "Database"
    version = "2"
    order = 40

    def run(self, context: CheckContext) -> CheckResult:
        """Hold what the node found against `[database]`."""
        wanted = context.raos.database
        if wanted is None:
            return self.inconclusive("raos.toml has no [database], so none was looked at")
        inputs = {
            "tables": wanted.tables,
            "migration": wanted.migration,
            "latency_limit_ms": wanted.latency_ms,
            "least_free_connections": MIN_FREE,
        }
        probe = context.public.probe_database(DatabaseProbeRequest(tables=wanted.tables, migration=wanted.migration))
        series = {"round_trip_us": probe.round_trips_us}
        return self.conclude(
            _good(wanted, probe), judged(wanted, probe), inputs=inputs, figures=_figures(probe), series=series
        )


def judged(wanted: DatabaseSection, probe: DatabaseProbe) -> list[Finding]:
    """What is wrong with what the node found."""
    if probe.connect_ms is None:
        return [Finding("high", f"the database could not be looked at: {_detail(probe)}")]
    content = list(_of_content(wanted, probe))
    if not probe.ok and not content:
        content = [Finding("high", f"the node finds the database in disorder: {_detail(probe)}")]
    return [*content, *_of_latency(wanted.latency_ms, probe), *_of_connections(probe)]


def _of_content(wanted: DatabaseSection, probe: DatabaseProbe) -> Iterator[Finding]:
    if wanted.migration is not None and probe.migration != wanted.migration:
        stands = f"at migration {one_line(probe.migration, 60)}" if probe.migration else "at no migration"
        yield Finding("high", f"the database stands {stands}, but raos.toml says {wanted.migration}: migrate it")
    if probe.missing_tables:
        yield Finding("high", f"tables are missing: {one_line(', '.join(sorted(probe.missing_tables)))}")
    for name, reason in sorted(probe.unreadable_tables.items())[:LISTED]:
        yield Finding("high", f"the table {one_line(name, 64)} cannot be read: {one_line(reason)}")
    if not probe.writable:
        yield Finding("high", f"the database cannot be written to: {_detail(probe)}")


def _of_latency(limit_ms: int, probe: DatabaseProbe) -> Iterator[Finding]:
    limit = f"over the {limit_ms} ms of raos.toml"
    if probe.connect_ms is not None and probe.connect_ms > limit_ms:
        yield Finding("high", f"connecting took {probe.connect_ms} ms, {limit}")
    trips = probe.round_trips_us
    if not trips:
        yield Finding("medium", "the server's node measures no round trips and counts no connections: update it")
    elif median_low(trips) > limit_ms * 1000:
        often = f"in the median of {len(trips)}"
        yield Finding("high", f"a round trip to the database takes {median_low(trips) / 1000:.1f} ms {often}, {limit}")
    elif max(trips) > limit_ms * 1000:
        yield Finding("medium", f"one of {len(trips)} round trips took {max(trips) / 1000:.1f} ms, {limit}")


def _of_connections(probe: DatabaseProbe) -> Iterator[Finding]:
    if probe.connections is not None and probe.max_connections is not None:
        free = max(probe.max_connections - probe.connections, 0)
        if free < MIN_FREE:
            taken = f"{probe.connections} of the {probe.max_connections} connections that it may have are taken"
            yield Finding("high", f"{taken}, {free} are free, {MIN_FREE} must be: close some, or allow more")
    elif probe.uncounted:
        grave = probe.dialect != "sqlite"
        why = one_line(probe.uncounted)
        yield Finding("medium" if grave else "low", f"connections were not counted: {why}")


def _figures(probe: DatabaseProbe) -> dict[str, int]:
    trips = probe.round_trips_us
    figures = {
        "connect_ms": probe.connect_ms,
        "round_trip_median_us": median_low(trips) if trips else None,
        "round_trip_worst_us": max(trips, default=None),
        "connections": probe.connections,
        "max_connections": probe.max_connections,
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _good(wanted: DatabaseSection, probe: DatabaseProbe) -> str:
    words = [f"migration {wanted.migration}"] if wanted.migration else []
    words += [f"{len(wanted.tables)} tables read"] if wanted.tables else []
    words += ["writable", f"{probe.connect_ms} ms to connect"]
    if probe.round_trips_us:
        words.append(f"{median_low(probe.round_trips_us) / 1000:.1f} ms a round trip")
    if probe.max_connections is not None:
        words.append(f"{probe.connections} of {probe.max_connections} connections taken")
    return f"{probe.dialect}: {', '.join(words)}"


def _detail(probe: DatabaseProbe) -> str:
    return one_line(probe.detail) or "no reason given"
