"""Rollouts: which Mainframe is in which wave, who may have the release now, and what became of it on each.

Every change of a member's state changes its wave's counters in the same transaction, so that nobody counts the fleet.
Failures are judged there too: a rollout that has too many stops by itself, whether or not anybody watches it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import sqlalchemy as sa

from ashat.common.documents import STATE_LIMIT, load_json
from ashat.common.failpoints import fault_point
from ashat.errors import PolicyError
from ashat.node.core.db import from_text, now, to_text
from ashat.node.core.errors import ApiError
from ashat.node.omega.fleet.answers import accept_failures, try_again, withdraw_offers
from ashat.node.omega.fleet.barred import barred_groups, is_barred, running
from ashat.node.omega.fleet.counters import count_moved, counting, moving, switching_in
from ashat.node.omega.fleet.database import FleetDatabase, next_number
from ashat.node.omega.fleet.freezes import FreezeStore, give_up, held_waiting
from ashat.node.omega.fleet.outbox import note
from ashat.node.omega.fleet.progress import steps_of
from ashat.node.omega.fleet.tables import labels, licences, mainframes, members, rollouts, waves
from ashat.node.omega.fleet.troubles import cohort_troubles
from ashat.protocol.fleet import (
    CohortTroubles,
    FailureGroup,
    MainframeReport,
    MemberState,
    RolloutMember,
    RolloutState,
    RolloutStatus,
    RolloutStep,
    Wave,
)
from ashat.protocol.messages import Offer
from ashat.rollouts.cohorts import assign, place, require_members, wave_sizes
from ashat.rollouts.decide import Rollout, too_many_failed, wave_deadline
from ashat.rollouts.policy import RolloutPolicy

GROUPS: Final = 20
NAMES_SHOWN: Final = 5
_AT_ONCE: Final = 5000
_UNDER_WAY: Final = ("running", "paused", "asked")
# What each Mainframe's question and report takes is spelled once: to spell it anew takes longer than to carry it out.
_BY_RELEASE: Final = sa.select(rollouts).where(rollouts.c.release_seq == sa.bindparam("release_seq"))
_MEMBER: Final = sa.select(members).where(
    members.c.rollout == sa.bindparam("rollout"), members.c.licence == sa.bindparam("licence")
)
_WAVE: Final = sa.select(waves).where(
    waves.c.rollout == sa.bindparam("rollout"), waves.c.number == sa.bindparam("wave")
)


class RolloutStore:
    """OMEGA's rollouts. Safe to use from many threads and processes."""

    def __init__(self, database: FleetDatabase, freezes: FreezeStore | None = None) -> None:
        """Keep rollouts in `database`, of which `freezes` hold Mainframes back."""
        self._database = database
        self._freezes = freezes or FreezeStore(database)
        self._touched: object = None
        self._version = 0

    def begin(
        self, identity: str, offer: Offer, policy: RolloutPolicy, by: str, barred: Mapping[str, str] | None = None
    ) -> None:
        """Begin to roll out `offer`: put every Mainframe whose licence counts into its wave; no wave is open yet. On
        bundles that are `barred`, each with the reason, it cannot be installed: who runs one is in no wave.

        To begin it again changes nothing. Rollouts of earlier releases that are under way end.

        Raises:
            ApiError: 409 `rollout` where that id, or that release, has another rollout, or a wave would be empty.
        """

        def begin(connection: sa.Connection) -> None:
            known = _find(connection, rollouts.c.release_seq == offer.release_seq)
            if known is not None:
                if (known.id, known.bundle, policy_of(known)) != (identity, offer.bundle, policy):
                    raise _conflict(f"The release {offer.release_seq} is rolled out as {known.id} already.")
                return
            if _find(connection, rollouts.c.id == identity) is not None:
                raise _conflict(f"There is a rollout {identity} of another release.")
            self._insert(connection, identity, offer, policy, barred or {})
            note(connection, "rollout-began", rollout=identity, by=by, policy=policy.digest, **offer.model_dump())

        self._database.change(begin)
        fault_point("rollout.began")

    def _insert(
        self,
        connection: sa.Connection,
        identity: str,
        offer: Offer,
        policy: RolloutPolicy,
        barred: Mapping[str, str],
    ) -> None:
        time, names = to_text(now()), policy.rules()
        runs = running(connection) if barred else {}
        fleet = {each: own for each, own in _fleet(connection, time).items() if runs.get(each) not in barred}
        assigned = assign(policy, identity, fleet)
        sizes = wave_sizes(policy, assigned)
        known = _reported_before(connection, offer)
        try:
            require_members(policy, sizes)
        except PolicyError as error:
            raise _conflict(str(error)) from None
        ended = {"status": "superseded", "changed_at": time, "why": f"{offer.update_id} is rolled out instead"}
        connection.execute(rollouts.update().where(rollouts.c.status.in_(_UNDER_WAY)).values(**ended))
        connection.execute(
            rollouts.insert().values(
                id=identity,
                **offer.model_dump(),
                policy=policy.model_dump_json(),
                status="running",
                began_at=time,
                changed_at=time,
                version=next_number(connection, "rollouts_version"),
                barred=json.dumps(dict(barred)),
            )
        )
        rows = [
            {"rollout": identity, "number": number, "name": rule.name, "waiting": sizes[number]}
            for number, rule in enumerate(names)
        ]
        connection.execute(waves.insert(), rows)
        for some in _parts(list(assigned.items())):
            connection.execute(
                members.insert(),
                [
                    {"rollout": identity, "licence": of, "wave": wave, "state": "waiting", "changed_at": time}
                    for of, wave in some
                ],
            )
        for licence, result, reason in known:
            if licence in assigned:
                member = _member(connection, identity, licence)
                _move(connection, member, "succeeded" if result == "running" else "failed", reason=reason)

    def running(self) -> set[str]:
        """List which bundles Mainframes reported last to run."""
        with self._database.reading() as connection:
            return set(running(connection).values())

    def open(self, identity: str, through: int, why: str, by: str) -> None:
        """Open the waves up to number `through`; those that are open stay so.

        Raises:
            ApiError: 404 where there is no such rollout, 409 `rollout` where it is not running, or has no such wave.
        """

        def open_waves(connection: sa.Connection) -> None:
            found = _require(connection, identity, ("running",), "open a wave of")
            if through >= len(policy_of(found).rules()):
                raise _conflict(f"{identity} has no wave {through}; the last is {len(policy_of(found).rules()) - 1}.")
            which = sa.and_(waves.c.rollout == identity, waves.c.number <= through, waves.c.opened_at.is_(None))
            opened = connection.execute(waves.update().where(which).values(opened_at=to_text(now()), why=why)).rowcount
            if opened:
                _decided(connection, identity, "wave-opened", by, through=through, why=why)

        self._database.change(open_waves)
        fault_point("rollout.opened")

    def set(self, identity: str, status: RolloutStatus, why: str, by: str) -> None:
        """Pause, resume (`running`), abort or complete a rollout, or say that people are asked.

        Resumed, it goes on although some have failed: these were seen, and count as `accepted` from then on. Aborted,
        it is offered only to who runs it; who was offered it before, and did not answer, waits again.

        Raises:
            ApiError: 404 where there is no such rollout, 409 `rollout` where it has ended.
        """

        def change(connection: sa.Connection) -> None:
            found = _require(connection, identity, _UNDER_WAY, f"change to {status}", already=status)
            if found.status == status:
                return
            if status == "running":
                accept_failures(connection, identity)
            elif status == "aborted":
                withdraw_offers(connection, identity)
            _set(connection, identity, status, why)
            _decided(connection, identity, f"rollout-{status}", by, why=why)

        self._database.change(change)
        fault_point("rollout.decided")

    def retry(self, identity: str, by: str) -> int:
        """Have every Mainframe that failed, or was not reached, in a wave that is open, try again; count them. The
        rollout may be complete by then, but superseded by none.

        Raises:
            ApiError: as `set`.
        """

        def retry(connection: sa.Connection) -> int:
            _refuse_superseded(connection, _require(connection, identity, (*_UNDER_WAY, "completed"), "try again in"))
            count = try_again(connection, identity)
            if count:
                _decided(connection, identity, "rollout-retried", by, mainframes=count)
            return count

        return self._database.change(retry)

    def version(self) -> int:
        """Return what is another number once anything of any rollout was decided."""
        touched = self._database.touched()
        if touched != self._touched:
            self._touched, self._version = touched, self._database.glance("rollouts_version")
        return self._version

    def state(self, identity: str) -> RolloutState:
        """Read a rollout; whose time is over without a word of theirs are unreachable from then on.

        Raises:
            ApiError: 404 where there is no such rollout.
        """
        held, spared = self._freezes.settled()
        with self._database.reading() as connection:
            row = _find(connection, rollouts.c.id == identity)
            if row is None:
                raise _unknown(identity)
            overdue = _overdue(connection, row, spared)
        if overdue:
            self._database.change(lambda connection: _time_out(connection, row, spared))
        with self._database.reading() as connection:
            return _state(connection, _find(connection, rollouts.c.id == identity), held)

    def all(self, limit: int) -> list[RolloutState]:
        """List the newest rollouts."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(rollouts).order_by(rollouts.c.release_seq.desc()).limit(limit)).all()
            return [_state(connection, row, self._freezes.held()) for row in rows]

    def members(self, identity: str, states: Sequence[str], wave: int | None, limit: int) -> list[RolloutMember]:
        """List members of a rollout, those that changed last first; of `states` and of that wave, where given."""
        wanted = sa.select(members, licences.c.name).join(licences, licences.c.id == members.c.licence)
        wanted = wanted.where(members.c.rollout == identity)
        if states:
            wanted = wanted.where(members.c.state.in_(states))
        if wave is not None:
            wanted = wanted.where(members.c.wave == wave)
        rows = self._database.read(wanted.order_by(members.c.changed_at.desc(), licences.c.name).limit(limit))
        return [
            RolloutMember(
                id=row.licence,
                name=row.name,
                wave=row.wave,
                state=row.state,
                reason=row.reason,
                offered_at=from_text(row.offered_at) if row.offered_at else None,
                changed_at=from_text(row.changed_at),
                tries=row.tries,
            )
            for row in rows
        ]

    def failures(self, identity: str) -> list[FailureGroup]:
        """Group who failed, or was not reached, by what they said: the largest `GROUPS` groups, with some names."""
        bad = sa.and_(members.c.rollout == identity, members.c.state.in_(("failed", "unreachable", "accepted")))
        grouped = sa.select(members.c.state, members.c.reason, sa.func.count().label("n")).where(bad)
        grouped = grouped.group_by(members.c.state, members.c.reason).order_by(sa.desc("n"), "reason").limit(GROUPS)
        found = []
        with self._database.reading() as connection:
            for state, reason, count in connection.execute(grouped).all():
                named = sa.select(licences.c.name).join(members, members.c.licence == licences.c.id)
                named = named.where(bad, members.c.state == state, members.c.reason == reason)
                names = connection.execute(named.order_by(licences.c.name).limit(NAMES_SHOWN)).scalars()
                found.append(FailureGroup(state=state, reason=reason, count=count, names=list(names)))
            row = _find(connection, rollouts.c.id == identity)
            return found + (barred_groups(connection, row, _counts(to_text(now())))[:GROUPS] if row else [])

    def progress(self, identity: str) -> list[RolloutStep]:
        """Count when the members of a rollout came to stand as they do (`steps_of`)."""
        with self._database.reading() as connection:
            return steps_of(connection, identity)

    def troubles(self, identity: str) -> CohortTroubles:
        """Count what those who have the release reported beside those who have it not.

        Raises:
            ApiError: 404 where there is no such rollout.
        """
        with self._database.reading() as connection:
            row = _find(connection, rollouts.c.id == identity)
            if row is None:
                raise _unknown(identity)
            return cohort_troubles(connection, row)

    def offer_to(self, licence: str, offer: Offer) -> Future[int | None]:
        """Tell whether that Mainframe may have `offer` now, by its wave: None where not, else how often it was told to
        try again. What has no rollout is for everybody.

        It is under way from then on. Who came after the rollout began gets its place.
        """
        if licence in self._freezes.held():
            return self._database.submit(lambda connection: _offer_to_held(connection, licence, offer))
        return self._database.submit(lambda connection: offer_to_one(connection, licence, offer))


def reported(connection: sa.Connection, licence: str, report: MainframeReport) -> None:
    """Note what a Mainframe reported in the rollout of that release, if there is one, as a part of a transaction."""
    row = of_release(connection, report.release_seq)
    if row is None:
        return
    member = _member(connection, row.id, licence)
    if member is None:
        member = _join(connection, row, licence)
    if report.result == "waiting":
        _move(connection, member, member.state, reason=report.reason)
        return
    state: MemberState = "succeeded" if report.result == "running" else "failed"
    if (member.state, member.reason) == (state, report.reason):
        return
    if state == "failed" and member.state == "accepted":
        state = "accepted"  # seen before
    _move(connection, member, state, reason=report.reason)
    if state == "failed" and row.status == "running":
        _stop_if_too_many(connection, row)


def leave(connection: sa.Connection, licence: str) -> None:
    """Take a Mainframe whose licence counts no more out of the rollouts that are under way, unless it has answered."""
    open_still = sa.and_(members.c.licence == licence, members.c.state.in_(("waiting", "under_way")))
    wanted = sa.select(members).join(rollouts, rollouts.c.id == members.c.rollout)
    for member in connection.execute(wanted.where(open_still, rollouts.c.status.in_(_UNDER_WAY))).all():
        count_moved(connection, member.rollout, member.wave, {member.state: -1})
        connection.execute(members.delete().where(members.c.rollout == member.rollout, members.c.licence == licence))


def offer_to_one(connection: sa.Connection, licence: str, offer: Offer) -> int | None:
    """Do `RolloutStore.offer_to` as a part of a transaction."""
    row = of_release(connection, offer.release_seq)
    if row is None:
        return 0
    member = _member(connection, row.id, licence)
    if member is None and (_is_revoked(connection, licence) or is_barred(connection, row, licence)):
        return None
    if member is None:
        member = _join(connection, row, licence)
    if has_it(row, member):
        return int(member.tries)
    wave = _wave(connection, row.id, member.wave)
    if row.status not in ("running", "completed") or wave.opened_at is None:
        return None
    policy = policy_of(row)
    if policy.at_once and switching_in(connection, row.id, policy.at_once) >= policy.at_once:
        return None
    _move(connection, member, "under_way", offered_at=to_text(now()))
    return int(member.tries)


def has_it(row: Any, member: Any) -> bool:
    """Tell whether a member was offered the release of a rollout, and still is: once that is aborted, who runs it."""
    return bool(member.state == "succeeded" if row.status == "aborted" else member.state != "waiting")


def _offer_to_held(connection: sa.Connection, licence: str, offer: Offer) -> int | None:
    """Do `offer_to_one` for who is held by a freeze: it is offered only what it was offered before, or what goes
    all the same."""
    row = of_release(connection, offer.release_seq)
    if row is not None and row.override:
        return offer_to_one(connection, licence, offer)
    member = _member(connection, row.id, licence) if row is not None else None
    return int(member.tries) if member is not None and has_it(row, member) else None


def _stop_if_too_many(connection: sa.Connection, row: Any) -> None:
    """Pause a rollout that too many failures stop, as its policy says, in the transaction that counts the failure.
    Where it waits for an owner's word or a window, it waits no more."""
    state = _state(connection, row)
    if not state.opened:
        return
    stopped = too_many_failed(state.policy, state.as_rollout())
    if stopped is not None:
        status = "asked" if state.policy.on_failure == "ask" else "paused"
        withdraw_offers(connection, row.id, only_waiting=True)
        _set(connection, row.id, status, stopped.why)
        _decided(connection, row.id, f"rollout-{status}", "OMEGA", why=stopped.why)
        fault_point("rollout.stopped")


