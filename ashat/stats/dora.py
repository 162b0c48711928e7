"""Compute the four figures of software delivery by DORA's definitions (https://dora.dev/guides/dora-metrics/). Pure.

deployment frequency      how many deployments to production there were in a period
change lead time          "the amount of time it takes for a change to go from committed to version control to deployed
                          in production"
change fail rate          "the ratio of deployments that require immediate intervention following a deployment",
                          likely "a rollback of the changes or a hotfix"
failed deployment         "the time it takes to recover from a deployment that fails and requires immediate
recovery time             intervention"

Production is a target, such as OMEGA. A deployment is one that was switched to there, or was tried: one that did not
become healthy was switched back by the server itself. What needs intervention is what the record shows: that, and a
rollback. A hotfix that came as a release of its own is not told from any other, so the rate is the least that it is.
A change that was pushed with files that no commit has, or from no git, has no time of a commit: its lead time is not
known, and not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from ashat.stats.deliveries import Delivery

_Moment = Callable[[Delivery], datetime | None]


@dataclass(frozen=True)
class Times:
    """Durations in seconds: the middle one and the longest of `n`; None where there is none."""

    n: int
    median: float | None
    longest: float | None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        """Sum durations up."""
        return cls(len(seconds), median(seconds) if seconds else None, max(seconds, default=None))


@dataclass(frozen=True)
class Figures:
    """The figures of a group of deployments to production.

    `deployments` are how many there were, `failures` how many of them failed, `rate` the share of these (None where
    there was none). `lead` and `from_push` are the times from the commit and from the push until production runs it,
    `recovery` from a deployment that failed until production ran again what it ran before; `unrecovered` counts those
    after which that is not recorded.
    """

    deployments: int
    failures: int
    rate: float | None
    lead: Times
    from_push: Times
    recovery: Times
    unrecovered: int


def deployed(found: Iterable[Delivery], *, since: datetime | None = None, source: str = "") -> list[Delivery]:
    """List the deployments to production by time; `since` and `source` leave others out."""
    chosen = [
        (one.reached, one)
        for one in found
        if one.reached is not None and (since is None or one.reached >= since) and source in ("", one.source)
    ]
    return [one for _, one in sorted(chosen, key=lambda pair: pair[0])]


def month_of(delivery: Delivery) -> str:
    """Name the month in UTC in which it reached production, such as 2026-11."""
    return f"{delivery.reached.astimezone(UTC):%Y-%m}" if delivery.reached else ""


def figures(group: Sequence[Delivery]) -> Figures:
    """Compute the figures of a group of deployments to production."""
    failures = [one for one in group if one.failed_at_target]
    well = [one for one in group if one.promoted is not None]
    recoveries = _spans(failures, lambda one: one.reached, lambda one: one.recovered)
    return Figures(
        deployments=len(group),
        failures=len(failures),
        rate=len(failures) / len(group) if group else None,
        lead=Times.of(_spans(well, lambda one: one.committed, lambda one: one.promoted)),
        from_push=Times.of(_spans(well, lambda one: one.created, lambda one: one.promoted)),
        recovery=Times.of(recoveries),
        unrecovered=len(failures) - len(recoveries),
    )


def _spans(found: Iterable[Delivery], start: _Moment, end: _Moment) -> list[float]:
    """The seconds between two moments of each, where both are known; clocks that contradict each other tell nothing."""
    pairs = ((start(one), end(one)) for one in found)
    return [(last - first).total_seconds() for first, last in pairs if first and last and last >= first]


def grouped(group: Iterable[Delivery], key: Callable[[Delivery], str]) -> dict[str, list[Delivery]]:
    """Sort deployments into groups by `key`, in the order of the keys."""
    found: dict[str, list[Delivery]] = {}
    for one in group:
        found.setdefault(key(one), []).append(one)
    return dict(sorted(found.items()))
