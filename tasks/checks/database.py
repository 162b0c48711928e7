"""Checks that the database can be reached, read and written, is migrated as raos.toml says, is quick enough, and has
connections to spare."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from statistics import median_low

from ashat.protocol.messages import MIGRATED_BEFORE
from ashat.protocol.probes import DatabaseProbe, DatabaseProbeRequest
from ashat.raos_toml.schema import DatabaseSection
from tasks.checks.kit.base import Check, CheckContext, CheckResult, Finding, one_line

LISTED = 50
_ALEMBIC = "alembic_version"
_NEWEST_ONLY = "golang-migrate"
_NUMBER = re.compile(r"[0-9]{1,40}(?![0-9A-Za-z])")


class DatabaseCheck(Check):
    """Has the node look at the database. The DSN, its operator's, never leaves the node; what the node found does."""

    name = "database"
    title = "Database"
    version = "5"
    order = 40

    def run(self, context: CheckContext) -> CheckResult:
        """Compare what the node found with `[database]`."""
        wanted = context.raos.database
        if wanted is None:
            return self.inconclusive("raos.toml has no [database], so none was looked at")
        if wanted.none is not None:
            return self._none(context, wanted.none)
        inputs = {
            "tables": wanted.tables,
            "migration": wanted.migration,
            "migrations": wanted.migrations,
            "latency_limit_ms": wanted.latency_ms,
            "least_free_connections": context.policy.min_free_connections,
        }
        probe = context.public.probe_database(DatabaseProbeRequest(tables=wanted.tables, migration=wanted.migration))
        series = {"round_trip_us": probe.round_trips_us}
        brought = fnmatch.filter(sorted(context.manifest.by_path), wanted.migrations) if wanted.migrations else []
        findings = database_findings(wanted, probe, brought, context.policy.min_free_connections)
        findings += _of_the_step(context)
        return self.conclude(_good(wanted, probe), findings, inputs=inputs, figures=_figures(probe), series=series)

    def _none(self, context: CheckContext, why: str) -> CheckResult:
        probe = context.public.probe_database(DatabaseProbeRequest())
        told = "raos.toml says that there is no database, but the server's node is given one: declare [database] tables"
        findings = [Finding("medium", told)] if probe.connect_ms is not None else []
        return self.conclude(f"none: {one_line(why)}", findings, inputs={"none": why})


def database_findings(
    wanted: DatabaseSection, probe: DatabaseProbe, brought: Sequence[str], least_free: int
) -> list[Finding]:
    """Find what is wrong with what the node saw; `brought` are the files of the bundle that are a migration each."""
    if probe.connect_ms is None:
        return [Finding("high", f"the database could not be looked at: {_detail(probe)}")]
    content = [*_of_migrations(wanted, probe, brought), *_of_tables(probe)]
    if not probe.ok and not content:
        content = [Finding("high", f"the node finds the database in disorder: {_detail(probe)}")]
    return [*content, *_of_latency(wanted.latency_ms, probe), *_of_connections(probe, least_free)]


def _of_the_step(context: CheckContext) -> Iterator[Finding]:
    """Tell what came of the release's migrate step on the server, where it has one and the node says so."""
    if context.raos.migrate is None:
        return
    if step := context.public.migrated(context.bundle):
        untried = step.status == "skipped" and step.detail != MIGRATED_BEFORE
        yield Finding("medium" if untried else "low", f"the release's migrate step there: {one_line(step.words)}")


def _of_migrations(wanted: DatabaseSection, probe: DatabaseProbe, brought: Sequence[str]) -> Iterator[Finding]:
    if probe.failed_migrations:
        failed = one_line(", ".join(probe.failed_migrations[:LISTED]))
        yield Finding(
            "high", f"{len(probe.failed_migrations)} migrations began and failed: {failed}; mend the database"
        )
    if probe.tables and not probe.migrations_in and probe.migration is None and (wanted.migration or brought):
        wanting = (
            f"migration {one_line(wanted.migration, 60)} was" if wanted.migration else f"{len(brought)} migrations were"
        )
        yield Finding("medium", f"whether {wanting} applied cannot be told: no table of a known tool is there")
        return
    if wanted.migration is not None and probe.migration != wanted.migration:
        stands = f"at migration {one_line(probe.migration, 60)}" if probe.migration else "at no migration"
        yield Finding("high", f"the database stands {stands}, but raos.toml says {wanted.migration}: migrate it")
    if probe.migrations_in == _ALEMBIC:
        if len(probe.migrations) > 1:
            heads = one_line(", ".join(probe.migrations[:LISTED]))
            yield Finding("high", f"the database stands at {len(probe.migrations)} heads, {heads}: merge them into one")
        return
    if brought and probe.migration is not None and not probe.migrations_in:
        yield Finding("medium", "the server's node tells only of the newest migration: update it")
        return
    lost = [path for path in brought if not any(_was_applied(path, version, probe) for version in probe.migrations)]
    if lost:
        shown = one_line(", ".join(lost[:LISTED]))
        yield Finding("high", f"{len(lost)} of {len(brought)} migrations were not applied: {shown}; migrate it")


def _was_applied(path: str, version: str, probe: DatabaseProbe) -> bool:
    """Tell whether that entry of the tool's record is of that file, by how the tool names its files."""
    *_, above, directory, name = ["", "", *path.split("/")]
    if probe.migrations_by == "Django":
        return version == f"{above}.{name.partition('.')[0]}"
    if probe.migrations_by == "Prisma":
        return version == directory
    number = _NUMBER.match(name)
    if probe.migrations_by == _NEWEST_ONLY and number and version.isdecimal():
        return int(number.group()) <= int(version)
    return _is_of(path, version)


def _is_of(path: str, version: str) -> bool:
    """Tell whether a migration's file is of that version: its name begins with it, and no letter or digit follows.

    Zeros at the start of a number make no difference: some tools keep 0002 as the number that it is.
    """
    name = path.rpartition("/")[2]
    number = _NUMBER.match(name)
    if number and _NUMBER.fullmatch(version):
        return int(number.group()) == int(version)
    return version != "" and name.startswith(version) and not name[len(version) : len(version) + 1].isalnum()


def _of_tables(probe: DatabaseProbe) -> Iterator[Finding]:
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


def _of_connections(probe: DatabaseProbe, least_free: int) -> Iterator[Finding]:
    if probe.connections is not None and probe.max_connections is not None:
        free = max(probe.max_connections - probe.connections, 0)
        if free < least_free:
            taken = f"{probe.connections} of the {probe.max_connections} connections that it may have are taken"
            yield Finding("high", f"{taken}, {free} are free, {least_free} must be: close some, or allow more")
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
