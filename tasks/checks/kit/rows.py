"""Has the node count what the database holds, and finds what is gone of it since it was counted before."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from ashat.errors import NodeError
from ashat.protocol.probes import CountedTable, DatabaseCount, DatabaseProbeRequest
from ashat.raos_toml.schema import DatabaseSection
from tasks.checks.kit.base import CheckContext, Finding, one_line

NAMES_LIMIT = 2_000
# What comes and goes while a program does nothing but run.
_PASSING = re.compile(r"session|cache|queue|jobs?$|locks?$|throttle|nonce|te?mp(?![a-z])", re.IGNORECASE)
_SHOWN = 64


def count_rows(context: CheckContext, *sections: DatabaseSection | None) -> tuple[DatabaseCount | None, str]:
    """Have the node count; return None and why where it does not, "" where a release says that there is no database.

    The tables that `sections` name are counted first.
    """
    known = [section for section in sections if section is not None]
    tables = list(dict.fromkeys(name for section in known for name in section.tables))
    try:
        probe = context.public.probe_database(DatabaseProbeRequest(tables=tables, count=True))
    except NodeError as error:
        return None, one_line(error)
    if probe.count is not None:
        return probe.count, ""
    if probe.connect_ms is not None:
        return None, "the server's node counts no rows: update it"
    none = bool(known) and all(section.none is not None for section in known)
    return None, "" if none else one_line(probe.detail) or "no reason given"


def lost_rows(was: DatabaseCount, now: DatabaseCount, when: str, needed: Collection[str] = ()) -> Iterator[Finding]:
    """Find the tables, rows, columns and values that are gone, and say `when` they went.

    A table that is `needed` by what runs now fails; the rest warns, or is for the record where it comes and goes.
    """
    counted = {table.name: table for table in was.tables}
    here = {table.name: table for table in now.tables}
    names = set(now.names)
    for name in was.names if len(names) < NAMES_LIMIT else ():
        if name not in names:
            rows = f", with its {counted[name].rows} rows" if name in counted and counted[name].rows else ""
            text = f"the table {one_line(name, _SHOWN)} is gone {when}{rows}"
            yield Finding("high" if name in needed else "medium", text)
    for name, table in counted.items():
        if name in here:
            yield from _lost_of(table, here[name], when)


def uncounted(count: DatabaseCount) -> Iterator[Finding]:
    """Name the tables that were not counted, with the reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in count.uncounted.items():
        reasons.setdefault(reason, []).append(one_line(name, _SHOWN))
    for reason, names in reasons.items():
        text = f"the rows of {', '.join(names[:5])} were not counted: {one_line(reason)}"
        more = f" (and of {len(names) - 5} more)" if len(names) > 5 else ""
        yield Finding("low", f"{text}{more}", unseen=True, count=len(names))
    if count.more_uncounted:
        yield Finding("low", f"the rows of {count.more_uncounted} more tables were not counted", unseen=True)


def _lost_of(was: CountedTable, now: CountedTable, when: str) -> Iterator[Finding]:
    name = one_line(was.name, _SHOWN)
    passing = bool(_PASSING.search(was.name))
    if now.rows < was.rows:
        text = f"the table {name} lost {was.rows - now.rows} of its {was.rows} rows {when}"
        yield Finding("low" if passing else "medium", text)
    for column, values in was.columns.items():
        shown = f"{name}.{one_line(column, _SHOWN)}"
        if column not in now.columns:
            kept = f", with its {values} values" if values else ""
            yield Finding("medium" if values else "low", f"the column {shown} is gone {when}{kept}")
        elif now.columns[column] < values and now.rows >= was.rows:
            lost = values - now.columns[column]
            grave = 2 * lost >= values and not passing
            text = f"the column {shown} lost {lost} of its {values} values {when}"
            yield Finding("medium" if grave else "low", text)