def _set(connection: sa.Connection, identity: str, status: str, why: str) -> None:
    stopped = {"stops": rollouts.c.stops + 1} if status in ("paused", "asked") else {}
    connection.execute(rollouts.update().where(rollouts.c.id == identity).values(status=status, why=why, **stopped))


def _overdue(connection: sa.Connection, row: Any, held: Container[str]) -> list[Wave]:
    """List the open waves in which somebody's time is over."""
    state = _state(connection, row, held)
    if state.status not in ("running", "completed"):
        return []
    return [wave for wave in state.opened if wave.counts.open and now() >= _deadline(state.policy, wave)]


def _deadline(policy: RolloutPolicy, wave: Wave) -> datetime:
    assert wave.opened_at is not None
    alone = Rollout([wave.counts], 0, wave.opened_at, wave.last_success_at, last_answer_at=wave.last_answer_at)
    return wave_deadline(policy, alone)


def _time_out(connection: sa.Connection, row: Any, held: Container[str]) -> None:
    """Call those unreachable that have not answered in their wave's time."""
    time = now()
    for wave in _overdue(connection, row, held):
        own = to_text(time - timedelta(seconds=policy_of(row).mainframe_seconds))
        late = sa.or_(members.c.offered_at.is_(None), members.c.offered_at <= own)
        for state in ("waiting", "under_way"):
            which = sa.and_(members.c.rollout == row.id, members.c.wave == wave.number, members.c.state == state, late)
            found = give_up(connection, which, held if state == "waiting" and not row.override else (), to_text(time))
            if found:
                changes = {state: -found, "unreachable": found}
                count_moved(connection, row.id, wave.number, changes, last_answer_at=to_text(time))


