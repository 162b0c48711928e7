"""Windows and freezes of the fleet: for all of it, by label, or for one Mainframe. They hold back what is offered.

Who is held is worked out for the whole fleet once a minute, and anew once a freeze was added or removed: a Mainframe's
question takes a look into a table in memory, and none where there is no freeze. A label that a Mainframe is given
counts within a minute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import sqlalchemy as sa

from ashat.common.calendar import MOST, Calendar, Entry
from ashat.node.core.db import now, to_text
from ashat.node.core.errors import ApiError
from ashat.node.omega.fleet.database import FleetDatabase, next_number
from ashat.node.omega.fleet.outbox import note
from ashat.node.omega.fleet.tables import freezes, labels, licences, members, rollouts
from ashat.protocol.fleet import Freeze, FreezeRequest

GRACE: Final = timedelta(seconds=120)
_ID_LENGTH: Final = 8
_AT_ONCE: Final = 5000
_GIVEN_UP: Final = (
    members.update()
    .where(members.c.rollout == sa.bindparam("of"), members.c.licence == sa.bindparam("whose"))
    .values(state="unreachable", changed_at=sa.bindparam("time"))
)


class FreezeStore:
    """The windows and freezes of OMEGA's fleet. Safe to use from many threads and processes."""

    def __init__(self, database: FleetDatabase) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._touched: object = None
        self._version = -1
        self._known: tuple[int, datetime] | None = None
        self._held: Mapping[str, str] = {}
        self._let_go: dict[str, datetime] = {}

    def all(self) -> list[Freeze]:
        """List the windows and freezes, in the order in which they were added."""
        rows = self._database.read(sa.select(freezes).order_by(freezes.c.at, freezes.c.id))
        return [_freeze(row) for row in rows]

    def add(self, wanted: FreezeRequest, by: str) -> Freeze:
        """Keep a window or a freeze; the same again changes nothing.

        Raises:
            UsageError: its time does not fit.
            ApiError: 404 where there is no such Mainframe, 409 `freezes` where there are too many.
        """
        entry = Entry.parse(wanted.kind, wanted.time)
        named = f"{wanted.kind} {wanted.scope} {wanted.subject} {entry.text}"
        identity = sha256(named.encode()).hexdigest()[:_ID_LENGTH]
        values = {"kind": wanted.kind, "scope": wanted.scope, "subject": wanted.subject, "time": entry.text, "by": by}
        told = {name: value for name, value in values.items() if name != "kind"}

        def add(connection: sa.Connection) -> None:
            known = connection.execute(sa.select(freezes.c.id)).scalars().all()
            if identity in known:
                return
            if len(known) >= MOST:
                raise ApiError(409, "freezes", f"There are {MOST} windows and freezes already: remove one first.")
            if wanted.scope == "mainframe" and not _is_licensed(connection, wanted.subject):
                raise ApiError(404, "not_found", f"There is no licence {wanted.subject[:40]!r} here.")
            connection.execute(freezes.insert().values(id=identity, at=to_text(now()), **values))
            next_number(connection, "freezes_version")
            next_number(connection, "rollouts_version")
            note(connection, f"{wanted.kind}-added", entry=identity, **told)

        self._change(add)
        return next(one for one in self.all() if one.id == identity)

    def remove(self, identity: str, by: str) -> None:
        """Forget a window or a freeze.

        Raises:
            ApiError: 404.
        """

        def remove(connection: sa.Connection) -> None:
            kind = connection.execute(sa.select(freezes.c.kind).where(freezes.c.id == identity)).scalar()
            if kind is None:
                raise ApiError(404, "not_found", f"There is no freeze {identity[:40]!r}; GET /v1/freezes lists them.")
            connection.execute(freezes.delete().where(freezes.c.id == identity))
            next_number(connection, "freezes_version")
            next_number(connection, "rollouts_version")
            note(connection, f"{kind}-removed", entry=identity, by=by)

        self._change(remove)

    def override(self, rollout: str, why: str, by: str) -> None:
        """Let a release go to the Mainframes that are held, too, in the waves of its rollout that are open.

        Raises:
            ApiError: 404 where there is no such rollout, 409 `rollout` where it has ended without them.
        """

        def override(connection: sa.Connection) -> None:
            status = connection.execute(sa.select(rollouts.c.status).where(rollouts.c.id == rollout)).scalar()
            if status is None:
                raise ApiError(404, "not_found", f"There is no rollout {rollout[:80]!r}; GET /v1/rollouts lists them.")
            if status in ("aborted", "superseded"):
                raise ApiError(409, "rollout", f"The rollout {rollout} is {status}: it goes to nobody else.")
            version = next_number(connection, "rollouts_version")
            values = {"override": why, "version": version, "changed_at": to_text(now())}
            connection.execute(rollouts.update().where(rollouts.c.id == rollout).values(**values))
            note(connection, "freeze-overridden", rollout=rollout, by=by, why=why)

        self._change(override)

    def _change(self, change: Callable[[sa.Connection], None]) -> None:
        self._database.change(change)
        with self._lock:
            self._touched = None

    def not_given_up(self) -> Collection[str]:
        """Name, by their licences, who is held now or was within the last `GRACE`, in which it asks what is offered:
        nobody gives them up. A wave waits for those who are held no more."""
        held, begins = self.held(), now() - GRACE
        if not self._let_go:
            return held.keys()
        with self._lock:
            self._let_go = {licence: at for licence, at in self._let_go.items() if at > begins}
            return held.keys() | self._let_go.keys()

    def held(self) -> Mapping[str, str]:
        """Say why each Mainframe is offered nothing now that is held, by its licence's id."""
        at = now().replace(second=0, microsecond=0)
        touched = self._database.touched()
        with self._lock:
            if touched != self._touched:
                self._touched, self._version = touched, self._database.glance("freezes_version")
            if self._known != (self._version, at):
                held = self._look()
                self._let_go |= dict.fromkeys(self._held.keys() - held.keys(), now())
                self._held, self._known = held, (self._version, at)
            return self._held

    def _look(self) -> Mapping[str, str]:
        found = self.all()
        if not found:
            return {}
        with self._database.reading() as connection:
            fleet: dict[str, set[str]] = {one: set() for one in connection.execute(sa.select(licences.c.id)).scalars()}
            for row in connection.execute(sa.select(labels)):
                fleet.setdefault(row.licence, set()).add(f"{row.key}={row.value}")
        return who_is_held(found, fleet, now())


