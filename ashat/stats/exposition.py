"""Put what the record says into Prometheus' metrics: counted anew from the ledger each time, so that nothing is lost.

Names and units follow https://prometheus.io/docs/practices/naming/. Every label is bounded: stages, results, outcomes
and kinds are fixed; of targets and checks, of which a ledger may name any number, the first `LABELS_LIMIT` by name are
kept, and the others are `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from math import inf
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from ashat import __version__
from ashat.deployment.stages import Stage
from ashat.stats.deliveries import Delivery

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
LABELS_LIMIT: Final = 50
OTHER: Final = "other"
RESULTS: Final = ("completed", "failed", "rejected", "expired", "cancelled", "rolled_back")
OUTCOMES: Final = ("pass", "fail", "warn", "inconclusive")
_LABEL_LENGTH = 100
_TROUBLES_LIMIT = 20

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
STAGE_BUCKETS: Final = (1.0, 5.0, 15.0, 30.0, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR)
WAIT_BUCKETS: Final = (_MINUTE, 5 * _MINUTE, 15 * _MINUTE, _HOUR, 4 * _HOUR, 12 * _HOUR, _DAY, 3 * _DAY, 7 * _DAY)

_Moment = Callable[[Delivery], datetime | None]
STAGES: Final[dict[str, tuple[_Moment, _Moment]]] = {
    "push": (lambda one: one.created, lambda one: one.pushed),
    "verify": (lambda one: one.verifying, lambda one: one.verified),
    "promote": (lambda one: one.promoting, lambda one: one.promoted),
    "distribute": (lambda one: one.promoted, lambda one: one.distributed),
}


@dataclass(frozen=True)
class Record:
    """What is exposed: what each attempt came to, the list of deployments (`State.summary()`, with the stage of now),
    what `reconcile` saw to be wrong, and when it looked last."""

    deliveries: Sequence[Delivery]
    summaries: Sequence[Mapping[str, Any]]
    troubles: Sequence[Mapping[str, str]]
    looked: datetime | None


def exposition(record: Record) -> bytes:
    """Write the metrics of `record` as Prometheus text."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(record))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, record: Record) -> None:
        self._record = record

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        record = self._record
        build = InfoMetricFamily("ashat_deploy_build", "The version of ASHAT Deploy that reads the record.")
        build.add_metric([], {"version": __version__})
        yield build
        yield from _counted(record.deliveries)
        yield from _durations(record.deliveries)
        yield from _now(record)


