"""Windows and freezes of the fleet: for all of it, by label, or for one Mainframe. They hold back what is offered.

Who is held is worked out for the whole fleet once a minute, and anew once a freeze was added or removed: a Mainframe's
question takes a look into a table in memory, and none where there is no freeze. A label that a Mainframe is given
counts within a minute.

Once somebody is held no more, the open wave in which it waits has its whole time again, as after a person resumed: it
could not answer before. Of that no restart loses anything: a change that lets go begins the time anew in its own
transaction, and when who is held was last worked out is kept, so that whom the time let go since is known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from ashat.common.calendar import MOST, Calendar, Entry
from ashat.errors import FleetDatabaseError
from ashat.node.core.db import now, to_text
from ashat.node.core.errors import ApiError
from ashat.node.omega.fleet.database import FleetDatabase, next_number
from ashat.node.omega.fleet.outbox import note
from ashat.node.omega.fleet.tables import facts, freezes, labels, licences, members, rollouts, waves
from ashat.protocol.fleet import Freeze, FreezeRequest

GRACE: Final = timedelta(seconds=120)
_ID_LENGTH: Final = 8
_AT_ONCE: Final = 5000
_LOOKED: Final = "freezes_looked"
_EACH: Final = sa.select(freezes).order_by(freezes.c.at, freezes.c.id)
_GIVEN_UP: Final = (
    members.update()
    .where(members.c.rollout == sa.bindparam("of"), members.c.licence == sa.bindparam("whose"))
    .values(state="unreachable", changed_at=sa.bindparam("time"))
)


class Held(NamedTuple):
    """Who is held `now`, with the reason, by the licence's id; and who is `spared`, too: nobody gives those up."""

    now: Mapping[str, str]
    spared: Collection[str]


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
        self._renewed: tuple[Collection[str], Future[None]] = (), Future()
        self._renewed[1].set_result(None)

    def all(self) -> list[Freeze]:
        """List the windows and freezes, in the order in which they were added."""
        return [_freeze(row) for row in self._database.read(_EACH)]

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
            begin_anew(connection, _held_now(connection))
            version = next_number(connection, "rollouts_version")
            values = {"override": why, "version": version, "changed_at": to_text(now())}
            connection.execute(rollouts.update().where(rollouts.c.id == rollout).values(**values))
            note(connection, "freeze-overridden", rollout=rollout, by=by, why=why)

        self._change(override)

    def _change(self, change: Callable[[sa.Connection], None]) -> None:
        """Make a change, and begin anew the time of the waves in which it lets somebody go."""

        def letting_go(connection: sa.Connection) -> None:
            before = _held_now(connection)
            change(connection)
            begin_anew(connection, before.keys() - _held_now(connection).keys())
            _note_look(connection, now())

        self._database.change(letting_go)
        with self._lock:
            self._touched = None

    def settled(self) -> Held:
        """Say who is held now, once the waves have their time again in which somebody was let go. Spared is who is held
        now or was within the last `GRACE`, in which it asks what is offered. A wave waits for who is held no more.

        Raises:
            FleetDatabaseError: the database does not answer.
        """
        held, begins = self.held(), now() - GRACE
        with self._lock:
            gone, renewed = self._renewed
            self._let_go = {licence: at for licence, at in self._let_go.items() if at > begins}
            spared = held.keys() | self._let_go.keys()
        try:
            renewed.result()
        except FleetDatabaseError:
            with self._lock:  # the next look lets them go again
                self._known, self._held = None, {**self._held, **dict.fromkeys(gone, "")}
            raise
        return Held(held, spared)

    def held(self) -> Mapping[str, str]:
        """Say why each Mainframe is offered nothing now that is held, by its licence's id."""
        at = now().replace(second=0, microsecond=0)
        touched = self._database.touched()
        with self._lock:
            if touched != self._touched:
                self._touched, self._version = touched, self._database.glance("freezes_version")
            if self._known != (self._version, at):
                before, held = self._look()
                gone = (self._held.keys() | before) - held.keys()
                self._let_go |= dict.fromkeys(gone, now())
                if held or gone:
                    self._renewed = gone, self._database.submit(lambda connection: _let_go(connection, gone, at))
                self._held, self._known = held, (self._version, at)
            return self._held

    def _look(self) -> tuple[Collection[str], Mapping[str, str]]:
        """Work out who was held when that was worked out last, by whichever process, and who is held now."""
        with self._database.reading() as connection:
            found = _all(connection)
            if not found:
                return (), {}
            fleet = _labelled(connection)
            looked = connection.execute(sa.select(facts.c.value).where(facts.c.key == _LOOKED)).scalar()
        before = who_is_held(found, fleet, datetime.fromtimestamp(looked, UTC)) if looked else {}
        return before.keys(), who_is_held(found, fleet, now())


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


def begin_anew(connection: sa.Connection, let_go: Collection[str]) -> None:
    """Have each open wave of the newest rollout its whole time again in which one of those waits, who were held."""
    if not let_go:
        return
    newest = sa.select(sa.func.max(rollouts.c.release_seq)).scalar_subquery()
    going = sa.and_(rollouts.c.release_seq == newest, rollouts.c.override == "", rollouts.c.status != "aborted")
    wanted = sa.select(members.c.rollout, members.c.wave, members.c.licence)
    wanted = wanted.join(rollouts, rollouts.c.id == members.c.rollout).where(members.c.state == "waiting", going)
    found = {(row.rollout, row.wave) for row in connection.execute(wanted) if row.licence in let_go}
    for rollout, wave in sorted(found):
        of = sa.and_(waves.c.rollout == rollout, waves.c.number == wave, waves.c.opened_at.is_not(None))
        connection.execute(waves.update().where(of).values(opened_at=to_text(now())))


def _let_go(connection: sa.Connection, those: Collection[str], at: datetime) -> None:
    begin_anew(connection, those)
    _note_look(connection, at)


def _note_look(connection: sa.Connection, at: datetime) -> None:
    """Keep when who is held was worked out last."""
    value = {"value": int(at.timestamp())}
    if not connection.execute(facts.update().where(facts.c.key == _LOOKED).values(value)).rowcount:
        connection.execute(facts.insert().values(key=_LOOKED, **value))


def _held_now(connection: sa.Connection) -> Mapping[str, str]:
    return who_is_held(_all(connection), _labelled(connection), now())


def _all(connection: sa.Connection) -> list[Freeze]:
    return [_freeze(row) for row in connection.execute(_EACH)]


def _labelled(connection: sa.Connection) -> dict[str, set[str]]:
    """Read the labels `key=value` of each licence."""
    fleet: dict[str, set[str]] = {one: set() for one in connection.execute(sa.select(licences.c.id)).scalars()}
    for row in connection.execute(sa.select(labels)):
        fleet.setdefault(row.licence, set()).add(f"{row.key}={row.value}")
    return fleet


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