def who_is_held(found: Iterable[Freeze], fleet: Mapping[str, Iterable[str]], at: datetime) -> dict[str, str]:
    """Say why each Mainframe of the fleet is held at that time, by its licence's id, from its labels `key=value`. For
    each, all windows and freezes count that are for the fleet, for a label of it, or for itself. Pure."""
    whole = [one for one in found if one.scope == "fleet"]
    narrow = [one for one in found if one.scope != "fleet"]
    whys: dict[tuple[str, ...], str] = {}
    held = {}
    for licence, labelled in fleet.items():
        names = {("mainframe", licence), *(("label", each) for each in labelled)}
        own = [*whole, *(one for one in narrow if (one.scope, one.subject) in names)]
        key = tuple(one.id for one in own)
        if key not in whys:
            whys[key] = _why(own, at)
        if whys[key]:
            held[licence] = whys[key]
    return held


def held_waiting(connection: sa.Connection, row: Any, held: Container[str]) -> list[Any]:
    """List the members of a rollout that wait and are held; none where it goes to those, too."""
    if not held or row.override:
        return []
    wanted = sa.select(members.c.licence, members.c.wave).where(members.c.rollout == row.id)
    return [one for one in connection.execute(wanted.where(members.c.state == "waiting")) if one.licence in held]


def give_up(connection: sa.Connection, which: sa.ColumnElement[bool], held: Container[str], time: str) -> int:
    """Call those members of a rollout unreachable, but for those `held`; count them."""
    gone = members.update().where(which).values(state="unreachable", changed_at=time)
    if not held:
        return connection.execute(gone).rowcount
    late = connection.execute(sa.select(members.c.rollout, members.c.licence).where(which)).all()
    rows = [{"of": one.rollout, "whose": one.licence} for one in late if one.licence not in held]
    for start in range(0, len(rows), _AT_ONCE):
        connection.execute(_GIVEN_UP, [{**row, "time": time} for row in rows[start : start + _AT_ONCE]])
    return len(rows)


def _why(own: Iterable[Freeze], at: datetime) -> str:
    entries = [Entry.parse(one.kind, one.time) for one in own]
    windows, frozen = (tuple(one for one in entries if one.kind == kind) for kind in ("window", "freeze"))
    closed = Calendar(windows, frozen).closed(at)
    return closed.words if closed else ""


def _is_licensed(connection: sa.Connection, licence: str) -> bool:
    wanted = sa.select(licences.c.id).where(licences.c.id == licence)
    return connection.execute(wanted).scalar() is not None


def _freeze(row: Any) -> Freeze:
    return Freeze.model_validate(
        {name: getattr(row, name) for name in ("id", "kind", "scope", "subject", "time", "by", "at")}
    )