class _Bounded:
    """Names as labels: the first `LABELS_LIMIT` of them, and `other`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._kept = frozenset(sorted({name[:_LABEL_LENGTH] for name in names})[:LABELS_LIMIT])

    def __call__(self, name: str) -> str:
        return name[:_LABEL_LENGTH] if name[:_LABEL_LENGTH] in self._kept else OTHER


def _counted(found: Sequence[Delivery]) -> Iterator[Metric]:
    target_of = _Bounded(one.target for one in found)
    begun = CounterMetricFamily("ashat_deploy_deployments", "Attempts that were begun.", labels=["target"])
    for target, count in sorted(Counter(target_of(one.target) for one in found).items()):
        begun.add_metric([target], count)
    yield begun
    ended = CounterMetricFamily(
        "ashat_deploy_deployments_ended",
        "Attempts that ended so; one that completed and was rolled back later counts as both.",
        labels=["target", "result"],
    )
    endings = Counter((target_of(one.target), result) for one in found for result in one.endings)
    for target in sorted({target_of(one.target) for one in found}):
        for result in RESULTS:
            ended.add_metric([target, result], endings[target, result])
    yield ended
    yield _checks(found)


def _checks(found: Sequence[Delivery]) -> Metric:
    check_of = _Bounded(name for one in found for name, _ in one.checks)
    outcomes = Counter((check_of(name), outcome) for one in found for name, outcome in one.checks)
    family = CounterMetricFamily(
        "ashat_deploy_checks", "Results of checks of verifications.", labels=["check", "outcome"]
    )
    for check in sorted({check for check, _ in outcomes}):
        for outcome in OUTCOMES:
            family.add_metric([check, outcome], outcomes[check, outcome])
    return family


def _durations(found: Sequence[Delivery]) -> Iterator[Metric]:
    stages = HistogramMetricFamily(
        "ashat_deploy_stage_duration_seconds", "How long the stages took that were gone through.", labels=["stage"]
    )
    for stage, (begin, end) in STAGES.items():
        _observe(stages, [stage], STAGE_BUCKETS, _spans(found, begin, end))
    yield stages
    waits = HistogramMetricFamily(
        "ashat_deploy_approval_wait_seconds", "How long gates waited from their opening to the decision."
    )
    _observe(waits, [], WAIT_BUCKETS, _spans(found, lambda one: one.asked, lambda one: one.final_decision))
    yield waits


def _observe(
    family: HistogramMetricFamily, labels: list[str], bounds: Sequence[float], seconds: Sequence[float]
) -> None:
    counts = Counter(bisect_left(bounds, value) for value in seconds)
    names = [str(floatToGoString(bound)) for bound in (*bounds, inf)]  # type: ignore[no-untyped-call]
    cumulated = accumulate(counts[place] for place in range(len(names)))
    family.add_metric(labels, buckets=list(zip(names, cumulated, strict=True)), sum_value=sum(seconds))


def _spans(found: Sequence[Delivery], begin: _Moment, end: _Moment) -> list[float]:
    pairs = ((begin(one), end(one)) for one in found)
    return [(last - first).total_seconds() for first, last in pairs if first and last and last >= first]


def _now(record: Record) -> Iterator[Metric]:
    summaries = record.summaries
    target_of = _Bounded(str(summary["target"]) for summary in summaries)
    stages = Counter(str(summary["stage"]) for summary in summaries)
    by_stage = GaugeMetricFamily("ashat_deploy_deployments_at_stage", "Attempts at that stage now.", labels=["stage"])
    for stage in Stage:
        by_stage.add_metric([stage.value], stages[stage.value])
    yield by_stage
    yield from _gates(summaries, target_of)
    yield from _production(record.deliveries)
    yield _reach(summaries, target_of)
    kinds = Counter(str(trouble["kind"])[:_LABEL_LENGTH] for trouble in record.troubles)
    troubles = GaugeMetricFamily("ashat_deploy_troubles", "What was last seen to be wrong.", labels=["kind"])
    for kind, count in sorted(kinds.items())[:_TROUBLES_LIMIT]:
        troubles.add_metric([kind], count)
    yield troubles
    looked = GaugeMetricFamily(
        "ashat_deploy_reconciled_timestamp_seconds", "When reconcile looked last at everything, as this home knows."
    )
    if record.looked is not None:
        looked.add_metric([], record.looked.timestamp())
    yield looked


def _gates(summaries: Sequence[Mapping[str, Any]], target_of: Callable[[str], str]) -> Iterator[Metric]:
    count = GaugeMetricFamily("ashat_deploy_gates_open", "Gates that wait for a person.", labels=["target"])
    soonest = GaugeMetricFamily(
        "ashat_deploy_gate_next_expiry_timestamp_seconds", "When the next open gate expires.", labels=["target"]
    )
    # A target without an open gate has 0: a series that is missing would look like "nobody knows".
    expiries: dict[str, list[float]] = {target_of(str(summary["target"])): [] for summary in summaries}
    for summary in summaries:
        if summary["stage"] == Stage.AWAITING_APPROVAL and summary["expires"]:
            closes = datetime.fromisoformat(summary["expires"]).timestamp()
            expiries[target_of(str(summary["target"]))].append(closes)
    for target, found in sorted(expiries.items()):
        count.add_metric([target], len(found))
        if found:
            soonest.add_metric([target], min(found))
    yield count
    yield soonest


def _production(found: Sequence[Delivery]) -> Iterator[Metric]:
    target_of = _Bounded(one.target for one in found)
    last = GaugeMetricFamily(
        "ashat_deploy_last_promotion_timestamp_seconds", "When the target was last switched to.", labels=["target"]
    )
    newest: dict[str, float] = {}
    for one in found:
        if one.promoted is not None:
            target = target_of(one.target)
            newest[target] = max(newest.get(target, 0.0), one.promoted.timestamp())
    for target, at in sorted(newest.items()):
        last.add_metric([target], at)
    yield last


def _reach(summaries: Sequence[Mapping[str, Any]], target_of: Callable[[str], str]) -> Metric:
    """How far the newest release that reached Mainframes has come; `summaries` are the newest first."""
    family = GaugeMetricFamily(
        "ashat_deploy_mainframes",
        "Mainframes that reported the newest distributed release, and that did not.",
        labels=["target", "state"],
    )
    seen: set[str] = set()
    for summary in summaries:
        target = target_of(str(summary["target"]))
        if summary["mainframes_total"] and target not in seen:
            seen.add(target)
            running = int(summary["mainframes_running"])
            family.add_metric([target, "running"], running)
            family.add_metric([target, "not_running"], int(summary["mainframes_total"]) - running)
    return family