def _reported_before(connection: sa.Connection, offer: Offer) -> list[Any]:
    """List who reported on that offer before it had a rollout, as where OMEGA offers what it went back to by itself."""
    columns = sa.select(mainframes.c.licence, mainframes.c.result, mainframes.c.reason)
    return list(connection.execute(columns.where(mainframes.c.release_seq == offer.release_seq)).all())


def _fleet(connection: sa.Connection, time: str) -> dict[str, dict[str, str]]:
    """Read the labels of every Mainframe whose licence counts, by its id."""
    found: dict[str, dict[str, str]] = {
        row.id: {} for row in connection.execute(sa.select(licences.c.id).where(_counts(time)))
    }
    for row in connection.execute(sa.select(labels)):
        if row.licence in found:
            found[row.licence][row.key] = row.value
    return found


def _is_revoked(connection: sa.Connection, licence: str) -> bool:
    """Tell whether the licence was revoked, as while its Mainframe's question was under way."""
    wanted = sa.select(licences.c.revoked_at).where(licences.c.id == licence)
    return connection.execute(wanted).scalar() is not None


def _counts(time: str) -> sa.ColumnElement[bool]:
    return sa.and_(licences.c.revoked_at.is_(None), sa.or_(licences.c.expires.is_(None), licences.c.expires > time))


