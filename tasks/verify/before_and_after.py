"""Compares the release before, once it runs again, with how it was before the new one and its migrations came.

Three things are looked at: whether it becomes ready, what it answers to its own endpoints, and what the database holds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ashat.errors import AshatError
from ashat.protocol.probes import DatabaseCount
from ashat.raos_toml.schema import RaosToml
from tasks.checks.kit.answers import Observed, compare_answers
from tasks.checks.kit.base import CheckContext, Finding
from tasks.checks.kit.http import NoAnswerError, Web
from tasks.checks.kit.kept_values import KeptValues
from tasks.checks.kit.removed_endpoints import note_answered
from tasks.checks.kit.rows import count_rows, lost_rows, uncounted
from tasks.checks.kit.samples import AnsweredEndpoints

_READY_SECONDS = 2.0
_NEW, _OLD = "the new release", "the release before"
_BETWEEN_SECONDS = 0.1


class NotReadyError(AshatError):
    """A release did not say in time that it can serve."""


@dataclass
class Comparison:
    """What the rehearsal sees of the program's answers and its data, and what is wrong with that."""

    findings: list[Finding] = field(default_factory=list)
    answered: AnsweredEndpoints = field(default_factory=AnsweredEndpoints)
    _values: KeptValues = field(default_factory=KeptValues)
    _count: DatabaseCount | None = None
    _uncounted: str = ""
    _tables: int = 0
    _requests: int = 0
    _endpoints: int = 0

    def begin(self, context: CheckContext) -> None:
        """Count what there is while the new release runs, and compare with what there was before it came; read what the
        release before wrote, and write more."""
        self._values.written += context.baseline.written if context.baseline else []
        self._look_for_values(context, context.raos, _NEW)
        before = context.baseline.database if context.baseline else None
        self._count = before
        self._recount(context, "since the new release came")
        self.findings += uncounted(self._count) if self._count and not self._uncounted else ()
        if before is None and self._count is not None:
            why = f" ({context.baseline.uncounted})" if context.baseline and context.baseline.uncounted else ""
            text = f"what the database held before the new release came was not counted{why}"
            self.findings.append(Finding("low", f"{text}, so what it deleted is not known", unseen=True))

    def went_back(self, context: CheckContext) -> None:
        """Wait until the release before is ready; compare what it answers, and what there is, with before.

        Raises:
            NotReadyError: it does not become ready.
        """
        wait_until_ready(context, context.previous_raos)
        self.answered, seen = note_answered(context)
        self._endpoints, self._requests = len(seen.answers), sum(each.asked for each in seen.answers)
        self.findings += compare_answers(context.baseline, seen)
        if context.baseline is None and seen.answers:
            self._unknown(seen)
        raos = context.previous_raos
        needed = raos.database.tables if raos and raos.database else ()
        self._look_for_values(context, raos, _OLD)
        self._recount(context, "on the way back", needed)

    def went_forward(self, context: CheckContext) -> None:
        """Wait until the new release is ready again, and compare what there is with what there was on the way.

        Raises:
            NotReadyError: it does not become ready.
        """
        wait_until_ready(context, context.raos)
        self._look_for_values(context, context.raos, _NEW, write=False)
        self._recount(context, "on the way forward again")
        if self._uncounted:
            text = f"rows were not counted, so what a migration deletes is not known: {self._uncounted}"
            self.findings.append(Finding("low", text, unseen=True))

    def told(self, context: CheckContext) -> str:
        """Say what was compared."""
        since = "before the new release came" if context.baseline else "it declares"
        parts = []
        if self._endpoints:
            asked = f"{self._endpoints} of its endpoints in {self._requests} requests"
            parts.append(f"{asked} (status, type, and shape of JSON) answer as {since}")
        if self._count is not None:
            parts.append(f"no row is gone of {self._tables} tables")
        if self._values.reads:
            parts.append(
                f"{len(self._values.written)} written values were read again, {self._values.reads} times in all"
            )
        elif not context.raos.kept:
            parts.append("no written value was looked at, since no [[kept]] is declared")
        return "; ".join(parts)

    def figures(self) -> dict[str, int]:
        """Count what was compared."""
        return {
            "endpoints_compared": self._endpoints,
            "requests_compared": self._requests,
            "tables_counted": self._tables,
            "values_written": len(self._values.written),
            "values_read": self._values.reads,
        }

    def _look_for_values(self, context: CheckContext, raos: RaosToml | None, who: str, *, write: bool = True) -> None:
        """Read what was written so far, after writing more."""
        if write:
            self._values.write(context, raos, who)
        self._values.read(context, raos, who)
        self.findings += self._values.findings
        self._values.findings = []

    def _recount(self, context: CheckContext, when: str, needed: list[str] | tuple[()] = ()) -> None:
        raos, previous = context.raos, context.previous_raos
        now, self._uncounted = count_rows(context, previous.database if previous else None, raos.database)
        if now is None:
            return
        if self._count is not None:
            self.findings += lost_rows(self._count, now, when, needed)
        self._count, self._tables = now, len(now.tables)

    def _unknown(self, seen: Observed) -> None:
        text = "what the release before answered before the new one came was not noted"
        rest = f"its {len(seen.answers)} endpoints are compared with what it declares only"
        self.findings.append(Finding("low", f"{text}: {rest}", unseen=True))


def wait_until_ready(context: CheckContext, raos: RaosToml | None) -> None:
    """Wait until the program answers `[health] ready` with 2xx, for as long as the release's start may take.

    Raises:
        NotReadyError: it does not in that time.
    """
    if raos is None or raos.health.ready is None:
        return
    ends = time.monotonic() + raos.health.start_seconds
    with Web(context) as web:
        while True:
            try:
                status = web.ask(raos.health.ready, seconds=_READY_SECONDS).status
                trouble = "" if 200 <= status < 300 else f"status {status}"
            except NoAnswerError as error:
                trouble = str(error)
            if not trouble:
                return
            if time.monotonic() >= ends:
                limit = f"within {raos.health.start_seconds:g} s ([health] start_seconds)"
                raise NotReadyError(f"{raos.health.ready} does not say {limit} that it is ready: {trouble}")
            time.sleep(_BETWEEN_SECONDS)
