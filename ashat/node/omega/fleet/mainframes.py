"""Mainframes: when each was seen, what it reported, what it is labelled; and what all of them are, for who may read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from ashat.common.documents import STATE_LIMIT, load_json
from ashat.common.text import cut, printable
from ashat.node.core.db import from_text, now, to_text
from ashat.node.omega.fleet.barred import newest_barred
from ashat.node.omega.fleet.database import FleetDatabase
from ashat.node.omega.fleet.licences import Licence, licence_status
from ashat.node.omega.fleet.outbox import note
from ashat.node.omega.fleet.rollouts import reported
from ashat.node.omega.fleet.tables import labels, licences, mainframes, reports
from ashat.node.omega.fleet.together import reported_all
from ashat.protocol.fleet import Mainframe, MainframeReport, MainframeThen
from ashat.protocol.messages import OUTPUT_WIDTH, Moment

FLUSH_SECONDS = 1.0


class ReportLine(MainframeReport):
    """A thing that a Mainframe reported, `times` times from `first_at` to `last_at`."""

    first_at: Moment
    last_at: Moment
    times: int


class MainframeStore:
    """What OMEGA knows of its Mainframes. Safe to use from many threads."""

    def __init__(self, database: FleetDatabase, changed: Callable[[], None]) -> None:
        """Keep Mainframes in `database`; `changed` is called after each change that the change log is to say."""
        self._database = database
        self._changed = changed
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[datetime, str, bool]] = {}
        self._keeping: dict[str, tuple[datetime, str, bool]] = {}
        self._runs: dict[str, tuple[str, str]] = {}

    def seen(self, licence: Licence, agent: str = "", run: str = "") -> None:
        """Note that the Mainframe with `licence` asked just now; it is kept within `FLUSH_SECONDS`.

        `agent` is the version of its node, `run` names the run of it that asks. A run that comes back after another is
        a second machine with the same licence: one that was started anew never asks as before.
        """
        with self._lock:
            _, version, twin = self._seen.get(licence.id, (now(), "", False))
            self._seen[licence.id] = (now(), agent[:64] or version, twin or self._is_twin(licence.id, run))
        if self._database.thread is None:
            self.keep_seen()

    def _is_twin(self, licence: str, run: str) -> bool:
        current, before = self._runs.get(licence, ("", ""))
        if not run or run == current:
            return False
        self._runs[licence] = (run[:32], current)
        return run == before

    def keep_seen(self) -> None:
        """Keep, durably, when those were seen who were seen since the last time, and what they said of themselves."""
        with self._lock:
            seen, self._seen, self._keeping = self._seen, {}, self._seen
        if not seen:
            return
        of = mainframes.update().where(mainframes.c.licence == sa.bindparam("of"))
        rows = [{"of": licence, "at": to_text(at)} for licence, (at, _, _) in seen.items()]
        said = [{"of": licence, "version": printable(version)} for licence, (_, version, _) in seen.items() if version]
        twins = [{"of": licence, "at": to_text(at)} for licence, (at, _, twin) in seen.items() if twin]

        def keep(connection: sa.Connection) -> None:
            connection.execute(of.values(last_seen=sa.bindparam("at")), rows)
            if said:
                connection.execute(of.values(agent=sa.bindparam("version")), said)
            if twins:
                connection.execute(of.values(twin_at=sa.bindparam("at")), twins)

        try:
            self._database.submit(keep).result()
        finally:
            self._keeping = {}

    def report(self, licence: Licence, report: MainframeReport, *, seen: bool = True) -> Future[None]:
        """Add a report to the Mainframe's history; the same again only counts up. Why an offer waits there is no part
        of the history: it is kept until the next report. Unless `seen`, others brought it, and nobody saw that install.
        The future ends when it is durable.

        Its texts are a stranger's, and end up on terminals: they are kept as one printable line each.
        """
        told = report.model_copy(update={"reason": printable(report.reason), "journal": printable(report.journal)})
        return self._database.submit_to(_add_all, (licence.id, told, seen))

    def says_old(self, licence: str, version: str) -> None:
        """Note which version the install says that it runs, by the old protocol."""
        noted = mainframes.update().where(mainframes.c.licence == licence)
        self._database.change(
            lambda connection: connection.execute(noted.values(old_version=version, old_at=to_text(now())))
        )

    def old_word(self, licence: str) -> tuple[str, datetime | None]:
        """Read which version the install said last, and when."""
        wanted = sa.select(mainframes.c.old_version, mainframes.c.old_at).where(mainframes.c.licence == licence)
        row = self._database.read(wanted)[0]
        return row.old_version, from_text(row.old_at) if row.old_at else None

    def reports(self, licence: str, limit: int = 100) -> list[ReportLine]:
        """List what the Mainframe with licence id `licence` reported, newest first; the newest with what the program
        wrote that did not start."""
        wanted = sa.select(reports).where(reports.c.licence == licence).order_by(reports.c.seq.desc()).limit(limit)
        output = sa.select(mainframes.c.output).where(mainframes.c.licence == licence)
        with self._database.reading() as connection:
            rows, kept = connection.execute(wanted).all(), connection.execute(output).scalar()
        names = ("release_seq", "bundle", "result", "reason", "first_at", "last_at", "times")
        found = [ReportLine.model_validate({name: getattr(row, name) for name in names}) for row in rows]
        if found and kept:
            lines = load_json(kept.encode(), limit=STATE_LIMIT)
            found[0] = found[0].model_copy(update={"output": tuple(lines)})
        return found

    def label(self, licence: str, given: Mapping[str, str]) -> None:
        """Give the Mainframe those labels, and no others."""

        def label(connection: sa.Connection) -> None:
            before = _labels(connection, [licence]).get(licence, {})
            if before == dict(given):
                return
            connection.execute(labels.delete().where(labels.c.licence == licence))
            rows = [{"licence": licence, "key": key, "value": value} for key, value in given.items()]
            if rows:
                connection.execute(labels.insert(), rows)
            note(connection, "mainframe-labelled", id=licence, labels=dict(given))

        self._database.change(label)
        self._changed()

    def all(self) -> list[Mainframe]:
        """List every licensed install with the last thing that it reported, by name."""
        return self._list(_INSTALLS.order_by(licences.c.name, licences.c.id))

    def then(self, moment: datetime) -> list[MainframeThen]:
        """List what each install that was licensed by `moment` had reported to run by then, by name."""
        time = to_text(moment)
        ran = sa.select(sa.func.max(reports.c.seq)).where(
            reports.c.licence == licences.c.id, reports.c.result == "running", reports.c.first_at <= time
        )
        newest = reports.c.seq == ran.correlate(licences).scalar_subquery()
        wanted = sa.select(licences.c.id, licences.c.name, reports.c.bundle, reports.c.release_seq, reports.c.first_at)
        wanted = wanted.outerjoin(reports, sa.and_(reports.c.licence == licences.c.id, newest))
        wanted = wanted.where(licences.c.created_at <= time).order_by(licences.c.name, licences.c.id)
        names = ("id", "name", "bundle", "release_seq")
        return [
            MainframeThen.model_validate({**{name: getattr(row, name) for name in names}, "since": row.first_at})
            for row in self._database.read(wanted)
        ]

    def named(self, licence: str) -> Mainframe | None:
        """Find the install with the licence of that id."""
        return next(iter(self._list(_INSTALLS.where(licences.c.id == licence))), None)

    def _list(self, wanted: sa.Select[Any]) -> list[Mainframe]:
        with self._lock:  # first: what is here no more is in the database
            seen = {licence: at for licence, (at, _, _) in {**self._keeping, **self._seen}.items()}
        with self._database.reading() as connection:
            rows = connection.execute(wanted).all()
            labelled = _labels(connection, [row.id for row in rows] if len(rows) == 1 else None)
            barred = newest_barred(connection)
        found = (_mainframe(row, seen.get(row.id), labelled.get(row.id, {})) for row in rows)
        return [_barred(one, barred) for one in found]


_SAID = ("release_seq", "bundle", "result", "reason")
_INSTALL = sa.select(mainframes).where(mainframes.c.licence == sa.bindparam("whose"))
_INSTALLS = sa.select(licences, mainframes).join(mainframes, mainframes.c.licence == licences.c.id)


_RAN: Final = sa.select(mainframes).where(mainframes.c.licence.in_(sa.bindparam("those", expanding=True)))


def _add_all(connection: sa.Connection, given: Sequence[tuple[str, MainframeReport, bool]]) -> list[None]:
    """Add many reports: those together that say that what was offered runs there now, as most do."""
    together: dict[str, MainframeReport] = {}
    alone = []
    for licence, report, seen in given:
        if seen and report.result == "running" and not report.output and licence not in together:
            together[licence] = report
        else:
            alone.append((licence, report, seen))
    if len(together) > 1:
        alone = [*_add_those_that_run(connection, together), *alone]
    for licence, report, seen in alone if len(together) > 1 else given:
        add_report(connection, licence, report, seen=seen)
        reported(connection, licence, report)
    return [None] * len(given)


def _add_those_that_run(
    connection: sa.Connection, said: dict[str, MainframeReport]
) -> list[tuple[str, MainframeReport, bool]]:
    """Add the reports, by licence, that are not what is kept already, and return those that are."""
    rows = {row.licence: row for row in connection.execute(_RAN, {"those": sorted(said)})}
    new = {licence: said[licence] for licence, row in sorted(rows.items()) if _said(said[licence]) != _said(row)}
    if new:
        time = to_text(now())
        both = {"first_at": time, "last_at": time}
        connection.execute(
            reports.insert(), [{"licence": licence, **_said(report), **both} for licence, report in new.items()]
        )
        told = {"output": "[]", "waits": "", "reported_at": time, "last_seen": time}
        values = [{"doubt": report.journal, **told, **_said(report)} for report in new.values()]
        renamed = [{f"new_{name}": value for name, value in each.items()} for each in values]
        bound = [{"whose": licence, **each} for licence, each in zip(new, renamed, strict=True)]
        connection.execute(_telling(tuple(values[0])), bound)
        reported_all(connection, new)
    return [(licence, report, True) for licence, report in said.items() if licence not in new]


def _said(of: Any) -> dict[str, Any]:
    return {name: getattr(of, name) for name in _SAID}


def add_report(connection: sa.Connection, licence: str, report: MainframeReport, *, seen: bool = True) -> None:
    """Add a report to a Mainframe's history as a part of a transaction; see `MainframeStore.report`."""
    time, reason = to_text(now()), report.reason
    of = mainframes.update().where(mainframes.c.licence == licence)
    if report.result == "waiting":
        connection.execute(of.values(waits=reason, **({"last_seen": time} if seen else {})))
        return
    said = _said(report)
    row = connection.execute(_INSTALL, {"whose": licence}).one()
    lines = json.dumps([cut(printable(line), OUTPUT_WIDTH) for line in report.output])
    told = {"doubt": report.journal, "output": lines, "waits": "", "reported_at": time}
    if seen:
        told["last_seen"] = time
    if said == _said(row):
        last = sa.select(sa.func.max(reports.c.seq)).where(reports.c.licence == licence).scalar_subquery()
        again = reports.update().where(reports.c.seq == last).values(times=reports.c.times + 1, last_at=time)
        connection.execute(again)
    else:
        connection.execute(reports.insert(), {"licence": licence, **said, "first_at": time, "last_at": time})
    renamed = {f"new_{name}": value for name, value in {**told, **said}.items()}
    connection.execute(_telling(tuple({**told, **said})), {"whose": licence, **renamed})