def _join(connection: sa.Connection, row: Any, licence: str) -> Any:
    """Give a Mainframe that came after the rollout began its place in it."""
    own = {each.key: each.value for each in connection.execute(sa.select(labels).where(labels.c.licence == licence))}
    wave = place(policy_of(row), row.id, licence, own)
    values = {"rollout": row.id, "licence": licence, "wave": wave, "state": "waiting", "changed_at": to_text(now())}
    connection.execute(members.insert().values(**values))
    count_moved(connection, row.id, wave, {"waiting": 1})
    return _member(connection, row.id, licence)


def _move(connection: sa.Connection, member: Any, state: MemberState, **values: Any) -> None:
    """Change a member's state, and its wave's counters with it."""
    time = to_text(now())
    given = {"state": state, "changed_at": time, **values}
    renamed = {f"new_{name}": value for name, value in given.items()}
    connection.execute(moving(tuple(given)), {"of": member.rollout, "whose": member.licence, **renamed})
    if member.state != state:
        counted = {"of": member.rollout, "which": member.wave, "time": time}
        connection.execute(counting(member.state, state), counted)


def _decided(connection: sa.Connection, identity: str, kind: str, by: str, **facts: Any) -> None:
    version = next_number(connection, "rollouts_version")
    changed = {"version": version, "changed_at": to_text(now())}
    connection.execute(rollouts.update().where(rollouts.c.id == identity).values(**changed))
    note(connection, kind, rollout=identity, by=by, **facts)


