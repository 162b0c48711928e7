"""Checks what the node sees of the running release, at the start and at the end of the verification, and in between.

The parts are in `tasks.checks.watch`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ashat.client.node import none_if_not_found
from ashat.protocol.messages import App
from ashat.protocol.probes import LoggedErrors
from tasks.checks.kit.base import Check, CheckContext, CheckResult, Finding, one_line
from tasks.checks.kit.http import Web
from tasks.checks.kit.looks import Look, has_database, seconds_for, take_look
from tasks.checks.watch.addresses import address_figures, address_findings
from tasks.checks.watch.growth import QUANTITIES, Bursts, growth_figures, growth_findings, measure_bursts
from tasks.checks.watch.logged import log_figures, log_findings
from tasks.checks.watch.release_files import file_figures, file_findings
from tasks.checks.watch.sessions import session_figures, session_findings
from tasks.checks.watch.soak import Soaked, soak, soak_figures, soak_findings

BURSTS_SECONDS = 50.0
_RESERVED_SECONDS = 5.0


class RuntimeCheck(Check):
    """Compares what the node saw of the release at first, at last, and of the release before.

    In between it asks the program what it is declared to answer: in bursts, and then as lightly as the policy's
    `soak_seconds` are long. What the program logs meanwhile counts, as does what it logged as it started.
    """

    name = "runtime"
    title = "Runtime"
    version = "1"
    order = 70
    alone = True
    last = True

    def more_seconds(self, context: CheckContext) -> float:
        """Compute the seconds beyond the limit: those of the soak and of bursts, and to hash every file, twice where
        nobody did before."""
        return 2 * seconds_for(context.manifest) + BURSTS_SECONDS + context.policy.soak_seconds

    def run(self, context: CheckContext) -> CheckResult:
        """Look again, and compare."""
        first = context.first or self._look(context)
        started = context.started or take_look(context.public, None)
        before = context.rehearsal.before
        checked = _errors_after(context, started.errors)
        bursts, soaked = self._under_load(context)
        final = self._look(context, database=has_database(context.raos))
        loaded = _errors_after(context, checked)
        calm = [part for part in (started.errors if context.started else None, loaded) if part]
        provoked = [part for part in (checked, None if context.started else started.errors) if part]
        allowed = context.raos.performance.error_rate if context.raos.performance else 0
        findings = [
            *session_findings(final.database, before.database if before else None),
            *file_findings(first.release, final.release, context.bundle),
            *_restarts(started.app, final.app),
            *address_findings(final, before),
            *log_findings(calm, provoked, before.errors if before else None),
            *growth_findings(bursts),
            *soak_findings(soaked, min(allowed, context.policy.max_error_rate)),
            *_not_looked_at(context, bursts, soaked, loaded),
        ]
        figures = {
            **file_figures(first.release, "start_"),
            **_figures(final, "", calm),
            **(_figures(before, "old_", [before.errors] if before.errors else []) if before else {}),
            **log_figures(provoked, "checks_"),
            **growth_figures(bursts),
            **soak_figures(soaked),
        }
        if final.app and final.app.status != "hook":
            figures["restarts"] = final.app.restarts
        series = {f"burst_{each.field}": bursts.series(each.field) for each in QUANTITIES}
        series |= {f"soak_{each.field}": soaked.series(each.field) for each in QUANTITIES}
        inputs = {"soak_ms": context.policy.soak_seconds * 1000, "paths": paths_of(context)}
        return self.conclude(_good(final, soaked), findings, inputs=inputs, figures=figures, series=series)

    @staticmethod
    def _look(context: CheckContext, *, database: bool = False) -> Look:
        return take_look(context.public, context.manifest, context.left() / 2, database=database)

    @staticmethod
    def _under_load(context: CheckContext) -> tuple[Bursts, Soaked]:
        paths = paths_of(context)
        if not paths:
            return Bursts(), Soaked()
        with Web(context) as web:
            bursts = measure_bursts(context, web, paths)
            left = context.left() - seconds_for(context.manifest) - _RESERVED_SECONDS
            return bursts, soak(context, web, paths, min(context.policy.soak_seconds, left))


def paths_of(context: CheckContext) -> list[str]:
    """List what the program may be asked for again and again: what performance is measured by, else its health and
    whatever is declared to answer a GET with a 2xx to anybody."""
    raos = context.raos
    if raos.performance:
        return list(raos.performance.paths)
    declared = [
        each.path
        for each in raos.endpoints
        if each.method == "GET" and 200 <= each.status < 300 and not (each.auth or each.body or each.headers)
    ]
    return list(dict.fromkeys([raos.health.path, *declared]))


def _errors_after(context: CheckContext, earlier: LoggedErrors | None) -> LoggedErrors | None:
    """Ask for what the program logged since an earlier look at its log; None where there was none."""
    if earlier is None or earlier.detail:
        return earlier
    return none_if_not_found(lambda: context.public.logged_errors(earlier.position))


def _restarts(started: App | None, final: App | None) -> Iterator[Finding]:
    if started is None or final is None or final.status == "hook":
        return
    if started.pid != final.pid or final.restarts > started.restarts:
        why = f": {one_line(final.failure)}" if final.failure else ""
        text = f"the program ended and was restarted during the verification{why}; read its log"
        yield Finding("high", text, "restart")


def _not_looked_at(
    context: CheckContext, bursts: Bursts, soaked: Soaked, logged: LoggedErrors | None
) -> Iterator[Finding]:
    if logged is None:
        text = "its node tells nothing of the errors that the program logs: update it"
        yield Finding("medium", text, "log-unseen", unseen=True)
    if not bursts.counts:
        text = "whether the program leaks was not looked at: it answers too slowly, or its node tells nothing"
        yield Finding("low", text, "growth-unseen", unseen=True)
    wanted = context.policy.soak_seconds
    if wanted and soaked.seconds < wanted - 1:
        text = f"the soak lasted {soaked.seconds:.0f} s instead of {wanted}: give it time_limits.runtime in the policy"
        yield Finding("medium", text, "soak-unseen", unseen=True)
    if not wanted:
        yield Finding("low", "the policy has no soak: soak_seconds is 0", "soak-unseen", unseen=True)


def _figures(look: Look, prefix: str, logged: Sequence[LoggedErrors]) -> dict[str, int]:
    return {
        **file_figures(look.release, prefix),
        **address_figures(look, prefix),
        **session_figures(look.database, prefix),
        **log_figures(logged, prefix),
    }


def _good(final: Look, soaked: Soaked) -> str:
    files = f"{final.release.files} files as in the manifest" if final.release else "no files looked at"
    held = ""
    if final.process and final.process.bundle:
        found = final.process
        held = f"; {found.processes} processes, {found.threads} threads, {found.memory_bytes // (1024 * 1024)} MiB"
    return f"{files}{held}; no new errors logged" + (f"; well over {soaked.seconds:.0f} s" if soaked.requests else "")