@cache
def _telling(columns: tuple[str, ...]) -> sa.Update:
    this = mainframes.c.licence == sa.bindparam("whose")
    return mainframes.update().where(this).values({name: sa.bindparam(f"new_{name}") for name in columns})


def _labels(connection: sa.Connection, of: Sequence[str] | None = None) -> dict[str, dict[str, str]]:
    """Read the labels of those licences, None: of all."""
    wanted = sa.select(labels).order_by("licence", "key")
    found: dict[str, dict[str, str]] = {}
    for row in connection.execute(wanted if of is None else wanted.where(labels.c.licence.in_(of))):
        found.setdefault(row.licence, {})[row.key] = row.value
    return found


def _barred(one: Mainframe, barred: Mapping[str, str]) -> Mainframe:
    """Say of a Mainframe that runs what the newest release cannot be installed on that it waits, and why."""
    why = barred.get(one.bundle or "") if one.result == "running" else None
    return one.model_copy(update={"waits": f"the newest release is not offered: {why}"}) if why else one


def _mainframe(row: Any, seen: datetime | None, labelled: dict[str, str]) -> Mainframe:
    expires, revoked = ((from_text(text) if text else None) for text in (row.expires, row.revoked_at))
    return Mainframe(
        id=row.id,
        name=row.name,
        status=licence_status(expires=expires, revoked_at=revoked, now=now()),
        last_seen=seen or (from_text(row.last_seen) if row.last_seen else None),
        bundle=row.bundle,
        release_seq=row.release_seq,
        result=row.result,
        reason=row.reason,
        journal=row.doubt,
        old_protocol=bool(row.old_protocol),
        waits=row.waits,
        labels=labelled,
        agent=row.agent,
        twin_at=from_text(row.twin_at) if row.twin_at else None,
    )