def _require(connection: sa.Connection, identity: str, statuses: Iterable[str], what: str, already: str = "") -> Any:
    row = _find(connection, rollouts.c.id == identity)
    if row is None:
        raise _unknown(identity)
    if row.status not in (*statuses, already):
        raise _conflict(f"The rollout {identity} is {row.status}, so nothing can {what} it.")
    return row


def _refuse_superseded(connection: sa.Connection, row: Any) -> None:
    later = sa.select(rollouts).where(rollouts.c.release_seq > row.release_seq).order_by(rollouts.c.release_seq.desc())
    newest = connection.execute(later.limit(1)).one_or_none()
    if newest is not None:
        raise _conflict(f"{newest.id} is rolled out since, so nothing can try {row.id} again.")


def _find(connection: sa.Connection, which: sa.ColumnElement[bool]) -> Any:
    return connection.execute(sa.select(rollouts).where(which)).one_or_none()


def of_release(connection: sa.Connection, release_seq: int) -> Any:
    """Find the rollout of that release, None: it has none."""
    return connection.execute(_BY_RELEASE, {"release_seq": release_seq}).one_or_none()


def _member(connection: sa.Connection, rollout: str, licence: str) -> Any:
    return connection.execute(_MEMBER, {"rollout": rollout, "licence": licence}).one_or_none()


