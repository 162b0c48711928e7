"""Exposes to Prometheus what the fleet's database says: Mainframes by release and result, and the newest rollout.

Every label is bounded: results, states and statuses are fixed; of releases the newest `RELEASES` are named and the
others are `other`; waves are those of one rollout, of which a policy has at most twenty.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, get_args

import sqlalchemy as sa
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ashat.common.text import cut, printable
from ashat.errors import FleetDatabaseError
from ashat.node.core.db import now, to_text
from ashat.node.omega.fleet.database import FleetDatabase
from ashat.node.omega.fleet.tables import licences, mainframes, rollouts, waves
from ashat.protocol.fleet import MemberState, RolloutStatus
from ashat.protocol.licences import LicenceStatus

RELEASES: Final = 10
OTHER: Final = "other"
NONE: Final = "none"
_RESULTS: Final = ("running", "failed", "none")
_LENGTH: Final = 100


def families() -> dict[str, GaugeMetricFamily]:
    """Make every metric, without a figure."""

    def gauge(name: str, words: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"ashat_omega_{name}", words, labels=labels)

    return {
        "up": gauge("fleet_up", "1 while the fleet's database answers."),
        "licences": gauge("licences", "Licences, by whether they count.", "status"),
        "mainframes": gauge(
            "mainframes", "Mainframes whose licence counts, by what they reported last.", "version", "result"
        ),
        "members": gauge(
            "rollout_mainframes", "Mainframes of the newest rollout.", "update_id", "wave", "name", "state"
        ),
        "status": gauge("rollout_status", "1 for how the newest rollout stands.", "update_id", "status"),
        "opened": gauge("rollout_waves_open", "Waves of the newest rollout that are open.", "update_id"),
    }


class FleetFigures(Collector):
    """The figures of one OMEGA's fleet, counted anew each time that they are asked for."""

    def __init__(self, database: FleetDatabase) -> None:
        """Count in `database`."""
        self._database = database

    def describe(self) -> Iterator[Metric]:
        """Name every metric without asking the database."""
        yield from families().values()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; `ashat_omega_fleet_up` alone, as 0, where the database does not answer."""
        found = families()
        try:
            with self._database.reading() as connection:
                _count_mainframes(connection, found)
                _count_rollout(connection, found)
        except FleetDatabaseError:
            down = families()["up"]
            down.add_metric([], 0)
            yield down
            return
        found["up"].add_metric([], 1)
        yield from found.values()


def _count_mainframes(connection: sa.Connection, made: dict[str, GaugeMetricFamily]) -> None:
    time = to_text(now())
    ended = sa.and_(licences.c.expires.is_not(None), licences.c.expires <= time)
    standing = sa.case((licences.c.revoked_at.is_not(None), "revoked"), (ended, "expired"), else_="active")
    counted = sa.select(standing.label("standing"), sa.func.count()).group_by("standing")
    found: dict[str, int] = {str(status): int(count) for status, count in connection.execute(counted)}
    for status in get_args(LicenceStatus):
        made["licences"].add_metric([status], found.get(status, 0))
    per = sa.select(mainframes.c.release_seq, mainframes.c.result, sa.func.count())
    per = per.join(licences, licences.c.id == mainframes.c.licence)
    per = per.where(licences.c.revoked_at.is_(None), sa.not_(ended))
    rows = connection.execute(per.group_by(mainframes.c.release_seq, mainframes.c.result)).all()
    named = _named(connection, {seq for seq, _, _ in rows if seq is not None})
    totals: Counter[tuple[str, str]] = Counter()
    for seq, result, count in rows:
        totals[NONE if seq is None else named.get(seq, OTHER), result] += count
    for version in sorted({version for version, _ in totals}):
        for result in _RESULTS if version == NONE else _RESULTS[:2]:
            made["mainframes"].add_metric([version, result], totals[version, result])


def _count_rollout(connection: sa.Connection, made: dict[str, GaugeMetricFamily]) -> None:
    row = connection.execute(sa.select(rollouts).order_by(rollouts.c.release_seq.desc()).limit(1)).one_or_none()
    if row is None:
        return
    update = _label(row.update_id)
    for status in get_args(RolloutStatus):
        made["status"].add_metric([update, status], int(row.status == status))
    found = connection.execute(sa.select(waves).where(waves.c.rollout == row.id).order_by(waves.c.number)).all()
    made["opened"].add_metric([update], sum(wave.opened_at is not None for wave in found))
    for wave in found:
        for state in get_args(MemberState):
            labels = [update, str(wave.number + 1), _label(wave.name), state]
            made["members"].add_metric(labels, getattr(wave, state))


def _named(connection: sa.Connection, releases: set[int]) -> dict[int, str]:
    """Name the newest of those releases: by the update that brought it, where it was rolled out, else by its number."""
    newest = sorted(releases, reverse=True)[:RELEASES]
    wanted = sa.select(rollouts.c.release_seq, rollouts.c.update_id).where(rollouts.c.release_seq.in_(newest))
    known: dict[int, str] = {int(seq): str(update) for seq, update in connection.execute(wanted)}
    return {seq: _label(known[seq]) if seq in known else f"release {seq}" for seq in newest}


def _label(text: str) -> str:
    return cut(printable(text), _LENGTH)
