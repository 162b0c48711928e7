"""Checks what the bundle should not hold, what it is built from, and what the running program should not show.

The parts are in `tasks.checks.scan`, each with the rules that the allow-list of raos.toml may name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase

import httpx

from ashat.raos_toml.schema import Allow
from tasks.checks.kit.base import Check, CheckContext, CheckResult, Finding, gravest, one_line
from tasks.checks.scan.exposure import shown_by_the_program
from tasks.checks.scan.files import loose_modes, new_executables, odd_files
from tasks.checks.scan.lockfiles import declared_packages
from tasks.checks.scan.lookalikes import lookalikes
from tasks.checks.scan.search import Scan, more_seconds, search_for_secrets
from tasks.checks.scan.tls import inspect_tls, unverified
from tasks.checks.scan.vulnerabilities import LookUp, look_up


class SecurityCheck(Check):
    """Reads every file of the bundle, looks up what it is built from, and asks the running program."""

    name = "security"
    title = "Security scan"
    version = "5"
    order = 60

    def more_seconds(self, context: CheckContext) -> float:
        """Compute the seconds that the bundle's size adds: every file may have to be fetched and read."""
        return more_seconds(context.manifest)

    def run(self, context: CheckContext) -> CheckResult:
        """Scan the connection to the server, the bundle, and the program; then apply the allow-list.

        While the advisories are out of reach there is no pass: inconclusive, unless something fails it anyway.
        """
        now, soon = datetime.now(UTC), timedelta(days=context.policy.certificate_days)
        declared = declared_packages(context)
        known = look_up(declared, context.policy, context.left(), now)
        scan = search_for_secrets(context)
        connection = list(inspect_tls(context.app_url, context.tls, now, soon))
        trusted = not any(each.rule in ("certificate", "weak-certificate") for each in connection)
        found = [
            *connection,
            *_connection_to_the_node(context, now, soon),
            *odd_files(context.manifest),
            *new_executables(context.previous, context.manifest),
            *loose_modes(context.public.tree()),
            *known.findings,
            *declared.findings(),
            *lookalikes(declared),
            *scan.findings,
            *shown_by_the_program(context if trusted else replace(context, tls=unverified())),
        ]
        allow = context.raos.security.allow
        far = far_entries(allow, now.date(), context.policy.allow_days)
        findings = gravest([*allowed(found, allow, now.date()), *far])
        late = _out_of_time(context, scan)
        unknown = [why for why in (known.unknown, late) if why]
        findings += [Finding("low", late)] if late else []
        inputs = {
            "headers": context.raos.security.headers,
            "allow": [f"{each.rule} {each.path} until {each.until.isoformat()}" for each in allow],
            "date": now.date().isoformat(),
            "advisories": known.source,
        }
        figures = {
            "files_searched": scan.files,
            "bytes_searched": scan.size,
            "files_searched_before": scan.before,
            "files_not_searched": scan.late,
            "bytes_not_searched": scan.late_bytes,
            "not_opened": scan.unopened,
            "packages": known.packages,
        }
        if unknown and not any(finding.severity == "high" for finding in findings):
            return self.inconclusive("; ".join(unknown), findings, inputs=inputs, figures=figures)
        return self.conclude(_good(scan, known), findings, inputs=inputs, figures=figures)


def _connection_to_the_node(context: CheckContext, now: datetime, soon: timedelta) -> Iterator[Finding]:
    """Find what is wrong with the connection to the node, where that is another server than the program's."""
    node, program = httpx.URL(context.public.url), httpx.URL(context.app_url)
    if (node.scheme, node.host, node.port) != (program.scheme, program.host, program.port):
        yield from inspect_tls(context.public.url, context.public.transport.trust, now, soon)


def _out_of_time(context: CheckContext, scan: Scan) -> str:
    """Say what was not searched for want of time, and what to do; "" where everything was."""
    if not scan.late:
        return ""
    all_files = scan.late + scan.files + scan.before
    return (
        f"the search for credentials ended after {context.time_limit:.0f} s with {scan.late} of {all_files} files "
        f"({scan.late_bytes / 1e6:.1f} MB) not searched: verify again (what was searched is remembered), or "
        "give it more time with time_limits.security in the policy"
    )


def _good(scan: Scan, known: LookUp) -> str:
    rest = f"; {scan.unopened} archives in them not opened" if scan.unopened else ""
    packages = f"; {known.counted} looked up" if known.looked_up else ""
    return f"no secret in {scan.searched_shown}{rest}{packages}; headers and exposure as they should be"


def allowed(findings: Iterable[Finding], allow: Sequence[Allow], today: date) -> Iterator[Finding]:
    """Turn the findings that the allow-list accepts into low ones; add one for each entry that matches nothing."""
    used: set[int] = set()
    for finding in findings:
        entry = next(
            (
                (number, each)
                for number, each in enumerate(allow)
                if each.rule == finding.rule and fnmatchcase(finding.path, each.path)
            ),
            None,
        )
        if entry is None:
            yield finding
            continue
        number, each = entry
        used.add(number)
        if each.until >= today:
            text = f"{finding.text} (allowed until {each.until.isoformat()}: {one_line(each.reason, 120)})"
            yield replace(finding, severity="low", text=text)
        else:
            yield replace(finding, text=f"{finding.text} (it was allowed until {each.until.isoformat()})")
    for number, each in enumerate(allow):
        if number not in used:
            yield Finding("low", f"the allow-list entry {each.rule} {one_line(each.path)} matches nothing: remove it")


def far_entries(allow: Sequence[Allow], today: date, days: int) -> Iterator[Finding]:
    """Find the entries that end more than `days` days from `today`: nobody would look at them again."""
    for each in allow:
        if each.until > today + timedelta(days=days):
            until = each.until.isoformat()
            place = f"the allow-list entry {each.rule} {one_line(each.path)}"
            text = f"{place} lasts until {until}: end it within {days} days"
            yield Finding("medium", text)