def _wave(connection: sa.Connection, rollout: str, number: int) -> Any:
    return connection.execute(_WAVE, {"rollout": rollout, "wave": number}).one()


def _state(connection: sa.Connection, row: Any, held: Container[str] = ()) -> RolloutState:
    """Read a rollout; who waits and is among those `held` counts as held."""
    of = Counter(member.wave for member in held_waiting(connection, row, held))
    found = connection.execute(sa.select(waves).where(waves.c.rollout == row.id).order_by(waves.c.number)).mappings()
    return RolloutState(
        id=row.id,
        offer=Offer(release_seq=row.release_seq, bundle=row.bundle, update_id=row.update_id, attempt=row.attempt),
        policy=policy_of(row),
        status=row.status,
        why=row.why,
        began_at=from_text(row.began_at),
        changed_at=from_text(row.changed_at),
        version=row.version,
        stops=row.stops,
        override=row.override,
        at=now(),
        waves=[
            Wave.model_validate({**wave, "waiting": wave["waiting"] - of[wave["number"]], "held": of[wave["number"]]})
            for wave in found
        ],
    )


def policy_of(row: Any) -> RolloutPolicy:
    """Read the policy of a row of `rollouts`."""
    return _read_policy(row.policy)


@lru_cache(64)
def _read_policy(text: str) -> RolloutPolicy:
    return RolloutPolicy.model_validate(load_json(text.encode(), limit=STATE_LIMIT))


def _parts(rows: list[tuple[str, int]]) -> Iterable[list[tuple[str, int]]]:
    return (rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE))


def _conflict(detail: str) -> ApiError:
    return ApiError(409, "rollout", detail)


def _unknown(identity: str) -> ApiError:
    return ApiError(404, "not_found", f"There is no rollout {identity[:80]!r} here; GET /v1/rollouts lists them.")
